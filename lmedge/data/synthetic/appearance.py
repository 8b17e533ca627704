"""What a person looks like: colours, hair style, beard, brows, make-up; and the texture of the head that shows them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.head_mesh import flatten, texel_positions_mm, to_texture
from lmedge.data.synthetic.head_table import Floats, mean_landmarks_mm

TEXTURE_PX = 224
_NOISE_MAPS = 6

# BGR in 0 to 255; skin from light to dark, hair from black to blond, gray and red.
_SKIN = np.array(
    [[176, 196, 232], [150, 178, 220], [130, 160, 208], [104, 136, 190], [76, 108, 166], [52, 78, 132], [36, 52, 92]]
)
_HAIR = np.array([[22, 20, 20], [30, 36, 46], [40, 58, 86], [62, 92, 132], [96, 150, 190], [140, 180, 208], [150, 152, 156],
                  [210, 212, 214], [36, 66, 136]])  # fmt: skip
_HAIR_SHARE = (0.2, 0.2, 0.17, 0.12, 0.09, 0.05, 0.07, 0.04, 0.06)
_HAIR_DARK_SHARE = (0.5, 0.3, 0.12, 0, 0, 0, 0.05, 0.03, 0)
_IRIS = np.array([[28, 42, 70], [38, 62, 100], [70, 100, 110], [140, 120, 90], [150, 140, 120], [80, 110, 80]])

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Look:
    """A person's colours (BGR, 0 to 255, float) and style. Strengths run from 0 to 1.

    Attributes:
        hair_volume_mm: how far the hair stands off the skull.
        hairline_mm: the hairline moves up (receding) or, negative, down over the forehead.
        hair_length_mm: below the ears; 0 is short hair.
        bald: no hair at all.
    """

    skin: Floats
    hair: Floats
    brow: Floats
    lips: Floats
    iris: Floats
    eye_white: float
    hair_volume_mm: float
    hairline_mm: float
    hair_length_mm: float
    covers_ears: bool
    bald: bool
    beard: float
    moustache: float
    brow_strength: float
    brow_thickness: float
    wrinkles: float
    shine: float


def draw_look(rng: np.random.Generator) -> Look:
    """A random person."""
    position = rng.beta(1.1, 1.5) * (len(_SKIN) - 1)
    low = int(min(position, len(_SKIN) - 2))
    skin = _SKIN[low] + (position - low) * (_SKIN[low + 1] - _SKIN[low]) + rng.normal(0, 3, 3)
    dark_only = position > 3.2
    hair = _HAIR[rng.choice(len(_HAIR), p=_HAIR_DARK_SHARE if dark_only else _HAIR_SHARE)] * rng.uniform(
        0.75, 1.25
    ) + rng.normal(0, 5, 3)
    long_hair, bearded = rng.random() < 0.45, rng.random() < 0.3
    made_up = long_hair and rng.random() < 0.5
    lips = skin * np.array([0.72, 0.66, 0.88]) if not made_up else skin * np.array([0.55, 0.42, 0.9]) + rng.normal(0, 12, 3)
    return Look(
        skin=np.clip(skin, 20, 245),
        hair=np.clip(hair, 8, 235),
        brow=np.clip(hair * rng.uniform(0.5, 0.95), 8, 170),
        lips=np.clip(lips, 15, 235),
        iris=np.clip(_IRIS[rng.integers(2 if dark_only else len(_IRIS))] * rng.uniform(0.7, 1.2), 10, 200),
        eye_white=float(rng.uniform(0.55, 0.95)),
        hair_volume_mm=float(rng.uniform(4, 26) if long_hair else rng.uniform(2, 20)),
        hairline_mm=float(rng.choice([rng.uniform(-10, 14), rng.uniform(-34, -10)], p=[0.75, 0.25])),
        hair_length_mm=float(rng.uniform(20, 150)) if long_hair else 0.0,
        covers_ears=bool(long_hair and rng.random() < 0.75),
        bald=bool(not long_hair and rng.random() < 0.15),
        beard=float(rng.uniform(0.2, 1) if bearded and not long_hair else 0),
        moustache=float(rng.uniform(0, 1) if bearded and not long_hair else 0),
        brow_strength=float(rng.uniform(0.15, 1.0)),
        brow_thickness=float(rng.uniform(0.7, 1.25)),
        wrinkles=float(rng.beta(1.2, 2.5)),
        shine=float(rng.uniform(0.0, 0.3)),
    )


def hair_displacement_mm(look: Look, vertices_mm: Floats, rng: np.random.Generator) -> Floats:
    """How far hair lifts each vertex of the average head from the skull, (V,)."""
    if look.bald:
        return np.zeros(len(vertices_mm))
    bumps = np.cos(vertices_mm @ rng.normal(0, 1 / 22, 3) + rng.uniform(0, 6)) * 0.15 + 1
    _, y, z = vertices_mm.T
    # Short hair lies flat around the ears.
    flat = 1.0 if look.covers_ears else 1 - 0.8 * np.exp(-0.5 * (((y - 12) / 30) ** 2 + ((z - 78) / 26) ** 2))
    return np.asarray(look.hair_volume_mm * np.clip(hair_level_mm(vertices_mm, look) / 26, 0, 1) ** 0.8 * bumps * flat)


def hair_level_mm(positions_mm: Floats, look: Look) -> Floats:
    """Positive inside the hair, by how many mm; for positions (..., 3) on the average head."""
    x, y, z = np.moveaxis(positions_mm, -1, 0)
    front = -(y + (64 + look.hairline_mm)) + min(look.hairline_mm, 0) * 0.4 / 3600 * x * x - 0.05 * np.abs(x)
    if look.covers_ears:
        side = z - 50 - 0.12 * np.maximum(y, 0) - 2 * np.maximum(y - 52, 0)
    else:
        side = np.minimum(z - 56 - 0.5 * np.maximum(y - 5, 0), 2 * (z - 56)) - 0.9 * np.maximum(y - 12, 0) * (z < 88)
        side = side - 1.5 * np.maximum(y - 52, 0)
    return np.asarray(np.maximum(front, side))


def head_texture(look: Look, rng: np.random.Generator) -> Image:
    """The unlit colour of the head's surface, uint8 (TEXTURE_PX, TEXTURE_PX, 3) BGR."""
    regions, noise = _regions(), _noise_maps()
    blotches, pores, strands = (_shuffled(noise[rng.integers(_NOISE_MAPS), kind], rng) for kind in range(3))
    flush, shadow_under_eye, socket_shadow = rng.uniform(0.2, 1.3), rng.uniform(0.02, 0.25), rng.uniform(0.1, 0.5)
    shade = 1 + np.float32(0.06) * blotches + np.float32(0.03) * pores
    shade -= regions["under_eye"] * np.float32(shadow_under_eye) + regions["socket"] * np.float32(socket_shadow)
    shade -= regions["folds"] * np.float32(0.08 + 0.3 * look.wrinkles) + regions["lines"] * np.float32(0.3 * look.wrinkles)
    shade -= regions["nostrils"] * np.float32(0.72)
    planes = []
    for value, paleness in zip(look.skin, (0.14, 0.12, 0.0), strict=True):
        planes.append((shade - regions["blush"] * np.float32(paleness * flush)) * np.float32(value))

    layers = [(look.lips, 1 + np.float32(0.05) * pores, regions["lips"] * np.float32(0.85))]
    if look.beard or look.moustache:
        stubble = np.clip(np.float32(0.65) + np.float32(0.5) * pores + np.float32(0.3) * strands, 0, 1)
        hairy = np.maximum(regions["beard"] * np.float32(look.beard), regions["moustache"] * np.float32(look.moustache))
        layers.append((look.hair * 0.8, np.ones_like(pores), hairy * stubble * np.float32(0.85)))
    layers.append((look.brow, np.ones_like(pores), _brows(look, rng)))
    if not look.bald:
        level = hair_level_mm(_texel_positions(), look) + np.float32(7) * strands + np.float32(3) * blotches
        contrast = np.float32(0.38 - 0.25 * look.hair.mean() / 255)
        locks = np.clip(1 + contrast * strands + np.float32(0.1) * pores, 0.3, 2)
        layers.append((look.hair, locks, np.clip(level / np.float32(7) + np.float32(0.5), 0, 1)))
    for color, modulation, alpha in layers:
        for channel, value in enumerate(color):
            planes[channel] += (np.float32(value) * modulation - planes[channel]) * alpha
    return np.asarray(np.clip(cv2.merge(planes), 0, 255), np.uint8)


@lru_cache(maxsize=1)
def _texel_positions() -> npt.NDArray[np.float32]:
    return texel_positions_mm(TEXTURE_PX).astype(np.float32)


def _brows(look: Look, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Alpha of both brows: a soft body and single hairs, inside the labelled outlines."""
    alpha = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
    points = _landmarks_texel()
    for outline in (range(33, 42), range(42, 51)):
        ring = points[list(outline)]
        upper, lower = (ring[:5], np.concatenate([ring[:1], ring[:4:-1]])) if outline[0] == 33 else (
            ring[4::-1], np.concatenate([ring[4:5], ring[5:]]))  # fmt: skip
        middle = (upper + lower) / 2
        thick = np.concatenate(
            [middle + (upper - middle) * look.brow_thickness, (middle + (lower - middle) * look.brow_thickness)[::-1]]
        )
        _fill(alpha, thick, 0.6 * look.brow_strength)
        along = np.sort(rng.uniform(0, 4, 36))
        low = np.minimum(along.astype(int), 3)
        part = (along - low)[:, None]
        across = rng.uniform(0.0, 1.0, 36)[:, None]
        top, base = upper[low] * (1 - part) + upper[low + 1] * part, lower[low] * (1 - part) + lower[low + 1] * part
        root = base + (top - base) * across * 0.8
        tip = root + np.stack(
            [np.sign(root[:, 0] - TEXTURE_PX / 2) * rng.uniform(1.5, 4, 36), -rng.uniform(0.2, 2.5, 36)], axis=1
        )
        strokes = np.round(np.stack([root, tip], axis=1) * 16).astype(np.int32)
        cv2.polylines(alpha, list(strokes), False, look.brow_strength, 1, cv2.LINE_8, 4)
    return np.asarray(cv2.GaussianBlur(alpha, (5, 5), 0.9), np.float32)


def _fill(mask: npt.NDArray[np.float32], outline: Floats, value: float) -> None:
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], value, cv2.LINE_8, 4)


@lru_cache(maxsize=1)
def _landmarks_texel() -> Floats:
    return to_texture(flatten(mean_landmarks_mm())) * TEXTURE_PX - 0.5


@lru_cache(maxsize=1)
def _regions() -> dict[str, npt.NDArray[np.float32]]:
    """Soft masks of parts of the face, float32 (TEXTURE_PX, TEXTURE_PX) in [0, 1]."""
    x, y, z = np.moveaxis(texel_positions_mm(TEXTURE_PX), -1, 0)
    across = np.abs(x)
    points = _landmarks_texel()

    def bump(center_x: float, center_y: float, radius_x: float, radius_y: float) -> Floats:
        near = ((across - center_x) / radius_x) ** 2 + ((y - center_y) / radius_y) ** 2
        return np.asarray(np.exp(-0.5 * near) * (z < 60))

    def drawn(blur: float, *outlines: Floats) -> Floats:
        mask = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
        for outline in outlines:
            _fill(mask, outline, 1.0)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur))

    def lines(blur: float, *paths_mm: tuple[tuple[float, float, float], ...]) -> Floats:
        mask = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
        for path in paths_mm:
            for sign in (-1, 1):
                texel = to_texture(flatten(np.array(path) * (sign, 1, 1))) * TEXTURE_PX - 0.5
                cv2.polylines(mask, [np.round(texel * 16).astype(np.int32)], False, 1.0, 1, cv2.LINE_AA, 4)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur)) * 2 * blur

    circle = np.stack([np.cos(np.linspace(0, 6.2, 12)), np.sin(np.linspace(0, 6.2, 12))], axis=1)
    nostrils = [points[index] + circle * (3.2, 1.7) + (0, -2.2) for index in (56, 58)]
    jaw_line = 1 / (1 + np.exp(-np.clip((y - np.interp(across, [0, 25, 45, 70], [52, 56, 70, 40])) / 3, -30, 30)))
    lips = drawn(1.0, points[76:88])
    regions = {
        "lips": lips,
        "nostrils": drawn(1.0, *nostrils),
        "blush": np.maximum(bump(42, 35, 16, 14), 0.8 * bump(0, 36, 9, 8)),
        "under_eye": bump(32, 9, 13, 4.5),
        "socket": np.maximum(bump(18, -4, 6, 6), 0.9 * bump(34, -7, 13, 4)),
        "folds": np.clip(lines(1.6, ((20, 40, -13), (25, 50, -10), (33, 62, -1))), 0, 1),
        "lines": np.clip(
            lines(1.0, ((0, -42, -20), (30, -44, -14)), ((0, -50, -20), (32, -52, -12)), ((5, -14, -24), (5.5, -24, -23)),
                  ((48, 1, 2), (56, 5, 9)), ((48, -2, 2), (57, -4, 10)), ((22, 7, -6), (34, 10, -4))), 0, 1),
        "beard": jaw_line * (z < 56) * (y < 113) * (1 - lips) * (1 - bump(0, 84.5, 6, 2.5) * 0.3),
        "moustache": np.clip(bump(9, 55, 15, 3.6) * 1.5, 0, 1) * (1 - lips),
    }  # fmt: skip
    return {name: mask.astype(np.float32) for name, mask in regions.items()}


@lru_cache(maxsize=1)
def _noise_maps() -> npt.NDArray[np.float32]:
    """(maps, 3, size, size), standard deviation 1: blotches, pores, and strands that radiate from the crown."""
    rng = np.random.default_rng(256)
    x, _, z = np.moveaxis(texel_positions_mm(TEXTURE_PX), -1, 0)
    around = (np.arctan2(x, -(z - 75)) / (2 * np.pi) + 0.5) * 720
    maps = np.empty((_NOISE_MAPS, 3, TEXTURE_PX, TEXTURE_PX), np.float32)
    for i in range(_NOISE_MAPS):
        rough = rng.standard_normal((TEXTURE_PX, TEXTURE_PX)).astype(np.float32)
        blotches = cv2.GaussianBlur(rough, (0, 0), 11)
        strand_line = cv2.GaussianBlur(rng.standard_normal((1, 720)).astype(np.float32), (0, 0), 1.4)[0]
        waver = blotches / blotches.std() * 3.5
        strands = strand_line[np.round(around + waver).astype(int) % 720] + 0.1 * rng.standard_normal((TEXTURE_PX, TEXTURE_PX))
        for kind, noise in enumerate((blotches, cv2.GaussianBlur(rough, (0, 0), 0.8), strands)):
            maps[i, kind] = (noise - noise.mean()) / noise.std()
    return maps


def _shuffled(noise: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return noise[:, ::-1] if rng.random() < 0.5 else noise
