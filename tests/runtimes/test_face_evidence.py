"""Is it still a face: by confidence where the network gives it, else by the geometry of the points."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.runtimes.face_evidence import FaceLimits, in_place, is_new_face, is_same_face, mean_confidence, shape_change
from tests.bundles import SCHEMA

IMAGE_HW = (240, 320)
LIMITS = FaceLimits()
FACE = np.array([[120.0, 90.0], [180.0, 90.0], [150.0, 120.0], [128.0, 150.0], [172.0, 150.0]])


def face(points_px: npt.ArrayLike = FACE, confidence: float | None = None) -> Landmarks:
    sure = None if confidence is None else np.full(5, confidence, np.float32)
    return Landmarks(np.asarray(points_px, np.float32), SCHEMA, FaceBox(100, 70, 200, 170), sure)


def test_a_new_face_has_to_be_surer_than_a_known_one() -> None:
    between = (LIMITS.found_confidence + LIMITS.lost_confidence) / 2
    assert is_new_face(face(confidence=0.9), IMAGE_HW, LIMITS)
    assert not is_new_face(face(confidence=between), IMAGE_HW, LIMITS)
    assert is_same_face(face(confidence=between), face(), IMAGE_HW, LIMITS)
    assert not is_same_face(face(confidence=0.2), face(), IMAGE_HW, LIMITS)


def test_without_confidence_a_detector_is_believed() -> None:
    assert is_new_face(face(), IMAGE_HW, LIMITS)
    assert mean_confidence(face()) is None
    assert mean_confidence(face(confidence=0.25)) == 0.25


def test_confidence_outweighs_geometry() -> None:
    opened = FACE + [[0, 0], [0, 0], [0, 0], [0, 30], [0, 30]]
    assert is_same_face(face(opened, 0.9), face(confidence=0.9), IMAGE_HW, LIMITS)
    assert not is_same_face(face(opened), face(), IMAGE_HW, LIMITS)


@pytest.mark.parametrize(("zoom", "same"), [(1.05, True), (0.95, True), (1.6, False), (0.6, False)])
def test_without_confidence_a_face_does_not_change_its_size_at_once(zoom: float, same: bool) -> None:
    assert is_same_face(face(150 + zoom * (FACE - 150)), face(), IMAGE_HW, LIMITS) is same


@pytest.mark.parametrize("confidence", [None, 0.9])
@pytest.mark.parametrize(
    "points",
    [
        FACE - [160, 0],
        FACE + [175, 0],
        FACE - [0, 125],
        FACE + [0, 125],
        150 + 0.1 * (FACE - 150),
        FACE * [1, 0] + [0, 100],
        FACE * 0 + 100,
    ],
    ids=["left", "right", "above", "below", "tiny", "a line", "one spot"],
)
def test_points_outside_the_image_or_without_area_are_no_face(
    points: npt.NDArray[np.float64], confidence: float | None
) -> None:
    found = face(points, confidence)
    assert not in_place(found, IMAGE_HW, LIMITS)
    assert not is_new_face(found, IMAGE_HW, LIMITS)
    assert not is_same_face(found, found, IMAGE_HW, LIMITS)


def test_a_face_half_in_the_image_still_is_one() -> None:
    assert in_place(face(FACE - [145, 0]), IMAGE_HW, LIMITS)


@given(st.floats(-180, 180), st.floats(0.1, 10), st.floats(-500, 500), st.floats(-500, 500))
def test_shift_turn_and_size_are_no_change_of_shape(degrees: float, scale: float, x: float, y: float) -> None:
    turn = math.radians(degrees)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    assert shape_change(FACE, scale * FACE @ rotation.T + [x, y]) < 1e-6


def test_a_mirrored_face_has_another_shape() -> None:
    lopsided = FACE + [[0, 0], [0, 20], [10, 0], [0, 0], [0, 0]]
    assert shape_change(lopsided, lopsided * [-1, 1]) > 0.05


def test_the_change_is_measured_in_sides_of_the_face() -> None:
    # Two points go apart and two together by 4 px: no shift, turn or size in it. The longer side is then 64 px.
    moved = np.array([[0, 0], [60, 0], [0, 60], [60, 60]]) + np.array([[-2, 0], [2, 0], [2, 0], [-2, 0]])
    square = np.array([[0, 0], [60, 0], [0, 60], [60, 60]])
    assert shape_change(square, moved) == pytest.approx(2 / 64, rel=0.01)
    assert shape_change(square, square * 0) == math.inf


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"found_confidence": 0.2, "lost_confidence": 0.3}, "lost_confidence <= found_confidence"),
        ({"found_confidence": 1.2}, "found_confidence"),
        ({"lost_confidence": math.nan}, "lost_confidence"),
        ({"size_ratio": (1.1, 1.4)}, "size_ratio"),
        ({"size_ratio": (0.7, 0.9)}, "size_ratio"),
        ({"shape_change": 0.0}, "shape_change"),
        ({"least_side_px": -1.0}, "least_side_px"),
    ],
)
def test_limits_without_meaning_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FaceLimits(**fields)  # type: ignore[arg-type]
