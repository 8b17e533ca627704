"""Everything around the head: background, neck, clothes, long hair; and what camera and file do to the picture."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.appearance import Image, Look
from lmedge.data.synthetic.camera import View
from lmedge.data.synthetic.features import Canvas
from lmedge.data.synthetic.head_table import Floats

_GRAIN_PX = 512
_EDGE_BLUR_PX = 0.55


def draw_background(size_px: int, rng: np.random.Generator) -> Canvas:
    """A blurred place: colour gradients, shapes, stripes; float32 (size_px, size_px, 3)."""
    cells = int(rng.integers(2, 7))
    base = rng.uniform(15, 230) + rng.normal(0, 26, 3)
    coarse = np.clip(base + rng.normal(0, rng.uniform(5, 55), (cells, cells, 1)) + rng.normal(0, 14, (cells, cells, 3)), 0, 255)
    canvas = cv2.resize(coarse.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 9))):
        corners = rng.uniform(-0.2, 1.2, 2) + rng.normal(0, rng.uniform(0.05, 0.4), (int(rng.integers(3, 6)), 2))
        color = np.clip(base + rng.normal(0, 50) + rng.normal(0, 22, 3), 0, 255)
        cv2.fillPoly(canvas, [np.round(corners * size_px).astype(np.int32)], color.tolist())
    if rng.random() < 0.25:
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.25) * size_px
        axis = np.arange(size_px, dtype=np.float32)
        phase = (axis[None] * np.float32(np.cos(angle)) + axis[:, None] * np.float32(np.sin(angle))) * np.float32(
            2 * np.pi / period
        )
        canvas = canvas + (np.float32(rng.uniform(5, 40)) * np.sin(phase))[..., None]
    blur = rng.uniform(0, 0.025) * size_px
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), blur) if blur > 0.4 else canvas)


def draw_body(canvas: Canvas, view: View, look: Look, light: float, light_side: float, rng: np.random.Generator) -> None:
    """Hair behind the neck, the neck, shoulders with clothes; behind the head, so drawn first. The body turns half as far."""
    body = View(_half_turn(view.rotation), view.distance_mm, view.scale, view.offset_px)

    def project(*points: tuple[float, float, float]) -> Floats:
        return body.project(body.to_camera(np.array(points)))

    if look.hair_length_mm > 0:
        wide, low = 78 + look.hair_volume_mm, 50 + look.hair_length_mm
        drop = [(-wide, -40, 90), (-wide - 6, 40, 95), (-wide - rng.uniform(-8, 14), low, 95), (-50, low + 14, 95),
                (50, low + 14, 95), (wide + rng.uniform(-8, 14), low, 95), (wide + 6, 40, 95), (wide, -40, 90)]  # fmt: skip
        outline = view.project(view.to_camera(np.array(drop)))
        _fill(canvas, outline, look.hair * 0.75 * light)
        for part in rng.uniform(0.04, 0.96, 14):
            top, bottom = outline[0] + (outline[-1] - outline[0]) * part, outline[2] + (outline[5] - outline[2]) * part
            line = np.round(np.stack([top, bottom]) * 16).astype(np.int32)
            cv2.polylines(canvas, [line], False, (look.hair * light * rng.uniform(0.5, 1.15)).tolist(), 2, cv2.LINE_8, 4)
    neck = rng.uniform(46, 60)
    for i in range(8):
        left, right = -neck + i * neck / 4, -neck + (i + 1) * neck / 4
        strip = project((left, 60, 72), (right, 60, 72), (right * 1.1, 200, 85), (left * 1.1, 200, 85))
        shade = 0.62 + 0.28 * np.cos((i - 3.5) / 4 * 1.2 - 0.8 * light_side)
        _fill(canvas, strip, look.skin * light * shade)
    # The jaw throws a shadow on the neck.
    _fill(canvas, project((-56, 60, 70), (56, 60, 70), (46, 128, 70), (0, 138, 68), (-46, 128, 70)), look.skin * light * 0.45)
    cloth, dip = np.clip(rng.uniform(15, 230) + rng.normal(0, 28, 3), 5, 240), rng.uniform(150, 200)
    shoulder = rng.uniform(165, 235)
    shape = [(-62, 148, 90), (0, dip, 62), (62, 148, 90), (shoulder, 195, 90), (shoulder + 30, 420, 90),
             (-shoulder - 30, 420, 90), (-shoulder, 195, 90)]  # fmt: skip
    _fill(canvas, project(*shape), cloth * light)
    if rng.random() < 0.3:
        _fill(
            canvas,
            project((-6, dip, 62), (6, dip, 62), (14, 420, 62), (-14, 420, 62)),
            np.clip(rng.uniform(0, 255, 3), 0, 255) * light,
        )


def soften(canvas: Canvas) -> Image:
    """A clean picture: only the edges of the drawing are smoothed."""
    return np.asarray(np.clip(cv2.GaussianBlur(canvas, (0, 0), _EDGE_BLUR_PX), 0, 255), np.uint8)


def photograph(canvas: Canvas, rng: np.random.Generator) -> Image:
    """Exposure, white balance, blur, sensor noise and sometimes JPEG: float canvas → uint8 picture."""
    size_px = canvas.shape[0]
    blur = np.hypot(_EDGE_BLUR_PX, abs(rng.normal(0, 0.004)) * size_px)
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), float(blur)), np.float32)
    gain = np.exp(rng.normal(0, 0.16)) * np.exp(rng.normal(0, 0.05, 3))
    canvas = canvas * gain.astype(np.float32)
    contrast, gray = rng.uniform(0.75, 1.15), rng.random() < 0.06
    canvas = (canvas - 110) * np.float32(contrast) + np.float32(110 + rng.normal(0, 8))
    if gray:
        canvas = np.repeat(np.asarray(cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY), np.float32)[..., None], 3, axis=2)
    top, left = rng.integers(0, _GRAIN_PX, 2)
    rows, columns = (top + np.arange(size_px)) % _GRAIN_PX, (left + np.arange(size_px)) % _GRAIN_PX
    canvas = canvas + _grain()[rows[:, None], columns[None]] * np.float32(abs(rng.normal(0, 4.5)) + 0.6)
    picture = np.clip(canvas, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])[1]
        picture = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(picture, np.uint8)


def _fill(canvas: Canvas, outline_px: Floats, color: Floats) -> None:
    cv2.fillPoly(canvas, [np.round(outline_px * 16).astype(np.int32)], np.asarray(color, float).tolist(), cv2.LINE_8, 4)


def _half_turn(rotation: Floats) -> Floats:
    vector, _ = cv2.Rodrigues(np.asarray(rotation, np.float64))
    return np.asarray(cv2.Rodrigues(vector * 0.4)[0])


@lru_cache(maxsize=1)
def _grain() -> npt.NDArray[np.float32]:
    """Sensor noise, a mixture of white and slightly correlated, standard deviation 1, (_GRAIN_PX, _GRAIN_PX, 3)."""
    white = np.random.default_rng(512).standard_normal((_GRAIN_PX, _GRAIN_PX, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(white, (0, 0), 0.9)
    mixed = white + 1.5 * soft
    return np.asarray(mixed / mixed.std(), np.float32)
