"""The last step of an int8 network, when its numbers stand: what engines read faster, or read in different ways.

* both: scales that training has moved go back to where engines cannot round differently (`snap_scales`);
* portable: biases rounded to the steps of their sums, as ONNX Runtime rounds them and others do not (`round_biases`);
* x86: the layout that the integer kernels of CPUs are fast with (`x86_layout`).

`place_qdq` writes graphs as training and measuring read them, so this comes after both. Doing it twice does nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmedge.calibration.place_qdq import PORTABLE, Dialect
from lmedge.export.graph.round_biases import round_biases
from lmedge.export.graph.snap_scales import snap_scales
from lmedge.export.graph.strip import strip
from lmedge.export.graph.x86_layout import lay_out_for_x86

if TYPE_CHECKING:
    import onnx


def finish_qdq(model: onnx.ModelProto, dialect: Dialect) -> onnx.ModelProto:
    """The finished graph; the given one is not changed."""
    snapped = snap_scales(model)
    return strip(round_biases(snapped) if dialect == PORTABLE else lay_out_for_x86(snapped))
