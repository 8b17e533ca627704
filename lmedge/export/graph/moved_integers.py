"""Pairs around operators that only move values: one scale for both, so that engines move integers and nothing is rounded twice.

An upsampling that repeats values, a slice or a maximum gives numbers that were there before. Rounded to the same scale behind
it, they stay as they are; and engines that fuse quantisers compute it on bytes (ONNX Runtime: MaxPool and Resize, where both
scales agree). Quantisers of other tools measure both tensors on their own, which are not quite equal where a part is cut off.

TensorRT needs no pair in front of such an operator, since it moves a QuantizeLinear from behind a Resize to before it
(NVIDIA/TensorRT issue 2976). So the portable dialect has one pair, behind.
"""

from __future__ import annotations

import onnx

from lmedge.export.graph.qdq_edits import drop_unread
from lmedge.export.graph.qdq_graph import QUANTIZE, Pair, QdqGraph, attribute, text

_SELECT = ("MaxPool", "Slice")


def keep_moved_integers(graph: onnx.GraphProto) -> None:
    """Gives each pair behind such operators the scale and the zero point of the pair in front of them."""
    view = QdqGraph(graph)
    # In graph order: a pair behind two of them follows the first.
    for pair in view.activation_pairs():
        before = _pair_before(view, pair.source)
        if before is not None:
            readers = [node for node in view.readers[pair.quantize.output[0]] if node.op_type != QUANTIZE]
            for node in (pair.quantize, *readers):
                del node.input[1:]
                node.input.extend(before.dequantize.input[1:])
    drop_unread(graph)


def _pair_before(view: QdqGraph, tensor: str) -> Pair | None:
    """The pair whose rounded values a tensor holds, moved; None where it holds others, or none are moved."""
    start = tensor
    while (maker := view.maker.get(tensor)) is not None and _moves(maker):
        tensor = str(maker.input[0])
    return view.pair(tensor) if tensor != start else None


def _moves(node: onnx.NodeProto) -> bool:
    """Whether every value that a node makes is one that it read."""
    if node.op_type == "Resize":
        return text(node, "mode", "nearest") == "nearest" and not attribute(node, "antialias", 0)
    return node.op_type in _SELECT
