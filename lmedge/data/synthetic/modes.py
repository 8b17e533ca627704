"""How heads differ and how faces move: displacement fields on the average head, and random amounts of each.

A mode moves every vertex by (its amount) × (a smooth vector field of the vertex's position), in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmedge.data.synthetic.head_mesh import average_head
from lmedge.data.synthetic.head_table import Floats

# Standard deviation of the amount, in the mode's own unit (mm at its strongest place).
IDENTITY = {
    "face_width": 3.4, "face_height": 3.2, "lower_height": 2.6, "jaw_width": 3.0, "cheek_width": 2.2, "depth": 5.0,
    "chin_length": 2.6, "chin_depth": 2.2, "eye_distance": 1.5, "eye_width": 1.1, "eye_height": 0.6, "eye_tilt": 1.3,
    "nose_length": 2.4, "nose_width": 1.5, "nose_depth": 2.2, "nose_root": 1.2, "mouth_width": 2.7, "mouth_height": 3.0,
    "upper_lip": 0.9, "lower_lip": 1.1, "brow_height": 3.8, "brow_tilt": 2.6, "brow_arch": 1.2, "brow_distance": 2.2,
    "forehead": 4.0, "contour_top": 3.0, "jaw_side": 1.8, "mouth_side": 1.0, "mouth_tilt": 1.1, "brow_slope": 1.4,
}  # fmt: skip
_WAVES = 10
_WAVE_SD = 0.8

_MOUTH_Y, _MOUTH_X = 68.0, 28.5
_EYE_X, _EYE_Y = 32.0, -0.5
_LID_CREASE_MM = 4.0
# How far the lower lid rises while the eye closes, as a part of the opening.
_LOWER_LID = 0.22


@dataclass(frozen=True)
class Expression:
    """What the face does.

    Attributes:
        mouth_gap_mm: between the inner lips, at the midline; 0 is closed.
        smile: mm that the mouth's corners move out and up; negative is sad.
        pucker: mm that the corners move in.
        eye_closure: right and left, 0 (as the identity has them) to 1 (closed); negative is wide open.
        brow_raise: mm.
        frown: mm that the inner brows move down and together.
    """

    mouth_gap_mm: float = 0.0
    smile: float = 0.0
    pucker: float = 0.0
    eye_closure: tuple[float, float] = (0.0, 0.0)
    brow_raise: float = 0.0
    frown: float = 0.0


def draw_identity(rng: np.random.Generator) -> Floats:
    """Random amounts of the identity modes, in the order of `basis`."""
    spread = np.array([*IDENTITY.values(), *[_WAVE_SD] * (3 * _WAVES)])
    return np.asarray(np.clip(rng.standard_normal(len(spread)), -2.5, 2.5) * spread)


def draw_expression(rng: np.random.Generator) -> Expression:
    """A random expression; about half of the faces have an open mouth, one in twelve shuts its eyes or winks."""
    smile, gap = rng.uniform(-3.5, 9.5), rng.choice([0.0, rng.uniform(0, 11), rng.uniform(0, 30)], p=[0.42, 0.36, 0.22])
    closure = np.full(2, rng.choice([rng.uniform(-0.12, 0.35), rng.uniform(0.35, 1.0), 1.0], p=[0.85, 0.1, 0.05]))
    if rng.random() < 0.03:
        closure[rng.integers(2)] = 1.0
    pucker = rng.choice([0.0, rng.uniform(0, 6)], p=[0.85, 0.15])
    return Expression(
        mouth_gap_mm=float(gap),
        smile=float(smile * (1 if pucker == 0 else 0)),
        pucker=float(pucker),
        eye_closure=(float(closure[0]), float(closure[1])),
        brow_raise=float(np.clip(rng.normal(0, 2.2), -3, 7)),
        frown=float(np.clip(rng.normal(0, 1.3), -1.5, 4)),
    )


def deform(identity: Floats, expression: Expression) -> Floats:
    """The vertices of `average_head` for one person and expression, (V, 3) mm."""
    names, fields = basis()
    count = len(identity)
    vertices = average_head().vertices_mm + np.tensordot(identity, fields[:count], 1)
    amounts = {
        "jaw": expression.mouth_gap_mm - float(vertices[94, 1] - vertices[90, 1]),
        "smile": expression.smile,
        "pucker": expression.pucker,
        "brow_raise": expression.brow_raise,
        "frown": expression.frown,
    }
    for side, closure in zip(("right", "left"), expression.eye_closure, strict=True):
        upper, lower = (62, 66) if side == "right" else (70, 74)
        amounts[f"{side}_lids"] = closure * float(vertices[lower, 1] - vertices[upper, 1]) / _gap_of_average(upper, lower)
    weights = np.array([amounts[name] for name in names[count:]])
    vertices = vertices + np.tensordot(weights, fields[count:], 1)
    _keep_apart(vertices)
    # As in `head_mesh`: the same bytes for any number of threads.
    return np.round(vertices, 4)


def _gap_of_average(upper: int, lower: int) -> float:
    vertices = average_head().vertices_mm
    return float(vertices[lower, 1] - vertices[upper, 1])


def _keep_apart(vertices: Floats) -> None:
    """Lids and lips touch, they do not pass through each other."""
    for upper, lower in ((61, 67), (62, 66), (63, 65), (69, 75), (70, 74), (71, 73), (89, 95), (90, 94), (91, 93)):
        overlap = vertices[upper, 1] - vertices[lower, 1]
        if overlap > 0:
            vertices[upper, 1] -= overlap / 2
            vertices[lower, 1] += overlap / 2


@lru_cache(maxsize=1)
def basis() -> tuple[tuple[str, ...], Floats]:
    """Names and fields (M, V, 3): the identity modes, the smooth waves, then the expression modes."""
    vertices = average_head().vertices_mm
    identity = _identity_fields(vertices)
    fields = {name: identity[name] for name in IDENTITY}
    rng = np.random.default_rng(98)
    for i in range(_WAVES):
        frequency = rng.normal(0, 1 / 38.0, 3)
        wave = np.cos(vertices @ frequency + rng.uniform(0, 2 * np.pi))
        for axis, letter in enumerate("xyz"):
            fields[f"wave_{i}_{letter}"] = wave[:, None] * np.eye(3)[axis]
    fields |= _expression_fields(vertices)
    return tuple(fields), np.round(np.stack(list(fields.values())), 6)


def _step(value: Floats, start: float, end: float) -> Floats:
    t = np.clip((value - start) / (end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _near(vertices: Floats, center: tuple[float, float], radius_x: float, radius_y: float) -> Floats:
    """A bump over both halves of the face, 1 at ±center."""
    offset_x, offset_y = (np.abs(vertices[:, 0]) - center[0]) / radius_x, (vertices[:, 1] - center[1]) / radius_y
    return np.asarray(np.exp(-0.5 * (offset_x**2 + offset_y**2)) * (vertices[:, 2] < 60))


def _field(vertices: Floats, x: Floats | float = 0.0, y: Floats | float = 0.0, z: Floats | float = 0.0) -> Floats:
    return np.stack([np.broadcast_to(part, len(vertices)) for part in (x, y, z)], axis=1).astype(np.float64)


def _identity_fields(v: Floats) -> dict[str, Floats]:
    x, y, z = v.T
    side, out = np.sign(x), x / 70
    eye, mouth = _near(v, (_EYE_X, _EYE_Y), 17, 11), _near(v, (0, _MOUTH_Y), 34, 16)
    nose, brow = _near(v, (0, 32), 17, 16), _near(v, (34, -19), 22, 8)
    from_eye_x, from_eye_y = np.abs(x) - _EYE_X, y - _EYE_Y
    chin = _near(v, (0, 108), 38, 18)
    below_nose = _step(y, 30, 70)
    upper, lower = _near(v, (0, 60.5), 22, 4.0), _near(v, (0, 79), 22, 5.0)
    brow_x = (np.abs(x) - 34) / 20
    temple = _step(np.abs(x), 40, 68) * _step(-y, -45, 5) * (z < 75)
    return {
        "face_width": _field(v, x=out),
        "face_height": _field(v, y=y / 100),
        "lower_height": _field(v, y=below_nose * np.maximum(y - 30, 0) / 80),
        "jaw_width": _field(v, x=out * _step(y, 30, 85) * 1.4),
        "cheek_width": _field(v, x=side * _near(v, (58, 40), 24, 26), z=-0.6 * _near(v, (48, 40), 24, 26)),
        "depth": _field(v, z=(z - 20) / 60),
        "chin_length": _field(v, y=chin),
        "chin_depth": _field(v, z=-chin),
        "eye_distance": _field(v, x=side * _near(v, (_EYE_X, -6), 20, 20)),
        "eye_width": _field(v, x=side * eye * np.clip(from_eye_x / 13, -1.5, 1.5)),
        "eye_height": _field(v, y=eye * np.clip(from_eye_y / 5, -1.5, 1.5)),
        "eye_tilt": _field(v, y=-_near(v, (_EYE_X, _EYE_Y), 17, 13) * np.clip(from_eye_x / 13, -1.5, 1.5)),
        "nose_length": _field(v, y=_near(v, (0, 44), 26, 16)),
        "nose_width": _field(v, x=np.clip(x / 15, -1.3, 1.3) * _near(v, (0, 40), 22, 12)),
        "nose_depth": _field(v, z=-nose),
        "nose_root": _field(v, z=-_near(v, (0, 2), 10, 14)),
        "mouth_width": _field(v, x=np.clip(x / 28, -1.3, 1.3) * mouth),
        "mouth_height": _field(v, y=mouth),
        "upper_lip": _field(v, y=-upper, z=-0.4 * upper),
        "lower_lip": _field(v, y=lower, z=-0.4 * lower),
        "brow_height": _field(v, y=-brow),
        "brow_tilt": _field(v, y=-brow * brow_x),
        "brow_arch": _field(v, y=-brow * (1 - 2 * brow_x**2)),
        "brow_distance": _field(v, x=side * brow),
        "forehead": _field(v, y=-_step(-y, 30, 110)),
        "contour_top": _field(v, x=side * temple),
        # No face is its own mirror image.
        "jaw_side": _field(v, x=_step(y, 20, 110)),
        "mouth_side": _field(v, x=mouth),
        "mouth_tilt": _field(v, y=mouth * np.clip(x / 28, -1.3, 1.3)),
        "brow_slope": _field(v, y=brow * side),
    }


def _expression_fields(v: Floats) -> dict[str, Floats]:
    x, y, _ = v.T
    side, across = np.sign(x), np.abs(x)
    # Inside the mouth the lips part sharply; from its corners outward the skin stretches ever more softly.
    softness = 0.6 + 0.33 * np.maximum(across - 0.8 * _MOUTH_X, 0)
    middle_y = np.interp(across, [0, 10, 25, _MOUTH_X], [68.7, 68.0, 66.5, 66.0])
    with_jaw = 1 / (1 + np.exp(-np.clip((y - middle_y) / softness, -30, 30)))
    with_jaw = with_jaw * (1 - _step(across, 40, 72) * (1 - _step(y, 60, 100))) * (v[:, 2] < 60)
    with_jaw = with_jaw * (1 - 0.55 * np.clip(across / _MOUTH_X, 0, 1) ** 2 * _near(v, (0, _MOUTH_Y), 60, 9))
    corner, lips = _near(v, (_MOUTH_X, 66), 13, 11), _near(v, (0, _MOUTH_Y), 22, 11)
    cheek, brow = _near(v, (40, 38), 16, 14), _near(v, (34, -19), 26, 9)
    inner_brow = _near(v, (14, -17), 11, 8)
    upper_lip = _near(v, (0, 61), 24, 5) * (y < middle_y)
    return {
        "jaw": _field(v, y=0.93 * with_jaw - 0.07 * upper_lip, z=0.3 * with_jaw * _step(y, 66, 110)),
        "smile": _field(
            v, x=0.75 * side * corner, y=-0.55 * corner + 0.1 * lips - 0.2 * cheek, z=0.5 * corner + 0.1 * lips - 0.25 * cheek
        ),
        "pucker": _field(v, x=-side * corner, z=-0.5 * lips),
        "brow_raise": _field(v, y=-brow),
        "frown": _field(v, x=-0.5 * side * inner_brow, y=0.7 * inner_brow),
        "right_lids": _lid_field(v, (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)),
        "left_lids": _lid_field(v, (68, 69, 70, 71, 72), (68, 75, 74, 73, 72)),
    }


def _lid_field(v: Floats, upper: tuple[int, ...], lower: tuple[int, ...]) -> Floats:
    """Moves the upper lid onto the (slightly risen) lower lid, and draws the skin above along."""
    x, y, z = v.T
    upper_y = np.interp(x, v[list(upper), 0], v[list(upper), 1])
    lower_y = np.interp(x, v[list(lower), 0], v[list(lower), 1])
    gap = lower_y - upper_y
    inside = (x > v[upper[0], 0]) & (x < v[upper[-1], 0]) & (z < 20)
    above = np.exp(-np.maximum(upper_y - y, 0) / _LID_CREASE_MM)
    below = np.exp(-np.maximum(y - lower_y, 0) / _LID_CREASE_MM)
    is_upper = y < (upper_y + lower_y) / 2
    move = np.where(is_upper, (1 - _LOWER_LID) * gap * above, -_LOWER_LID * gap * below)
    return _field(v, y=np.where(inside, move, 0.0))
