"""MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018) as a feature extractor.

The last 1 × 1 convolution to 1,280 channels and the pooling belong to classification and are left out: where a landmark
is, is what pooling throws away.
"""

from __future__ import annotations

from torch import nn

from lmedge.pipeline.models.blocks import ChainedTrunk, ConvNormAct, InvertedResidual, round_channels

# expansion, channels, repeats, stride of the first (table 2 of the paper)
_LAYOUT = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS = 32


class MobileNetV2(ChainedTrunk):
    # The last blocks of strides 8, 16 and 32.
    last = (6, 13, 17)

    def __init__(self, width: float = 1.0, act: str = "relu") -> None:
        channels = round_channels(_STEM_CHANNELS * width)
        blocks: list[nn.Module] = [ConvNormAct(3, channels, 3, 2, act=act)]
        every = [channels]
        for expansion, wanted, repeats, stride in _LAYOUT:
            outputs = round_channels(wanted * width)
            for repeat in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, stride if repeat == 0 else 1, expansion, act))
                channels = outputs
                every.append(channels)
        super().__init__(blocks, every)
