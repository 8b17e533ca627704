"""A float graph → the same with biases that make up for what rounding the weights does to the mean of each channel.

Rounded weights ŵ add (ŵ − w)·x to a convolution's sum; its mean over the calibration crops is the mean input of each channel
times the rounding error of its weights, and comes off the bias (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.2, with measured means). Rounding of activations has no mean to correct.

Each layer makes up for its own weights, as if those before it were not rounded, and as if its input went on beyond the border.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lmedge.calibration.crop_store import Crops
from lmedge.calibration.place_qdq import quantised_layers
from lmedge.calibration.probe import probe

if TYPE_CHECKING:
    import onnx

_LEVELS = 127
_FIXED_POINT = 2.0**24

Floats = npt.NDArray[np.float64]


def correct_biases(model: onnx.ModelProto, crops_uint8: Crops) -> onnx.ModelProto:
    """The graph with corrected biases of all convolutions that get quantised; the given one is not changed.

    Args:
        crops_uint8: (N, H, W, 3) BGR over which the inputs' means are taken.
    """
    from onnx import numpy_helper

    layers, biases = set(quantised_layers(model)), layer_biases(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [
        node for node in model.graph.node if node.name in layers and node.name in biases and node.input[1] in weights
    ]
    means = _channel_means(model, sorted({node.input[0] for node in convolutions}), crops_uint8)
    corrected = {}
    for node in convolutions:
        weight = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
        corrected[node.name] = (biases[node.name] - _mean_shift(weight, means[node.input[0]])).astype(np.float32)
    return with_biases(model, corrected)


def layer_biases(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The bias (O,) of each convolution that has a constant one, by the convolution's name."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    biased = (node for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 2)
    return {node.name: numpy_helper.to_array(constants[node.input[2]]) for node in biased if node.input[2] in constants}


def with_biases(model: onnx.ModelProto, biases: Mapping[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """The graph with these biases (O,) of the named convolutions; the given one is not changed.

    A bias that other layers read too stays theirs: the convolution gets one of its own.
    """
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in changed.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    for node in changed.graph.node:
        if node.name not in biases:
            continue
        if uses[node.input[2]] > 1:
            node.input[2] = f"{node.name}.own_bias"
            constants[node.input[2]] = changed.graph.initializer.add()
        constants[node.input[2]].CopyFrom(onnx.numpy_helper.from_array(biases[node.name], node.input[2]))
    return changed


def rounding_error(weight: Floats) -> Floats:
    """What rounding to int8 with one symmetric scale per output channel adds to weights (O, I, kh, kw)."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = (np.maximum(largest, np.finfo(np.float32).tiny) / _LEVELS).reshape(-1, 1, 1, 1)
    return np.asarray(np.clip(np.round(weight / scale), -_LEVELS, _LEVELS) * scale - weight)


def _mean_shift(weight: Floats, mean_input: Floats) -> Floats:
    """The mean of (ŵ − w)·x per output channel (O,), for inputs with these means per channel (C,)."""
    error = rounding_error(weight).sum(axis=(2, 3))  # (O, inputs per group)
    outputs, per_group = error.shape
    groups = len(mean_input) // per_group
    inputs = np.repeat(mean_input.reshape(groups, per_group), outputs // groups, axis=0)
    return np.asarray((error * inputs).sum(axis=1))


def _channel_means(model: onnx.ModelProto, tensors: list[str], crops_uint8: Crops) -> dict[str, Floats]:
    """The mean of each channel (C,) of the named tensors over all crops and positions, whatever the order of the crops."""
    totals = {name: np.zeros(1, np.int64) for name in tensors}
    probed = probe(model, tensors, crops_uint8, reduce="ReduceMean", over_positions=True, doing="correcting biases")
    for answers in probed:
        for name, values in zip(tensors, answers, strict=True):
            # Whole numbers add up to the same in any order.
            totals[name] = totals[name] + np.round(values[0].astype(np.float64) * _FIXED_POINT).astype(np.int64)
    return {name: total / (_FIXED_POINT * len(crops_uint8)) for name, total in totals.items()}
