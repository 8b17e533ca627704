"""A float graph → the same with biases that make up for what rounding the weights does to the mean of each channel.

Rounded weights ŵ add (ŵ − w)·x to a convolution's sum; its mean over the calibration crops is the mean input of each channel
times the rounding error of its weights, and comes off the bias (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.2, with measured means). Rounding of activations has no mean to correct.
"""

from __future__ import annotations

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
    import onnx
    from onnx import numpy_helper

    layers = set(quantised_layers(model))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and node.name in layers and node.input[1] in weights and len(node.input) > 2
    ]
    means = _channel_means(model, sorted({node.input[0] for node in convolutions}), crops_uint8)
    corrected = onnx.ModelProto()
    corrected.CopyFrom(model)
    biases = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for node in convolutions:
        weight = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
        bias = biases[node.input[2]]
        shift = _mean_shift(weight, means[node.input[0]])
        bias.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(bias) - shift).astype(np.float32), bias.name))
    return corrected


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
