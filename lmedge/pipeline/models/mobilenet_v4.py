"""MobileNetV4 conv-small (Qin et al., "MobileNetV4: Universal Models for the Mobile Ecosystem", ECCV 2024) as a feature
extractor.

Plain 3 × 3 convolutions reduce the picture to an eighth, then come universal inverted bottlenecks. The last 1 × 1
convolutions and the pooling belong to classification and are left out, as in `mobilenet_v2`.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmedge.pipeline.models.blocks import ConvNormAct, Features, Trunk, round_channels

_Convolutions = tuple[tuple[int, int, int], ...]
_Bottlenecks = tuple[tuple[int, int, int, int, int, int], ...]

# kernel, channels, stride of the plain convolutions (table 11 of the paper); a feature map is taken behind the last
_STEM = ((3, 32, 2), (3, 32, 2), (1, 32, 1), (3, 96, 2), (1, 64, 1))
# kernels of the depthwise convolutions before and inside the bottleneck (0: none), expansion, channels, stride, repeats
_STRIDE_16 = ((5, 5, 3, 96, 2, 1), (0, 3, 2, 96, 1, 4), (3, 0, 4, 96, 1, 1))
_STRIDE_32 = ((3, 3, 6, 128, 2, 1), (5, 5, 4, 128, 1, 1), (0, 5, 4, 128, 1, 1), (0, 5, 3, 128, 1, 1), (0, 3, 4, 128, 1, 2))

# What of it landmarks need: a block at stride 32 takes as long as one at stride 16, and a trained network loses next to nothing
# without the last four; the first layers, on most positions, keep the channels that the next layer listens to.
_TRIMMED_STEM = ((3, 16, 2), (3, 32, 2), (1, 32, 1), (3, 64, 2), (1, 64, 1))
_TRIMMED_32 = ((3, 3, 4, 128, 2, 1), (5, 5, 4, 128, 1, 1))


class MobileNetV4ConvSmall(Trunk):
    _stem: _Convolutions = _STEM
    _bottlenecks_32: _Bottlenecks = _STRIDE_32

    def __init__(self, width: float = 1.0, act: str = "relu") -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        channels = 3
        for kernel, wanted, stride in self._stem:
            outputs = round_channels(wanted * width)
            convolutions.append(ConvNormAct(channels, outputs, kernel, stride, act=act))
            channels = outputs
        self.stride_8 = nn.Sequential(*convolutions)
        stride_8 = channels
        self.stride_16, stride_16 = _bottlenecks(_STRIDE_16, stride_8, width, act)
        self.stride_32, stride_32 = _bottlenecks(self._bottlenecks_32, stride_16, width, act)
        self.channels = (stride_8, stride_16, stride_32)

    def forward(self, x: Tensor) -> Features:
        stride_8: Tensor = self.stride_8(x)
        stride_16: Tensor = self.stride_16(stride_8)
        stride_32: Tensor = self.stride_32(stride_16)
        return stride_8, stride_16, stride_32


class MobileNetV4Trimmed(MobileNetV4ConvSmall):
    """MobileNetV4 conv-small cut down by measured time: three quarters of its time in int8 on one thread."""

    _stem: _Convolutions = _TRIMMED_STEM
    _bottlenecks_32: _Bottlenecks = _TRIMMED_32


class MobileNetV4TrimmedMore(MobileNetV4Trimmed):
    """With one block at stride 32: to be trained from the weights of `MobileNetV4Trimmed`."""

    _bottlenecks_32 = _TRIMMED_32[:1]


class UniversalBottleneck(nn.Module):
    """An inverted bottleneck with a depthwise convolution before it, inside it, in both places or in none (section 3 of the
    paper).

    The stride is taken by the inner depthwise convolution where there is one, else by the first.
    """

    def __init__(self, inputs: int, outputs: int, *, before: int, inside: int, expansion: int, stride: int, act: str) -> None:
        super().__init__()
        hidden = round_channels(inputs * expansion)
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([ConvNormAct(inputs, inputs, before, 1 if inside else stride, groups=inputs, act="")] if before else []),
            ConvNormAct(inputs, hidden, act=act),
            *([ConvNormAct(hidden, hidden, inside, stride, groups=hidden, act=act)] if inside else []),
            ConvNormAct(hidden, outputs, act=""),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return x + residual if self.shortcut else residual


def _bottlenecks(layout: _Bottlenecks, channels: int, width: float, act: str) -> tuple[nn.Sequential, int]:
    blocks: list[nn.Module] = []
    for before, inside, expansion, wanted, stride, repeats in layout:
        outputs = round_channels(wanted * width)
        for repeat in range(repeats):
            blocks.append(
                UniversalBottleneck(
                    channels,
                    outputs,
                    before=before,
                    inside=inside,
                    expansion=expansion,
                    stride=stride if repeat == 0 else 1,
                    act=act,
                )
            )
            channels = outputs
    return nn.Sequential(*blocks), channels
