"""From a mesh over a picture to pixels over a photograph: piecewise affine, sampled at a fitting size, blended by alpha.

picture, colours times alpha ▶ halved until one of its pixels is about one of the photograph ▶ per pixel, the triangle over it
and the place in the picture ▶ photograph · (1 − alpha) + colours, or, as paint, photograph · (1 − alpha + colours)
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.apps.filters.definition import MULTIPLY
from lmedge.apps.filters.mesh import Mesh, doubled_areas
from lmedge.data.drawing import SHIFT

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

# A picture is halved no further; stickers on faces of a few pixels need not be exact.
_MAX_HALVINGS = 4
# Triangles thinner than this, in px² doubled, show nothing.
_THIN_PX2 = 1e-3
# A place beyond every picture, for pixels that no triangle covers.
_NOWHERE = -10.0


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
    """A picture with alpha, colours multiplied by it, and its halves."""

    def __init__(self, picture_bgra: Image, opacity: float) -> None:
        alpha = picture_bgra[:, :, 3:].astype(np.float32) * opacity
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


def mesh_region(vertices_px: Floats, image_hw: tuple[int, int]) -> Region | None:
    """The part of an image that a mesh covers, None where it covers nothing of it."""
    low, high = np.floor(vertices_px.min(axis=0)) - 1, np.ceil(vertices_px.max(axis=0)) + 2
    left, top = (int(value) for value in np.clip(low, 0, None))
    right, bottom = (int(value) for value in np.minimum(high, (image_hw[1], image_hw[0])))
    return Region(left, top, right, bottom) if left < right and top < bottom else None


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
    local_px = vertices_px - (region.left, region.top)
    label = np.zeros(region.hw, np.int32)
    corners = np.rint(local_px[triangles] * 2**SHIFT).astype(np.int32)
    for number, corner in enumerate(corners, 1):
        cv2.fillConvexPoly(label, corner, number, cv2.LINE_8, SHIFT)
    maps = _affine_maps(local_px[triangles], ((mesh.picture_px + 0.5) / factor - 0.5)[triangles])
    map_x, map_y = _sampled(maps, label)
    return np.asarray(
        cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0)), np.uint8
    )


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


def _sampled(
    maps: npt.NDArray[np.float32], label: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The maps of the labels, carried out at every pixel, (h, w) each."""
    height, width = label.shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    columns = [np.ascontiguousarray(column) for column in maps.T]
    map_x = columns[0].take(label) * x + columns[1].take(label) * y + columns[2].take(label)
    map_y = columns[3].take(label) * x + columns[4].take(label) * y + columns[5].take(label)
    return map_x, map_y


def mask_out(layer_bgra: Image, hidden: Image) -> Image:
    """A drawn layer (h, w, 4) without what a mask uint8 (h, w) hides (255 hides all)."""
    kept = 255 - hidden
    return np.asarray(cv2.multiply(layer_bgra, cv2.merge([kept] * 4), scale=1 / 255), np.uint8)


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


def polygon_mask(polygons_px: list[Floats], region: Region) -> Image:
    """uint8 (h, w), 255 inside polygons (M, 2) px of the photograph, with soft edges."""
    mask = np.zeros(region.hw, np.uint8)
    for polygon in polygons_px:
        fixed = np.rint((polygon - (region.left, region.top)) * 2**SHIFT).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SHIFT)
    return mask
