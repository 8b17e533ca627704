"""A graph → an equivalent one with fewer nodes: constants folded, duplicates merged, arithmetic on shapes done at build time.

torch's exporter folds batch norm and most constants itself, and then there is nothing left to do; programs that compute with
the size of their batch leave chains of Shape, Gather and Concat, which onnxslim folds where it can.
"""

from __future__ import annotations

import onnx
import onnxslim

from lmedge.errors import ExportError


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxslim's clean-up; the names of inputs and outputs stay.

    Raises:
        ExportError: onnxslim gave no model back.
    """
    slimmed = onnxslim.slim(model)
    if not isinstance(slimmed, onnx.ModelProto):
        raise ExportError(f"onnxslim {onnxslim.__version__} returned {type(slimmed).__name__} instead of a model.")
    return slimmed
