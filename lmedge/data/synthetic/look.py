"""What a person looks like: colours, hair style, beard, brows, make-up; as the eye sees them and as near infrared does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmedge.data.synthetic.head_table import Floats

# BGR in 0 to 255; skin from light to dark, hair from black to blond, gray and red.
_SKIN = np.array(
    [[184, 203, 236], [160, 186, 228], [136, 164, 214], [112, 144, 200], [84, 116, 176], [58, 86, 142], [38, 56, 98]]
)
_HAIR = np.array([[22, 20, 20], [28, 34, 44], [36, 52, 78], [52, 80, 116], [84, 132, 170], [128, 168, 198], [150, 152, 156],
                  [210, 212, 214], [34, 58, 118]])  # fmt: skip
_HAIR_SHARE = (0.2, 0.22, 0.2, 0.12, 0.08, 0.05, 0.06, 0.04, 0.03)
_HAIR_DARK_SHARE = (0.5, 0.3, 0.12, 0, 0, 0, 0.05, 0.03, 0)
_IRIS = np.array([[28, 42, 70], [38, 62, 100], [70, 100, 110], [140, 120, 90], [150, 140, 120], [80, 110, 80]])
_DARK_SKIN = 3.4


@dataclass(frozen=True, eq=False)
class Look:
    """A person's colours (BGR, 0 to 255, float) and style. Strengths run from 0 to 1.

    Attributes:
        pupil: gray level; in near infrared it may shine.
        hair_volume_mm: how far the hair stands off the skull.
        hairline_mm: the hairline moves up (receding) or, negative, down over the forehead.
        parting_mm: where the hair is parted (x); the hairline rises there by `parting_depth_mm`.
        hair_length_mm: below the ears; 0 is short hair.
        curls: 0 is straight hair, 1 a texture of locks in all directions.
        bald: no hair at all.
        texture: how much pores and blotches show.
    """

    skin: Floats
    hair: Floats
    brow: Floats
    lips: Floats
    iris: Floats
    pupil: float
    eye_white: float
    hair_volume_mm: float
    hairline_mm: float
    parting_mm: float
    parting_depth_mm: float
    hair_length_mm: float
    curls: float
    covers_ears: bool
    bald: bool
    beard: float
    goatee: float
    moustache: float
    brow_strength: float
    brow_thickness: float
    wrinkles: float
    freckles: float
    flush: float
    eye_shadow: float
    eyeliner: float
    shine: float
    texture: float


def draw_look(rng: np.random.Generator) -> Look:
    """A random person."""
    position = rng.beta(1.0, 1.6) * (len(_SKIN) - 1)
    low = int(min(position, len(_SKIN) - 2))
    skin = _SKIN[low] + (position - low) * (_SKIN[low + 1] - _SKIN[low]) + rng.normal(0, 4, 3)
    dark_only = position > _DARK_SKIN
    hair = _HAIR[rng.choice(len(_HAIR), p=_HAIR_DARK_SHARE if dark_only else _HAIR_SHARE)]
    hair = hair * rng.uniform(0.7, 1.2) + rng.normal(0, 4, 3)
    long_hair = rng.random() < 0.45
    bearded, made_up = not long_hair and rng.random() < 0.4, long_hair and rng.random() < 0.6
    lips = skin * np.array([0.74, 0.68, 0.88]) * rng.uniform(0.85, 1.08)
    if made_up:
        lips = skin * np.array([0.55, 0.42, 0.86]) * rng.uniform(0.75, 1.1) + rng.normal(0, 12, 3)
    stubble = rng.random() < 0.5
    return Look(
        skin=np.clip(skin, 20, 248),
        hair=np.clip(hair, 6, 235),
        brow=np.clip(np.minimum(hair * rng.uniform(0.5, 0.95), 0.75 * skin), 8, 150),
        lips=np.clip(lips, 15, 235),
        iris=np.clip(_IRIS[rng.integers(2 if dark_only else len(_IRIS))] * rng.uniform(0.6, 1.15), 10, 200),
        pupil=10.0,
        eye_white=float(rng.uniform(0.55, 0.95)),
        hair_volume_mm=float(rng.uniform(4, 26) if long_hair else rng.uniform(1, 22)),
        hairline_mm=float(rng.choice([rng.uniform(-10, 18), rng.uniform(-34, -10)], p=[0.78, 0.22])),
        parting_mm=float(rng.normal(0, 26)),
        parting_depth_mm=float(rng.choice([0.0, rng.uniform(8, 40)], p=[0.3, 0.7])),
        hair_length_mm=float(rng.uniform(10, 150)) if long_hair else 0.0,
        curls=float(rng.choice([0.0, rng.uniform(0.2, 1)], p=[0.6, 0.4])),
        covers_ears=bool(long_hair and rng.random() < 0.8),
        bald=bool(not long_hair and rng.random() < 0.14),
        beard=float(bearded and rng.random() < 0.7) * float(rng.uniform(0.1, 0.4) if stubble else rng.uniform(0.4, 1)),
        goatee=float(rng.uniform(0.3, 1) if bearded and rng.random() < 0.5 else 0),
        moustache=float(rng.uniform(0, 1) if bearded else 0),
        brow_strength=float(rng.uniform(0.25, 1.0)),
        brow_thickness=float(rng.uniform(0.7, 1.3)),
        wrinkles=float(rng.beta(1.1, 2.2)),
        freckles=float(rng.uniform(0.2, 1) if position < 2.5 and rng.random() < 0.15 else 0),
        flush=float(rng.uniform(0.2, 1.4)),
        eye_shadow=float(rng.uniform(0.05, 0.4)),
        eyeliner=float(rng.uniform(0.4, 1) if made_up else rng.uniform(0, 0.3)),
        shine=float(rng.beta(1.3, 2.5)),
        texture=float(rng.beta(1.3, 2.5)),
    )


def plain_look(look: Look) -> Look:
    """The same person with nothing on or over the face."""
    return replace(
        look, hairline_mm=0.0, parting_depth_mm=0.0, hair_length_mm=0.0, covers_ears=False, beard=0.0, goatee=0.0,
        moustache=0.0, wrinkles=0.0, freckles=0.0, shine=0.0, eye_white=0.95, eyeliner=0.2, brow_strength=0.9,
        brow_thickness=1.0, texture=0.2,
    )  # fmt: skip


def infrared_look(look: Look, rng: np.random.Generator) -> Look:
    """The same person at 850 to 940 nm: any skin is bright, lips and brows fade, the pupil may shine back.

    Melanin absorbs little there (Anderson and Parrish, J. Invest. Dermatol. 77, 1981); an illuminator beside the lens lights
    up the retina, one farther away leaves the pupil dark (Morimoto et al., Image and Vision Computing 18, 2000).
    """
    skin = rng.uniform(150, 205)
    hair = np.clip(look.hair.mean() * 0.8 + rng.uniform(10, 60), 20, 200)
    return replace(
        look,
        skin=np.full(3, skin),
        hair=np.full(3, hair),
        brow=np.full(3, min(0.6 * hair + 0.25 * skin, 0.8 * skin)),
        lips=np.full(3, skin * rng.uniform(0.84, 1.0)),
        iris=np.full(3, rng.uniform(45, 100)),
        pupil=float(rng.choice([rng.uniform(5, 30), rng.uniform(190, 250)], p=[0.55, 0.45])),
        eye_white=float(rng.uniform(0.5, 0.75)),
        beard=look.beard * 0.6,
        flush=0.0,
        freckles=0.0,
        eyeliner=look.eyeliner * 0.5,
    )


def hair_displacement_mm(look: Look, vertices_mm: Floats, rng: np.random.Generator) -> Floats:
    """How far hair lifts each vertex of the average head from the skull, (V,)."""
    if look.bald:
        return np.zeros(len(vertices_mm))
    wave = rng.normal(0, 1 / (20 - 8 * look.curls), 3)
    _, y, z = vertices_mm.T
    # Summed by hand: a matrix product may round differently with another number of threads.
    phase = vertices_mm[:, 0] * wave[0] + y * wave[1] + z * wave[2] + rng.uniform(0, 6)
    bumps = np.cos(phase) * (0.15 + 0.15 * look.curls) + 1
    # Short hair lies flat around the ears.
    flat = 1.0 if look.covers_ears else 1 - 0.8 * np.exp(-0.5 * (((y - 12) / 30) ** 2 + ((z - 78) / 26) ** 2))
    level = np.clip(hair_level_mm(vertices_mm.T, look) / 26, 0, 1)
    return np.asarray(look.hair_volume_mm * level**0.8 * bumps * flat)


def hair_level_mm(positions_mm: Floats, look: Look) -> Floats:
    """Positive inside the hair, by how many mm; for positions (3, P) on the average head."""
    x, y, z = positions_mm
    across = np.abs(x)
    front = -(y + (64 + look.hairline_mm)) + min(look.hairline_mm, 0) * 0.4 / 3600 * x * x - 0.05 * across
    if look.parting_depth_mm > 0:
        front -= look.parting_depth_mm / (1 + ((x - look.parting_mm) / 26) ** 2)
    if look.covers_ears:
        side = z - 50 - 0.12 * np.maximum(y, 0) - 2 * np.maximum(y - 52, 0)
    else:
        side = np.minimum(z - 56 - 0.5 * np.maximum(y - 5, 0), 2 * (z - 56)) - 0.9 * np.maximum(y - 12, 0) * (z < 88)
        side -= 1.5 * np.maximum(y - 52, 0)
    return np.asarray(np.maximum(front, side))
