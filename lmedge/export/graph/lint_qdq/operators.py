"""Rules about operators, their versions and the types between them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from lmedge.export.graph.lint_qdq.rule import REFUSED, rule
from lmedge.export.graph.qdq_graph import QUANTISERS, QdqGraph

_INTEGER_OPERATORS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QGemm", "QAttention")
_ONNX_DOMAINS = ("", "ai.onnx")
# From these versions of the operator set on, quantisers may have an axis, and scales in half precision.
_AXIS_OPSET, _HALF_OPSET = 13, 19
_HALF: dict[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
Found = Iterator[tuple[onnx.NodeProto, str]]


@rule(
    "qoperator",
    REFUSED,
    why="TensorRT reads quantised networks as pairs of QuantizeLinear and DequantizeLinear only.",
    cure="Quantise in the QDQ format (in ONNX Runtime: quant_format=QuantFormat.QDQ, quantize_static).",
)
def qoperator(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        if _computes_in_integers(node):
            yield node, f"{node.op_type} computes on integers itself"


@rule(
    "domain",
    REFUSED,
    why="TensorRT knows ONNX's own operators; it takes others for plugins that it does not have.",
    cure="Export without an engine's fusions. ONNX has QuantizeLinear and DequantizeLinear for all types since opset 21.",
)
def domain(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        if node.domain not in _ONNX_DOMAINS and not _computes_in_integers(node):
            yield node, f"{node.op_type} is of the domain {node.domain}"


@rule(
    "opset",
    REFUSED,
    why="ONNX does not define it, so engines refuse it (ONNX Runtime, TensorRT 8) or guess (TensorRT 11).",
    cure="Export with opset 19 or newer; lmedge uses 20.",
)
def opset(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        scale_type = graph.constant_type(node.input[1])
        if scale_type in _HALF and graph.opset < _HALF_OPSET:
            yield node, f"its scale is {_HALF[scale_type]}, which needs opset {_HALF_OPSET}; the graph has {graph.opset}"
        elif graph.opset < _AXIS_OPSET and any(entry.name == "axis" for entry in node.attribute):
            yield node, f"it has an axis, which needs opset {_AXIS_OPSET}; the graph has {graph.opset}"


@rule(
    "mixed-types",
    REFUSED,
    why="TensorRT takes types as they are written (strong typing) and its layers take inputs of one type.",
    cure="Put a Cast where the types meet, or convert the whole graph (lmedge.export.graph.to_fp16).",
)
def mixed_types(graph: QdqGraph) -> Found:
    known = _types(graph)
    for node in graph.nodes:
        for types in _types_by_variable(node, known, graph.opset):
            if len(set(types.values())) > 1:
                listed = ", ".join(f"{name!r} {_type_name(kind)}" for name, kind in types.items())
                yield node, f"its inputs must have one type; they have {listed}"
                break


@rule(
    "uint8-tensor",
    REFUSED,
    why="TensorRT takes uint8 as an input of the network and casts it; it has no other operator for it.",
    cure="Cast the image first, then transpose it (lmedge's exporter writes that order; lmedge.export.graph.cast_first).",
)
def uint8_tensor(graph: QdqGraph) -> Found:
    known = _types(graph)
    for node in graph.nodes:
        read = [name for name in node.input if known.get(name) == TensorProto.UINT8 and not graph.is_constant(name)]
        if read and node.op_type not in ("Cast", *QUANTISERS):
            yield node, f"{node.op_type} reads the uint8 tensor {read[0]!r}"


OPERATOR_RULES = (qoperator, domain, opset, mixed_types, uint8_tensor)


def _computes_in_integers(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("QLinear") or node.op_type in _INTEGER_OPERATORS


def _types(graph: QdqGraph) -> dict[str, int]:
    """Tensor → its type, as far as it is stated or inferred."""
    values = (*graph.graph.input, *graph.graph.output, *graph.graph.value_info)
    known = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    known.update({tensor.name: int(tensor.data_type) for tensor in graph.graph.initializer})
    return {name: kind for name, kind in known.items() if kind != TensorProto.UNDEFINED}


def _types_by_variable(node: onnx.NodeProto, known: dict[str, int], version: int) -> list[dict[str, int]]:
    """For each type variable of an operator's definition: the inputs that share it, with their types."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return []
    variables = {constraint.type_param_str for constraint in schema.type_constraints}
    found: dict[str, dict[str, int]] = {}
    for slot, name in enumerate(node.input):
        if slot < len(schema.inputs):
            parameter = schema.inputs[slot]
        elif schema.inputs and schema.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic:
            parameter = schema.inputs[-1]
        else:
            continue
        if parameter.type_str in variables and name in known and parameter.is_homogeneous:
            found.setdefault(parameter.type_str, {})[name] = known[name]
    return list(found.values())


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()
