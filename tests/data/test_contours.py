"""Smooth lines through the points of a contour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.contours import STEPS, smooth_lines
from lmedge.schemas import IBUG_68, Curve

OPEN = Curve("open", tuple(range(6)))
RING = Curve("ring", tuple(range(8)), closed=True)
CIRCLE = np.column_stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)])

places = st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000))
points = st.lists(places, min_size=6, max_size=6).map(lambda values: np.array(values) / 10)


@given(points=points)
def test_the_line_passes_through_every_point_in_order(points: np.ndarray) -> None:
    (line,) = smooth_lines(points, OPEN)
    np.testing.assert_array_equal(line[::STEPS], points)
    assert np.isfinite(line).all()


@given(points=points, shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_it_moves_and_grows_with_its_points(points: np.ndarray, shift: float, scale: float) -> None:
    (line,), (moved,) = smooth_lines(points, OPEN), smooth_lines(points * scale + shift, OPEN)
    np.testing.assert_allclose(moved, line * scale + shift, atol=1e-6)


def test_a_ring_is_nearly_a_circle_and_closes() -> None:
    (line,) = smooth_lines(CIRCLE, RING)
    np.testing.assert_array_equal(line[0], line[-1])
    radius = np.linalg.norm(line, axis=1)
    # Straight edges would come as near as 0.924.
    assert radius.min() > 0.98
    assert radius.max() < 1.02


def test_a_straight_line_stays_straight() -> None:
    (line,) = smooth_lines(np.column_stack([np.arange(6.0) ** 2, np.full(6, 3.0)]), OPEN)
    np.testing.assert_allclose(line[:, 1], 3)
    assert (np.diff(line[:, 0]) > 0).all()


def test_corners_stay_sharp() -> None:
    """The corner of an eye: the line comes in straight and leaves straight."""
    eye = np.array([[0, 0], [10, -5], [20, -5], [30, 0], [20, 5], [10, 5]], float)
    (line,) = smooth_lines(eye, Curve("eye", tuple(range(6)), closed=True))
    assert line[:, 0].min() == 0
    assert line[:, 0].max() == pytest.approx(30)


def test_unknown_points_interrupt_the_line() -> None:
    broken = np.column_stack([np.arange(6.0), np.zeros(6)])
    broken[2] = np.nan
    lines = smooth_lines(broken, OPEN)
    assert [(line[0, 0], line[-1, 0]) for line in lines] == [(0, 1), (3, 5)]
    ring = CIRCLE.copy()
    ring[3] = np.nan
    (before, after) = smooth_lines(ring, RING)
    np.testing.assert_array_equal([before[-1], after[0], after[-1]], [CIRCLE[2], CIRCLE[4], CIRCLE[0]])


def test_points_in_one_place_and_nothing_known_do_no_harm() -> None:
    np.testing.assert_array_equal(smooth_lines(np.ones((6, 2)), OPEN)[0], np.ones((5 * STEPS + 1, 2)))
    assert smooth_lines(np.full((6, 2), np.nan), OPEN) == []


@pytest.mark.parametrize("curve", IBUG_68.curves, ids=lambda curve: curve.name)
def test_every_curve_of_a_schema_has_one_line(curve: Curve) -> None:
    rng = np.random.default_rng(0)
    (line,) = smooth_lines(rng.uniform(0, 100, (68, 2)), curve)
    segments = len(curve.indices) - (not curve.closed)
    assert len(line) == segments * STEPS + 1
