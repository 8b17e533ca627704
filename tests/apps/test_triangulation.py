"""Triangles over points: they turn one way and cover the hull once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.apps.triangulation import delaunay, doubled_areas

places = st.tuples(st.integers(0, 200), st.integers(0, 100))
place_lists = st.lists(places, min_size=3, max_size=9, unique=True).map(lambda chosen: np.array(chosen, float))


@given(points=place_lists)
def test_triangles_turn_one_way_and_cover_the_hull_once(points: np.ndarray) -> None:
    square = np.array([[-300.0, -300.0], [500.0, -300.0], [500.0, 400.0], [-300.0, 400.0]])
    corners = np.concatenate([square, points])
    areas = doubled_areas(corners, delaunay(corners))
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(2 * 800 * 700, rel=1e-3)


@given(points=place_lists)
def test_no_point_lies_inside_the_circle_around_a_triangle(points: np.ndarray) -> None:
    """Delaunay's property, by the sign of the determinant that tells the inside of a circle."""
    corners = np.concatenate([[[-300.0, -300.0], [500.0, -310.0], [520.0, 400.0], [-290.0, 410.0]], points])
    for triangle in delaunay(corners):
        offsets = corners[triangle][None] - corners[:, None]
        rows = np.concatenate([offsets, (offsets**2).sum(axis=2, keepdims=True)], axis=2)
        inside = np.linalg.det(rows)
        scale = np.linalg.norm(rows, axis=2).prod(axis=1)
        assert (inside <= 1e-4 * scale + 1e-6).all()


def test_of_points_on_one_spot_the_first_counts() -> None:
    corners = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 0.0]])
    assert sorted(delaunay(corners)[0].tolist()) == [0, 1, 2]
