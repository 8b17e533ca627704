"""Rules about where pairs stand. NVIDIA's guide: quantise the inputs of weighted layers; the rest follows from that."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from lmedge.export.graph.lint_qdq.rule import SLOW, rule
from lmedge.export.graph.qdq_graph import (
    ACTIVATIONS,
    DEQUANTIZE,
    LAYERS,
    MOVES,
    QUANTISERS,
    QUANTIZE,
    WEIGHTED,
    QdqGraph,
    same_numbers,
)

_CONVOLUTIONS = ("Conv", "ConvTranspose")
Found = Iterator[tuple[onnx.NodeProto, str]]


@rule(
    "half-quantised-layer",
    SLOW,
    why="TensorRT computes a layer in int8 only when input and weights are quantised; otherwise rounding is all it gets.",
    cure="Quantise both or neither (legalize_qdq makes it neither).",
)
def half_quantised_layer(graph: QdqGraph) -> Found:
    """Convolutions of pooled values may have weights in int8 alone: there is nothing to compute, and the file is smaller."""
    head = {node.output[0] for node in graph.head()}
    for node in graph.nodes:
        if node.op_type not in WEIGHTED or node.output[0] in head or not _has_weights(graph, node):
            continue
        data, weights = (graph.op_type(graph.before_moves(name)) == DEQUANTIZE for name in node.input[:2])
        if data != weights and not (weights and graph.is_pooled(node.input[0])):
            yield node, f"only its {'input' if data else 'weights'} {'is' if data else 'are'} quantised"


@rule(
    "pair-before-activation",
    SLOW,
    why="TensorRT runs a layer and its activation as one kernel; a pair between them splits it and rounds twice.",
    cure="Quantise the activation's result, not the layer's (legalize_qdq lets the activation read the layer directly).",
)
def pair_before_activation(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        pair = graph.pair(node.input[0]) if node.op_type in ACTIVATIONS else None
        if pair and graph.op_type(pair.source) in LAYERS:
            yield node, f"it reads the result of {graph.op_type(pair.source)} through a pair"


@rule(
    "pair-on-output",
    SLOW,
    why="It rounds what the network answers to 256 steps, and nothing behind it computes in int8.",
    cure="Leave outputs in float (legalize_qdq takes such pairs out).",
)
def pair_on_output(graph: QdqGraph) -> Found:
    for pair in graph.activation_pairs():
        if graph.reached(pair.result)[1]:
            yield pair.dequantize, "its result is an output of the graph"


@rule(
    "pair-without-layer",
    SLOW,
    why="A pair rounds the values and costs two conversions; it pays only before a layer that computes in int8.",
    cure="Quantise the inputs of convolutions and of residual adds (legalize_qdq takes other pairs out).",
)
def pair_without_layer(graph: QdqGraph) -> Found:
    before_activations = {node.input[0] for node, _ in pair_before_activation.search(graph)}
    for pair in graph.activation_pairs():
        nodes, is_output = graph.reached(pair.result)
        if not is_output and pair.result not in before_activations and not any(node.op_type in LAYERS for node in nodes):
            readers = ", ".join(sorted({node.op_type for node in nodes})) or "nothing"
            yield pair.dequantize, f"no layer with weights and no add reads it, only {readers}"


@rule(
    "pair-differs",
    SLOW,
    why="The values come out multiplied by the ratio of the two scales, and TensorRT cannot take the pair for rounding.",
    cure="Give both nodes of a pair the same scale and zero point.",
)
def pair_differs(graph: QdqGraph) -> Found:
    for pair in graph.pairs():
        if not same_numbers(graph, pair):
            yield pair.dequantize, f"its scale or zero point is not that of {pair.quantize.name or pair.quantize.output[0]}"


@rule(
    "unpaired",
    SLOW,
    why="TensorRT looks for a DequantizeLinear behind each QuantizeLinear; arithmetic on bare integers has no scale to follow.",
    cure="Dequantise before the operator and quantise again behind it.",
)
def unpaired(graph: QdqGraph) -> Found:
    for node in graph.quantisers:
        if node.op_type == QUANTIZE and (reader := _integer_reader(graph, node)):
            yield node, f"its integers go to {reader}, not to a DequantizeLinear"


@rule(
    "residual-both",
    SLOW,
    why="TensorRT adds the skip input inside the convolution's kernel; a pair between the two splits it and rounds once more.",
    cure="Quantise the skip input only (legalize_qdq takes the other pair out).",
)
def residual_both(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        if node.op_type == "Add":
            pairs = [graph.pair(name) for name in node.input]
            if all(pairs) and any(pair and graph.op_type(pair.source) in _CONVOLUTIONS for pair in pairs):
                yield node, "both of its inputs are quantised, that from the convolution too"


@rule(
    "residual-main",
    SLOW,
    why="TensorRT adds the skip input inside the convolution's kernel; a pair between the two splits it.",
    cure="Quantise the skip input instead (legalize_qdq takes the pair out).",
)
def residual_main(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        if node.op_type == "Add" and wrong_side(graph, node) is not None:
            yield node, "only its input from the convolution is quantised, not the skip"


@rule(
    "head-quantised",
    SLOW,
    why="The head carries the coordinates: int8 rounds them to 256 steps, and at batch 1 it is no faster.",
    cure="Keep everything behind the last convolution and its activation in float (legalize_qdq does).",
)
def head_quantised(graph: QdqGraph) -> Found:
    for node in graph.head():
        if any(graph.op_type(graph.before_moves(name)) == DEQUANTIZE for name in node.input):
            yield node, "the regression head is quantised"


PLACEMENT_RULES = (
    half_quantised_layer,
    pair_before_activation,
    pair_on_output,
    pair_without_layer,
    pair_differs,
    unpaired,
    residual_both,
    residual_main,
    head_quantised,
)


def wrong_side(graph: QdqGraph, add: onnx.NodeProto) -> int | None:
    """The input of an add that is quantised although a convolution makes it, where the other is neither; else None."""
    pairs = [graph.pair(name) for name in add.input]
    for slot, pair in enumerate(pairs):
        other = add.input[1 - slot]
        if pair and pairs[1 - slot] is None and graph.op_type(pair.source) in _CONVOLUTIONS:
            from_network = not graph.is_constant(other) and graph.op_type(other) not in (*_CONVOLUTIONS, DEQUANTIZE)
            return slot if from_network else None
    return None


def _has_weights(graph: QdqGraph, layer: onnx.NodeProto) -> bool:
    """True where a layer's second input is a constant, quantised or not."""
    name = graph.before_moves(str(layer.input[1]))
    maker = graph.maker.get(name)
    return graph.is_constant(name) or (maker is not None and maker.op_type == DEQUANTIZE and graph.holds_weights(maker))


def _integer_reader(graph: QdqGraph, quantize: onnx.NodeProto) -> str:
    """Who else than a DequantizeLinear works on a quantiser's integers: an operator, or the graph's output; "" for nobody."""
    waiting = [str(quantize.output[0])]
    while waiting:
        name = waiting.pop()
        if name in graph.outputs:
            return "an output of the graph"
        for node in graph.readers[name]:
            if node.op_type not in (*MOVES, *QUANTISERS) or node.op_type == QUANTIZE:
                return node.op_type
            if node.op_type in MOVES and node.op_type != "Cast":
                waiting.extend(node.output)
            elif node.op_type == "Cast":
                return "Cast"
    return ""
