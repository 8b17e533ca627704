"""A transparent sheet over the average head, to draw pictures of filters on in millimetres of the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.apps.filters.places import HEAD_PLACES_MM
from lmedge.data.contours import smooth_lines
from lmedge.pose import generic_points
from lmedge.schemas import IBUG_68, MMLAB_5, Curve

Floats = npt.NDArray[np.float64]
Line = Sequence[tuple[float, float]]
Color = tuple[int, int, int]

# Drawn finer and made smaller in the end, so that edges are soft.
_FINER = 4


def places_mm() -> dict[str, tuple[float, float]]:
    """Where every place is on the average head seen from the front: (x to the viewer's right, y down) from between the eyes."""
    places = {name: (x, y) for name, (x, y, _) in HEAD_PLACES_MM.items()}
    for schema in (MMLAB_5, IBUG_68):
        for name, (x, y, _) in zip(schema.point_names, generic_points(schema).tolist(), strict=True):
            places[name] = (x, y)
    return places


class Sheet:
    """A sheet from (left, top) to (right, bottom) mm."""

    def __init__(self, left_mm: float, top_mm: float, right_mm: float, bottom_mm: float, px_per_mm: float) -> None:
        self._origin = np.array([left_mm, top_mm])
        self._zoom = px_per_mm
        self._size = (round((right_mm - left_mm) * px_per_mm), round((bottom_mm - top_mm) * px_per_mm))
        shape = (self._size[1] * _FINER, self._size[0] * _FINER)
        self._colour = np.zeros((*shape, 3), np.float32)
        self._alpha = np.zeros(shape, np.float32)

    def fill(self, outline_mm: Line, colour: Color, alpha: float = 1.0, *, blur_mm: float = 0.0, inside: bool = False) -> None:
        """A smooth closed shape; `inside`: only over what is drawn already, which keeps its alpha."""
        outline = self._fine_px(_smooth(outline_mm, closed=True))
        corner, mask = self._part(outline, 0, blur_mm)
        cv2.fillPoly(mask, [outline - corner], 255)
        self._lay(corner, self._blurred(mask, blur_mm) * np.float32(alpha), colour, inside)

    def stroke(
        self, line_mm: Line, width_mm: float, colour: Color, alpha: float = 1.0, *, blur_mm: float = 0.0, inside: bool = False
    ) -> None:
        """A smooth line."""
        line = self._fine_px(_smooth(line_mm, closed=False))
        corner, mask = self._part(line, width_mm, blur_mm)
        width = max(1, round(width_mm * self._zoom * _FINER))
        cv2.polylines(mask, [line - corner], False, 255, width, cv2.LINE_AA)
        self._lay(corner, self._blurred(mask, blur_mm) * np.float32(alpha), colour, inside)

    def soften(self, outline_mm: Line, blur_mm: float) -> None:
        """Fades what is drawn toward the outline, and takes away what lies outside."""
        mask = np.zeros(self._alpha.shape, np.uint8)
        cv2.fillPoly(mask, [self._fine_px(_smooth(outline_mm, closed=True))], 255)
        depth_px = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        self._alpha *= np.clip(depth_px / np.float32(blur_mm * self._zoom * _FINER), 0, 1)

    def picture(self) -> npt.NDArray[np.uint8]:
        """uint8 (H, W, 4), alpha not premultiplied."""
        premultiplied = np.concatenate([self._colour * self._alpha[..., None], self._alpha[..., None]], axis=2)
        small = cv2.resize(premultiplied, self._size, interpolation=cv2.INTER_AREA)
        alpha = small[:, :, 3:]
        colour = small[:, :, :3] / np.maximum(alpha, 1e-6)
        return np.asarray(np.rint(np.clip(np.concatenate([colour, alpha * 255], axis=2), 0, 255)), np.uint8)

    def bind(self, *names: str) -> dict[str, list[float]]:
        """Where places lie on the picture, in pixels with centres at integers."""
        known = places_mm()
        points = (np.array([known[name] for name in names]) - self._origin) * self._zoom - 0.5
        return {name: [round(x, 2), round(y, 2)] for name, (x, y) in zip(names, points.tolist(), strict=True)}

    def _fine_px(self, points_mm: Floats) -> npt.NDArray[np.int32]:
        return np.asarray(np.rint((points_mm - self._origin) * (self._zoom * _FINER) - 0.5), np.int32)

    def _part(self, points_px: npt.NDArray[np.int32], width_mm: float, blur_mm: float) -> tuple[Any, npt.NDArray[np.uint8]]:
        """The corner (x, y) and an empty mask of the part of the sheet that a shape can reach; whole pixels of the picture."""
        margin = round((width_mm + 3 * blur_mm) * self._zoom * _FINER) + _FINER
        low = np.maximum(points_px.min(axis=0) - margin, 0) // _FINER * _FINER
        height, width = self._alpha.shape
        high = np.minimum(-(-(points_px.max(axis=0) + margin) // _FINER) * _FINER, (width, height))
        return low, np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)

    def _blurred(self, mask: npt.NDArray[np.uint8], blur_mm: float) -> npt.NDArray[np.float32]:
        part = np.asarray(mask / 255, np.float32)
        if blur_mm == 0:
            return part
        # What is soft needs no fine pixels.
        size = mask.shape[1], mask.shape[0]
        coarse = cv2.resize(part, (size[0] // _FINER, size[1] // _FINER), interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(coarse, (0, 0), blur_mm * self._zoom, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR), np.float32)

    def _lay(self, corner: Any, cover: npt.NDArray[np.float32], colour: Color, inside: bool) -> None:
        rows, columns = (slice(corner[axis], corner[axis] + cover.shape[1 - axis]) for axis in (1, 0))
        before = self._alpha[rows, columns]
        after = before if inside else cover + before * (1 - cover)
        share = cover if inside else cover / np.maximum(after, 1e-6)
        self._colour[rows, columns] += share[..., None] * (np.array(colour, np.float32) - self._colour[rows, columns])
        self._alpha[rows, columns] = after


def both_sides(right: Line) -> tuple[Line, Line]:
    """A line on the subject's right (x < 0), and its mirror image."""
    return right, [(-x, y) for x, y in right]


def symmetric(right: Line) -> Line:
    """A closed outline from its right half, which begins and ends near the midline."""
    return [*right, *((-x, y) for x, y in reversed(right) if x != 0)]


def ellipse(center_mm: tuple[float, float], radius_x_mm: float, radius_y_mm: float) -> Line:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return [(center_mm[0] + radius_x_mm * np.cos(a), center_mm[1] + radius_y_mm * np.sin(a)) for a in angles.tolist()]


def _smooth(line_mm: Line, *, closed: bool) -> Floats:
    return smooth_lines(np.array(line_mm), Curve("line", tuple(range(len(line_mm))), closed=closed))[0]
