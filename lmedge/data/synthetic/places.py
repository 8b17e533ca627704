"""Places behind a head: a small collection of cluttered pictures, made once, of which each face gets a piece."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.drawing import Image
from lmedge.data.synthetic.head_table import Floats

_PLACES, _PLACE_PX = 40, 256
_NEUTRAL = 0.62


def draw_place(size_px: int, brightness: float, rng: np.random.Generator) -> Image:
    """A random piece of a random place, turned, stretched, tinted and blurred; uint8 (size_px, size_px, 3)."""
    place = places()[rng.integers(_PLACES)]
    zoom = size_px / _PLACE_PX * np.exp(rng.uniform(-0.1, 1.1))
    turn = rng.normal(0, 0.12)
    mirror = rng.choice([-1.0, 1.0])
    a, b = zoom * np.cos(turn), zoom * np.sin(turn)
    middle = rng.uniform(0, _PLACE_PX, 2)
    shift = (size_px / 2 - mirror * a * middle[0] + b * middle[1], size_px / 2 - mirror * b * middle[0] - a * middle[1])
    matrix = np.array([[mirror * a, -b, shift[0]], [mirror * b, a, shift[1]]])
    picture = cv2.warpAffine(place, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    blur = max(0.0, rng.normal(0.0, 0.02)) * size_px
    if blur > 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    gain = brightness * np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.12, 3))
    offset = rng.choice([0.0, rng.uniform(-40, 90)]) * brightness
    levels = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, levels[None]), np.uint8)


@lru_cache(maxsize=1)
def places() -> tuple[Image, ...]:
    """The collection; about half a second, once per process."""
    rng = np.random.default_rng(2048)
    kinds = (_wall, _clutter, _building, _leaves, _lights, _car, _people, _shelves)
    return tuple(_finish(kinds[i % len(kinds)](rng), rng) for i in range(_PLACES))


def _finish(picture: npt.NDArray[np.float32], rng: np.random.Generator) -> Image:
    """Less saturated, with fine grain, as photos of places are."""
    gray = picture.mean(axis=2, keepdims=True)
    picture = picture + (gray - picture) * np.float32(_NEUTRAL * rng.uniform(0.3, 1.4))
    picture = picture + _fractal(rng, 0.7)[..., None] * np.float32(rng.uniform(2, 9))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _fractal(rng: np.random.Generator, roughness: float) -> npt.NDArray[np.float32]:
    """Sum of noises, each of half the grain and `roughness` the strength of the one before; standard deviation 1."""
    total = np.zeros((_PLACE_PX, _PLACE_PX), np.float32)
    for octave in range(1, 8):
        rough = rng.standard_normal((2**octave + 1, 2**octave + 1)).astype(np.float32)
        total += roughness**octave * cv2.resize(rough, (_PLACE_PX, _PLACE_PX), interpolation=cv2.INTER_CUBIC)
    return np.asarray((total - total.mean()) / total.std(), np.float32)


def _color(rng: np.random.Generator, low: float = 10, high: float = 240) -> Floats:
    return np.asarray(np.clip(rng.uniform(low, high) + rng.normal(0, 28, 3), 3, 252))


def _plain(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A gradient between two colours."""
    first, second = _color(rng), _color(rng)
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, _PLACE_PX)
    ramp = 0.5 + 0.35 * (axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle))
    mixed = first + (second - first) * np.clip(ramp, 0, 1)[..., None] * rng.uniform(0.2, 1)
    return np.asarray(mixed + 8 * _fractal(rng, 0.5)[..., None], np.float32)


def _wall(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    picture = _plain(rng)
    for _ in range(int(rng.integers(0, 4))):
        corner, size = rng.uniform(0, 230, 2), rng.uniform(20, 120, 2)
        low, high = tuple(corner.astype(int).tolist()), tuple((corner + size).astype(int).tolist())
        cv2.rectangle(picture, low, high, _color(rng).tolist(), -1)
        cv2.rectangle(picture, low, high, _color(rng, 5, 90).tolist(), int(rng.integers(1, 5)))
    return picture


def _clutter(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    picture = _plain(rng)
    for i in range(90):
        size = 90 / (1 + 0.08 * i)
        corners = rng.uniform(0, _PLACE_PX, 2) + rng.normal(0, size * 0.6, (int(rng.integers(3, 7)), 2))
        cv2.fillPoly(picture, [corners.astype(np.int32)], _color(rng).tolist())
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 3)), np.float32)


def _building(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    picture, glass = _plain(rng), _color(rng, 10, 120)
    step = rng.uniform(16, 44, 2)
    for row in np.arange(4, _PLACE_PX, step[1]):
        for column in np.arange(4, _PLACE_PX, step[0]):
            color = glass + rng.normal(0, 22)
            low, high = (int(column), int(row)), (int(column + 0.6 * step[0]), int(row + 0.65 * step[1]))
            cv2.rectangle(picture, low, high, np.clip(color, 0, 255).tolist(), -1)
    return picture


def _leaves(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    green = np.array([rng.uniform(20, 60), rng.uniform(70, 120), rng.uniform(40, 100)])
    shade = np.clip(1 + 0.45 * _fractal(rng, 0.95), 0.05, 2.6)
    return np.asarray(green * shade[..., None] + 12 * _fractal(rng, 0.8)[..., None], np.float32)


def _lights(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    picture = 0.35 * _plain(rng)
    for _ in range(40):
        spot = np.zeros_like(picture)
        center = tuple(rng.integers(0, _PLACE_PX, 2).tolist())
        cv2.circle(spot, center, int(rng.integers(2, 20)), (_color(rng, 60, 240) * rng.uniform(0.3, 1)).tolist(), -1)
        picture += spot
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.2), np.float32)


def _car(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The inside of a car: bright windows between dark pillars, the seat with its head rest, the roof."""
    trim, outside, seat = _color(rng, 15, 110), _plain(rng) + 60, _color(rng, 20, 130)
    picture = np.clip(outside + 20 * _fractal(rng, 0.8)[..., None], 0, 255).astype(np.float32)
    pillar = rng.uniform(30, 100)
    shapes = (
        [[0, 0], [256, 0], [256, rng.uniform(25, 60)], [0, rng.uniform(25, 60)]],
        [[pillar, 0], [pillar + rng.uniform(15, 40), 0], [pillar + rng.uniform(-30, 10), 256], [pillar - 50, 256]],
        [[0, rng.uniform(150, 200)], [256, rng.uniform(150, 200)], [256, 256], [0, 256]],
    )
    for shape in shapes:
        cv2.fillPoly(picture, [np.array(shape).astype(np.int32)], (trim * rng.uniform(0.6, 1.1)).tolist())
    center = rng.uniform(100, 200)
    for middle, half, top, bottom in ((center, 60, 120, 256), (center, 38, 60, 112)):
        outline = [[middle - half, bottom], [middle - 0.85 * half, top], [middle + 0.85 * half, top], [middle + half, bottom]]
        cv2.fillPoly(picture, [np.array(outline).astype(np.int32)], (seat * rng.uniform(0.8, 1.1)).tolist())
        cv2.polylines(picture, [np.array(outline).astype(np.int32)], True, (seat * 0.6).tolist(), 3)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.8, 2.5)), np.float32)


def _people(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Blurred heads and shoulders: what is behind a face is often another one."""
    picture = _plain(rng)
    for _ in range(7):
        x, y, size = rng.uniform(0, 256), rng.uniform(20, 200), rng.uniform(14, 40)
        skin = np.array([110, 140, 190]) * rng.uniform(0.4, 1.15)
        cv2.ellipse(
            picture, (int(x), int(y + 2.6 * size)), (int(2 * size), int(1.6 * size)), 0, 0, 360, _color(rng).tolist(), -1
        )
        cv2.ellipse(picture, (int(x), int(y - 0.2 * size)), (int(0.95 * size), int(1.15 * size)), 0, 0, 360, [25, 28, 35], -1)
        cv2.ellipse(picture, (int(x), int(y + 0.2 * size)), (int(0.75 * size), int(size)), 0, 0, 360, skin.tolist(), -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(2, 6)), np.float32)


def _shelves(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    picture = 0.6 * _plain(rng)
    top = 0.0
    while top < _PLACE_PX:
        height, left = rng.uniform(30, 70), 0.0
        while left < _PLACE_PX:
            width = rng.uniform(4, 26)
            low = (int(left), int(top + rng.uniform(3, 0.5 * height)))
            cv2.rectangle(picture, low, (int(left + width), int(top + height - 4)), _color(rng).tolist(), -1)
            left += width + 1
        top += height
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2)), np.float32)
