"""The preprocessing at the head of a graph, uint8 image → (image − mean) / std, seen as the quantiser that it is.

A uint8 image is already quantised: with scale 1 / std and zero point mean, dequantising it is the normalisation. A quantiser
behind the normalisation that takes these two loses nothing, and its range need not be measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto, numpy_helper

from lmedge.export.graph.compare import INPUT


@dataclass(frozen=True)
class Normalisation:
    """The chain from the image to the first layer.

    Attributes:
        tensor: name of its result, (image − zero_point) · scale, possibly transposed.
        scale: 1 / std.
        zero_point: the mean, a whole number from 0 to 255.
    """

    tensor: str
    scale: float
    zero_point: int


def find_normalisation(model: onnx.ModelProto) -> Normalisation | None:
    """The chain of Cast, Transpose and arithmetic with scalars that starts at the image; None when there is no such chain."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    name, scale, offset = INPUT, 1.0, 0.0
    while True:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1:
            break
        node = readers[0]
        if node.op_type in ("Sub", "Add", "Mul", "Div") and node.input[0] == name:
            value = _scalar(constants.get(node.input[1]))
            if value is None:
                break
            step = {"Sub": (1.0, -value), "Add": (1.0, value), "Mul": (value, 0.0), "Div": (1 / value if value else 0.0, 0.0)}
            factor, addend = step[node.op_type]
            scale, offset = scale * factor, offset * factor + addend
        elif node.op_type != "Transpose" and (node.op_type, _target(node)) != ("Cast", TensorProto.FLOAT):
            break
        name = node.output[0]
    zero_point = round(-offset / scale) if scale > 0 else -1
    exact = 0 <= zero_point <= 255 and -offset == zero_point * scale
    return Normalisation(name, scale, zero_point) if name != INPUT and exact else None


def _target(node: onnx.NodeProto) -> int | None:
    """The type that a Cast makes."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)


def _scalar(tensor: onnx.TensorProto | None) -> float | None:
    if tensor is None:
        return None
    array = numpy_helper.to_array(tensor)
    return float(array.reshape(-1)[0]) if array.size == 1 else None
