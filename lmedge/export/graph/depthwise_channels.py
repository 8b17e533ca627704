"""Depthwise convolutions with any number of channels → the same network with multiples of 16, filled up with zeros.

ONNX Runtime's fast int8 kernel for depthwise convolutions takes multiples of 16 channels only; others run at half its speed.
The channels of a depthwise convolution are those of everything around it that works channel by channel, up to the convolutions
that make them (which get zero weights and biases for the new ones) and those that sum over them (which get zero weights).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from lmedge.export.graph.qdq_edits import add_constant, drop_attribute, drop_unread, zero_point_of
from lmedge.export.graph.qdq_graph import DEQUANTIZE, QUANTISERS, QdqGraph, attribute

MULTIPLE = 16
# Operators that work on each channel by itself, with constants, if any, that hold for all of them.
_PER_CHANNEL = (
    *QUANTISERS,
    *("Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Identity"),
    *("Add", "Mul", "GlobalAveragePool", "AveragePool", "MaxPool"),
)


@dataclass
class _Channels:
    """Tensors that share their channels, grown in place: the convolutions that make them and those that sum over them."""

    tensors: set[str] = field(default_factory=set)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    readers: dict[str, onnx.NodeProto] = field(default_factory=dict)


def fill_depthwise_channels(model: onnx.ModelProto) -> None:
    """Fills them up in place, wherever all that shares the channels is of a kind known here; the rest stays as it is."""
    graph = model.graph
    view = QdqGraph(graph)
    done: set[str] = set()
    for node in view.nodes:
        count = _depthwise_channels(view, node)
        if count % MULTIPLE == 0 or node.output[0] in done:
            continue
        shared = _sharing(view, node)
        if shared is not None and all(_weights(view, conv) is not None for conv in _convolutions(shared)):
            _fill(view, shared, -count % MULTIPLE)
            done |= shared.tensors
            view = QdqGraph(graph)  # it does not follow changes
    del graph.value_info[:]  # it holds the shapes of before
    drop_unread(graph)


def _sharing(view: QdqGraph, depthwise: onnx.NodeProto) -> _Channels | None:
    """Everything that has the channels of this convolution; None where something among it is not known here."""
    shared = _Channels()
    waiting = [str(depthwise.input[0]), str(depthwise.output[0])]
    while waiting:
        tensor = waiting.pop()
        if tensor in shared.tensors or view.is_constant(tensor):
            continue
        shared.tensors.add(tensor)
        maker = view.maker.get(tensor)
        if maker is None or tensor in view.outputs:
            return None
        for node in (maker, *view.readers[tensor]):
            if node.op_type == "Conv" and _depthwise_channels(view, node):
                shared.makers[node.output[0]] = node
                waiting += [str(node.input[0]), str(node.output[0])]
            elif node.op_type == "Conv" and attribute(node, "group", 1) == 1:
                (shared.makers if node is maker else shared.readers)[node.output[0]] = node
            elif node.op_type in _PER_CHANNEL and _same_for_all_channels(view, node):
                waiting += [*node.input, *node.output]
            else:
                return None
    return shared


def _fill(view: QdqGraph, shared: _Channels, count: int) -> None:
    for node in shared.makers.values():
        if groups := _depthwise_channels(view, node):
            drop_attribute(node, "group")
            node.attribute.append(helper.make_attribute("group", groups + count))
        for slot in range(1, len(node.input)):
            _fill_axis(view, node, slot, 0, count)
    # A convolution may both make and read these channels, where a shortcut goes around it.
    changed = QdqGraph(view.graph)
    for node in shared.readers.values():
        _fill_axis(changed, node, 1, 1, count)


def _fill_axis(view: QdqGraph, node: onnx.NodeProto, slot: int, axis: int, count: int) -> None:
    """Fills a weight or bias of a convolution, in float or in front of its DequantizeLinear."""
    reader, name = node, str(node.input[slot])
    if view.op_type(name) == DEQUANTIZE:
        dequantize, slot = view.maker[name], 0
        reader, name = dequantize, str(dequantize.input[0])
        if axis == 0:
            _fill_constant(view, dequantize, 1, 0, count, mode="edge")  # any scale serves zeros, 0 would not
            if zero_point_of(dequantize):
                _fill_constant(view, dequantize, 2, 0, count)
    _fill_constant(view, reader, slot, axis, count)


def _fill_constant(view: QdqGraph, node: onnx.NodeProto, slot: int, axis: int, count: int, mode: str = "constant") -> None:
    name = str(node.input[slot])
    values = np.asarray(view.array(name))
    if values.size > 1 or slot == 0 or node.op_type == "Conv":
        widths = [(0, count if dimension == axis else 0) for dimension in range(values.ndim)]
        filled: npt.NDArray[np.generic] = np.pad(values, widths, mode=mode)  # type: ignore[call-overload]
        node.input[slot] = add_constant(view.graph, f"{name}_{filled.shape[axis]}", filled)


def _convolutions(shared: _Channels) -> list[onnx.NodeProto]:
    return [*shared.makers.values(), *shared.readers.values()]


def _depthwise_channels(view: QdqGraph, node: onnx.NodeProto) -> int:
    """The channels of a convolution with one filter for each of them; 0 for other nodes."""
    groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
    weights = _weights(view, node) if groups > 1 else None
    return groups if weights is not None and weights.shape[:2] == (groups, 1) else 0


def _weights(view: QdqGraph, node: onnx.NodeProto) -> npt.NDArray[np.generic] | None:
    """A convolution's weights as they are stored, where they and the bias are constants of this convolution alone."""
    for name in node.input[1:]:
        made = view.maker.get(name)
        stored = name if made is None else str(made.input[0])
        if (made is not None and made.op_type != DEQUANTIZE) or len(view.readers[name]) != 1 or not view.is_constant(stored):
            return None
    name = str(node.input[1])
    return view.array(str(view.maker[name].input[0]) if name in view.maker else name)


def _same_for_all_channels(view: QdqGraph, node: onnx.NodeProto) -> bool:
    return all(array.size == 1 for name in node.input if (array := view.array(name)) is not None)
