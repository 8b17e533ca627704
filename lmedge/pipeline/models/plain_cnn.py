"""A plain convolutional network: stacks of 3 × 3 convolutions and max pooling, nothing else, as courses on deep learning
start with.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, made small, with batch
norm (Ioffe and Szegedy, ICML 2015) and without the fully connected layers: a head regresses points where those told classes
apart. It is what the networks for mobile devices are measured against.
"""

from __future__ import annotations

from torch import nn

from lmedge.pipeline.models.blocks import ChainedTrunk, ConvNormAct, halve, round_channels

# convolutions, channels; each stack works at half the size of the one before. At width 1.0 the parameters and the work are
# those of a small mobile network.
_STACKS = ((1, 16), (1, 32), (2, 64), (2, 96), (2, 128), (2, 256))


class PlainCnn(ChainedTrunk):
    # The stacks of strides 8, 16 and 32.
    last = (3, 4, 5)

    def __init__(self, width: float = 1.0, act: str = "relu") -> None:
        channels, stacks, every = 3, [], []
        for number, (convolutions, wanted) in enumerate(_STACKS):
            outputs = round_channels(wanted * width)
            layers: list[nn.Module] = [halve()] if number else []
            for _ in range(convolutions):
                layers.append(ConvNormAct(channels, outputs, 3, act=act))
                channels = outputs
            stacks.append(nn.Sequential(*layers))
            every.append(channels)
        super().__init__(stacks, every)
