"""The colours of the head's surface before light: skin, lips, beard, brows, hair or a cap."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic import skin_maps
from lmedge.data.synthetic.drawing import Image, polygon, polyline
from lmedge.data.synthetic.head_table import Floats
from lmedge.data.synthetic.look import Look, hair_level_mm

Pixels = npt.NDArray[np.float32]

_REMAP_COLUMNS = 256


class Texels:
    """Where on the texture each of the P pixels of the head lies."""

    def __init__(self, texel: Pixels) -> None:
        self.count = texel.shape[1]
        rows = -(-self.count // _REMAP_COLUMNS)
        # `cv2.remap` takes maps of at most 32767 rows and columns.
        padded = np.zeros((2, rows * _REMAP_COLUMNS), np.float32)
        padded[:, : self.count] = texel
        self.x, self.y = padded.reshape(2, rows, _REMAP_COLUMNS)

    def sample(self, texture: Image, *, mirrored: bool = False) -> Pixels:
        """The texture's channels at the pixels, (C, P) float32."""
        x = texture.shape[1] - 1 - self.x if mirrored else self.x
        values = np.asarray(cv2.remap(texture, x, self.y, cv2.INTER_LINEAR)).reshape(self.x.size, -1)[: self.count]
        return np.asarray(values.T.astype(np.float32, order="C"))


def sample_maps(texels: Texels, rng: np.random.Generator) -> tuple[dict[str, Pixels], Pixels]:
    """Region masks by name, each (P,) in 0 to 1, and noise (4, P) of standard deviation 1."""
    planes = np.concatenate([texels.sample(source) for source in skin_maps.region_maps()]) * np.float32(1 / 255)
    source = skin_maps.noise_maps()[rng.integers(skin_maps.NOISE_MAPS)]
    noise = (texels.sample(source, mirrored=bool(rng.random() < 0.5)) - skin_maps.NOISE_ZERO) * np.float32(
        1 / skin_maps.NOISE_STEP
    )
    return dict(zip(skin_maps.REGIONS, planes, strict=True)), noise


def albedo(
    look: Look,
    regions: dict[str, Pixels],
    noise: Pixels,
    average_mm: Pixels,
    cap: Floats | None,
) -> tuple[Pixels, Pixels]:
    """Colour of the surface (3, P) before light, and how much of it is hair or cap (P,)."""
    blotches, pores, strands, locks = noise
    shade = 1 + (0.008 + 0.03 * look.texture) * blotches + (0.005 + 0.03 * look.texture) * pores
    shade -= look.eye_shadow * (0.6 * regions["under_eye"] + regions["socket"]) + 0.16 * regions["crevices"]
    shade -= (0.06 + 0.3 * look.wrinkles) * regions["folds"] + 0.25 * look.wrinkles * regions["lines"]
    shade -= 0.7 * regions["nostrils"]
    level = hair_level_mm(average_mm, look) + 5 * strands + 3 * blotches if not look.bald else None
    if level is not None:
        # Hair shades the skin below it.
        shade -= 0.3 * np.clip(1 + level * (1 / 11), 0, 1)
    red = look.flush * regions["blush"]
    spots = look.freckles * np.clip(pores - 0.7, 0, 1.5) * regions["blush"] if look.freckles else None
    planes = np.empty((3, len(shade)), np.float32)
    for channel, (pale, brown) in enumerate(((0.14, 0.3), (0.12, 0.25), (0.0, 0.14))):
        tone = shade - pale * red if pale else shade
        planes[channel] = float(look.skin[channel]) * (tone if spots is None else tone - brown * spots)

    _lay(planes, look.lips, 1 + 0.04 * pores - 0.16 * regions["upper_lip"], 0.85 * regions["lips"])
    hairy = np.maximum(look.beard * regions["beard"], look.goatee * regions["goatee"])
    if look.moustache or hairy.max() > 0:
        stubble = np.clip(0.75 + 0.35 * pores + 0.2 * strands, 0, 1)
        _lay(
            planes, look.hair * 0.8, 1 + 0.15 * pores, np.maximum(hairy, look.moustache * regions["moustache"]) * stubble * 0.85
        )
    _lay(planes, look.brow, 1 + 0.08 * pores, regions["brows"])
    hair = np.zeros_like(shade)
    if level is not None:
        hair = np.clip(level * (1 / 6) + 0.5, 0, 1).astype(np.float32)
        contrast = 0.34 - 0.2 * look.hair.mean() / 255
        straight = 0.6 * strands + 0.5 * locks
        loose = 0.5 * blotches + 0.6 * pores
        pattern = straight + look.curls * (loose - straight) if look.curls else straight
        _lay(planes, look.hair, np.clip(1 + contrast * pattern, 0.25, 2), hair)
    if cap is not None:
        under_cap = np.clip(cap_level_mm(average_mm) * (1 / 2) + 0.5, 0, 1).astype(np.float32)
        _lay(planes, cap, 1 + 0.04 * blotches + 0.03 * pores, under_cap)
        hair = np.maximum(hair, under_cap)
    return planes, hair


def _lay(planes: Pixels, color: Floats, modulation: Pixels, alpha: Pixels) -> None:
    for channel, value in enumerate(color):
        planes[channel] += (float(value) * modulation - planes[channel]) * alpha


def brow_texture(look: Look, rng: np.random.Generator) -> Image:
    """How much brow there is at each texel: a soft body and single hairs, inside the labelled outlines."""
    alpha = np.zeros((skin_maps.TEXTURE_PX, skin_maps.TEXTURE_PX), np.uint8)
    points = skin_maps.landmarks_texel()
    for outline in (range(33, 42), range(42, 51)):
        ring = points[list(outline)]
        upper, lower = (ring[:5], np.concatenate([ring[:1], ring[:4:-1]])) if outline[0] == 33 else (
            ring[4::-1], np.concatenate([ring[4:5], ring[5:]]))  # fmt: skip
        middle = (upper + lower) / 2
        thick = np.concatenate([middle + (upper - middle) * look.brow_thickness, middle[::-1] + (lower - middle)[::-1]])
        polygon(alpha, thick, 255 * 0.75 * look.brow_strength)
        along = np.sort(rng.uniform(0, 4, 36))
        low = np.minimum(along.astype(int), 3)
        part, across = (along - low)[:, None], rng.uniform(0.0, 1.0, 36)[:, None]
        top, base = upper[low] * (1 - part) + upper[low + 1] * part, lower[low] * (1 - part) + lower[low + 1] * part
        root = base + (top - base) * across * 0.8
        outward = np.sign(root[:, 0] - skin_maps.TEXTURE_PX / 2)
        tip = root + np.stack([outward * rng.uniform(1.5, 4.5, 36), -rng.uniform(0.2, 2.5, 36)], axis=1)
        polyline(alpha, np.stack([root, tip], axis=1), 255 * look.brow_strength)
    rows = slice(int(points[33:51, 1].min()) - 12, int(points[33:51, 1].max()) + 12)
    alpha[rows] = cv2.GaussianBlur(alpha[rows], (5, 5), 0.9)
    return alpha


def cap_level_mm(positions_mm: Floats) -> Floats:
    """Positive under a cap, by how many mm; for positions (3, P) on the average head."""
    return np.asarray(-positions_mm[1] - 50 + 0.28 * (positions_mm[2] + 20))
