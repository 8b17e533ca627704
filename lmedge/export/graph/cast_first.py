"""image → Transpose → Cast → Sub → Div → … becomes image → Cast → Sub → Div → Transpose → …

Exporters write the cheaper order, since a uint8 image is a quarter of the size of a float one. TensorRT takes uint8 as an input
of the network and has one operator for it, Cast; it refuses any other. The transposition goes behind the arithmetic with
scalars, not just behind the Cast, because NNCF would quantise the image once more in front of it. The numbers stay the same.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from lmedge.export.graph.qdq_graph import MOVES, QdqGraph

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def cast_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the Cast of a uint8 input directly behind it; the given one is not changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    move_casts(changed.graph)
    return changed


def move_casts(graph: onnx.GraphProto) -> None:
    """Does so in place, for every uint8 input with one reader that only hands its values on to a Cast."""
    for name in [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8]:
        view = QdqGraph(graph)
        chain = _chain(view, name)
        casts = [index for index, node in enumerate(chain) if node.op_type == "Cast"]
        if not casts or casts[0] == 0:
            continue
        moves, rest = chain[: casts[0]], chain[casts[0] :]
        made = [str(node.output[0]) for node in chain]
        places = sorted(view.nodes.index(node) for node in chain)
        for node, read, result in zip((*rest, *moves), (name, *made), made, strict=False):
            node.input[0], node.output[0] = read, result
        ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*rest, *moves)]
        for place, node in zip(places, ordered, strict=True):
            graph.node[place].CopyFrom(node)
        del graph.value_info[:]  # it holds the types of before


def _chain(view: QdqGraph, tensor: str) -> list[onnx.NodeProto]:
    """The operators behind an input, each the only reader of the one before: moves, a Cast, and arithmetic with scalars."""
    chain: list[onnx.NodeProto] = []
    while len(readers := view.readers[tensor]) == 1 and tensor not in view.outputs:
        node = readers[0]
        is_cast = any(part.op_type == "Cast" for part in chain)
        if (
            node.input[0] != tensor
            or len(node.output) > 1
            or not (_is_scalar(view, node) if is_cast else node.op_type in MOVES)
        ):
            break
        chain.append(node)
        tensor = str(node.output[0])
    return chain


def _is_scalar(view: QdqGraph, node: onnx.NodeProto) -> bool:
    """Whether a node adds, subtracts, multiplies or divides by one constant number."""
    constant = view.array(node.input[1]) if node.op_type in _ARITHMETIC else None
    return constant is not None and constant.size == 1 and constant.ndim <= 1
