"""Is a Q/DQ graph legal and well laid out on every engine? One message per broken rule, with the node's name.

The rules are TensorRT's, the strictest of the three: int8 with zero point 0, one scale per activation tensor, scales along the
output channels for weights, no int32 bias ("Working with Quantized Types", TensorRT 10 and 11). Weights stored as int8 with a
DequantizeLinear are legal there as well as float weights with both nodes, and make the file a third of the size; TensorRT 8
documented the latter only, and lmedge supports TensorRT 10 and newer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lmedge.export.graph.legalize_qdq import DEQUANTIZE, QUANTIZE

_ACTIVATIONS = ("Relu", "Clip", "HardSwish", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid")
_HEADS = ("Gemm", "MatMul")
_FOREIGN = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


def lint_qdq(model: onnx.ModelProto) -> list[str]:
    """What keeps a graph from being portable; empty when nothing does."""
    return [message for rule in _RULES for message in rule(_Graph(model.graph))]


def lint_file(file: Path) -> list[str]:
    """`lint_qdq` of an ONNX file."""
    return lint_qdq(onnx.load(file, format="protobuf"))


class _Graph:
    """Who makes and who reads each tensor, and the constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.outputs = {output.name for output in graph.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.maker = {output: node for node in graph.node for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.quantizers = [node for node in graph.node if node.op_type in (QUANTIZE, DEQUANTIZE)]

    def op_type(self, tensor: str) -> str:
        return self.maker[tensor].op_type if tensor in self.maker else ""


def _zero_points(graph: _Graph) -> Iterator[str]:
    for node in graph.quantizers:
        zero_point = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None:
            yield f"{node.name}: has no constant zero point; expected int8 zeros."
        elif zero_point.data_type != TensorProto.INT8 or numpy_helper.to_array(zero_point).any():
            kind = TensorProto.DataType.Name(zero_point.data_type).lower()
            yield f"{node.name}: the zero point is {kind} {np.unique(numpy_helper.to_array(zero_point))}; expected int8 zeros."


def _scales(graph: _Graph) -> Iterator[str]:
    for node in graph.quantizers:
        scale = graph.constants.get(node.input[1])
        if scale is None:
            yield f"{node.name}: the scale is computed; expected a constant."
            continue
        values = numpy_helper.to_array(scale)
        weight = graph.constants.get(node.input[0])
        axis = next((helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == "axis"), 1)
        if not (values > 0).all():
            yield f"{node.name}: a scale is not positive."
        if values.size > 1 and weight is None and graph.op_type(node.input[0]) != QUANTIZE:
            yield f"{node.name}: an activation has {values.size} scales; expected one."
        elif values.size > 1 and axis != 0:
            yield f"{node.name}: a weight has its scales along axis {axis}; expected 0, the output channels."


def _types(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type in _FOREIGN:
            yield f"{node.name}: {node.op_type} is no plain operator; expected QuantizeLinear and DequantizeLinear around one."
        stored = graph.constants.get(node.input[0]) if node.op_type == DEQUANTIZE else None
        if stored is not None and stored.data_type != TensorProto.INT8:
            kind = TensorProto.DataType.Name(stored.data_type).lower()
            yield f"{node.name}: dequantises a constant of type {kind}; expected int8 weights and float biases."


def _convolutions(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op_type == "Conv":
            image, weight = (graph.op_type(name) == DEQUANTIZE for name in node.input[:2])
            if image != weight:
                yield f"{node.name}: only {'the input' if image else 'the weight'} is quantised; expected both or neither."


def _placement(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        quantized = [name for name in node.input if graph.op_type(name) == DEQUANTIZE]
        if node.op_type == DEQUANTIZE and graph.outputs.intersection(node.output):
            yield f"{node.name}: makes a graph output; expected outputs in float."
        elif node.op_type in _ACTIVATIONS and quantized:
            yield f"{node.name}: reads quantised values; expected no pair between a layer and its activation."
        elif node.op_type == "Add" and len(quantized) > 1:
            yield f"{node.name}: both inputs are quantised; expected the skip input only, so that convolution and add fuse."
        elif node.op_type in _HEADS and quantized:
            yield f"{node.name}: the regression head is quantised; expected it in float."


_RULES = (_zero_points, _scales, _types, _convolutions, _placement)
