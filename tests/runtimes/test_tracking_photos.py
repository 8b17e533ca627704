"""Tracking with a trained network: a rendered face in motion, and two people in a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lmedge import FaceBox, FaceLandmarker
from lmedge.data.synthetic import HeadPose, Scene, render_face
from lmedge.runtimes.detector import yunet_detector
from lmedge.runtimes.tracker import FaceTracker
from lmedge.schemas import IBUG_68
from tests import requirements

TWO_PEOPLE = "head-pose-face-detection-female-and-male.gif"


@pytest.fixture(scope="module")
def landmarker() -> Iterator[FaceLandmarker]:
    requirements.require("onnxruntime")
    with FaceLandmarker.open("zoo:ibug68", threads=1) as opened:
        yield opened


def test_a_face_that_moves_and_vanishes(landmarker: FaceLandmarker) -> None:
    """30 frames at 1 face per second, then only the background: followed all the way, and lost at once."""
    drawn = render_face((7, 1), 160, Scene(pose=HeadPose(), plain=True))
    points = drawn.points(IBUG_68)
    side_px = float(np.ptp(points, axis=0).max())

    def frame(way_px: float) -> npt.NDArray[np.uint8]:
        place = np.array([[1.0, 0.0, 20.0 + way_px], [0.0, 1.0, 30.0]])
        return np.asarray(cv2.warpAffine(drawn.image_bgr, place, (420, 240), borderValue=(128, 128, 128)), np.uint8)

    tracker = FaceTracker(landmarker)
    first = [FaceBox.around(points + [20.0, 30.0])]
    for number in range(30):
        way_px = number / 30 * side_px
        [face] = tracker.update(frame(way_px), number / 30, first if number == 0 else None)
        off_px = np.linalg.norm(face.landmarks.points_px - (points + [20.0 + way_px, 30.0]), axis=1).mean()
        assert off_px < 0.04 * side_px
        assert face.identity == 1
        assert face.confidence is not None
    blank = np.full((240, 420, 3), 128, np.uint8)
    assert [tracker.update(blank, 1 + number / 30) for number in range(3)] == [[]] * 3


@pytest.mark.data
def test_two_people_keep_their_identities(landmarker: FaceLandmarker, data_folder: Path) -> None:
    detector = data_folder.parent / "models" / "face_detection_yunet.onnx"
    if not (detector.is_file() and (data_folder / "video" / TWO_PEOPLE).is_file()):
        pytest.skip(f"no detector at {detector}, or no video")
    capture = cv2.VideoCapture(str(data_folder / "video" / TWO_PEOPLE))
    tracker = FaceTracker(landmarker, yunet_detector(detector), every=30)
    order = set()
    for number in range(40):
        faces = tracker.update(np.asarray(capture.read()[1], np.uint8), number / 12.5)
        order.add(tuple(face.identity for face in sorted(faces, key=lambda one: one.landmarks.box.x_min)))
    assert len(order) == 1
    assert sorted(order.pop()) == [1, 2]
    assert tracker.counts.detector_calls == 2
