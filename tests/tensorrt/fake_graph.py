"""What the fake TensorRT knows of an ONNX graph: its tensors, what the parser refuses, its layers, and how it runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

# Error codes of the parser.
_INVALID_NODE, _UNSUPPORTED_NODE, _UNSUPPORTED_NODE_INPUT = 6, 8, 10
_ASYMMETRIC = "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported."
_UINT8 = "Assertion failed: status.is_success(): Found unsupported input type of UINT8"
MISREAD = (
    "onnxOpImporters.cpp:1980: TensorRT supports QuantizeLinear/DequantizeLinear with UINT8 zero_point only on DLA "
    "(version >= 3.16). Defaulting to INT8 instead."
)
# Stands for what a version says of an operator that it does not know.
_UNKNOWN = ""
NO_PLUGIN = 'Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
# What TensorRT for RTX 1.7 was seen to say, by the rule of lmedge's linter that a graph breaks. It lets four kinds pass that
# the linter and this fake refuse: uint8 by default, another domain, float16 scales before opset 19, an axis before opset 13.
_SAID = {
    "zero-point": (_UNSUPPORTED_NODE_INPUT, _ASYMMETRIC),
    "activation-type": (_UNSUPPORTED_NODE_INPUT, _UINT8),
    "weight-type": (_UNSUPPORTED_NODE_INPUT, _UINT8),
    "bias-int32": (_INVALID_NODE, "Invalid Node - input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8"),
    "scale-positive": (
        _INVALID_NODE,
        "Assertion failed: (scaleAllPositive || allowNegativeScale): Scale coefficients must all be positive",
    ),
    "scale-constant": (_UNSUPPORTED_NODE_INPUT, "Assertion failed: scaleInput.is_weights(): The scale must be an initializer."),
    "scale-blocked": (_INVALID_NODE, "Invalid Node - The blocking dimension must be the last or second to last dimension"),
    "qoperator": (_UNSUPPORTED_NODE, _UNKNOWN),
    "domain": (_UNSUPPORTED_NODE, NO_PLUGIN),
    "opset": (_INVALID_NODE, "The operator is not defined like this in the operator set of the model."),
    "mixed-types": (_INVALID_NODE, "Invalid Node - IConvolutionLayer `input` and `kernel` must be of same type."),
    "uint8-tensor": (_INVALID_NODE, "Invalid Node - first input has type UInt8 but must have type Float, Half, BFloat16"),
}
# Operators that TensorRT has no importer for.
_UNSUPPORTED = frozenset(("Det", "Unique", "StringNormalizer", "TfIdfVectorizer", "ImageDecoder", "MaxUnpool", "Multinomial"))
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_FLOAT16, _UINT8_TYPE = 10, 2
_TF32_BITS = 13  # of float32's 23 bits of mantissa, TF32 drops so many


@dataclass(frozen=True)
class Value:
    """An input or output of a network; -1 in its shape is a size that varies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """What the parser has against a node."""

    node: str
    operator: str
    index: int
    code: int
    what: str


class OnnxGraph:
    """A parsed ONNX file."""

    def __init__(self, data: bytes) -> None:
        import onnx

        self.data = data
        self.model = onnx.load_model_from_string(data)
        graph = self.model.graph
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = tuple(_value(value) for value in graph.input if value.name not in constants)
        self.outputs = tuple(_value(value) for value in graph.output)
        self.nodes = list(graph.node)

    def refusals(self, *, later: bool, unknown: str) -> list[Refusal]:
        """What a parser refuses: every operator that it does not know, else the first node that it cannot take.

        Args:
            later: whether it is of TensorRT 10 or 11, which take float16 scales, and uint8 for int8 with a warning.
            unknown: what it says of an operator that it does not know.
        """
        from lmedge.export.graph.lint_qdq import REFUSED
        from lmedge.export.graph.qdq_graph import label

        labels = {label(node): index for index, node in enumerate(self.nodes)}
        found: dict[int, tuple[int, str]] = {}
        for index, node in enumerate(self.nodes):
            if not later and node.op_type in _QUANTISERS and self._is_half(node.input[1]):
                found[index] = _INVALID_NODE, "Assertion failed: The scale must be of type FP32."
            if node.op_type in _UNSUPPORTED:
                found[index] = _UNSUPPORTED_NODE, _UNKNOWN
        misread = set(self.misread()) if later else set()
        for finding in _findings(self.data):
            index = labels[finding.node]
            # Of a DequantizeLinear the type is looked at first, of a QuantizeLinear the zero point.
            first = finding.rule == "activation-type" and self.nodes[index].op_type == "DequantizeLinear"
            taken = finding.effect != REFUSED or (finding.rule == "activation-type" and index in misread)
            if not taken and (first or index not in found):
                found[index] = _SAID[finding.rule]
        refused = [
            Refusal(self.nodes[index].name, self.nodes[index].op_type, index, code, what or unknown)
            for index, (code, what) in sorted(found.items())
        ]
        strangers = [refusal for refusal in refused if refusal.code == _UNSUPPORTED_NODE]
        return strangers or refused[:1]

    def misread(self) -> list[int]:
        """Pairs of unsigned quantisers with zero point 0, by node: the parser warns, and goes on as if they were signed."""
        types = {tensor.name: tensor for tensor in self.model.graph.initializer}
        found = []
        for index, node in enumerate(self.nodes):
            zero = types.get(node.input[2]) if node.op_type in _QUANTISERS and len(node.input) > 2 else None
            maker = next((n for n in self.nodes if node.input and node.input[0] in n.output), None)
            paired = node.op_type == "QuantizeLinear" or (maker is not None and maker.op_type == "QuantizeLinear")
            if zero is not None and zero.data_type == _UINT8_TYPE and paired and not any(zero.int32_data or zero.raw_data):
                found.append(index)
        return found

    @property
    def has_quantisers(self) -> bool:
        return any(node.op_type in _QUANTISERS for node in self.nodes)

    @property
    def has_half(self) -> bool:
        """Whether any of its tensors is stated to be float16."""
        return any(tensor.data_type == _FLOAT16 for tensor in self.model.graph.initializer)

    def output_shape(self, name: str, sizes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The shape of an output for these shapes of the inputs; -1 where they do not tell."""
        named = {n: size for value in self.inputs for n, size in zip(value.names, sizes.get(value.name, ()), strict=False) if n}
        value = next(value for value in self.outputs if value.name == name)
        return tuple(named.get(n, size) for n, size in zip(value.names, value.shape, strict=True))

    def _is_half(self, name: str) -> bool:
        return any(tensor.name == name and tensor.data_type == _FLOAT16 for tensor in self.model.graph.initializer)


def _value(value: Any) -> Value:
    from onnx import helper

    kind = value.type.tensor_type
    dims = kind.shape.dim
    names = tuple(dim.dim_param for dim in dims)
    shape = tuple(-1 if dim.dim_param or not dim.HasField("dim_value") else dim.dim_value for dim in dims)
    return Value(value.name, str(helper.tensor_dtype_to_np_dtype(kind.elem_type).name), shape, names)


@lru_cache(maxsize=64)
def graph_of(data: bytes) -> OnnxGraph:
    """The graph of an ONNX file, read once."""
    return OnnxGraph(data)


@lru_cache(maxsize=256)
def _findings(data: bytes) -> list[Any]:
    """What the linter says of an ONNX file, asked once."""
    from lmedge.export.graph.lint_qdq import lint_qdq

    return lint_qdq(graph_of(data).model)


def run_graph(
    data: bytes, feeds: dict[str, npt.NDArray[Any]], *, tf32: bool = False, half: bool = False
) -> dict[str, npt.NDArray[Any]]:
    """Runs a graph in ONNX Runtime on the CPU.

    Args:
        tf32: answers like a GPU that rounds to TF32, about 1 in 2000 off.
        half: answers like an engine that computes in float16.
    """
    session = _session(hashlib.sha256(data).hexdigest(), data)
    names = [value.name for value in session.get_outputs()]
    results = dict(zip(names, session.run(names, feeds), strict=True))
    for name, array in results.items():
        if array.dtype == np.float32 and half:
            results[name] = array.astype(np.float16).astype(np.float32)
        elif array.dtype == np.float32 and tf32:
            results[name] = _rounded_to_tf32(array)
    return results


def session_options() -> Any:
    """How graphs are run: on one thread, and quantisers as they are written, because ONNX Runtime's own handling of them gives
    garbage on float16 graphs."""
    from lmedge.runtimes.onnxruntime import import_onnxruntime

    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


@lru_cache(maxsize=32)
def _session(digest: str, data: bytes) -> Any:
    from lmedge.runtimes.onnxruntime import import_onnxruntime

    return import_onnxruntime().InferenceSession(data, session_options(), providers=["CPUExecutionProvider"])


def _rounded_to_tf32(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    bits = np.ascontiguousarray(array).view(np.uint32)
    return (bits & np.uint32(0xFFFFFFFF << _TF32_BITS & 0xFFFFFFFF)).view(np.float32)
