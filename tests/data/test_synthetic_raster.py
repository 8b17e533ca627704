"""Triangles to pixels, and which points the pixels hide."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmedge.data.synthetic import HeadPose, Scene, render_face
from lmedge.data.synthetic import face as face_module
from lmedge.data.synthetic.raster import Neighbourhood, RasterizedMesh, rasterize, vertex_normals, visible_points
from lmedge.data.synthetic.surface import DrawnHead

SIZE = 24
SQUARE = np.array([[2.0, 2.0], [20.0, 2.0], [20.0, 20.0], [2.0, 20.0]])
TWO = np.array([[0, 1, 2], [0, 2, 3]])


def numbers(mesh: RasterizedMesh) -> np.ndarray:
    shown = np.full((SIZE, SIZE), -1)
    shown[mesh.rows, mesh.columns] = mesh.triangle
    return shown


def test_neighbours_leave_no_crack_and_share_no_pixel() -> None:
    shown = numbers(rasterize(SQUARE, np.zeros(4), TWO, SIZE))
    assert (shown[2:21, 2:21] >= 0).all()
    assert (shown >= 0).sum() == 19 * 19


@pytest.mark.parametrize("near", [0, 1])
def test_the_nearer_triangle_is_shown(near: int) -> None:
    points = np.concatenate([SQUARE[:3], SQUARE[:3] + (1, 0)])
    depth = np.repeat([-1.0 if near == 0 else 1.0, 0.0], 3)
    shown = numbers(rasterize(points, depth, np.array([[0, 1, 2], [3, 4, 5]]), SIZE))
    assert shown[5, 15] == near


def test_a_triangle_that_faces_away_is_not_shown() -> None:
    assert len(rasterize(SQUARE, np.zeros(4), TWO[:, ::-1], SIZE).rows) == 0


coordinate = st.floats(-10, SIZE + 10, allow_nan=False)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=3))
def test_a_triangle_covers_the_pixels_inside_it_and_interpolates_what_is_linear(corners: list[tuple[float, float]]) -> None:
    points = np.array(corners)
    a, b = points[1] - points[0], points[2] - points[0]
    area = a[0] * b[1] - a[1] * b[0]
    mesh = rasterize(points, np.zeros(3), np.array([[0, 1, 2]]), SIZE)
    if area < 1:
        assert area > 0 or len(mesh.rows) == 0
        return
    shown = numbers(mesh) >= 0
    inside = np.array(
        [
            [cv2.pointPolygonTest(points.astype(np.float32), (float(x), float(y)), True) for x in range(SIZE)]
            for y in range(SIZE)
        ]
    )
    assert shown[inside > 0.02].all()
    assert not shown[inside < -0.02].any()
    if area > 20:
        x, y = mesh.interpolate(points)
        np.testing.assert_allclose(x, mesh.columns, atol=0.05)
        np.testing.assert_allclose(y, mesh.rows, atol=0.05)


def test_normals_point_toward_the_camera() -> None:
    flat = np.column_stack([SQUARE, np.zeros(4)])
    np.testing.assert_allclose(vertex_normals(flat, TWO, Neighbourhood.of(TWO)), np.tile([0.0, 0.0, -1.0], (4, 1)))


def test_a_point_behind_the_surface_is_hidden_and_one_beside_it_is_not() -> None:
    depth_map = np.full((SIZE, SIZE), np.inf, np.float32)
    depth_map[5:15, 5:15] = 10.0
    points = np.array([[10.0, 10.0], [10.0, 10.0], [20.0, 20.0], [5.0, 10.0]])
    visible = visible_points(points, np.array([12.0, 20.0, 90.0, 90.0]), depth_map, np.full(4, 3.0))
    assert visible.tolist() == [True, False, True, True]


def test_hair_hides_a_point_unless_it_shows_behind_the_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[DrawnHead] = []
    original = face_module.draw_head

    def with_hair(*arguments: object) -> DrawnHead:
        head = original(*arguments)  # type: ignore[arg-type]
        heads.append(replace(head, hair_map=np.ones_like(head.hair_map)))
        return heads[-1]

    monkeypatch.setattr(face_module, "draw_head", with_hair)
    face = render_face((0, 0), 96, Scene(HeadPose(), plain=True))
    assert not face.visible[33:60].any()
    points = np.array([[40.0, 40.0], [40.0, 40.0]])
    here = float(heads[0].depth_map_mm[40, 40])
    assert heads[0].hair_over(points, np.array([here, here - 20])).tolist() == [True, False]
