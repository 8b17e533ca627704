"""Rules about one QuantizeLinear or DequantizeLinear: the type of its integers, its zero points and its scales."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from lmedge.export.graph.lint_qdq.rule import REFUSED, SLOW, rule
from lmedge.export.graph.qdq_graph import DEQUANTIZE, WEIGHTED, QdqGraph, attribute

_SYMMETRIC = "Quantise with symmetric ranges (in ONNX Runtime: ActivationSymmetric), or take lmedge's portable dialect."
Found = Iterator[tuple[onnx.NodeProto, str]]


@rule(
    "zero-point",
    REFUSED,
    why="TensorRT multiplies int8 values without an offset; its parser stops at any other zero point.",
    cure=_SYMMETRIC,
)
def zero_point(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        if len(node.input) < 3 or not node.input[2]:
            continue
        values = graph.array(node.input[2])
        if values is None:
            yield node, "its zero point is computed, not a constant 0"
        elif values.astype(np.float64).any():
            yield node, f"its zero point is {_few(np.unique(values))}, not 0"


@rule(
    "activation-type",
    REFUSED,
    why="TensorRT has int8 activations only: it takes unsigned values for signed ones and cuts the upper half off, or stops.",
    cure="Quantise activations to int8 (legalize_qdq does that for unsigned ones), or take lmedge's portable dialect.",
)
def activation_type(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        kind = graph.quantised_type(node)
        if not graph.holds_weights(node) and kind not in (TensorProto.INT8, TensorProto.UNDEFINED):
            unsaid = "" if len(node.input) > 2 else ", which is what no zero point means"
            yield node, f"its values are {_type_name(kind)}{unsaid}, not int8"


@rule(
    "weight-type",
    REFUSED,
    why="TensorRT's convolutions take int8 weights; its parser stops at others.",
    cure="Quantise weights to int8, symmetric (in ONNX Runtime: weight_type=QInt8).",
)
def weight_type(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        kind = graph.quantised_type(node)
        if graph.holds_weights(node) and kind not in (TensorProto.INT8, TensorProto.INT32, TensorProto.UNDEFINED):
            yield node, f"its weights are {_type_name(kind)}, not int8"


@rule(
    "bias-int32",
    REFUSED,
    why="TensorRT's DequantizeLinear takes no int32; its parser stops there.",
    cure="Keep biases in float (in ONNX Runtime: QuantizeBias=False; legalize_qdq rewrites them).",
)
def bias_int32(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        if graph.holds_weights(node) and graph.quantised_type(node) == TensorProto.INT32:
            yield node, "it dequantises an int32 constant, as quantised biases are"


@rule(
    "scale-positive",
    REFUSED,
    why="TensorRT's parser asks that every scale be above 0.",
    cure="Quantise again: a scale of 0 comes from a range of 0, one that is not finite from an overflow.",
)
def scale_positive(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        scale = graph.array(node.input[1])
        if scale is not None:
            values = scale.astype(np.float64)
            wrong = values[~((values > 0) & np.isfinite(values))]
            if wrong.size:
                yield node, f"{wrong.size} of {values.size} scales: {_few(wrong)}"


@rule(
    "scale-constant",
    REFUSED,
    why="TensorRT folds scales into its kernels when it builds them; TensorRT-RTX crashes at one computed from the image.",
    cure="Use static quantisation, with ranges from calibration images.",
)
def scale_constant(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        if graph.array(node.input[1]) is None:
            yield node, "its scale is computed, not a constant"


@rule(
    "scale-blocked",
    REFUSED,
    why="TensorRT's int8 layers take a scale per tensor or per channel; blocks are for 4-bit weights of matrix products.",
    cure="Quantise without a block size.",
)
def scale_blocked(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        scale = graph.array(node.input[1])
        if attribute(node, "block_size", 0) or (scale is not None and scale.ndim > 1):
            yield node, f"its scales are in blocks, {'computed' if scale is None else 'of shape ' + str(scale.shape)}"


@rule(
    "scale-per-tensor",
    SLOW,
    why="An int8 kernel takes one scale for all of its input, so TensorRT runs the layer behind it in float.",
    cure="One scale per activation (in NNCF: QuantizationParameters(per_channel=False); legalize_qdq takes the largest).",
)
def scale_per_tensor(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        scale = graph.array(node.input[1])
        if scale is not None and scale.size > 1 and scale.ndim == 1 and not graph.holds_weights(node):
            yield node, f"an activation has {scale.size} scales, not one"


@rule(
    "weight-axis",
    SLOW,
    why="Only scales along the output channels can be taken out of the sum, so TensorRT runs the layer in float.",
    cure="Quantise weights per output channel: axis 0 for Conv.",
)
def weight_axis(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        scale = graph.array(node.input[1])
        if scale is None or scale.size < 2 or scale.ndim != 1 or not graph.holds_weights(node):
            continue
        dequantize = node if node.op_type == DEQUANTIZE else next(iter(graph.readers[node.output[0]]), node)
        for layer in graph.readers[dequantize.output[0]]:
            if layer.op_type in WEIGHTED and layer.input[1] == dequantize.output[0]:
                rank = _rank(graph, node)
                axis, expected = attribute(node, "axis", 1) % rank, graph.weight_axis(layer, rank)
                if axis != expected:
                    yield node, f"its scales run along axis {axis}, not {expected}, the output channels of {layer.op_type}"
                    break


QUANTISER_RULES = (
    zero_point,
    activation_type,
    weight_type,
    bias_int32,
    scale_positive,
    scale_constant,
    scale_blocked,
    scale_per_tensor,
    weight_axis,
)


def _rank(graph: QdqGraph, quantiser: onnx.NodeProto) -> int:
    """Dimensions of the weights that a quantiser works on."""
    name = str(quantiser.input[0])
    if graph.op_type(name) == "QuantizeLinear":
        name = str(graph.maker[name].input[0])
    array = graph.array(graph.before_moves(name))
    return array.ndim if array is not None and array.ndim else 1


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _few(values: np.ndarray) -> str:
    shown = ", ".join(f"{float(value):g}" for value in values[:3])
    return f"{shown}, …" if values.size > 3 else shown
