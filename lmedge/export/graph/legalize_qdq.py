"""A symmetric Q/DQ graph as ONNX Runtime's quantiser writes it → one that every engine may read, TensorRT included.

The quantiser puts a pair in front of both inputs of a residual add. The pair behind the convolution keeps an engine from fusing
convolution and add, so it is taken out and the skip input alone stays quantised (NVIDIA's guide to explicit quantisation; the
layout of ModelOpt). Whether the result is legal, `lint_qdq` says.
"""

from __future__ import annotations

import onnx

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def legalize_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Lets each residual add read the result of its convolution directly; its other input stays quantised."""
    legal = onnx.ModelProto()
    legal.CopyFrom(model)
    graph = legal.graph
    maker = {output: node for node in graph.node for output in node.output}
    place = {node.output[0]: index for index, node in enumerate(graph.node)}
    for add in (node for node in graph.node if node.op_type == "Add"):
        sources = [_quantized_tensor(name, maker) for name in add.input]
        if None in sources:
            continue
        from_conv = [slot for slot, name in enumerate(sources) if name in maker and maker[name].op_type == "Conv"]
        if from_conv:
            # Of two convolutions (a projected shortcut) the later one ends the main branch.
            slot = max(from_conv, key=lambda slot: place[str(sources[slot])])
            add.input[slot] = str(sources[slot])
    drop_unread(graph)
    return legal


def drop_unread(graph: onnx.GraphProto) -> None:
    """Removes nodes and weights that lead to no output."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def _quantized_tensor(name: str, maker: dict[str, onnx.NodeProto]) -> str | None:
    """The tensor whose Q/DQ pair makes `name`, or None where there is no pair."""
    dequantize = maker.get(name)
    if dequantize is None or dequantize.op_type != DEQUANTIZE:
        return None
    quantize = maker.get(dequantize.input[0])
    return str(quantize.input[0]) if quantize is not None and quantize.op_type == QUANTIZE else None
