"""Scales of a Q/DQ graph → nearly the same scales, on a grid that leaves engines nothing to round differently.

A convolution's integer sum n becomes its output level n · M, rounded, with M = input scale · weight scale / output scale.
Engines multiply by M in float32, each in its own order, so a product close to the middle between two levels goes up on one and
down on the other; a few such values in a crop are enough to end in points a tenth of a pixel apart. If instead

    M = p / q        with whole numbers p per output channel, and one odd q

then n · p / q is never a middle, since that would make 2 · n · p, which is even, an odd multiple of q. It keeps a distance of
1 / (2 · q) levels from the next one, and float32 errs by less. So weight scales grow to the next multiple of output scale /
(q · input scale), and the scales of what a residual add reads to the next one of its output scale / q. Measured on four int8
files of two MobileNetV2: ONNX Runtime and OpenVINO gave the same points on all of 500 crops, which before were 0.04 to 0.12 px
apart on average, and the distance from the float network grew by 3 % at most.

What is left is between other operators: a quantiser behind HardSwish or a mean reads numbers on no such grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from lmedge.export.graph.qdq_graph import DEQUANTIZE, QUANTIZE, QdqGraph

# Odd; 1 / (2 · 4095) levels are four times what float32 errs by at 255, and weight scales grow by a few percent. With 16383
# single crops differ again.
GRID = 4095
# Operators between a sum and its quantiser that keep the grid, or cut it off at a level.
_BETWEEN = ("Relu", "Clip", "Add")
_LARGEST = 127
# A scale that grows by more than this part stays: its tensor would lose levels.
_GROWTH = 1 / 32
# So that a scale that is on the grid already does not move on to the next point.
_ON_GRID = 1e-3

Floats = npt.NDArray[np.float64]


def snap_scales(model: onnx.ModelProto, float_model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """The graph with its weights quantised again to such scales: the same nodes and names, other constants.

    Args:
        float_model: the graph that `model` was quantised from, with the same names, for its weights before rounding. Without
            it, what the integers stand for is rounded a second time.
    """
    snapped = onnx.ModelProto()
    snapped.CopyFrom(model)
    view = QdqGraph(snapped.graph)
    before = {} if float_model is None else _weights_by_layer(float_model)
    changed = _snap_adds(view)
    for node in view.nodes:
        if node.op_type == "Conv":
            changed |= _snap_convolution(view, node, changed, before.get(node.name))
    for tensor in snapped.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return snapped


Constants = dict[str, npt.NDArray[Any]]


def _snap_adds(view: QdqGraph) -> Constants:
    """New scales for what adds read, the last add first: its input scales are the output scales of those before it."""
    changed: Constants = {}
    for add in reversed([node for node in view.nodes if node.op_type == "Add"]):
        quantize = _quantiser_behind(view, add.output[0])
        if quantize is None:
            continue
        unit = _scale(view, quantize, changed) / GRID
        for pair in [pair for name in add.input if (pair := view.pair(name))]:
            scale, name = _scale(view, pair.dequantize, changed), str(pair.dequantize.input[1])
            multiple = np.float32(_multiples(scale / unit) * unit)
            if pair.quantize.input[1] == name and multiple <= scale * (1 + _GROWTH):
                changed[name] = np.full_like(np.asarray(view.array(name)), multiple)
    return changed


def _snap_convolution(
    view: QdqGraph, node: onnx.NodeProto, changed: Mapping[str, npt.NDArray[Any]], exact: Floats | None
) -> Constants:
    """New weights, weight scales, and where the bias is stored as integers, a new bias; nothing where they are not known."""
    quantize = _quantiser_behind(view, node.output[0])
    image, weight, *biases = (view.maker.get(name) for name in node.input)
    if quantize is None or image is None or weight is None or {image.op_type, weight.op_type} != {DEQUANTIZE}:
        return {}
    stored, scales = view.array(weight.input[0]), view.array(weight.input[1])
    if stored is None or scales is None or stored.dtype != np.int8 or len(view.readers[weight.output[0]]) > 1:
        return {}
    inside = _scale(view, image, changed)
    unit = _scale(view, quantize, changed) / (GRID * inside)
    rows = [-1, *[1] * (stored.ndim - 1)]
    values = exact if exact is not None and exact.shape == stored.shape else stored * scales.astype(np.float64).reshape(rows)
    snapped = _multiples(scales.astype(np.float64) / unit) * unit
    levels = np.clip(np.rint(values / snapped.reshape(rows)), -_LARGEST, _LARGEST)
    made = {str(weight.input[0]): levels.astype(np.int8), str(weight.input[1]): snapped.astype(np.float32)}
    for bias in biases:
        if bias is not None and view.constant_type(bias.input[0]) == TensorProto.INT32:
            number, step = (np.asarray(view.array(name)) for name in bias.input[:2])
            # As engines multiply them: in float32.
            steps = np.broadcast_to(np.float32(inside) * snapped.astype(np.float32), step.shape)
            counts = np.rint(number * step.astype(np.float64) / steps)
            made |= {str(bias.input[0]): counts.astype(np.int32), str(bias.input[1]): steps.astype(np.float32)}
    return made


def _multiples(parts: Any) -> Any:
    """The next whole numbers, at least 1."""
    return np.maximum(np.ceil(parts * (1 - _ON_GRID / GRID) - _ON_GRID), 1)


def _quantiser_behind(view: QdqGraph, tensor: str) -> onnx.NodeProto | None:
    """The quantiser that rounds a sum, where nothing else reads it."""
    while len(readers := view.readers[tensor]) == 1 and tensor not in view.outputs:
        node = readers[0]
        if node.op_type == QUANTIZE:
            return node if view.is_constant(node.input[1]) else None
        if node.op_type not in _BETWEEN:
            return None
        tensor = str(node.output[0])
    return None


def _scale(view: QdqGraph, quantiser: onnx.NodeProto, changed: Mapping[str, npt.NDArray[Any]]) -> float:
    name = str(quantiser.input[1])
    return float(np.asarray(changed[name] if name in changed else view.array(name)).max())


def _weights_by_layer(model: onnx.ModelProto) -> dict[str, Floats]:
    """Float weights of convolutions by the layer's name."""
    view = QdqGraph(model.graph)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and view.is_constant(node.input[1])]
    return {node.name: np.asarray(view.array(node.input[1]), np.float64) for node in convolutions}
