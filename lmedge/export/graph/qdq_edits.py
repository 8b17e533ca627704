"""The changes that every rewrite of a Q/DQ graph is made of: another reader, another constant, a pair taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from lmedge.export.graph.qdq_graph import DEQUANTIZE, MOVES, Pair, QdqGraph, attribute, same_numbers, slots_of


def drop_unread(graph: onnx.GraphProto) -> None:
    """Removes nodes and weights that lead to no output."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    replace_nodes(graph, kept[::-1])
    del graph.initializer[:]
    graph.initializer.extend(weights)


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)


def add_constant(graph: onnx.GraphProto, name: str, value: npt.ArrayLike) -> str:
    """Adds a constant under this name, or a longer one where it is taken by another value, and gives the name back."""
    tensor = numpy_helper.from_array(np.asarray(value), name)
    while (there := next((entry for entry in graph.initializer if entry.name == name), None)) is not None and there != tensor:
        name = tensor.name = f"{name}_"
    if there is None:
        graph.initializer.append(tensor)
    return name


def zero_point_of(quantiser: onnx.NodeProto) -> str:
    """The name of a quantiser's zero point, "" where it has none."""
    return str(quantiser.input[2]) if len(quantiser.input) > 2 else ""


def set_zero_point(graph: onnx.GraphProto, quantiser: onnx.NodeProto, scale: npt.NDArray[Any]) -> None:
    """Gives a quantiser the int8 zero point 0, in the shape of its scale."""
    name = add_constant(graph, f"{quantiser.input[1]}_zero", np.zeros(scale.shape, np.int8))
    del quantiser.input[2:]
    quantiser.input.append(name)
    drop_attribute(quantiser, "output_dtype")


def drop_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _dequantised(view: QdqGraph, dequantize: onnx.NodeProto) -> str:
    """A constant with the values that a DequantizeLinear makes of one."""
    stored, scale = np.asarray(view.array(dequantize.input[0])), np.asarray(view.array(dequantize.input[1]))
    name = zero_point_of(dequantize)
    shift = np.asarray(view.array(name)) if name else np.zeros((), stored.dtype)
    if scale.size > 1:
        along = [1] * stored.ndim
        along[attribute(dequantize, "axis", 1)] = scale.size
        scale, shift = scale.reshape(along), shift.reshape(along)
    else:
        scale, shift = scale.reshape(()), np.ravel(shift)[0]
    values = (stored.astype(np.int64) - shift.astype(np.int64)).astype(scale.dtype) * scale
    return add_constant(view.graph, f"{dequantize.output[0]}_float", values.astype(scale.dtype))


def read_float(view: QdqGraph, reader: onnx.NodeProto, slot: int) -> None:
    """Takes out every pair on the way from an input of a reader back to the operator that computes its values."""
    while True:
        name = str(reader.input[slot])
        maker = view.maker.get(name)
        if maker is not None and maker.op_type in MOVES:
            reader, slot = maker, 0
        elif maker is not None and maker.op_type == DEQUANTIZE and (unrounded := in_float(view, name)) != name:
            reader.input[slot] = unrounded
        else:
            return


def in_float(view: QdqGraph, tensor: str) -> str:
    """What a DequantizeLinear would give if nothing were rounded; `tensor` itself where that cannot be told."""
    pair = view.pair(tensor)
    if pair is not None:
        return pair.source if same_numbers(view, pair) else tensor
    dequantize = view.maker[tensor]
    return _dequantised(view, dequantize) if view.is_constant(dequantize.input[0]) else tensor


def reconnect(view: QdqGraph, before: str, now: str) -> None:
    """Lets every reader of a tensor read another one."""
    for reader in view.readers[before]:
        for slot in slots_of(reader, before):
            reader.input[slot] = now


def name_as_output(view: QdqGraph, pair: Pair) -> None:
    """Puts the tensor that a pair rounds in the place of its result, which is an output of the graph, and keeps its name."""
    source, result = pair.source, pair.result
    if source not in view.maker or source in view.outputs:
        pair.dequantize.CopyFrom(helper.make_node("Identity", [source], [result], pair.dequantize.name))
        return
    view.graph.node.remove(pair.dequantize)
    outputs = view.maker[source].output
    outputs[list(outputs).index(source)] = result
    reconnect(view, source, result)
