"""Q/DQ graphs of the stand-in network, with plain min-max ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from lmedge.calibration.place_qdq import Dialect, Ranges, place_qdq, quantised_tensors
from lmedge.export.graph.compare import INPUT, open_session


def quantised(fp32_onnx: Path, dialect: Dialect, crops_uint8: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    model = onnx.load(fp32_onnx)
    return place_qdq(model, min_max(model, crops_uint8), dialect)


def min_max(model: onnx.ModelProto, crops_uint8: npt.NDArray[np.uint8]) -> Ranges:
    """Least and greatest value of every tensor that gets a quantiser."""
    watched, names = onnx.ModelProto(), quantised_tensors(model)
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    values = open_session(watched, threads=1).run(names, {INPUT: crops_uint8})
    return {name: (value.min(), value.max()) for name, value in zip(names, values, strict=True)}
