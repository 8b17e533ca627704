"""From features to coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmedge.pipeline.models.blocks import ConvNormAct


class FlattenHead(nn.Module):
    """Squeezes the channels, keeps every position, and regresses all coordinates with one linear layer.

    Works at one crop size only. Without pooling, the layer sees where a feature was, which average pooling hides.
    """

    def __init__(self, channels: int, positions: int, num_points: int, squeeze: int, act: str) -> None:
        super().__init__()
        self.num_points = num_points
        self.squeeze = ConvNormAct(channels, squeeze, act=act)
        self.linear = nn.Linear(squeeze * positions, 2 * num_points)
        # Small weights: training starts at the mean face that `start_at` puts into the bias.
        nn.init.normal_(self.linear.weight, std=1e-3)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) → fractions of the crop (N, K, 2)."""
        flat = self.squeeze(features).flatten(1)
        return torch.unflatten(self.linear(flat), 1, (self.num_points, 2))

    @torch.no_grad()
    def start_at(self, mean_fractions: Tensor) -> None:
        """Sets the bias to the mean face (K, 2), so that an untrained network already answers it."""
        self.linear.bias.copy_(mean_fractions.flatten())
