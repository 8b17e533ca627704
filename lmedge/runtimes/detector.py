"""Face boxes from a YuNet file with OpenCV (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", MIR 2023), or boxes
that are known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import check_image

YUNET = "yunet"

Detector = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]]

_SCORE = 0.6
_OVERLAP = 0.3
# YuNet was trained on faces of 10 to 300 px; larger images are searched at this size of their longer side.
_LONGEST_PX = 640


def yunet_detector(model_file: str | Path, *, min_score: float = _SCORE) -> Detector:
    """A detector: image uint8 BGR (H, W, 3) → boxes (M, 5), x_min, y_min, x_max, y_max in pixels and the score, best first.

    Its boxes are of kind "yunet"; bundles know how these frame a face.

    Raises:
        InputError: no such file, or not one that OpenCV can load.
    """
    if not Path(model_file).is_file():
        raise InputError(f"No detector at {model_file}. Get face_detection_yunet_2023mar.onnx from the OpenCV Zoo.")
    # OpenCV 5 warns of a target that it then ignores.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        network = cv2.FaceDetectorYN.create(str(model_file), "", (_LONGEST_PX, _LONGEST_PX), min_score, _OVERLAP)
    except cv2.error as error:
        raise InputError(f"OpenCV cannot load {model_file} as a YuNet detector: {error.err}.") from error
    finally:
        cv2.utils.logging.setLogLevel(level)

    def detect(image_bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        image = check_image(image_bgr)
        height, width = image.shape[:2]
        zoom = min(1.0, _LONGEST_PX / max(height, width))
        size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        small = image if zoom == 1.0 else np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        network.setInputSize(size)
        found = network.detect(small)[1]
        if found is None:
            return np.zeros((0, 5))
        faces = np.asarray(found, np.float64)
        corners = np.hstack([faces[:, :2], faces[:, :2] + faces[:, 2:4]]) / zoom
        boxes = np.hstack([corners, faces[:, -1:]])
        return boxes[np.argsort(-boxes[:, 4], kind="stable")]

    return detect


def given_boxes(boxes: Sequence[FaceBox] = ()) -> Callable[[npt.NDArray[np.uint8]], list[FaceBox]]:
    """In place of a detector: always answers these boxes; without any, the whole image as one face."""

    def detect(image_bgr: npt.NDArray[np.uint8]) -> list[FaceBox]:
        height, width = check_image(image_bgr).shape[:2]
        return list(boxes) or [FaceBox(0, 0, width - 1, height - 1)]

    return detect
