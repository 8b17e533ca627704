"""The preprocessing at the head of a graph, uint8 image → (image − mean) / std, seen as the quantiser that it is.

A uint8 image is already quantised: with scale 1 / std and zero point mean, dequantising it is the normalisation, without any
rounding. So its range need not be measured, and an engine with unsigned activations can read the image as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lmedge.export.graph.compare import INPUT


@dataclass(frozen=True)
class Normalisation:
    """The chain from the image to the first layer.

    Attributes:
        tensor: name of its result, (image − zero_point) · scale, possibly transposed.
        scale: 1 / std.
        zero_point: the mean, a whole number from 0 to 255.
        perm: of the transposition, or () without one.
        nodes: names of the chain's outputs, in order.
    """

    tensor: str
    scale: float
    zero_point: int
    perm: tuple[int, ...]
    nodes: tuple[str, ...]


def find_normalisation(model: onnx.ModelProto) -> Normalisation | None:
    """The chain of Cast, Transpose and arithmetic with scalars that starts at the image; None when there is no such chain."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    name, scale, offset, perm, chain = INPUT, 1.0, 0.0, (), []
    while True:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1:
            break
        node = readers[0]
        if node.op_type == "Transpose" and not perm and _attribute(node, "perm"):
            perm = tuple(_attribute(node, "perm"))
        elif node.op_type in ("Sub", "Add", "Mul", "Div") and node.input[0] == name:
            value = _scalar(constants.get(node.input[1]))
            if value is None:
                break
            step = {"Sub": (1.0, -value), "Add": (1.0, value), "Mul": (value, 0.0), "Div": (1 / value if value else 0.0, 0.0)}
            factor, addend = step[node.op_type]
            scale, offset = scale * factor, offset * factor + addend
        elif node.op_type != "Cast" or _attribute(node, "to") != TensorProto.FLOAT:
            break
        name = node.output[0]
        chain.append(name)
    zero_point = round(-offset / scale) if scale > 0 else -1
    exact = 0 <= zero_point <= 255 and -offset == zero_point * scale
    return Normalisation(name, scale, zero_point, perm, tuple(chain)) if chain and exact else None


def dequantize_input(model: onnx.ModelProto, normalisation: Normalisation) -> onnx.ModelProto:
    """Replaces the normalisation, and the quantiser behind it, by one DequantizeLinear of the image. Exact.

    For graphs with unsigned activations: the image keeps all its 256 levels, and the first convolution reads them directly.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    dequantized = _behind_quantizer(graph, normalisation.tensor)
    gone = {*normalisation.nodes, *_quantizer_outputs(graph, normalisation.tensor)}
    kept = [node for node in graph.node if node.output[0] not in gone]
    scale = numpy_helper.from_array(np.array(normalisation.scale, np.float32), "image_scale")
    zero_point = numpy_helper.from_array(np.array(normalisation.zero_point, np.uint8), "image_zero_point")
    source, head = INPUT, []
    if normalisation.perm:
        head.append(helper.make_node("Transpose", [INPUT], ["image_nchw"], "image_transpose", perm=normalisation.perm))
        source = "image_nchw"
    head.append(helper.make_node("DequantizeLinear", [source, scale.name, zero_point.name], [dequantized], "image_dequantize"))
    del graph.node[:]
    graph.node.extend([*head, *kept])
    graph.initializer.extend([scale, zero_point])
    used = {name for node in graph.node for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return rewritten


def _quantizer_outputs(graph: onnx.GraphProto, tensor: str) -> set[str]:
    quantized = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == tensor}
    return quantized | {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in quantized}


def _behind_quantizer(graph: onnx.GraphProto, tensor: str) -> str:
    """Name of what the network reads: the normalised image, or its copy behind Q and DQ."""
    behind = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"} & _quantizer_outputs(graph, tensor)
    return next(iter(behind), tensor)


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name), None)


def _scalar(tensor: onnx.TensorProto | None) -> float | None:
    if tensor is None:
        return None
    array = numpy_helper.to_array(tensor)
    return float(array.reshape(-1)[0]) if array.size == 1 else None
