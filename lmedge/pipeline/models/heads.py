"""From features to coordinates: what every head is, and direct regression from the last features.

A head answers (N, K, 2) fractions of the crop; a confident one (N, K, 3), where the third number is the logit of the
probability that the point is near its place (`lmedge.pipeline.training.confidence` says how near, and how it is learned).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmedge.pipeline.models.blocks import STRIDES, ConvNormAct, Features

# Small weights: training starts at the mean face that `start_at` puts into the bias.
_START_STD = 1e-3


@dataclass(frozen=True)
class HeadPlan:
    """What a head has to fit: channels of the features by stride (8, 16, 32), the crop's side, how many points, how many
    channels the head keeps per position, its activation, and whether it says how sure it is."""

    feature_channels: tuple[int, int, int]
    input_px: int
    num_points: int
    channels: int
    activation: str
    confident: bool = False

    @property
    def outputs(self) -> int:
        """Numbers per point."""
        return 3 if self.confident else 2

    def positions(self, level: int) -> int:
        """Positions on a side of the features of level 0, 1 or 2 (strides 8, 16, 32)."""
        return math.ceil(self.input_px / STRIDES[level])


class Head(nn.Module):
    """Features of strides 8, 16 and 32 → (N, K, 2) or (N, K, 3)."""

    num_points: int
    # Whether it works on crops of another size than it was made for.
    any_size = False

    def start_at(self, mean_fractions: Tensor) -> None:
        """Lets an untrained head answer the mean face (K, 2), where it has a bias that can."""

    def keep_points(self, indices: Sequence[int]) -> None:
        """Drops all other points: a head that was trained for several sets of points serves one of them."""
        raise NotImplementedError

    def rescale_confidence(self, factor: float, offset: float) -> None:
        """Every logit z becomes factor · z + offset, by changing the weights."""
        raise NotImplementedError


class LinearHead(Head):
    """A head that ends in one linear layer from a flat vector; subclasses make the vector."""

    def __init__(self, plan: HeadPlan, inputs: int) -> None:
        super().__init__()
        self.num_points, self.outputs = plan.num_points, plan.outputs
        self.linear = nn.Linear(inputs, plan.outputs * plan.num_points)
        nn.init.normal_(self.linear.weight, std=_START_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        return torch.unflatten(self.linear(self.vector(features)), 1, (self.num_points, self.outputs))

    def vector(self, features: Features) -> Tensor:
        """(N, inputs)"""
        raise NotImplementedError

    @torch.no_grad()
    def start_at(self, mean_fractions: Tensor) -> None:
        self.linear.bias.view(self.num_points, self.outputs)[:, :2].copy_(mean_fractions)

    @torch.no_grad()
    def keep_points(self, indices: Sequence[int]) -> None:
        rows = [self.outputs * index + number for index in indices for number in range(self.outputs)]
        smaller = nn.Linear(self.linear.in_features, len(rows), device=self.linear.weight.device)
        smaller.weight.copy_(self.linear.weight[rows])
        smaller.bias.copy_(self.linear.bias[rows])
        self.linear, self.num_points = smaller, len(indices)

    @torch.no_grad()
    def rescale_confidence(self, factor: float, offset: float) -> None:
        rows = slice(2, None, self.outputs)
        self.linear.weight[rows] *= factor
        self.linear.bias[rows] = self.linear.bias[rows] * factor + offset


class PooledHead(LinearHead):
    """Regresses all coordinates from the mean over positions of every channel of stride 32, at any crop size.

    Toshev and Szegedy, "DeepPose", CVPR 2014, behind the global average pooling of Lin et al., "Network In Network", ICLR 2014.
    """

    any_size = True

    def __init__(self, plan: HeadPlan) -> None:
        super().__init__(plan, plan.feature_channels[2])

    def vector(self, features: Features) -> Tensor:
        return features[2].mean((2, 3))


class FlattenHead(LinearHead):
    """Squeezes the channels of stride 32, keeps every position, and regresses all coordinates with one linear layer.

    Works at one crop size only. Without pooling, the layer sees where a feature was, which average pooling hides.
    """

    def __init__(self, plan: HeadPlan) -> None:
        super().__init__(plan, plan.channels * plan.positions(2) ** 2)
        self.squeeze = ConvNormAct(plan.feature_channels[2], plan.channels, act=plan.activation)

    def vector(self, features: Features) -> Tensor:
        vector: Tensor = self.squeeze(features[2]).flatten(1)
        return vector
