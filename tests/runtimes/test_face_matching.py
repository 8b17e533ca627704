"""Which face is which, from overlaps alone."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge.landmarks import FaceBox, Landmarks
from lmedge.runtimes.face_matching import extent, is_on_one_of, missed_near, one_for_each_face, seen_at
from tests.bundles import SCHEMA
from tests.runtimes.played_faces import SHAPE


def face_at(x: float, side: float = 60.0) -> Landmarks:
    points = (SHAPE * side + [x, 50.0]).astype(np.float32)
    return Landmarks(points, SCHEMA, FaceBox.around(points))


def box_at(x: float, side: float = 60.0) -> FaceBox:
    return extent(face_at(x, side))


def test_the_extent_of_the_points_is_the_next_box() -> None:
    assert extent(face_at(10.0)) == FaceBox(10.0, 50.0, 70.0, 110.0)


@pytest.mark.parametrize(("x", "same"), [(0.0, True), (15.0, True), (30.0, False), (100.0, False)])
def test_points_that_overlap_by_half_lie_on_one_face(x: float, same: bool) -> None:
    assert is_on_one_of(face_at(x), [face_at(300.0), face_at(0.0)]) is same
    assert not is_on_one_of(face_at(x), [])


def test_a_face_belongs_to_the_identity_that_moved_less_to_get_there() -> None:
    seen = {1: face_at(50.0), 2: face_at(50.0), 3: face_at(200.0)}
    assert set(one_for_each_face(seen, {1: box_at(80.0), 2: box_at(52.0), 3: box_at(150.0)})) == {2, 3}


def test_of_two_that_moved_alike_it_is_the_older() -> None:
    seen = {2: face_at(50.0), 1: face_at(50.0)}
    assert set(one_for_each_face(seen, {1: box_at(50.0), 2: box_at(50.0)})) == {1}


def test_a_lost_identity_takes_no_face_from_one_that_is_followed() -> None:
    seen = {1: face_at(50.0), 2: face_at(50.0), 3: face_at(200.0)}
    boxes = {1: box_at(50.0), 2: box_at(70.0), 3: box_at(200.0)}
    assert set(one_for_each_face(seen, boxes, lost={1, 3})) == {2, 3}


def test_a_detection_confirms_the_face_that_it_overlaps_most() -> None:
    seen = {1: face_at(0.0), 2: face_at(40.0)}
    assert seen_at(box_at(30.0), seen) == 2
    assert seen_at(box_at(8.0), seen) == 1
    assert seen_at(box_at(80.0), seen) is None
    assert seen_at(box_at(0.0), {}) is None


def test_a_lost_face_is_taken_up_near_where_it_was_lost() -> None:
    missed = {1: box_at(0.0), 2: box_at(100.0)}
    assert missed_near(box_at(90.0), missed, 1.0) == 2
    assert missed_near(box_at(-59.0), missed, 1.0) == 1
    assert missed_near(box_at(-61.0), missed, 1.0) is None
    assert missed_near(box_at(-61.0), missed, 1.1) == 1
    assert missed_near(box_at(0.0), {}, 1.0) is None
