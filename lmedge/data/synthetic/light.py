"""Light and the camera's sensitivity: by day, from the side, too little of it, or a near-infrared lamp beside the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmedge.data.synthetic.head_table import Floats

ORDINARY, SIDE_LIGHT, LOW_LIGHT, NEAR_INFRARED = "ordinary", "side-light", "low-light", "near-infrared"
LIGHTINGS = (ORDINARY, SIDE_LIGHT, LOW_LIGHT, NEAR_INFRARED)
_SHARE = (0.74, 0.12, 0.06, 0.08)


@dataclass(frozen=True, eq=False)
class Light:
    """Light on a head.

    Attributes:
        lighting: one of `LIGHTINGS`.
        ambient, key: strengths per channel (BGR); 1 shows a colour as it is.
        direction: unit vector toward the key light, camera axes.
        place: brightness of what is behind the head.
        falloff: how much darker the corners of the picture are than its middle, 0 to 1.
    """

    lighting: str
    ambient: Floats
    key: Floats
    direction: Floats
    place: float
    falloff: float = 0.0

    @property
    def level(self) -> Floats:
        """Brightness per channel of a surface that faces the camera."""
        facing = max(0.0, (-float(self.direction[2]) + 0.25) / 1.25)
        return np.asarray(0.8 * self.ambient + self.key * facing)


def draw_lighting(rng: np.random.Generator) -> str:
    return str(rng.choice(LIGHTINGS, p=_SHARE))


def plain_light() -> Light:
    """Even light from the front."""
    return Light(ORDINARY, np.full(3, 0.5), np.full(3, 0.5), _unit(0.0, -0.3, -1.0), 1.0)


def draw_light(lighting: str, rng: np.random.Generator) -> Light:
    """A random light of that kind."""
    warmth = rng.normal(0, 0.09)
    tint = np.array([1 - warmth, 1.0, 1 + warmth])
    if lighting == NEAR_INFRARED:
        direction = _unit(rng.normal(0, 0.3), rng.normal(0, 0.25), -1.0)
        return Light(
            lighting, np.full(3, rng.uniform(0.02, 0.25)), np.full(3, rng.uniform(0.75, 1.25)), direction,
            float(rng.uniform(0.03, 0.3)), float(rng.uniform(0.2, 0.75)),
        )  # fmt: skip
    if lighting == SIDE_LIGHT:
        side = rng.choice([-1.0, 1.0])
        direction = _unit(side * rng.uniform(0.8, 1.5), rng.normal(-0.3, 0.4), -rng.uniform(0.1, 0.7))
        ambient = rng.uniform(0.12, 0.4)
        return Light(lighting, ambient / tint, rng.uniform(0.6, 1.0) * tint, direction, float(rng.uniform(0.2, 1.2)))
    direction = _unit(rng.normal(0, 0.7), rng.normal(-0.5, 0.45), -rng.uniform(0.3, 1.2))
    ambient = rng.uniform(0.3, 0.8)
    key = rng.uniform(0.95, 1.45) - ambient
    return Light(lighting, ambient / tint, key * tint, direction, float(np.exp(rng.normal(-0.1, 0.35))))


def _unit(x: float, y: float, z: float) -> Floats:
    vector = np.array([x, y, z])
    return np.asarray(vector / np.sqrt((vector**2).sum()))
