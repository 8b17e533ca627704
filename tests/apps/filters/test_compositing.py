"""From meshes to pixels: sampling, what covers what, and the two ways of blending."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.apps.filters import Layer
from lmedge.apps.filters.compositing import Region, Texture, blend, cut_out, draw_mesh, fade, mesh_region
from lmedge.apps.filters.mesh import Mesh
from lmedge.schemas import IBUG_68
from tests.apps.filters.faces import face, landmarks, painter_of, solid

SQUARE = np.array([[-0.5, -0.5], [63.5, -0.5], [63.5, 63.5], [-0.5, 63.5]])
TWO = np.array([[0, 1, 2], [0, 2, 3]])
WHOLE = Region(0, 0, 64, 64)


def noise() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    return coarse.repeat(4, axis=0).repeat(4, axis=1)


def mesh_over(picture_px: np.ndarray, triangles: np.ndarray) -> Mesh:
    return Mesh(picture_px, np.eye(len(picture_px)), triangles)


def drawn_over(
    picture: np.ndarray,
    mesh: Mesh,
    vertices_px: np.ndarray,
    region: Region,
    depth: np.ndarray | None = None,
    *,
    opacity: float = 1.0,
) -> np.ndarray:
    return draw_mesh(Texture(picture, mesh, opacity), mesh, vertices_px, region, depth)


def test_a_picture_at_its_own_size_is_itself_times_alpha() -> None:
    picture = noise()
    drawn = drawn_over(picture, mesh_over(SQUARE, TWO), SQUARE, WHOLE)
    colours = picture[:, :, :3].astype(float) * (picture[:, :, 3:] / 255)
    np.testing.assert_allclose(drawn, np.concatenate([colours, picture[:, :, 3:]], axis=2), atol=0.51)


def test_a_picture_at_half_its_size_is_averaged_not_picked() -> None:
    picture = solid((0, 0, 0), (64, 64))
    picture[:, ::2] = 255
    drawn = drawn_over(picture, mesh_over(SQUARE, TWO), (SQUARE + 0.5) / 4 - 0.5, Region(0, 0, 16, 16))
    np.testing.assert_allclose(drawn[1:-1, 1:-1, 0], 127.5, atol=2)


@given(turn=st.floats(-0.6, 0.6), zoom=st.floats(0.7, 1.6), shift=st.tuples(st.floats(-8, 8), st.floats(-8, 8)))
def test_warped_by_an_affine_map_pixels_are_where_that_map_puts_them(turn: float, zoom: float, shift: tuple) -> None:
    """A ramp of colour tells for every pixel where in the picture it is from."""
    ramp = solid((0, 0, 0), (64, 64))
    ramp[:, :, 0], ramp[:, :, 1] = 3 * np.arange(64), 3 * np.arange(64)[:, None]
    linear = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    offset = np.array([50.0, 50.0]) - linear @ (31.5, 31.5) + shift
    fan = np.vstack([SQUARE, [[31.5, 31.5]]])
    mesh = mesh_over(fan, np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))
    drawn = drawn_over(ramp, mesh, fan @ linear.T + offset, Region(10, 5, 110, 105))
    rows, columns = np.nonzero(drawn[:, :, 3] == 255)
    source = (np.stack([columns + 10, rows + 5], axis=1) - offset) @ np.linalg.inv(linear).T
    inner = ((source > 2) & (source < 61)).all(axis=1)
    assert inner.sum() > 500
    # Zooms below 0.71 are drawn from the half picture; there the ramp steps by 6.
    np.testing.assert_allclose(drawn[rows, columns, :2][inner] / 3, source[inner], atol=0.5)


def exact_places(mesh: Mesh, vertices_px: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Where in the picture each pixel is from, (h, w, 2) by barycentric coordinates, NaN beside the mesh."""
    rows, columns = np.indices(hw)
    places = np.full((*hw, 2), np.nan)
    for triangle in mesh.triangles:
        sides = vertices_px[triangle[1:]] - vertices_px[triangle[0]]
        shares = (np.stack([columns, rows], axis=2) - vertices_px[triangle[0]]) @ np.linalg.inv(sides)
        inside = (shares.min(axis=2) >= 0) & (shares.sum(axis=2) <= 1)
        ends = mesh.picture_px[triangle]
        places[inside] = ends[0] + shares[inside] @ (ends[1:] - ends[0])
    return places


@pytest.mark.parametrize("side_px", [200, 420, 900])
def test_at_any_size_pixels_are_where_the_mesh_puts_them_and_nothing_is_drawn_beside_it(side_px: int) -> None:
    """Large regions are computed at a part of their pixels; a bent mesh, cut by a picture that is opaque all over."""
    ramp = solid((0, 0, 0), (side_px, side_px))
    ramp[:, :, 0] = np.arange(side_px) * 250 // side_px
    ramp[:, :, 1] = ramp[:, :, 0].T
    corners = np.array([[20.0, 30.0], [230.0, 20.0], [240.0, 225.0], [15.0, 235.0], [125.0, 120.0]]) * side_px / 250
    mesh = mesh_over(corners, np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))
    vertices = corners + np.array([(0, 0), (5, 9), (-8, 0), (0, -9), (11, 8)]) * side_px / 250
    drawn = drawn_over(ramp, mesh, vertices, Region(0, 0, side_px, side_px))
    places = exact_places(mesh, vertices, (side_px, side_px))
    on_mesh = np.isfinite(places).all(axis=2)
    inner, outer = (cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for mask in (on_mesh, ~on_mesh))
    distance = np.abs(drawn[inner][:, :2] - places[inner] * 250 / side_px)
    assert distance.max() < 1.6
    assert distance.mean() < 0.6
    assert (drawn[inner][:, 3] == 255).all()
    rim = cv2.erode(on_mesh.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (drawn[rim][:, 3] >= 128).all(), "half a pixel of the rim may fade, no more"
    assert not drawn[outer].any()


def test_triangles_that_turn_their_back_are_not_shown() -> None:
    mirrored = SQUARE * (-1, 1) + (63, 0)
    assert not drawn_over(solid(hw=(64, 64)), mesh_over(SQUARE, TWO), mirrored, WHOLE).any()


@pytest.mark.parametrize("near_first", [True, False])
def test_the_nearer_triangle_covers_the_farther(near_first: bool) -> None:
    picture = solid((255, 0, 0), (64, 64))
    picture[:, 32:] = (0, 255, 0, 255)
    left, right = SQUARE * (0.4, 1) + (2, 0), SQUARE * (0.4, 1) + (36, 0)
    mesh = mesh_over(np.vstack([left, right]), np.vstack([TWO, TWO + 4]))
    depth = np.array([1.0] * 4 + [2.0] * 4) if near_first else np.array([2.0] * 4 + [1.0] * 4)
    drawn = drawn_over(picture, mesh, np.vstack([SQUARE, SQUARE]), WHOLE, depth)
    assert drawn[32, 32, :2].tolist() == ([255, 0] if near_first else [0, 255])


def test_a_warp_bound_where_it_lies_already_changes_nothing() -> None:
    found = face(IBUG_68)
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (40, 40, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    binding = {name: (float(x), float(y)) for name, (x, y) in zip(IBUG_68.point_names, found.points_px, strict=True)}
    picture = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    painted = painter_of(Layer("warp", picture, (binding,)), IBUG_68).paint(photo, [found])
    assert np.abs(painted.astype(int) - photo).max() <= 2


def test_a_warp_follows_each_part_of_the_face() -> None:
    """The chin drops, the brows stay: so does what is painted there."""
    found = face(IBUG_68)
    moved = found.points_px.copy()
    moved[6:11] += (0, 30)
    binding = {name: (float(x), float(y)) for name, (x, y) in zip(IBUG_68.point_names, found.points_px, strict=True)}
    picture = solid((0, 0, 0), (640, 640))
    for x, y in found.points_px[[8, 27]]:
        picture[round(float(y)) - 3 : round(float(y)) + 4, round(float(x)) - 3 : round(float(x)) + 4, :3] = 255
    layer = Layer("warp", picture, (binding,))
    painted = painter_of(layer, IBUG_68).paint(np.zeros((640, 640, 3), np.uint8), [landmarks(moved, IBUG_68)], [None])
    for x, y in moved[[8, 27]]:
        assert painted[round(float(y)) - 1, round(float(x)), 0] == 255
    assert painted[round(float(found.points_px[8, 1])) - 3, round(float(found.points_px[8, 0])), 0] == 0


def test_normal_blending_is_the_alpha_formula() -> None:
    rng = np.random.default_rng(2)
    photo, picture = rng.integers(0, 256, (8, 8, 3), np.uint8), rng.integers(0, 256, (8, 8, 4), np.uint8)
    picture[:, :, :3] = picture[:, :, :3].astype(int) * picture[:, :, 3:] // 255
    expected = photo * (1 - picture[:, :, 3:] / 255) + picture[:, :, :3]
    blend(photo, picture, "normal")
    np.testing.assert_allclose(photo, expected, atol=1)


def test_multiplied_paint_keeps_the_shade_below() -> None:
    photo = np.array([[[200, 200, 200], [100, 100, 100], [0, 0, 0]]], np.uint8)
    blend(photo, np.full((1, 3, 4), (0, 128, 255, 255), np.uint8), "multiply")
    np.testing.assert_allclose(photo[0], [[0, 100, 200], [0, 50, 100], [0, 0, 0]], atol=1)
    blend(photo, np.zeros((1, 3, 4), np.uint8), "multiply")
    np.testing.assert_allclose(photo[0, 0], [0, 100, 200], atol=1)


def test_opacity_and_fading_weaken_colour_and_alpha_alike() -> None:
    half = drawn_over(solid((0, 0, 200), (64, 64)), mesh_over(SQUARE, TWO), SQUARE, WHOLE, opacity=0.5)
    np.testing.assert_allclose(half[32, 32], [0, 0, 100, 127.5], atol=1)
    np.testing.assert_allclose(fade(half, 0.5)[32, 32], [0, 0, 50, 64], atol=1)


def test_a_polygon_takes_out_what_it_hides() -> None:
    layer = np.full((64, 64, 4), 200, np.uint8)
    cut_out(layer, np.array([[110.0, 60.0], [140.0, 60.0], [140.0, 90.0], [110.0, 90.0]]), Region(100, 50, 164, 114))
    assert (layer[12:39, 12:39] == 0).all()
    hidden = np.zeros((64, 64), bool)
    hidden[9:42, 9:42] = True
    assert (layer[~hidden] == 200).all()
    cut_out(layer, np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]]), Region(100, 50, 164, 114))
    assert (layer[~hidden] == 200).all(), "a polygon beside the region hides nothing of it"


def test_a_region_is_cut_to_the_image() -> None:
    mesh = mesh_over(SQUARE, TWO)
    assert mesh_region(mesh, SQUARE, (32, 48)) == Region(0, 0, 48, 32)
    assert mesh_region(mesh, SQUARE + 1000, (32, 48)) is None
    assert mesh_region(mesh, SQUARE - 1000, (32, 48)) is None
