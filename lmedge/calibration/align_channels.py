"""Channel alignment: where a convolution reads another one directly, an equal graph in which the channels between them match.

Per-tensor activations give every channel the same levels, so a channel that is narrow or off-centre gets few of them. Between
a linear projection and the 1 × 1 expansion behind it each channel can be shifted and scaled for free:

    y' = (y − m) / f        m = (high + low) / 2        f = (high − low) / median(high − low), within 1/100 and 100

where low and high are the medians over crops of a channel's 0.01 % and 99.99 % quantiles. The first convolution takes
W / f and (b − m) / f, the second one W · f and b + W · m. This is NNCF's algorithm of that name (openvinotoolkit/nncf, pull
request 1928), which NNCF offers for OpenVINO models only.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lmedge.calibration.crop_store import Crops
from lmedge.calibration.place_qdq import quantised_layers
from lmedge.calibration.probe import probe

if TYPE_CHECKING:
    import onnx

_QUANTILE = 1e-4
_LARGEST_FACTOR = 100.0
_SMALLEST_SPREAD = float(np.finfo(np.float32).eps)

Floats = npt.NDArray[np.float32]


def align_channels(model: onnx.ModelProto, crops_uint8: Crops) -> onnx.ModelProto:
    """The aligned graph, with the same nodes and names; the given one is not changed. Only layers with quantisers take part.

    Args:
        crops_uint8: (N, H, W, 3) BGR.
    """
    import onnx
    from onnx import numpy_helper

    aligned = onnx.ModelProto()
    aligned.CopyFrom(model)
    pairs = _pairs(aligned)
    values = {tensor.name: tensor for tensor in aligned.graph.initializer}
    for (first, second), (low, high) in zip(pairs, _channel_extents(model, pairs, crops_uint8), strict=True):
        weight_1, bias_1, weight_2, bias_2 = (
            numpy_helper.to_array(values[name]) for name in (*first.input[1:3], *second.input[1:3])
        )
        shift, factor = (high + low) / 2, _factors(high - low)
        shifted_out = np.einsum("oihw,i->o", weight_2, shift)
        changed = (
            (first.input[1], weight_1 / factor[:, None, None, None]),
            (first.input[2], (bias_1 - shift) / factor),
            (second.input[1], weight_2 * factor[None, :, None, None]),
            (second.input[2], bias_2 + shifted_out),
        )
        for name, value in changed:
            values[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    return aligned


def aligned_pairs(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Names of the pairs of convolutions that `align_channels` works on, in graph order."""
    return [(first.name, second.name) for first, second in _pairs(model)]


def _pairs(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    graph = model.graph
    reads = Counter(name for node in graph.node for name in node.input) + Counter(output.name for output in graph.output)
    constants = {tensor.name for tensor in graph.initializer}
    layers = set(quantised_layers(model))
    convs = [node for node in graph.node if node.op_type == "Conv" and node.name in layers]
    makers = {node.output[0]: node for node in convs if _owns(node, reads, constants)}
    return [
        (makers[node.input[0]], node)
        for node in makers.values()
        if node.input[0] in makers and reads[node.input[0]] == 1 and _mixes_channels_only(node)
    ]


def _owns(node: onnx.NodeProto, reads: Counter[str], constants: set[str]) -> bool:
    """Whether the convolution has a weight and a bias that nothing else reads."""
    return len(node.input) == 3 and all(name in constants and reads[name] == 1 for name in node.input[1:])


def _mixes_channels_only(node: onnx.NodeProto) -> bool:
    """Whether a shift of the input is a shift of the output: no padding, which would add unshifted zeros, and no groups."""
    import onnx

    settings = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    padded = any(settings.get("pads", ())) or settings.get("auto_pad", b"NOTSET") != b"NOTSET"
    spread = any(step != 1 for name in ("strides", "dilations") for step in settings.get(name, ()))
    return settings.get("group", 1) == 1 and not padded and not spread


def _factors(spread: Floats) -> Floats:
    usable = spread > _SMALLEST_SPREAD
    if not usable.any():
        return np.ones_like(spread)
    factors = np.where(usable, spread / np.median(spread[usable]), 1.0)
    return np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def _channel_extents(
    model: onnx.ModelProto, pairs: list[tuple[onnx.NodeProto, onnx.NodeProto]], crops_uint8: Crops
) -> list[tuple[Floats, Floats]]:
    """Low and high end (C,) of each channel between the two convolutions of a pair."""
    extents: list[list[Floats]] = [[] for _ in pairs]
    if pairs:
        for tensors in probe(model, [first.output[0] for first, _ in pairs], crops_uint8):
            for kept, features in zip(extents, tensors, strict=True):
                kept.append(np.quantile(features, (_QUANTILE, 1 - _QUANTILE), axis=(0, 2, 3)))
    medians = [np.median(np.stack(kept), axis=0) for kept in extents]
    return [(low, high) for low, high in medians]
