"""Losses on coordinates. Each takes predicted and true fractions (N, K, 2), a mask of known points (N, K), and the crop's
side in pixels, and returns the mean over known coordinates; unknown points have no influence and no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lmedge.errors import ConfigError

Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]

# Feng et al., "Wing Loss for Robust Facial Landmark Localisation", CVPR 2018, in pixels of the crop.
_WING_OMEGA_PX = 10.0
_WING_EPSILON_PX = 2.0


def l2_loss(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
    """Mean squared coordinate error, in px²: the baseline of the field."""
    return _masked_mean(_difference_px(predicted, true, mask, size_px).square(), mask)


def wing_loss(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
    """ω·ln(1 + |d|/ε) below ω, |d| − C above, with C = ω − ω·ln(1 + ω/ε): small errors keep a large gradient.

    It needs pixels: on fractions every error is in the logarithmic part, and the loss becomes a scaled L1.
    """
    distance = _difference_px(predicted, true, mask, size_px).abs()
    constant = _WING_OMEGA_PX - _WING_OMEGA_PX * math.log1p(_WING_OMEGA_PX / _WING_EPSILON_PX)
    near = _WING_OMEGA_PX * torch.log1p(distance / _WING_EPSILON_PX)
    return _masked_mean(torch.where(distance < _WING_OMEGA_PX, near, distance - constant), mask)


LOSSES: dict[str, Loss] = {"l2": l2_loss, "wing": wing_loss}


def get_loss(name: str) -> Loss:
    """A loss by name.

    Raises:
        ConfigError: no such loss.
    """
    if name not in LOSSES:
        raise ConfigError(f"No loss is called {name!r}; known: {', '.join(LOSSES)}.")
    return LOSSES[name]


def _difference_px(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
    # where() before the arithmetic: 0 × NaN is NaN, also in the gradient.
    known = mask.unsqueeze(-1)
    return torch.where(known, (predicted - torch.where(known, true, 0.0)) * size_px, 0.0)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return values.sum() / (2 * mask.sum()).clamp(min=1)
