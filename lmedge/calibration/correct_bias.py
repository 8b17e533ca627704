"""The biases of an int8 network → the same less what its rounded weights add, so that the mean of no channel is shifted.

Rounded weights ŵ add (ŵ − w)·x to a convolution's sum; its mean over the calibration crops is the mean input of each channel
times the rounding error of its weights, and comes off the bias (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.2, with measured means). Rounding of activations has no mean to correct.

The error is that of the integers and scales as `place_qdq` stores them, which depend on the ranges too, so this comes after it.
Each layer makes up for its own weights, as if those before it were not rounded, and as if its input went on beyond the border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lmedge.calibration.crop_store import Crops
from lmedge.calibration.place_qdq import quantised_layers
from lmedge.calibration.probe import probe
from lmedge.export.graph.qdq_graph import DEQUANTIZE, QdqGraph

if TYPE_CHECKING:
    import onnx

_FIXED_POINT = 2.0**24
_INT32 = np.iinfo(np.int32)

Floats = npt.NDArray[np.float64]
Means = dict[str, Floats]


def measure_means(model: onnx.ModelProto, crops_uint8: Crops) -> Means:
    """The mean of each channel (C,) over all crops and positions, of every tensor that a quantised convolution reads, by name.

    Args:
        crops_uint8: (N, H, W, 3) BGR; their order changes nothing.
    """
    layers = set(quantised_layers(model))
    tensors = sorted({node.input[0] for node in model.graph.node if node.op_type == "Conv" and node.name in layers})
    totals = {name: np.zeros(1, np.int64) for name in tensors}
    probed = probe(model, tensors, crops_uint8, reduce="ReduceMean", over_positions=True, doing="correcting biases")
    for answers in probed:
        for name, values in zip(tensors, answers, strict=True):
            # Whole numbers add up to the same in any order.
            totals[name] = totals[name] + np.round(values[0].astype(np.float64) * _FIXED_POINT).astype(np.int64)
    return {name: total / (_FIXED_POINT * len(crops_uint8)) for name, total in totals.items()}


def correct_biases(quantised: onnx.ModelProto, model: onnx.ModelProto, means: Means) -> onnx.ModelProto:
    """The Q/DQ graph with corrected biases; the given one is not changed.

    Layers whose weights stay in float keep their biases, and so do those that share a bias.

    Args:
        quantised: `model` as `place_qdq` gives it.
        means: `measure_means` of `model`.
    """
    import onnx

    corrected = onnx.ModelProto()
    corrected.CopyFrom(quantised)
    rounded, exact = QdqGraph(corrected.graph), QdqGraph(model.graph)
    tensors = {tensor.name: tensor for tensor in corrected.graph.initializer}
    before = {node.name: node for node in exact.nodes if node.op_type == "Conv" and node.input[0] in means}
    for node in rounded.nodes:
        if node.name not in before or len(node.input) < 3 or len(rounded.readers[node.input[2]]) > 1:
            continue
        source, weight_name = before[node.name].input[:2]
        weight, weight_before = _constant(rounded, node.input[1]), _constant(exact, weight_name)
        bias = _constant(rounded, node.input[2])
        if weight is not None and weight_before is not None and bias is not None:
            _store(rounded, tensors, node.input[2], bias - _mean_shift(weight - weight_before, means[source]))
    return corrected


def _mean_shift(error: Floats, mean_input: Floats) -> Floats:
    """The mean of error·x per output channel (O,), for weights' errors (O, I, kh, kw) and inputs with these means (C,)."""
    error = error.sum(axis=(2, 3))  # (O, inputs per group)
    outputs, per_group = error.shape
    groups = len(mean_input) // per_group
    inputs = np.repeat(mean_input.reshape(groups, per_group), outputs // groups, axis=0)
    return np.asarray((error * inputs).sum(axis=1))


def _constant(view: QdqGraph, name: str) -> Floats | None:
    """What a constant stands for, stored as floats or as integers with a scale for each row; None for what is computed."""
    maker = view.maker.get(name)
    if maker is None or maker.op_type != DEQUANTIZE:
        value = view.array(name)
        return None if value is None else value.astype(np.float64)
    stored, scale = view.array(maker.input[0]), view.array(maker.input[1])
    if stored is None or scale is None:
        return None
    return np.asarray(stored * scale.astype(np.float64).reshape(*scale.shape, *[1] * (stored.ndim - scale.ndim)))


def _store(view: QdqGraph, tensors: dict[str, onnx.TensorProto], name: str, bias: Floats) -> None:
    """Writes a bias as it was stored: as floats, or as int32 and with the same scale."""
    from onnx import numpy_helper

    if (maker := view.maker.get(name)) is None:
        tensors[name].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), name))
        return
    integers, scale = str(maker.input[0]), np.asarray(view.array(maker.input[1]), np.float64)
    counts = np.clip(np.rint(bias / scale), _INT32.min, _INT32.max).astype(np.int32)
    tensors[integers].CopyFrom(numpy_helper.from_array(counts, integers))
