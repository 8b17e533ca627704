"""QuantizeLinear and DequantizeLinear as the ONNX specification has them, written apart from the package."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.calibration.place_qdq import PORTABLE, Dialect


def fake_quantised(values: npt.NDArray[np.float64], ends: tuple[Any, Any], dialect: Dialect) -> npt.NDArray[np.float64]:
    """What the two make of values in a dialect, for a range that is widened to include zero."""
    low, high = min(float(ends[0]), 0.0), max(float(ends[1]), 0.0)
    if dialect == PORTABLE:
        scale = max(-low, high) / 127
        return np.asarray(np.clip(np.rint(values / scale), -128, 127) * scale)
    scale = (high - low) / 255
    zero_point = np.rint(-low / scale)
    return np.asarray((np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale)
