"""Q/DQ graphs with plain min-max ranges, as `place_qdq` writes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from lmedge.calibration.place_qdq import Dialect, Ranges, place_qdq, quantised_tensors
from lmedge.export.graph.compare import INPUT, open_session


def quantised(model: onnx.ModelProto, dialect: Dialect, crops_uint8: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    return place_qdq(model, min_max(model, crops_uint8), dialect)


def min_max(model: onnx.ModelProto, crops_uint8: npt.NDArray[np.uint8]) -> Ranges:
    """Least and greatest value of every tensor that gets a quantiser."""
    watched, names = onnx.ModelProto(), quantised_tensors(model)
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    values = open_session(watched, threads=1).run(names, {INPUT: crops_uint8})
    return {name: (value.min(), value.max()) for name, value in zip(names, values, strict=True)}
