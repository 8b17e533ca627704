"""Meshes: splines go through their points, triangles cover the picture once, contours are interpolated."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lmedge.apps.filters import Layer
from lmedge.apps.filters.mesh import layer_mesh, spline_weights, third_point
from lmedge.apps.triangulation import doubled_areas
from lmedge.schemas import IBUG_68
from tests.apps.filters.faces import face, solid

coordinates = st.tuples(st.integers(0, 200), st.integers(0, 100))
place_lists = st.lists(coordinates, min_size=3, max_size=9, unique=True).map(lambda places: np.array(places, float))
numbers = st.floats(-2, 2)


def well_spread(points: np.ndarray) -> bool:
    wide, narrow = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    nearest = min(np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i])
    return bool(narrow > 0.1 * wide and nearest > 5)


@given(points=place_lists, seed=st.integers(0, 1000))
def test_a_spline_takes_every_point_to_its_place(points: np.ndarray, seed: int) -> None:
    assume(well_spread(points))
    places = np.random.default_rng(seed).uniform(0, 300, points.shape)
    np.testing.assert_allclose(spline_weights(points, points) @ places, places, atol=1e-6)


@given(points=place_lists, linear=st.tuples(numbers, numbers, numbers, numbers), shift=st.tuples(numbers, numbers))
def test_a_spline_of_points_moved_by_an_affine_map_is_that_map(points: np.ndarray, linear: tuple, shift: tuple) -> None:
    assume(well_spread(points))
    matrix, targets = np.array(linear).reshape(2, 2), np.array([[-50.0, 20.0], [100.0, 50.0], [300.0, 300.0]])
    moved = spline_weights(points, targets) @ (points @ matrix.T + shift)
    np.testing.assert_allclose(moved, targets @ matrix.T + shift, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_sticker_mesh_covers_its_picture_and_holds_its_points(count: int) -> None:
    places = [(50.0, 30.0), (150.0, 35.0), (100.0, 80.0), (20.3, 90.1), (180.0, 12.0)][:count]
    names = ["right_eye", "left_eye", "chin", "nose_tip", "nose_base"]
    binding = dict(zip(names, places, strict=False))
    mesh = layer_mesh(Layer("sticker", solid(), (binding,)), binding)
    assert doubled_areas(mesh.picture_px, mesh.triangles).sum() == pytest.approx(2 * 200 * 100)
    bound = np.array(places) if count > 2 else np.vstack([places, third_point(*np.array(places))])
    np.testing.assert_allclose(mesh.weights @ bound, mesh.picture_px, atol=1e-6)
    if count > 3:
        moved = np.random.default_rng(0).uniform(0, 300, (count, 2))
        for place, goal in zip(places, moved, strict=True):
            (vertex,) = np.flatnonzero(np.abs(mesh.picture_px - place).sum(axis=1) < 1e-9)
            np.testing.assert_allclose(mesh.weights[vertex] @ moved, goal, atol=1e-6)


def test_parts_of_a_picture_that_show_nothing_have_no_triangles() -> None:
    places = [(50.0, 30.0), (150.0, 35.0), (100.0, 80.0), (20.3, 90.1), (180.0, 12.0)]
    binding = dict(zip(["right_eye", "left_eye", "chin", "nose_tip", "nose_base"], places, strict=True))
    clear, whole = solid(alpha=0), layer_mesh(Layer("sticker", solid(), (binding,)), binding)
    clear[40:60, 20:60, 3] = 255
    mesh = layer_mesh(Layer("sticker", clear, (binding,)), binding)
    kept = {tuple(triangle) for triangle in mesh.triangles.tolist()}
    shown = np.zeros((100, 200), np.uint8)
    for triangle in whole.triangles.tolist():
        mask = np.zeros((100, 200), np.uint8)
        cv2.fillConvexPoly(mask, np.rint(whole.picture_px[triangle]).astype(np.int32), 1)
        if tuple(triangle) in kept:
            shown |= mask
        else:
            assert not clear[mask > 0][:, 3].any(), "what is left out shows nothing"
    assert shown[40:60, 20:60].all()
    assert 0 < len(kept) < len(whole.triangles) / 2
    assert len(layer_mesh(Layer("sticker", solid(alpha=0), (binding,)), binding).triangles) == 0


def test_a_warp_follows_contours_between_its_points() -> None:
    """The middles of the contour lie outside the chords, where the jaw is."""
    found = face(IBUG_68)
    binding = {name: (float(x), float(y)) for name, (x, y) in zip(IBUG_68.point_names, found.points_px, strict=True)}
    mesh = layer_mesh(Layer("warp", solid(hw=(640, 640)), (binding,)), binding)
    segments = sum(len(curve.indices) - (not curve.closed) for curve in IBUG_68.curves)
    assert len(mesh.picture_px) == 68 + segments
    np.testing.assert_allclose(mesh.weights.sum(axis=1), 1)
    middle_of_jaw = mesh.picture_px[68:][:16]
    chords = (found.points_px[:16] + found.points_px[1:17]) / 2
    centre = found.points_px[30]
    outside = np.linalg.norm(middle_of_jaw - centre, axis=1) - np.linalg.norm(chords - centre, axis=1)
    assert outside.mean() > 0.2


def test_without_a_pose_the_third_point_stands_at_a_right_angle_below() -> None:
    np.testing.assert_allclose(third_point(np.array([0.0, 0.0]), np.array([10.0, 0.0])), [5, 10])
