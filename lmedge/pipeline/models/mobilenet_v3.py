"""MobileNetV3 large and small (Howard et al., "Searching for MobileNetV3", ICCV 2019) as feature extractors.

The last 1 × 1 convolution and the pooling belong to classification and are left out, as in `mobilenet_v2`. Where the paper has
h-swish the network uses the activation it is given; where it has ReLU stands ReLU6, whose bound int8 needs (rare values far
above all others would otherwise take up the range).
"""

from __future__ import annotations

from torch import Tensor, nn

from lmedge.pipeline.models.blocks import ChainedTrunk, ConvNormAct, SqueezeExcite, round_channels

# kernel, expanded channels, channels, squeeze-and-excite, h-swish, stride (tables 1 and 2 of the paper)
_LARGE = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip
_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip
_STEM_CHANNELS = 16
_BOUNDED = "relu6"


class MobileNetV3(ChainedTrunk):
    layout: tuple[tuple[int, int, int, bool, bool, int], ...]
    # The last blocks of these strides; block 0 is the stem.
    last: tuple[int, int, int]

    def __init__(self, width: float = 1.0, act: str = "hardswish") -> None:
        channels = round_channels(_STEM_CHANNELS * width)
        blocks: list[nn.Module] = [ConvNormAct(3, channels, 3, 2, act=act)]
        every = [channels]
        for kernel, expanded, wanted, excited, swish, stride in self.layout:
            hidden, outputs = round_channels(expanded * width), round_channels(wanted * width)
            nonlinearity = act if swish else _BOUNDED
            blocks.append(
                _Bottleneck(channels, hidden, outputs, kernel=kernel, stride=stride, excited=excited, act=nonlinearity)
            )
            channels = outputs
            every.append(channels)
        super().__init__(blocks, every)


class MobileNetV3Large(MobileNetV3):
    layout = _LARGE
    last = (6, 12, 15)


class MobileNetV3Small(MobileNetV3):
    layout = _SMALL
    last = (3, 8, 11)


class _Bottleneck(nn.Module):
    """Expand, filter each channel, weigh the channels where the table says so, project back (section 3 of the paper)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, kernel: int, stride: int, excited: bool, act: str) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([ConvNormAct(inputs, hidden, act=act)] if hidden != inputs else []),
            ConvNormAct(hidden, hidden, kernel, stride, groups=hidden, act=act),
            *([SqueezeExcite(hidden)] if excited else []),
            ConvNormAct(hidden, outputs, act=""),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return x + residual if self.shortcut else residual
