"""From a mesh over a picture to pixels over a photograph: piecewise affine, sampled at a fitting size, blended by alpha.

picture, colours times alpha ▶ halved until one of its pixels is about one of the photograph ▶ per pixel, the triangle over it
and the place in the picture ▶ without what hides it ▶ photograph · (1 − alpha) + colours, or, as paint, photograph ·
(1 − alpha + colours)

On a large face, places in the picture are computed at every second or fourth pixel and interpolated: between two triangles the
map is rounded off over that distance, everywhere else it is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.apps.filters.definition import MULTIPLY
from lmedge.apps.filters.mesh import Mesh
from lmedge.apps.triangulation import doubled_areas
from lmedge.data.drawing import SHIFT

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

# A picture is halved no further; stickers on faces of a few pixels need not be exact.
_MAX_HALVINGS = 4
# Triangles thinner than this, in px² doubled, show nothing.
_THIN_PX2 = 1e-3
# A place beyond every picture, for pixels that no triangle covers; so far off that interpolation does not lead back.
_NOWHERE = -1e6
# Places in the picture are computed at about so many pixels along the longer side of a region.
_COMPUTED_ALONG = 256


@dataclass(frozen=True)
class Region:
    """A rectangle of the photograph: rows top to bottom − 1, columns left to right − 1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def hw(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left


class Texture:
    """A picture with alpha, colours multiplied by it, and its halves; what lies outside the triangles of a mesh is clear."""

    def __init__(self, picture_bgra: Image, mesh: Mesh, opacity: float) -> None:
        alpha = picture_bgra[:, :, 3:].astype(np.float32) * opacity
        alpha[~covered(mesh, picture_bgra.shape[:2])] = 0
        colours = picture_bgra[:, :, :3].astype(np.float32) * (alpha / 255)
        # Whole halves all the way down: pixel centres stay where they are computed.
        step = 2**_MAX_HALVINGS
        height, width = picture_bgra.shape[:2]
        margins = (0, -height % step, 0, -width % step)
        full = cv2.copyMakeBorder(np.concatenate([colours, alpha], axis=2), *margins, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
        self._levels: list[Image] = []
        for _ in range(_MAX_HALVINGS + 1):
            self._levels.append(np.rint(full).astype(np.uint8))
            full = cv2.resize(full, (full.shape[1] // 2, full.shape[0] // 2), interpolation=cv2.INTER_AREA)

    def level(self, zoom: float) -> tuple[Image, float]:
        """The picture, premultiplied, and how often it is smaller than the whole one, for drawing it `zoom` times as large."""
        halvings = int(np.clip(np.floor(-np.log2(max(zoom, 1e-6)) + 0.5), 0, _MAX_HALVINGS))
        return self._levels[halvings], 2.0**halvings


def covered(mesh: Mesh, picture_hw: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Which pixels (H, W) of a picture a mesh over it covers, its outline included."""
    mask = np.zeros(picture_hw[:2], np.uint8)
    for corners in _fixed(mesh.picture_px[mesh.triangles]):
        cv2.fillConvexPoly(mask, corners, 1, cv2.LINE_8, SHIFT)
    return mask > 0


def mesh_region(mesh: Mesh, vertices_px: Floats, image_hw: tuple[int, int]) -> Region | None:
    """The part of an image that a mesh covers, None where it covers nothing of it."""
    corners_px = vertices_px[mesh.triangles.ravel()]
    return _region(corners_px, image_hw) if len(corners_px) else None


def draw_mesh(texture: Texture, mesh: Mesh, vertices_px: Floats, region: Region, depth_mm: Floats | None = None) -> Image:
    """What the mesh shows in a region of the photograph, uint8 (h, w, 4), colours multiplied by alpha.

    Triangles that turn their back are not shown. Where triangles overlap, the nearer one is.

    Args:
        vertices_px: (V, 2) in the photograph.
        depth_mm: (V,) away from the camera, where it is known.
    """
    areas_px2 = doubled_areas(vertices_px, mesh.triangles)
    shown = np.flatnonzero(areas_px2 > _THIN_PX2)
    if not len(shown):
        return np.zeros((*region.hw, 4), np.uint8)
    if depth_mm is not None:
        shown = shown[np.argsort(-depth_mm[mesh.triangles[shown]].sum(axis=1), kind="stable")]
    triangles = mesh.triangles[shown]
    zoom = float(np.sqrt(areas_px2[shown].sum() / doubled_areas(mesh.picture_px, triangles).sum()))
    picture, factor = texture.level(zoom)
    map_x, map_y = _picture_places(
        (vertices_px - (region.left, region.top))[triangles], ((mesh.picture_px + 0.5) / factor - 0.5)[triangles], region.hw
    )
    return np.asarray(
        cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0)), np.uint8
    )


def _picture_places(corners_px: Floats, picture_px: Floats, hw: tuple[int, int]) -> list[npt.NDArray[np.float32]]:
    """For every pixel of a region (h, w) the place in the picture, x and y (h, w) each.

    Args:
        corners_px: of triangles (T, 3, 2) in the region, later ones over earlier ones.
        picture_px: the same in the picture.
    """
    step = max(1, 2 ** round(math.log2(max(hw) / _COMPUTED_ALONG)))
    # The coarse grid reaches one cell over the region's border on all sides; its cells' middles are the computed pixels.
    height, width = hw
    coarse_hw = (-(-height // step) + 2, -(-width // step) + 2)
    coarse_px = (corners_px + 0.5) / step + 0.5
    label = np.zeros(coarse_hw, np.uint16)
    for number, corners in enumerate(_fixed(coarse_px), 1):
        cv2.fillConvexPoly(label, corners, number, cv2.LINE_8, SHIFT)
    # Just outside the mesh its outermost triangles go on, so that interpolation does not fall off an edge.
    label = np.where(label > 0, label, cv2.dilate(label, np.ones((3, 3), np.uint8)))
    maps = _sampled(_affine_maps(coarse_px, picture_px), label.astype(np.intp))
    fine_wh = (coarse_hw[1] * step, coarse_hw[0] * step)
    fine = [places if step == 1 else cv2.resize(places, fine_wh, interpolation=cv2.INTER_LINEAR) for places in maps]
    return [np.asarray(places[step : step + height, step : step + width], np.float32) for places in fine]


def _affine_maps(from_px: Floats, to_px: Floats) -> npt.NDArray[np.float32]:
    """(1 + T, 6): x and y in the picture as a·x + b·y + c of the photograph, for no triangle and each of T (T, 3, 2)."""
    along, across = from_px[:, 1] - from_px[:, 0], from_px[:, 2] - from_px[:, 0]
    area = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
    inverse = np.array([[across[:, 1], -across[:, 0]], [-along[:, 1], along[:, 0]]]).transpose(2, 0, 1) / area[:, None, None]
    sides = np.stack([to_px[:, 1] - to_px[:, 0], to_px[:, 2] - to_px[:, 0]], axis=2)
    linear = sides @ inverse
    offset = to_px[:, 0] - np.einsum("txy,ty->tx", linear, from_px[:, 0])
    maps = np.concatenate([linear, offset[:, :, None]], axis=2).reshape(-1, 6)
    return np.vstack([[0, 0, _NOWHERE, 0, 0, _NOWHERE], maps]).astype(np.float32)


def _sampled(maps: npt.NDArray[np.float32], label: npt.NDArray[np.intp]) -> list[npt.NDArray[np.float32]]:
    """The maps of the labels, carried out at every pixel, (h, w) each for x and y."""
    height, width = label.shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    # Labels are all in range; "clip" only leaves out a copy.
    columns = [column.take(label, mode="clip") for column in np.ascontiguousarray(maps.T)]
    return [columns[0] * x + columns[1] * y + columns[2], columns[3] * x + columns[4] * y + columns[5]]


def cut_out(layer_bgra: Image, polygon_px: Floats, region: Region) -> None:
    """Clears what a polygon (M, 2) px of the photograph hides of a layer drawn over a region, in place, with soft edges."""
    height, width = region.hw
    local_px = polygon_px - (region.left, region.top)
    part = _region(local_px, (height, width))
    if part is None:
        return
    kept = np.full(part.hw, 255, np.uint8)
    cv2.fillPoly(kept, [_fixed(local_px - (part.left, part.top))], 0, cv2.LINE_AA, SHIFT)
    layer_bgra[part.slices] = cv2.multiply(layer_bgra[part.slices], cv2.merge([kept] * 4), scale=1 / 255)


def fade(layer_bgra: Image, opacity: float) -> Image:
    return layer_bgra if opacity >= 1 else np.asarray(cv2.convertScaleAbs(layer_bgra, alpha=opacity), np.uint8)


def blend(photo_bgr: Image, layer_bgra: Image, mode: str) -> None:
    """Lays a drawn layer over a part of a photograph of the same size, in place."""
    blue, green, red, alpha = cv2.split(layer_bgra)
    clear = 255 - alpha
    if mode == MULTIPLY:
        factor = cv2.merge([cv2.add(clear, colour) for colour in (blue, green, red)])
        photo_bgr[:] = cv2.multiply(photo_bgr, factor, scale=1 / 255)
    else:
        photo_bgr[:] = cv2.add(cv2.multiply(photo_bgr, cv2.merge([clear] * 3), scale=1 / 255), cv2.merge([blue, green, red]))


def _region(points_px: Floats, hw: tuple[int, int]) -> Region | None:
    """The rectangle around points, a pixel wider on all sides, cut to an image."""
    low, high = np.floor(points_px.min(axis=0)) - 1, np.ceil(points_px.max(axis=0)) + 2
    left, top = (int(value) for value in np.clip(low, 0, None))
    right, bottom = (int(value) for value in np.minimum(high, (hw[1], hw[0])))
    return Region(left, top, right, bottom) if left < right and top < bottom else None


def _fixed(points_px: Floats) -> npt.NDArray[np.int32]:
    """Coordinates as cv2 draws at fractions of a pixel."""
    return np.asarray(np.rint(points_px * 2**SHIFT), np.int32)
