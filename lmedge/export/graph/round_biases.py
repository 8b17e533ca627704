"""Float biases of quantised convolutions → multiples of the step of their sums, input scale · weight scale.

ONNX Runtime adds biases as int32 and rounds them to these steps itself; OpenVINO and TensorRT add them as floats. Rounded in
the file, they are the same number everywhere. The step is a hundredth of a level of the result or less, so nothing is lost.
"""

from __future__ import annotations

import numpy as np
import onnx

from lmedge.export.graph.qdq_edits import add_constant, drop_unread
from lmedge.export.graph.qdq_graph import DEQUANTIZE, QdqGraph

# Floats hold all whole numbers up to here; a bias that many steps long is not worth rounding.
_EXACT = 2.0**24


def round_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with rounded biases, one scale per convolution or output channel; the given one is not changed."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    view = QdqGraph(rounded.graph)
    for node in view.nodes:
        bias = view.array(node.input[2]) if node.op_type == "Conv" and len(node.input) > 2 else None
        step = _step(view, node) if bias is not None else None
        if bias is None or step is None:
            continue
        counts = np.rint(bias.astype(np.float64) / step)
        steps = np.where(np.abs(counts) < _EXACT, counts * step, bias.astype(np.float64))
        if not np.array_equal(steps.astype(bias.dtype), bias):
            node.input[2] = add_constant(rounded.graph, f"{node.input[2]}_rounded", steps.astype(bias.dtype))
    drop_unread(rounded.graph)
    return rounded


def _step(view: QdqGraph, convolution: onnx.NodeProto) -> np.ndarray | None:
    """What one unit of the integer sum is worth; None where input or weights are not quantised."""
    product = np.ones(1, np.float32)  # as engines multiply scales: in float32
    for maker in (view.maker.get(name) for name in convolution.input[:2]):
        scale = view.array(maker.input[1]) if maker is not None and maker.op_type == DEQUANTIZE else None
        if scale is None:
            return None
        product = product * scale.astype(np.float32)
    return np.asarray(product, np.float64)
