"""The single steps of `legalize_qdq`: each changes a graph in place in one way, and by itself leaves it valid.

Where a step takes a pair out, the readers get the tensor that the pair rounded. At its end each removes what nobody reads.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from lmedge.export.graph.lint_qdq.placement import (
    half_quantised_layer,
    pair_before_activation,
    pair_without_layer,
    residual_both,
    residual_main,
    wrong_side,
)
from lmedge.export.graph.qdq_edits import (
    add_constant,
    drop_attribute,
    drop_unread,
    in_float,
    name_as_output,
    read_float,
    reconnect,
    replace_nodes,
    set_zero_point,
    zero_point_of,
)
from lmedge.export.graph.qdq_graph import DEQUANTIZE, MOVES, QUANTIZE, QdqGraph, same_numbers, slots_of

# The zero point that makes unsigned values symmetric: uint8 128 is int8 0.
MIDDLE = 128
_LOWEST: dict[int, int] = {TensorProto.UINT8: 0, TensorProto.INT8: -MIDDLE}
_UNSIGNED_STEPS, _SIGNED_STEPS = 255, 127
# Operators whose results are never negative, and those that keep them so.
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs")
_KEEP_SIGN = (*MOVES, "Add", "Mul", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "MaxPool")


# ---- integers and scales ----


def share_scale(graph: onnx.GraphProto) -> None:
    """Gives an activation with a scale per channel the largest of them, so that every range still fits."""
    view = QdqGraph(graph)
    for node in view.quantisers:
        scale = view.array(node.input[1])
        if scale is None or scale.size < 2 or view.holds_weights(node):
            continue
        node.input[1] = add_constant(graph, f"{node.input[1]}_shared", np.max(scale))
        if zero_point := zero_point_of(node):
            node.input[2] = add_constant(graph, f"{zero_point}_shared", np.ravel(np.asarray(view.array(zero_point)))[0])
        drop_attribute(node, "axis")
    drop_unread(graph)


def sign_middle(graph: onnx.GraphProto) -> None:
    """uint8 with zero point 128 → int8 with zero point 0: the same values, called differently."""
    view = QdqGraph(graph)
    uint8 = [node for node in view.quantisers if view.quantised_type(node) == TensorProto.UINT8]
    for node in [node for node in uint8 if unsigned_zero_point(view, node) == MIDDLE]:
        stored = view.array(node.input[0])
        if stored is not None:
            node.input[0] = add_constant(graph, f"{node.input[0]}_int8", (stored.astype(np.int16) - MIDDLE).astype(np.int8))
        set_zero_point(graph, node, np.asarray(view.array(node.input[1])))
        del graph.value_info[:]  # it may hold the types of before
    drop_unread(graph)


def sign_lowest(graph: onnx.GraphProto) -> None:
    """uint8 with zero point 0 → int8 with zero point 0 and the same largest value: twice the step, as half of int8 is negative.

    An unsigned quantiser also cuts off what is negative, and quantisers of other tools leave a ReLU out for that reason. So a
    Clip takes its place wherever the tensor is not known to be positive.
    """
    view = QdqGraph(graph)
    clips: dict[str, onnx.NodeProto] = {}
    activations = [node for node in view.quantisers if not view.holds_weights(node)]
    for node in [node for node in activations if unsigned_zero_point(view, node) == 0]:
        scale = np.asarray(view.array(node.input[1]))
        if node.op_type == QUANTIZE and not _never_negative(view, node.input[0]):
            bounds = [
                add_constant(graph, f"{node.output[0]}_least", np.zeros((), scale.dtype)),
                add_constant(graph, f"{node.output[0]}_most", (scale * _UNSIGNED_STEPS).astype(scale.dtype).reshape(())),
            ]
            made = f"{node.output[0]}_clipped"
            clips[node.output[0]] = helper.make_node("Clip", [node.input[0], *bounds], [made], f"{node.name}_clip")
            node.input[0] = made
        wider = (scale.astype(np.float32) * np.float32(_UNSIGNED_STEPS / _SIGNED_STEPS)).astype(scale.dtype)
        node.input[1] = add_constant(graph, f"{node.input[1]}_int8", wider)
        set_zero_point(graph, node, wider)
        del graph.value_info[:]
    nodes = [part for node in graph.node for part in ((clips[node.output[0]], node) if node.output[0] in clips else (node,))]
    replace_nodes(graph, nodes)
    drop_unread(graph)


def float_biases(graph: onnx.GraphProto) -> None:
    """Puts the value of an int32 bias, bias · scale, in the place of its DequantizeLinear."""
    view = QdqGraph(graph)
    for node in view.quantisers:
        if view.constant_type(node.input[0]) == TensorProto.INT32:
            reconnect(view, node.output[0], in_float(view, node.output[0]))
    drop_unread(graph)


# ---- places ----


def float_outputs(graph: onnx.GraphProto) -> None:
    """Takes out the pairs between the last layer and the outputs, also those between operators that only hand values on."""
    for output in graph.output:
        while (pair := (view := QdqGraph(graph)).pair(output.name)) and same_numbers(view, pair):
            name_as_output(view, pair)
        maker = view.maker.get(output.name)
        if maker is not None and maker.op_type in MOVES:
            read_float(view, maker, 0)
    drop_unread(graph)


def float_head(graph: onnx.GraphProto) -> None:
    """Gives the matrix products behind the last convolution their inputs, weights and biases in float."""
    view = QdqGraph(graph)
    for layer in view.head():
        for slot in range(len(layer.input)):
            read_float(view, layer, slot)
    drop_unread(graph)


def join_activations(graph: onnx.GraphProto) -> None:
    """Lets an activation read the layer in front of it directly."""
    view = QdqGraph(graph)
    for node, _ in pair_before_activation.search(view):
        if (pair := view.pair(node.input[0])) and same_numbers(view, pair):
            node.input[0] = pair.source
    drop_unread(graph)


def float_half_layers(graph: onnx.GraphProto) -> None:
    """Lets a layer of which only the input or only the weights are quantised read both in float."""
    view = QdqGraph(graph)
    for layer, _ in half_quantised_layer.search(view):
        for slot, name in enumerate(layer.input[:2]):
            if view.op_type(name) == DEQUANTIZE:
                layer.input[slot] = in_float(view, name)
    drop_unread(graph)


def float_pooled(graph: onnx.GraphProto) -> None:
    """Lets convolutions of pooled values read them unrounded; their weights stay int8.

    These are the gates of squeeze-and-excite: next to no work, and where engines round one value of theirs differently, a whole
    channel moves with it. Not part of `legalize_qdq`, since such pairs are legal.
    """
    view = QdqGraph(graph)
    for node in view.nodes:
        pair = view.pair(node.input[0]) if node.op_type == "Conv" and view.is_pooled(node.input[0]) else None
        if pair is not None:
            node.input[0] = pair.source
    drop_unread(graph)


def drop_idle_pairs(graph: onnx.GraphProto) -> None:
    """Takes out the pairs that no layer of int8 arithmetic reads."""
    view = QdqGraph(graph)
    for dequantize, _ in pair_without_layer.search(view):
        if (pair := view.pair(dequantize.output[0])) and same_numbers(view, pair):
            reconnect(view, pair.result, pair.source)
    drop_unread(graph)


def join_residuals(graph: onnx.GraphProto) -> None:
    """Lets each residual add read the result of its convolution directly; its other input stays quantised.

    The pair behind the convolution keeps an engine from fusing convolution and add (NVIDIA's guide to explicit quantisation;
    the layout of ModelOpt).
    """
    view = QdqGraph(graph)
    place = {node.output[0]: index for index, node in enumerate(view.nodes)}
    for add in [node for node, _ in residual_both.search(view)]:
        pairs = [pair for name in add.input if (pair := view.pair(name))]
        from_convolution = [pair for pair in pairs if view.op_type(pair.source) in ("Conv", "ConvTranspose")]
        # Of two convolutions (a projected shortcut) the later one ends the main branch.
        main = max(from_convolution, key=lambda pair: place[pair.source])
        add.input[next(slots_of(add, main.result))] = main.source
    for add in [node for node, _ in residual_main.search(view)]:
        slot = wrong_side(view, add)
        if slot is not None and (pair := view.pair(add.input[slot])):
            add.input[slot] = pair.source
    drop_unread(graph)


# ---- what is known of a tensor ----


def unsigned_zero_point(view: QdqGraph, quantiser: onnx.NodeProto) -> int | None:
    """The zero point of 8-bit values, counted from the lowest of them; None where there is not exactly one."""
    lowest = _LOWEST.get(view.quantised_type(quantiser))
    name = zero_point_of(quantiser)
    values = view.array(name) if name else np.zeros(1, np.int8)
    if lowest is None or values is None or np.unique(values).size != 1:
        return None
    return int(np.ravel(values)[0]) - lowest


def _never_negative(view: QdqGraph, tensor: str) -> bool:
    maker = view.maker.get(tensor)
    if maker is None:
        array = view.array(tensor)
        return array is not None and bool((array >= 0).all())
    if maker.op_type == "Clip":
        least = view.array(maker.input[1]) if len(maker.input) > 1 and maker.input[1] else None
        return least is not None and bool((least >= 0).all())
    if maker.op_type in _KEEP_SIGN:
        read = maker.input if maker.op_type in ("Add", "Mul", "Concat") else maker.input[:1]
        return all(_never_negative(view, name) for name in read)
    if maker.op_type == DEQUANTIZE and (pair := view.pair(tensor)):
        return _never_negative(view, pair.source)
    return maker.op_type in _NEVER_NEGATIVE
