"""Networks that regress landmarks. `build_network` makes one from plain options, so that a checkpoint can say what it holds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmedge.errors import ConfigError
from lmedge.pipeline.models.heads import FlattenHead
from lmedge.pipeline.models.mobilenet_v2 import STRIDE, MobileNetV2
from lmedge.pipeline.models.mobilenet_v3 import MobileNetV3, MobileNetV3Large, MobileNetV3Small

_TRUNKS: dict[str, type[MobileNetV2] | type[MobileNetV3]] = {
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": MobileNetV3Large,
    "mobilenet_v3_small": MobileNetV3Small,
}


@dataclass(frozen=True)
class Architecture:
    """What a network is made of: `trunk` name, `width` multiplier, `activation`, channels of the head, crop size, points."""

    trunk: str
    width: float
    activation: str
    head_channels: int
    input_px: int
    num_points: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class LandmarkNetwork(nn.Module):
    """A trunk and a head: normalised images (N, 3, H, W) → fractions of the crop (N, K, 2)."""

    def __init__(self, trunk: nn.Module, head: FlattenHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        fractions: Tensor = self.head(self.trunk(images))
        return fractions


class DeployedNetwork(nn.Module):
    """A network with its preprocessing: uint8 BGR crops (N, H, W, 3) → fractions of the crop (N, K, 2).

    The same module trains and is exported, so there is one preprocessing. Buffers carry no parameters of their own.
    """

    def __init__(self, network: LandmarkNetwork, mean: float, std: float) -> None:
        super().__init__()
        self.network = network
        self.mean = mean
        self.std = std

    def forward(self, image: Tensor) -> Tensor:
        # NHWC memory seen as NCHW is exactly torch's channels-last layout: no copy.
        normalised = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        fractions: Tensor = self.network(normalised)
        return fractions


def build_network(architecture: Architecture) -> LandmarkNetwork:
    """An untrained network.

    Raises:
        ConfigError: no such trunk, or a width or crop size out of range.
    """
    if architecture.trunk not in _TRUNKS:
        raise ConfigError(f"No network is called {architecture.trunk!r}; known: {', '.join(_TRUNKS)}.")
    if not 0.1 <= architecture.width <= 4:
        raise ConfigError(f"The width multiplier must be between 0.1 and 4; got {architecture.width}.")
    trunk = _TRUNKS[architecture.trunk](architecture.width, architecture.activation)
    positions = math.ceil(architecture.input_px / STRIDE) ** 2
    head = FlattenHead(trunk.channels, positions, architecture.num_points, architecture.head_channels, architecture.activation)
    return LandmarkNetwork(trunk, head)


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: LandmarkNetwork, input_px: int) -> int:
    """Multiply-accumulates of convolutions and linear layers for one crop."""
    total = 0

    def add(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    handles = [module.register_forward_hook(add) for module in network.modules()]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, input_px, input_px, device=next(network.parameters()).device))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return total
