"""Losses on coordinates, by name: how much each pixel of difference costs, and the one way in which all of them are averaged.

Differences are in pixels of the crop, since that is the scale that the constants of Wing and its relatives belong to: on
fractions every error would lie in one branch of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lmedge.errors import ConfigError, InputError

# Girshick, "Fast R-CNN", ICCV 2015, with the turn at 1 px.
_SMOOTH_PX = 1.0
# Feng et al., "Wing Loss for Robust Facial Landmark Localisation", CVPR 2018.
_WING_OMEGA_PX = 10.0
_WING_EPSILON_PX = 2.0
# Lin et al., "Structure-Coherent Deep Feature Learning for Robust Face Alignment", TIP 2021.
_SOFT_WING_NEAR_PX = 2.0
_SOFT_WING_OMEGA_PX = 20.0
_SOFT_WING_EPSILON_PX = 0.5

# What the outer eye corners are apart, as a part of a crop of 1.25 times the face: the mean over 300-W, and over WFLW.
AVERAGE_NORMALIZER = 0.47
# No face counts for more than this many average ones: one seen from the side has nearly nothing to be measured by.
_MOST_WEIGHT = 4.0


@dataclass(frozen=True)
class Loss:
    """A loss on coordinates.

    Attributes:
        penalty: of differences in pixels of the crop, coordinate by coordinate; 0 costs nothing.
    """

    penalty: Callable[[Tensor], Tensor]

    def __call__(self, predicted: Tensor, true: Tensor, mask: Tensor, size_px: int, normalizer: Tensor | None = None) -> Tensor:
        """The mean over the known points of each face, then over the faces that have any; 0 where no point is known.

        Each face counts alike however many of its points are known, so that processes with equal shares of a batch average to
        what one process has for all of it. Unknown points have no influence and no gradient, whatever stands in their place.

        Args:
            predicted, true: fractions of the crop (N, K, 2); `true` may be NaN where `mask` is false.
            mask: (N, K), true where a point is known.
            size_px: side of the crop.
            normalizer: what the error of each face is divided by (N,), as a fraction of the crop. With it the loss is that of
                the NME: a difference counts for AVERAGE_NORMALIZER / normalizer of its pixels, at most four times. A face
                that has none (NaN) counts as an average one.

        Raises:
            InputError: shapes that do not belong together.
        """
        _check_shapes(predicted, true, mask, normalizer)
        difference_px = _known(predicted - _known(true, mask), mask) * size_px
        if normalizer is not None:
            difference_px = difference_px * _weights(normalizer)[:, None, None]
        per_point = torch.where(mask, self.penalty(difference_px).mean(2), 0.0)
        per_face = per_point.sum(1) / mask.sum(1).clamp(min=1)
        return per_face.sum() / mask.any(1).sum().clamp(min=1)


def get_loss(name: str) -> Loss:
    """A loss by name.

    Raises:
        ConfigError: no such loss.
    """
    if name not in LOSSES:
        raise ConfigError(f"No loss is called {name!r}; known: {', '.join(LOSSES)}.")
    return LOSSES[name]


def _l2(difference_px: Tensor) -> Tensor:
    return difference_px.square()


def _l1(difference_px: Tensor) -> Tensor:
    return difference_px.abs()


def _smooth_l1(difference_px: Tensor) -> Tensor:
    """d² / 2β below β, |d| − β / 2 above."""
    distance = difference_px.abs()
    near = difference_px.square() / (2 * _SMOOTH_PX)
    return torch.where(distance < _SMOOTH_PX, near, distance - _SMOOTH_PX / 2)


def _wing(difference_px: Tensor) -> Tensor:
    """ω·ln(1 + |d| / ε) below ω, |d| − C above, with C = ω − ω·ln(1 + ω / ε): small errors keep a large gradient."""
    distance = difference_px.abs()
    constant = _WING_OMEGA_PX - _WING_OMEGA_PX * math.log1p(_WING_OMEGA_PX / _WING_EPSILON_PX)
    near = _WING_OMEGA_PX * torch.log1p(distance / _WING_EPSILON_PX)
    return torch.where(distance < _WING_OMEGA_PX, near, distance - constant)


def _soft_wing(difference_px: Tensor) -> Tensor:
    """|d| below ω₁, ω₂·ln(1 + |d| / ε) + B above, with B = ω₁ − ω₂·ln(1 + ω₁ / ε): what labels disagree in does not count for
    more than it is, and middling errors do."""
    distance = difference_px.abs()
    start = _SOFT_WING_OMEGA_PX * math.log1p(_SOFT_WING_NEAR_PX / _SOFT_WING_EPSILON_PX)
    far = _SOFT_WING_OMEGA_PX * torch.log1p(distance / _SOFT_WING_EPSILON_PX) + _SOFT_WING_NEAR_PX - start
    return torch.where(distance < _SOFT_WING_NEAR_PX, distance, far)


LOSSES: dict[str, Loss] = {
    "l2": Loss(_l2),
    "l1": Loss(_l1),
    "smooth_l1": Loss(_smooth_l1),
    "wing": Loss(_wing),
    "soft_wing": Loss(_soft_wing),
}


def _check_shapes(predicted: Tensor, true: Tensor, mask: Tensor, normalizer: Tensor | None) -> None:
    faces, points = mask.shape if mask.ndim == 2 else (-1, -1)
    fits = predicted.shape == true.shape == (faces, points, 2) and mask.dtype == torch.bool
    if not fits or (normalizer is not None and normalizer.shape != (faces,)):
        came = [str(tuple(given.shape)) for given in (predicted, true, mask, normalizer) if given is not None]
        raise InputError(
            "A loss takes predicted and true points (N, K, 2), a mask of known ones (N, K) of bools, and for each face "
            f"the length that its error is divided by (N,), if at all; got {', '.join(came)} and a mask of {mask.dtype}."
        )


def _known(points: Tensor, mask: Tensor) -> Tensor:
    # Not a product with the mask: 0 × NaN is NaN, also in the gradient.
    return torch.where(mask.unsqueeze(-1), points, 0.0)


def _weights(normalizer: Tensor) -> Tensor:
    average = torch.full_like(normalizer, AVERAGE_NORMALIZER)
    return average / torch.where(normalizer.isnan(), average, normalizer).clamp(min=AVERAGE_NORMALIZER / _MOST_WEIGHT)
