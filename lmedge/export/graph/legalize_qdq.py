"""A quantised graph as other tools write it → one that every engine may read, TensorRT included.

From: Q/DQ graphs of ONNX Runtime's `quantize_static` and of NNCF, with symmetric or unsigned activations. To: int8 with zero
point 0, one scale per activation, float biases, residual adds quantised on the skip input only, nothing quantised between a
layer and its activation, in the regression head or on outputs. Whether the result is legal, `lint_qdq` says.

An activation with any other zero point cannot be rewritten without new ranges, and is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from lmedge.errors import ExportError
from lmedge.export.graph import qdq_rewrites
from lmedge.export.graph.cast_first import move_casts
from lmedge.export.graph.compare import LITERAL, PassRecord, check_crops, check_step, run_onnx
from lmedge.export.graph.lint_qdq.operators import qoperator
from lmedge.export.graph.lint_qdq.placement import unpaired
from lmedge.export.graph.qdq_edits import drop_unread
from lmedge.export.graph.qdq_graph import DEQUANTIZE, QUANTIZE, QdqGraph
from lmedge.export.graph.qdq_rewrites import MIDDLE, unsigned_zero_point

__all__ = ["DEQUANTIZE", "QUANTIZE", "REWRITES", "Rewrite", "check_possible", "legalize_checked", "legalize_qdq"]

# An exact rewrite gives the same numbers; what is left is the order of sums.
EXACT_PX = 1e-3
# Any other one adds or takes away roundings to 8 bits: up to 1.7 px on trained networks. Wrong ones move points by 20 and more.
ROUNDING_PX = 3.0


@dataclass(frozen=True)
class Rewrite:
    """One step: `name`, `apply`, which changes a graph in place, and whether it keeps every number."""

    name: str
    apply: Callable[[onnx.GraphProto], None]
    exact: bool


REWRITES = (
    Rewrite("image cast to float first", move_casts, exact=True),
    Rewrite("one scale per activation", qdq_rewrites.share_scale, exact=False),
    Rewrite("uint8 with zero point 128 to int8", qdq_rewrites.sign_middle, exact=True),
    Rewrite("uint8 with zero point 0 to int8", qdq_rewrites.sign_lowest, exact=False),
    Rewrite("biases in float", qdq_rewrites.float_biases, exact=True),
    Rewrite("no pair on outputs", qdq_rewrites.float_outputs, exact=False),
    Rewrite("head in float", qdq_rewrites.float_head, exact=False),
    Rewrite("no pair between a layer and its activation", qdq_rewrites.join_activations, exact=False),
    Rewrite("half-quantised layers in float", qdq_rewrites.float_half_layers, exact=False),
    Rewrite("no pair without a layer", qdq_rewrites.drop_idle_pairs, exact=False),
    Rewrite("residual adds quantised on the skip input only", qdq_rewrites.join_residuals, exact=False),
)


def legalize_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after all rewrites; the given one is not changed, and a legal one comes back as it is.

    Raises:
        ExportError: a tensor is quantised with a type or zero point that no rewrite can make symmetric int8, or an operator
            computes on integers.
    """
    check_possible(model)
    legal = _without_unread(model)
    for rewrite in REWRITES:
        rewrite.apply(legal.graph)
    return legal


def legalize_checked(
    model: onnx.ModelProto, crops_uint8: npt.NDArray[np.uint8], *, rounding_px: float = ROUNDING_PX
) -> tuple[onnx.ModelProto, list[PassRecord]]:
    """`legalize_qdq`, with each rewrite compared to the graph before it on real crops, computed as written.

    Args:
        crops_uint8: (N, H, W, 3) BGR.
        rounding_px: how far a rewrite that changes roundings may move a point, in pixels of the crop; exact ones: 0.001.

    Returns:
        The legal graph, and a record of each rewrite that changed something.

    Raises:
        ExportError: as `legalize_qdq`, or a rewrite that moves a point further or makes an invalid graph.
        InputError: the crops are no crops.
    """
    check_crops(crops_uint8)
    check_possible(model)
    legal, records = _without_unread(model), []
    answers = run_onnx(legal, crops_uint8, settings=LITERAL)
    for rewrite in REWRITES:
        before = _copy(legal)
        rewrite.apply(legal.graph)
        if legal != before:
            limit_px = EXACT_PX if rewrite.exact else rounding_px
            records.append(check_step(rewrite.name, legal, crops_uint8, answers, limit_px, settings=LITERAL))
            answers = run_onnx(legal, crops_uint8, settings=LITERAL)
    return legal, records


def check_possible(model: onnx.ModelProto) -> None:
    """Refuses a graph that no rewrite can make symmetric int8 in pairs.

    Raises:
        ExportError: naming the tensor with its type and zero point, or the operator that works on integers.
    """
    view = QdqGraph(model.graph)
    for rule in (qoperator, unpaired):
        if found := rule.findings(view):
            raise ExportError(f"No rewrite makes pairs of a graph that computes on bare integers. {found[0]}")
    for node in view.quantisers:
        if not _can_be_symmetric(view, node):
            pair = view.pair(node.output[0])
            name = pair.source if pair else node.input[0]
            kind = TensorProto.DataType.Name(view.quantised_type(node)).lower()
            zero_point = view.array(node.input[2]) if len(node.input) > 2 else None
            shown = "no constant" if zero_point is None else ", ".join(map(str, np.unique(zero_point)[:3]))
            raise ExportError(
                f"The tensor {name!r} is quantised to {kind} with zero point {shown}; no rewrite makes that symmetric int8 "
                "without new ranges. Quantise again with symmetric activations: in ONNX Runtime quantize_static(..., "
                "extra_options={'ActivationSymmetric': True}), in NNCF preset=QuantizationPreset.PERFORMANCE."
            )


def _can_be_symmetric(view: QdqGraph, quantiser: onnx.NodeProto) -> bool:
    kind, weights = view.quantised_type(quantiser), view.holds_weights(quantiser)
    if weights and kind == TensorProto.INT32:
        return True
    if quantiser.op_type != QUANTIZE and view.before_moves(quantiser.input[0]) in view.inputs:
        # The caller of the network makes these values, so they must be right already.
        return kind == TensorProto.INT8 and unsigned_zero_point(view, quantiser) == MIDDLE
    return unsigned_zero_point(view, quantiser) in ((MIDDLE,) if weights else (0, MIDDLE))


def _without_unread(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without nodes and weights that lead to no output."""
    copied = _copy(model)
    drop_unread(copied.graph)
    return copied


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied
