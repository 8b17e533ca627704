"""Networks that regress landmarks. `build_network` makes one from plain options, so that a checkpoint can say what it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmedge.errors import ConfigError
from lmedge.pipeline.models.blocks import Trunk
from lmedge.pipeline.models.heads import FlattenHead, Head, HeadPlan, PooledHead
from lmedge.pipeline.models.integral import IntegralHead
from lmedge.pipeline.models.mobilenet_v1 import MobileNetV1
from lmedge.pipeline.models.mobilenet_v2 import MobileNetV2
from lmedge.pipeline.models.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from lmedge.pipeline.models.mobilenet_v4 import MobileNetV4ConvSmall, MobileNetV4Trimmed, MobileNetV4TrimmedMore
from lmedge.pipeline.models.multiscale import MultiScaleHead
from lmedge.pipeline.models.plain_cnn import PlainCnn
from lmedge.pipeline.models.resnet import ResNet18

# Each takes a width and an activation.
_TRUNKS: dict[str, Callable[[float, str], Trunk]] = {
    "plain_cnn": PlainCnn,
    "resnet18": ResNet18,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": MobileNetV3Large,
    "mobilenet_v3_small": MobileNetV3Small,
    "mobilenet_v4_conv_small": MobileNetV4ConvSmall,
    "mobilenet_v4_trimmed": MobileNetV4Trimmed,
    "mobilenet_v4_trimmed_more": MobileNetV4TrimmedMore,
}
_HEADS: dict[str, Callable[[HeadPlan], Head]] = {
    "pooled": PooledHead,
    "flatten": FlattenHead,
    "multiscale": MultiScaleHead,
    "integral": IntegralHead,
}


@dataclass(frozen=True)
class Architecture:
    """What a network is made of: `trunk` name, `width` multiplier, `activation`, channels of the head, crop size, points,
    `head` name, and whether it says how sure it is of each point. A checkpoint that names no head is older than the
    choice."""

    trunk: str
    width: float
    activation: str
    head_channels: int
    input_px: int
    num_points: int
    head: str = "flatten"
    confidence: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class LandmarkNetwork(nn.Module):
    """A trunk and a head: normalised images (N, 3, H, W) → what the head answers, (N, K, 2) or (N, K, 3)."""

    def __init__(self, trunk: Trunk, head: Head) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.head(self.trunk(images))
        return answers


class TrainedNetwork(nn.Module):
    """A network behind its preprocessing: uint8 BGR crops (N, H, W, 3) → what the head answers.

    Trained and exported networks share it, so there is one preprocessing. It carries no parameters of its own.
    """

    def __init__(self, network: LandmarkNetwork, mean: float, std: float) -> None:
        super().__init__()
        self.network = network
        self.mean = mean
        self.std = std

    def forward(self, image: Tensor) -> Tensor:
        # NHWC memory seen as NCHW is exactly torch's channels-last layout: no copy.
        normalised = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        answers: Tensor = self.network(normalised)
        return answers


class DeployedNetwork(nn.Module):
    """What is exported: uint8 BGR crops (N, H, W, 3) → fractions of the crop (N, K, 2), and from a confident network also the
    confidence (N, K)."""

    def __init__(self, network: LandmarkNetwork, mean: float, std: float) -> None:
        super().__init__()
        self.trained = TrainedNetwork(network, mean, std)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        answers: Tensor = self.trained(image)
        if answers.shape[2] == 2:
            return answers
        return answers[:, :, :2], torch.sigmoid(answers[:, :, 2])


def build_network(architecture: Architecture) -> LandmarkNetwork:
    """An untrained network.

    Raises:
        ConfigError: no such trunk or head, or a width out of range.
    """
    for name, known in ((architecture.trunk, _TRUNKS), (architecture.head, _HEADS)):
        if name not in known:
            what = "network" if known is _TRUNKS else "head"
            raise ConfigError(f"No {what} is called {name!r}; known: {', '.join(known)}.")
    if not 0.1 <= architecture.width <= 4:
        raise ConfigError(f"The width multiplier must be between 0.1 and 4; got {architecture.width}.")
    trunk = _TRUNKS[architecture.trunk](architecture.width, architecture.activation)
    plan = HeadPlan(
        trunk.channels,
        architecture.input_px,
        architecture.num_points,
        architecture.head_channels,
        architecture.activation,
        architecture.confidence,
    )
    return LandmarkNetwork(trunk, _HEADS[architecture.head](plan))


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
            total += output[0].numel() // module.out_features * module.weight.numel()

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
