"""Boxes and landmarks are checked when they are made, and cannot change afterwards."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import MMLAB_5

BOX = FaceBox(10, 20, 40, 80, score=0.9, kind="yunet")
POINTS = np.array([[15, 30], [35, 30], [25, 45], [17, 60], [33, 60]], np.float32)


def test_a_box_measures_in_point_coordinates() -> None:
    assert (BOX.width, BOX.height, BOX.center) == (30, 60, (25, 50))
    assert BOX.xyxy.tolist() == [10, 20, 40, 80]


@pytest.mark.parametrize(
    "corners",
    [
        (10, 20, 10, 80),
        (10, 20, 40, 20),
        (40, 20, 10, 80),
        (10, 80, 40, 20),
        (math.nan, 20, 40, 80),
        (10, 20, math.inf, 80),
    ],
    ids=["no width", "no height", "x swapped", "y swapped", "not a number", "infinite"],
)
def test_a_box_without_an_area_is_refused(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match=r"finite x_min < x_max and y_min < y_max; got x .* in pixels\."):
        FaceBox(*corners)


def test_a_box_around_points_is_their_extent() -> None:
    box = FaceBox.around(POINTS)
    assert box.xyxy.tolist() == [15, 30, 35, 60]
    assert (box.kind, box.score) == ("reference", None)


def test_unknown_points_do_not_count_for_the_extent() -> None:
    points = np.vstack([POINTS, [[math.nan, 500], [500, math.inf], [math.nan, math.nan]]])
    assert FaceBox.around(points).xyxy.tolist() == [15, 30, 35, 60]


@pytest.mark.parametrize("points", [np.full((5, 2), np.nan), POINTS[:1], np.repeat(POINTS[:1], 5, axis=0)])
def test_no_box_without_two_distinct_points(points: npt.NDArray[np.float32]) -> None:
    with pytest.raises(InputError):
        FaceBox.around(points)


def test_landmarks_keep_their_own_copy() -> None:
    points = POINTS.copy()
    face = Landmarks(points, MMLAB_5, BOX, confidence=np.full(5, 0.5, np.float32))
    points[0] = 0
    assert face.points_px[0].tolist() == [15, 30]
    with pytest.raises(ValueError, match="read-only"):
        face.points_px[0] = 0
    assert face.confidence is not None
    with pytest.raises(ValueError, match="read-only"):
        face.confidence[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        face.points_px = points  # type: ignore[misc]


@pytest.mark.parametrize(
    "points",
    [
        POINTS[:4],
        POINTS.T,
        POINTS[None],
        POINTS.ravel(),
        np.where(POINTS == 45, np.nan, POINTS),
        np.where(POINTS == 45, np.inf, POINTS),
    ],
    ids=["four points", "x and y apart", "with a batch", "flat", "not a number", "infinite"],
)
def test_points_of_another_shape_are_refused(points: npt.NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match=r"points_px of MMLAB_5 must be finite and \(5, 2\); got shape"):
        Landmarks(points, MMLAB_5, BOX)


@pytest.mark.parametrize("confidence", [[0.5] * 4, [0.5] * 4 + [1.01], [0.5] * 4 + [-0.01], [0.5] * 4 + [math.nan]])
def test_confidence_is_one_share_per_point(confidence: list[float]) -> None:
    with pytest.raises(InputError, match=r"confidence must be \(5,\) in \[0, 1\]"):
        Landmarks(POINTS, MMLAB_5, BOX, confidence=np.array(confidence, np.float32))


def test_json_has_everything_a_program_needs() -> None:
    face = Landmarks(POINTS + np.float32(0.00049), MMLAB_5, BOX, confidence=np.linspace(0, 1, 5, dtype=np.float32))
    assert json.loads(json.dumps(face.to_json())) == {
        "schema": "MMLAB_5",
        "points_px": POINTS.tolist(),
        "confidence": [0, 0.25, 0.5, 0.75, 1],
        "box_xyxy": [10, 20, 40, 80],
        "box_kind": "yunet",
    }
    assert Landmarks(POINTS, MMLAB_5, BOX).to_json()["confidence"] is None
