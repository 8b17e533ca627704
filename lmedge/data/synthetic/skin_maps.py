"""Pictures on the surface of the average head that every face shares: soft masks of its parts, and noise in four grains.

Each is an 8-bit picture with four channels, so that one call samples four of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.drawing import Image
from lmedge.data.synthetic.head_mesh import flatten, texel_positions_mm, to_texture
from lmedge.data.synthetic.head_table import Floats
from lmedge.pose import generic_points
from lmedge.schemas import WFLW_98

TEXTURE_PX = 256
REGIONS = (
    "lips", "nostrils", "blush", "under_eye",
    "socket", "folds", "lines", "beard",
    "moustache", "goatee", "under_parts", "upper_lip",
    "right_of_nose", "left_of_nose", "gloss", "crevices",
)  # fmt: skip
NOISE_MAPS = 8
# Level of the noise 0 and how many levels are one standard deviation.
NOISE_ZERO, NOISE_STEP = 128, 36

_STRAND_ANGLES = 720


@lru_cache(maxsize=1)
def landmarks_texel() -> Floats:
    """The 98 points on the texture, (98, 2) texels."""
    return to_texture(flatten(generic_points(WFLW_98))) * TEXTURE_PX - 0.5


@lru_cache(maxsize=1)
def region_maps() -> tuple[Image, ...]:
    """The masks of `REGIONS` in their order, four per picture; 255 is fully inside."""
    masks = _regions()
    planes = [np.round(np.clip(masks[name], 0, 1) * 255).astype(np.uint8) for name in REGIONS]
    return tuple(np.ascontiguousarray(np.stack(planes[i : i + 4], axis=-1)) for i in range(0, len(planes), 4))


@lru_cache(maxsize=1)
def noise_maps() -> tuple[Image, ...]:
    """Pictures of four channels: blotches, pores, fine strands of hair, locks; the last two radiate from the crown."""
    rng = np.random.default_rng(256)
    x, _, z = np.moveaxis(texel_positions_mm(TEXTURE_PX), -1, 0)
    around = (np.arctan2(x, -(z - 75)) / (2 * np.pi) + 0.5) * _STRAND_ANGLES
    maps = []
    for _ in range(NOISE_MAPS):
        rough = rng.standard_normal((TEXTURE_PX, TEXTURE_PX)).astype(np.float32)
        blotches = _unit(cv2.GaussianBlur(rough, (0, 0), 9)) + 0.6 * _unit(cv2.GaussianBlur(rough, (0, 0), 3.5))
        pores = cv2.GaussianBlur(rough, (0, 0), 1.1)
        waver = _unit(cv2.GaussianBlur(rough, (0, 0), 12)) * 5
        kinds = [blotches, pores]
        for width, loose in ((1.6, 0.25), (6.0, 0.1)):
            line = cv2.GaussianBlur(rng.standard_normal((1, _STRAND_ANGLES)).astype(np.float32), (0, 0), width)[0]
            lock = _unit(line)[np.round(around + waver).astype(int) % _STRAND_ANGLES]
            kinds.append(lock + loose * _unit(pores))
        levels = [np.clip(NOISE_ZERO + NOISE_STEP * _unit(kind), 0, 255) for kind in kinds]
        maps.append(np.ascontiguousarray(np.stack(levels, axis=-1).astype(np.uint8)))
    return tuple(maps)


def _unit(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray((values - values.mean()) / values.std(), np.float32)


def _regions() -> dict[str, Floats]:
    x, y, z = np.moveaxis(texel_positions_mm(TEXTURE_PX), -1, 0)
    across = np.abs(x)
    points = landmarks_texel()

    def bump(center_x: float, center_y: float, radius_x: float, radius_y: float, of: Floats = across) -> Floats:
        near = ((of - center_x) / radius_x) ** 2 + ((y - center_y) / radius_y) ** 2
        return np.asarray(np.exp(-0.5 * near) * (z < 60))

    def drawn(blur: float, *outlines: Floats) -> Floats:
        mask = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
        for outline in outlines:
            cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur))

    def lines(blur: float, *paths_mm: tuple[tuple[float, float, float], ...]) -> Floats:
        mask = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
        for path in paths_mm:
            for sign in (-1, 1):
                texel = to_texture(flatten(np.array(path) * (sign, 1, 1))) * TEXTURE_PX - 0.5
                cv2.polylines(mask, [np.round(texel * 16).astype(np.int32)], False, 1.0, 1, cv2.LINE_AA, 4)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur)) * 2 * blur

    circle = np.stack([np.cos(np.linspace(0, 6.2, 12)), np.sin(np.linspace(0, 6.2, 12))], axis=1)
    nostrils = [points[index] + circle * (3.7, 2.0) + (0, -2.5) for index in (56, 58)]
    jaw_line = 1 / (1 + np.exp(-np.clip((y - np.interp(across, [0, 25, 45, 70], [52, 56, 70, 40])) / 3, -30, 30)))
    lips = drawn(1.0, points[76:88])
    upper_lip = drawn(0.8, points[[76, 77, 78, 79, 80, 81, 82, 92, 91, 90, 89, 88]])
    return {
        "lips": lips,
        "nostrils": drawn(1.1, *nostrils),
        "blush": np.maximum(bump(42, 35, 16, 14), 0.8 * bump(0, 36, 9, 8)),
        "under_eye": bump(32, 9, 13, 4.5),
        "socket": np.maximum(bump(18, -4, 6, 6), 0.9 * bump(34, -7, 13, 4)),
        "folds": lines(1.8, ((20, 40, -13), (25, 50, -10), (33, 62, -1))),
        "lines": lines(1.1, ((0, -42, -20), (30, -44, -14)), ((0, -50, -20), (32, -52, -12)), ((5, -14, -24), (5.5, -24, -23)),
                       ((48, 1, 2), (56, 5, 9)), ((48, -2, 2), (57, -4, 10)), ((22, 7, -6), (34, 10, -4))),
        "beard": jaw_line * (z < 60) * (y < 116) * (1 - lips) * (1 - bump(0, 84.5, 6, 2.5) * 0.3),
        "moustache": np.clip(bump(9, 55, 15, 3.6) * 1.5, 0, 1) * (1 - lips),
        "goatee": np.clip(np.maximum(bump(0, 99, 17, 10), bump(26, 78, 4, 14)) * 1.5, 0, 1) * (1 - lips),
        "under_parts": np.maximum.reduce([bump(0, 51, 11, 4), 0.8 * bump(0, 85, 13, 4), 0.9 * bump(33, -9, 16, 5)]),
        "upper_lip": upper_lip,
        "right_of_nose": bump(-19, 30, 8, 18, x) + 0.7 * bump(-15, 2, 6, 12, x),
        "left_of_nose": bump(19, 30, 8, 18, x) + 0.7 * bump(15, 2, 6, 12, x),
        "gloss": np.maximum.reduce([bump(0, -45, 30, 14), bump(0, 20, 5, 20), 0.9 * bump(0, 40, 7, 5),
                                    0.7 * bump(42, 22, 12, 8), 0.4 * bump(0, 98, 10, 7), 0.25 + 0 * y]),
        "crevices": np.maximum.reduce([0.8 * bump(20, 43, 2.5, 4), 0.7 * bump(29.5, 67.5, 3, 2.5), 0.6 * bump(20, -3, 5, 8),
                                       0.9 * drawn(1.2, points[60:68], points[68:76])]),
    }  # fmt: skip
