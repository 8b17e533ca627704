"""MobileNetV1 (Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017) as a
feature extractor.

The pooling and the classifier are left out, as in `mobilenet_v2`.
"""

from __future__ import annotations

from torch import nn

from lmedge.pipeline.models.blocks import ChainedTrunk, ConvNormAct, round_channels

# channels, stride (table 1 of the paper; its last block is printed with stride 2, but keeps the size, as its output shows)
_LAYOUT = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2),
    (1024, 1),
)  # fmt: skip
_STEM_CHANNELS = 32


class MobileNetV1(ChainedTrunk):
    # The last blocks of strides 8, 16 and 32; block 0 is the stem.
    last = (5, 11, 13)

    def __init__(self, width: float = 1.0, act: str = "relu") -> None:
        channels = round_channels(_STEM_CHANNELS * width)
        blocks: list[nn.Module] = [ConvNormAct(3, channels, 3, 2, act=act)]
        every = [channels]
        for wanted, stride in _LAYOUT:
            outputs = round_channels(wanted * width)
            blocks.append(_separable(channels, outputs, stride, act))
            channels = outputs
            every.append(channels)
        super().__init__(blocks, every)


def _separable(inputs: int, outputs: int, stride: int, act: str) -> nn.Sequential:
    """Filter each channel, then mix the channels (section 3.1 of the paper)."""
    return nn.Sequential(ConvNormAct(inputs, inputs, 3, stride, groups=inputs, act=act), ConvNormAct(inputs, outputs, act=act))
