"""Face landmarks on edge devices: from labelled faces to a verified bundle, and from a bundle to landmarks.

    from lmedge import FaceLandmarker
    with FaceLandmarker.open("bundle/", backend="onnxruntime", precision="int8") as landmarker:
        faces = landmarker.predict(image_bgr, boxes_xyxy)

Nothing here needs torch or onnx. Names are loaded when they are first used, so that importing lmedge is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmedge import errors
    from lmedge.bundle import Bundle
    from lmedge.landmarks import FaceBox, Landmarks
    from lmedge.pose import Camera, HeadPose, head_pose
    from lmedge.runtimes.base import Runtime
    from lmedge.runtimes.detector import yunet_detector
    from lmedge.runtimes.gates import GateLimits
    from lmedge.runtimes.health import HealthLimits, HealthMonitor, HealthState
    from lmedge.runtimes.landmarker import FaceLandmarker
    from lmedge.runtimes.latest_frame import LatestFrame
    from lmedge.runtimes.parity import assert_parity
    from lmedge.runtimes.pool import LandmarkerPool
    from lmedge.runtimes.real_time import RealTimeLandmarker, TimedFaces
    from lmedge.runtimes.tracker import FaceTracker, TrackedFace
    from lmedge.schemas import LandmarkSchema, get_schema

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Camera",
    "FaceBox",
    "FaceLandmarker",
    "FaceTracker",
    "GateLimits",
    "HeadPose",
    "HealthLimits",
    "HealthMonitor",
    "HealthState",
    "LandmarkSchema",
    "LandmarkerPool",
    "Landmarks",
    "LatestFrame",
    "RealTimeLandmarker",
    "Runtime",
    "TimedFaces",
    "TrackedFace",
    "__version__",
    "assert_parity",
    "errors",
    "get_schema",
    "head_pose",
    "yunet_detector",
]

_HOME = {
    "Bundle": "lmedge.bundle",
    "Camera": "lmedge.pose",
    "FaceBox": "lmedge.landmarks",
    "FaceLandmarker": "lmedge.runtimes.landmarker",
    "FaceTracker": "lmedge.runtimes.tracker",
    "GateLimits": "lmedge.runtimes.gates",
    "HeadPose": "lmedge.pose",
    "HealthLimits": "lmedge.runtimes.health",
    "HealthMonitor": "lmedge.runtimes.health",
    "HealthState": "lmedge.runtimes.health",
    "LandmarkSchema": "lmedge.schemas",
    "LandmarkerPool": "lmedge.runtimes.pool",
    "Landmarks": "lmedge.landmarks",
    "LatestFrame": "lmedge.runtimes.latest_frame",
    "RealTimeLandmarker": "lmedge.runtimes.real_time",
    "Runtime": "lmedge.runtimes.base",
    "TimedFaces": "lmedge.runtimes.real_time",
    "TrackedFace": "lmedge.runtimes.tracker",
    "assert_parity": "lmedge.runtimes.parity",
    "get_schema": "lmedge.schemas",
    "head_pose": "lmedge.pose",
    "yunet_detector": "lmedge.runtimes.detector",
}


def __getattr__(name: str) -> Any:
    """Loads a public name on first use (PEP 562)."""
    if name == "errors":
        return importlib.import_module("lmedge.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'lmedge' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
