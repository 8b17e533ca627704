"""Integral regression: a heat map per point, and the expected position under it.

Sun et al., "Integral Human Pose Regression", ECCV 2018, and Nibali et al., "Numerical Coordinate Regression with Convolutional
Neural Networks", 2018. All of it is convolutions up to the softmax, so that a shifted face gives shifted points, and the head
works at any crop size. Offsets voted for by each position, as in PIPNet (Jin et al., "Pixel-in-Pixel Net", IJCV 2021), were
tried: they gained nothing on top of the expectation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmedge.pipeline.models.blocks import ConvNormAct, Features, activation
from lmedge.pipeline.models.heads import Head, HeadPlan

_CONTEXT_KERNEL = 5
_START_STD = 1e-2


class IntegralHead(Head):
    """Joins the features from coarse to fine; those of stride 8 give heat maps and, where asked for, confidence."""

    any_size = True

    def __init__(self, plan: HeadPlan) -> None:
        super().__init__()
        self.num_points, self.outputs = plan.num_points, plan.outputs
        self.from_8, self.from_16, self.from_32 = (ConvNormAct(wide, plan.channels, act="") for wide in plan.feature_channels)
        self.join_16 = _Join(plan.channels, plan.activation)
        self.join_8 = _Join(plan.channels, plan.activation)
        self.maps = nn.Conv2d(plan.channels, (plan.outputs - 1) * plan.num_points, 1)
        nn.init.normal_(self.maps.weight, std=_START_STD)
        nn.init.zeros_(_bias(self.maps))

    def forward(self, features: Features) -> Tensor:
        joined = self.join_16(self.from_32(features[2]), self.from_16(features[1]))
        joined = self.join_8(joined, self.from_8(features[0]))
        return expected_answers(self.maps(joined), self.num_points)

    @torch.no_grad()
    def keep_points(self, indices: Sequence[int]) -> None:
        rows = [kind * self.num_points + index for kind in range(self.outputs - 1) for index in indices]
        smaller = nn.Conv2d(self.maps.in_channels, len(rows), 1, device=self.maps.weight.device)
        smaller.weight.copy_(self.maps.weight[rows])
        _bias(smaller).copy_(_bias(self.maps)[rows])
        self.maps, self.num_points = smaller, len(indices)

    @torch.no_grad()
    def rescale_confidence(self, factor: float, offset: float) -> None:
        rows = slice(self.num_points, None)
        self.maps.weight[rows] *= factor
        # The weights under a heat map add up to 1, so an offset of every position is one of the sum.
        _bias(self.maps)[rows] = _bias(self.maps)[rows] * factor + offset


class _Join(nn.Module):
    """Coarse features, each position repeated for the finer ones that it covers, added to them; then context around each."""

    def __init__(self, channels: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.context = ConvNormAct(channels, channels, _CONTEXT_KERNEL, groups=channels, act="")
        self.mix = ConvNormAct(channels, channels, act=act)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        # By a constant factor, not to a size: a size would be computed from the batch in the exported graph. Of an odd number
        # of positions the last has no partner.
        repeated = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        if repeated.shape != fine.shape:
            repeated = repeated[:, :, : fine.shape[2], : fine.shape[3]]
        joined: Tensor = self.mix(self.context(self.act(repeated + fine)))
        return joined


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def expected_answers(maps: Tensor, num_points: int) -> Tensor:
    """Maps (N, C · K, h, w) → (N, K, 1 + C): x, y and what further maps say, each its mean under a softmax over the first K."""
    heat, *others = torch.split(maps, num_points, 1)
    column, row = cell_centers(heat)
    weight = torch.softmax(heat.flatten(2), 2).view_as(heat)
    return torch.stack([(weight * values).sum((2, 3)) for values in (column, row, *others)], 2)


def cell_centers(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Of maps (N, C, h, w): the fractions of the crop at which columns (1, w) and rows (h, 1) have their centres."""
    rows, columns = maps.shape[2], maps.shape[3]
    column = (torch.arange(columns, device=maps.device, dtype=maps.dtype) + 0.5) / columns
    row = (torch.arange(rows, device=maps.device, dtype=maps.dtype) + 0.5) / rows
    return column[None, :], row[:, None]
