"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) as a feature extractor.

The pooling and the classifier are left out, as in `mobilenet_v2`. Where a block changes the shape, its shortcut is a 1 × 1
convolution (option B of the paper).
"""

from __future__ import annotations

from torch import Tensor, nn

from lmedge.pipeline.models.blocks import ChainedTrunk, ConvNormAct, activation, halve, round_channels

# channels, stride of the first block; two blocks each (table 1 of the paper, 18 layers)
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
_STEM_CHANNELS = 64


class ResNet18(ChainedTrunk):
    # The stages of strides 8, 16 and 32; the stem and its pooling come first.
    last = (3, 4, 5)

    def __init__(self, width: float = 1.0, act: str = "relu") -> None:
        channels = round_channels(_STEM_CHANNELS * width)
        parts: list[nn.Module] = [ConvNormAct(3, channels, 7, 2, act=act), halve()]
        every = [channels, channels]
        for wanted, stride in _STAGES:
            outputs = round_channels(wanted * width)
            parts.append(nn.Sequential(BasicBlock(channels, outputs, stride, act), BasicBlock(outputs, outputs, 1, act)))
            channels = outputs
            every.append(channels)
        super().__init__(parts, every)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut, and an activation behind their sum (section 3.3 and figure 5 of the paper)."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNormAct(inputs, outputs, 1, stride, act="")
        self.layers = nn.Sequential(ConvNormAct(inputs, outputs, 3, stride, act=act), ConvNormAct(outputs, outputs, 3, act=""))
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.act(self.shortcut(x) + self.layers(x))
        return joined
