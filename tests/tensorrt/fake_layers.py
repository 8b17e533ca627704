"""The layers of a built engine, as its inspector tells them: fused, with the precision that each really runs in."""

from __future__ import annotations

from typing import Any, Literal

import onnx
from onnx import TensorProto, numpy_helper

from tests.tensorrt.fake_graph import OnnxGraph

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_ACTIVATIONS = ("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu", "PRelu")
_MOVES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
_LONG = {
    "Int8": "Thirty-two wide channel vectorized row major Int8 format",
    "Half": "Channel major FP16 format where channel % 8 == 0",
    "Float": "Row major linear FP32",
    "UInt8": "Row major linear UInt8 format",
    "Int64": "Row major linear INT64 format",
    "Int32": "Row major linear INT32 format",
}
_SHORT = {TensorProto.FLOAT: "Float", TensorProto.FLOAT16: "Half", TensorProto.INT8: "Int8", TensorProto.UINT8: "UInt8"}
# How a version writes the type of a tensor: in a sentence with its layout, in a word, or in a field beside the layout.
Style = Literal["sentence", "word", "apart"]
_NAMES = {**_SHORT, TensorProto.INT64: "Int64", TensorProto.INT32: "Int32"}


def layers_of(graph: OnnxGraph, *, style: Style, half: bool) -> list[dict[str, Any]]:
    """The layers of an engine in order.

    Args:
        half: whether float32 layers may run in float16 (the builder flag of weakly typed networks).
    """
    return _Fusion(graph, style, half).layers()


class _Fusion:
    """Walks a graph and joins what a kernel does together: quantisers, layer, added tensor, activation."""

    def __init__(self, graph: OnnxGraph, style: Style, half: bool) -> None:
        inferred = onnx.shape_inference.infer_shapes(graph.model).graph
        self._nodes = graph.nodes
        self._style, self._half = style, half
        self._types = {v.name: v.type.tensor_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
        self._constants = {tensor.name: tensor for tensor in inferred.initializer}
        self._maker = {name: node for node in graph.nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def layers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        done: set[int] = set()
        for node in self._nodes:
            if id(node) in done or node.op_type in (*_QUANTISERS, "Constant", "Identity"):
                continue
            fused = [node, *self._fused_behind(node)] if node.op_type in _WEIGHTED else [node]
            done.update(map(id, fused))
            found.append(self._layer(fused))
        return found

    def _fused_behind(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The addition and the activation that read a weighted layer and nothing else does."""
        fused: list[onnx.NodeProto] = []
        name = node.output[0]
        for kinds in (("Add",), _ACTIVATIONS):
            readers = self._readers.get(name, [])
            if len(readers) == 1 and readers[0].op_type in kinds:
                fused.append(readers[0])
                name = readers[0].output[0]
        return fused

    def _layer(self, nodes: list[onnx.NodeProto]) -> dict[str, Any]:
        first, last = nodes[0], nodes[-1]
        weighted = first.op_type in _WEIGHTED
        quantised = weighted and all(self._is_quantised(name) for name in first.input[:2])
        names = [node.name or node.output[0] for node in nodes]
        layer: dict[str, Any] = {
            "Name": " + ".join(names),
            "LayerType": self._layer_type(first),
            "Inputs": [self._tensor(name) for name in first.input if name not in self._constants and not self._is_weight(name)],
            "Outputs": [self._tensor(last.output[0], of_result=True)],
            "ParameterType": {"Conv": "Convolution", "Gemm": "MatrixMultiply"}.get(first.op_type, first.op_type),
            "TacticValue": "0x0000000000000000",
            "StreamId": 0,
            "Metadata": "\x1f".join(f"[ONNX Layer: {name}]" for name in names),
        }
        if weighted:
            precision = "Int8" if quantised else self._precision(first.output[0])
            count = self._count(first.input[1])
            layer["Weights"] = {"Type": precision, "Count": count}
            layer["Bias"] = {"Type": "Float", "Count": self._count(first.input[2]) if len(first.input) > 2 else 0}
            short = {"Int8": "i8i8_i8i32", "Half": "f16f16_f16f16", "Float": "f32f32_f32f32"}[precision]
            layer["TacticName"] = f"sm80_xmma_fprop_implicit_gemm_{short}_f32_nhwckrsc_nhwc_tilesize128x64x32_stage4"
        return layer

    def _layer_type(self, node: onnx.NodeProto) -> str:
        if node.op_type == "Conv":
            return "CaskConvolution"
        if node.op_type in _WEIGHTED:
            return "gemm" if self._style != "sentence" else "CaskGemmMatrixMultiply"
        if node.op_type in _MOVES:
            return "Shuffle"
        if self._style != "sentence":
            return "kgen"
        return {"Cast": "Reformat", "GlobalAveragePool": "CaskPooling"}.get(node.op_type, "PointWiseV2")

    def _tensor(self, name: str, *, of_result: bool = False) -> dict[str, Any]:
        if of_result:
            readers = self._readers.get(name, [])
            kind = "Int8" if readers and all(r.op_type == "QuantizeLinear" for r in readers) else self._precision(name)
        else:
            kind = "Int8" if self._is_quantised(name) else self._precision(name)
        dims = [d.dim_value or -1 for d in self._types[name].shape.dim] if name in self._types else []
        tensor = {"Name": name, "Location": "Device", "Dimensions": dims}
        if self._style == "apart":
            return {**tensor, "Format": "N/A" if kind == "Int64" else "Row major linear (kLINEAR)", "DataType": kind}
        return {**tensor, "Format/Datatype": kind if self._style == "word" else _LONG[kind]}

    def _precision(self, name: str) -> str:
        kind = _NAMES.get(self._types[name].elem_type, "Float") if name in self._types else "Float"
        return "Half" if kind == "Float" and self._half else kind

    def _is_quantised(self, name: str) -> bool:
        return name in self._maker and self._maker[name].op_type == "DequantizeLinear"

    def _is_weight(self, name: str) -> bool:
        """Whether a tensor comes from constants alone."""
        while name in self._maker and self._maker[name].op_type in _QUANTISERS:
            name = self._maker[name].input[0]
        return name in self._constants

    def _count(self, name: str) -> int:
        while name in self._maker:
            name = self._maker[name].input[0]
        return int(numpy_helper.to_array(self._constants[name]).size) if name in self._constants else 0
