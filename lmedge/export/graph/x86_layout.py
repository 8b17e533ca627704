"""A quantised graph of the x86 dialect → the same integers, laid out for the kernels of CPU engines.

* The image is dequantised where it comes in. A normalisation that ends in a quantiser of the same scale and zero point gives
  the uint8 values back that it was given, so Cast, Sub, Div and QuantizeLinear fall away, and OpenVINO computes the first
  convolution in int8 as well.
* Depthwise convolutions get their channels in multiples of 16, and those around them follow. ONNX Runtime has its fast kernel
  for such channels only (`MlasConvSymPackWSize`); the further channels are zeros that nobody reads.
* The pair between a convolution and a residual add stands twice. OpenVINO takes a single one out to fuse the two, and then
  rounds once less than the file says and than ONNX Runtime does; ONNX Runtime merges both into one.
* Biases are dequantised without a zero point: int32 has none, and one 0 per channel is as long as the bias.

Each step keeps every integer: on ONNX Runtime the answers have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from lmedge.export.graph.compare import INPUT
from lmedge.export.graph.depthwise_channels import fill_depthwise_channels
from lmedge.export.graph.input_scale import find_normalisation
from lmedge.export.graph.qdq_edits import drop_unread, replace_nodes, zero_point_of
from lmedge.export.graph.qdq_graph import DEQUANTIZE, QUANTIZE, Pair, QdqGraph, slots_of

Step = Callable[[onnx.ModelProto], None]


def lay_out_for_x86(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after all steps; the given one is not changed, and each step leaves alone what it does not know."""
    laid_out = onnx.ModelProto()
    laid_out.CopyFrom(model)
    for step in STEPS:
        step(laid_out)
    return laid_out


def dequantise_image(model: onnx.ModelProto) -> None:
    """image → … → QuantizeLinear → DequantizeLinear becomes image → DequantizeLinear → Transpose."""
    graph, normalisation = model.graph, find_normalisation(model)
    view = QdqGraph(graph)
    pair = None if normalisation is None else next((p for p in view.pairs() if p.source == normalisation.tensor), None)
    if normalisation is None or pair is None or view.outputs & {pair.result}:
        return
    scale, zero_point = (view.array(name) for name in pair.dequantize.input[1:3])
    if scale is None or zero_point is None or zero_point.dtype != np.uint8:
        return
    if (scale.size, float(scale), int(zero_point)) != (1, normalisation.scale, normalisation.zero_point):
        return
    moves = _transposes_before(view, pair.source)
    names = [f"{INPUT}_dequantised", *(f"{INPUT}_moved_{number}" for number in range(1, len(moves)))]
    made = [*names[: len(moves)], pair.result]
    chain = [helper.make_node(DEQUANTIZE, [INPUT, *pair.dequantize.input[1:]], made[:1], pair.dequantize.name)]
    for move, read, result in zip(moves, made, made[1:], strict=False):
        moved = onnx.NodeProto()
        moved.CopyFrom(move)
        moved.input[0], moved.output[0] = read, result
        chain.append(moved)
    replace_nodes(graph, [*chain, *(node for node in graph.node if node not in (*moves, pair.dequantize))])
    drop_unread(graph)


def repeat_add_pairs(model: onnx.ModelProto) -> None:
    """Convolution → pair → Add becomes convolution → pair → pair → Add, the second one with the same numbers."""
    view = QdqGraph(model.graph)
    nodes = list(model.graph.node)
    for add in [node for node in nodes if node.op_type == "Add"]:
        for pair in [pair for name in add.input if (pair := view.pair(name)) and _ends_branch(view, pair)]:
            again = [f"{pair.result}_{word}" for word in ("again_quantised", "again")]
            numbers = list(pair.dequantize.input[1:])
            copies = [
                helper.make_node(QUANTIZE, [pair.result, *numbers], again[:1], f"{pair.quantize.name}_again"),
                helper.make_node(DEQUANTIZE, [again[0], *numbers], again[1:], f"{pair.dequantize.name}_again"),
            ]
            for slot in slots_of(add, pair.result):
                add.input[slot] = again[1]
            at = nodes.index(add)
            nodes[at:at] = copies
    replace_nodes(model.graph, [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes])


def drop_bias_zero_points(model: onnx.ModelProto) -> None:
    """Takes the zeros from the DequantizeLinear of int32 constants."""
    view = QdqGraph(model.graph)
    for node in view.quantisers:
        name = zero_point_of(node)
        if name and view.constant_type(node.input[0]) == TensorProto.INT32 and not np.any(view.array(name)):
            del node.input[2:]
    drop_unread(model.graph)


STEPS: tuple[Step, ...] = (dequantise_image, fill_depthwise_channels, repeat_add_pairs, drop_bias_zero_points)


def _ends_branch(view: QdqGraph, pair: Pair) -> bool:
    """A pair that stands between one convolution and one add, and nowhere else."""
    alone = len(view.readers[pair.source]) == len(view.readers[pair.result]) == 1
    return alone and view.op_type(pair.source) == "Conv" and pair.result not in view.outputs


def _transposes_before(view: QdqGraph, tensor: str) -> list[onnx.NodeProto]:
    """The Transposes between the image and the end of its normalisation, in graph order."""
    found = []
    while tensor != INPUT:
        node = view.maker[tensor]
        if node.op_type == "Transpose":
            found.append(node)
        tensor = str(node.input[0])
    return found[::-1]
