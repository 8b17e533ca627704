"""Direct regression from features of three scales.

Guo et al., "PFLD: A Practical Facial Landmark Detector", 2019: fine features say where exactly, coarse ones which part of the
face it is, and one fully connected layer sees both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmedge.pipeline.models.blocks import ConvNormAct, Features
from lmedge.pipeline.models.heads import HeadPlan, LinearHead

# A finer scale has four times the positions: with a quarter of the channels each scale gives about as many numbers, as in
# table 1 of the paper.
_FEWER = (16, 4, 1)


class MultiScaleHead(LinearHead):
    """Squeezes the channels of each scale, keeps every position, and regresses all coordinates with one linear layer.

    Works at one crop size only.
    """

    def __init__(self, plan: HeadPlan) -> None:
        kept = [max(1, plan.channels // fewer) for fewer in _FEWER]
        super().__init__(plan, sum(channels * plan.positions(level) ** 2 for level, channels in enumerate(kept)))
        self.squeezes = nn.ModuleList(
            ConvNormAct(wide, channels, act=plan.activation) for wide, channels in zip(plan.feature_channels, kept, strict=True)
        )

    def vector(self, features: Features) -> Tensor:
        return torch.cat([squeeze(scale).flatten(1) for squeeze, scale in zip(self.squeezes, features, strict=True)], 1)
