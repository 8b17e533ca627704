"""Integral regression: a heat map per point, and the expected position under it.

Sun et al., "Integral Human Pose Regression", ECCV 2018, and Nibali et al., "Numerical Coordinate Regression with Convolutional
Neural Networks", 2018. All of it is convolutions up to the softmax, so that a shifted face gives shifted points, and the head
works at any crop size. Offsets voted for by each position, as in PIPNet (Jin et al., "Pixel-in-Pixel Net", IJCV 2021), were
tried: they gained nothing on top of the expectation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        # One convolution for each kind of map: engines take a tensor apart slowly (a sixth of a call on OpenVINO).
        self.maps = nn.ModuleList(_maps(plan.channels, plan.num_points) for _ in range(plan.outputs - 1))

    def forward(self, features: Features) -> Tensor:
        joined = self.join_16(self.from_32(features[2]), self.from_16(features[1]))
        joined = self.join_8(joined, self.from_8(features[0]))
        return expected_answers([maps(joined) for maps in self.maps])

    @torch.no_grad()
    def keep_points(self, indices: Sequence[int]) -> None:
        self.maps = nn.ModuleList(_some_maps(maps, indices) for maps in self._convolutions())
        self.num_points = len(indices)

    @torch.no_grad()
    def rescale_confidence(self, factor: float, offset: float) -> None:
        _, confidence = self._convolutions()
        confidence.weight *= factor
        # The weights under a heat map add up to 1, so an offset of every position is one of the sum.
        _bias(confidence).copy_(_bias(confidence) * factor + offset)

    def _convolutions(self) -> list[nn.Conv2d]:
        return [maps for maps in self.maps if isinstance(maps, nn.Conv2d)]


def with_split_maps(weights: Mapping[str, Tensor], num_points: int) -> dict[str, Tensor]:
    """Weights whose maps of all kinds come from one convolution, as in earlier checkpoints, with one for each kind."""
    split: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        module, _, number = name.rpartition(".")
        if not module.endswith("head.maps"):
            split[name] = tensor
            continue
        for kind, rows in enumerate(torch.split(tensor, num_points)):
            split[f"{module}.{kind}.{number}"] = rows.clone()
    return split


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


def _maps(channels: int, count: int) -> nn.Conv2d:
    maps = nn.Conv2d(channels, count, 1)
    nn.init.normal_(maps.weight, std=_START_STD)
    nn.init.zeros_(_bias(maps))
    return maps


def _some_maps(maps: nn.Conv2d, indices: Sequence[int]) -> nn.Conv2d:
    rows = list(indices)
    some = nn.Conv2d(maps.in_channels, len(rows), 1, device=maps.weight.device)
    some.weight.copy_(maps.weight[rows])
    _bias(some).copy_(_bias(maps)[rows])
    return some


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def expected_answers(maps: Sequence[Tensor]) -> Tensor:
    """Heat maps (N, K, h, w), and further maps of this shape → (N, K, 1 + number of maps): x, y and what further maps say, each
    its mean under the softmax of the heat map."""
    heat, *others = maps
    weight = torch.softmax(heat.flatten(2), 2)
    # One product for both coordinates: two of x and y apart take 26 µs more on ONNX Runtime.
    points = torch.matmul(weight, cell_centers(heat))
    return torch.cat([points, *((weight * values.flatten(2)).sum(2, keepdim=True) for values in others)], 2)


def cell_centers(maps: Tensor) -> Tensor:
    """Of maps (N, C, h, w): x and y of each cell's centre, row by row, as fractions of the crop, (h · w, 2)."""
    rows, columns = maps.shape[2], maps.shape[3]
    column = (torch.arange(columns, device=maps.device, dtype=maps.dtype) + 0.5) / columns
    row = (torch.arange(rows, device=maps.device, dtype=maps.dtype) + 0.5) / rows
    return torch.stack([column.repeat(rows), row.repeat_interleave(columns)], 1)
