"""Building blocks shared by the networks: convolution with batch norm, pooling, inverted residual, squeeze-and-excite; and
what a trunk gives to a head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lmedge.errors import ConfigError

# What a trunk gives: features of strides 8, 16 and 32, each (N, C, ⌈H / stride⌉, ⌈W / stride⌉).
Features = tuple[Tensor, Tensor, Tensor]
STRIDES = (8, 16, 32)

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish}


class Trunk(nn.Module):
    """Normalised images (N, 3, H, W) → features of an eighth, a sixteenth and a thirty-second of their size.

    Attributes:
        channels: of the features, in this order.
    """

    channels: tuple[int, int, int]


class ChainedTrunk(Trunk):
    """A trunk whose blocks run one after the other.

    Attributes:
        last: the last blocks of strides 8, 16 and 32, whose features are given.
    """

    last: tuple[int, int, int]

    def __init__(self, blocks: Sequence[nn.Module], channels: Sequence[int]) -> None:
        """`channels`: what each block gives."""
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.channels = (channels[self.last[0]], channels[self.last[1]], channels[self.last[2]])

    def forward(self, x: Tensor) -> Features:
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.last:
                kept.append(x)
        return kept[0], kept[1], kept[2]


def activation(name: str) -> nn.Module:
    """An in-place activation by name; in place because training is bound by memory traffic."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"No activation is called {name!r}; known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name](inplace=True)


def round_channels(channels: float, divisor: int = 8) -> int:
    """Channels as a multiple of 8, at most 10 % below the wish (Sandler et al., MobileNetV2, reference implementation)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def halve() -> nn.Module:
    """Max pooling to ⌈size / 2⌉, as convolutions of stride 2 have it."""
    return nn.MaxPool2d(3, 2, 1)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, and an activation unless `act` is empty."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "relu") -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([activation(act)] if act else []))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project back; a shortcut where shapes allow (MobileNetV2, section 3.3)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, act: str) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([ConvNormAct(inputs, hidden, act=act)] if expansion != 1 else []),
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden, act=act),
            ConvNormAct(hidden, outputs, act=""),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return x + residual if self.shortcut else residual


class SqueezeExcite(nn.Module):
    """Weighs each channel by what all channels hold on the mean (Hu et al., CVPR 2018, with the gate of MobileNetV3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = round_channels(channels / 4)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = x * self.gate(x.mean((2, 3), keepdim=True))
        return weighed
