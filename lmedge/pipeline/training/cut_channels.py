"""From the weights of a network to those of one with fewer channels inside its blocks.

A channel that is made and read inside one chain of convolutions can go without a change elsewhere. Those stay that the next
convolution listens to most: the scale of a channel's batch norm, as in Liu et al., "Learning Efficient Convolutional Networks
through Network Slimming", ICCV 2017, times the sum of the weights that read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lmedge.pipeline.models.blocks import ConvNormAct

_NORMS = ("weight", "bias", "running_mean", "running_var")

Weights = dict[str, Tensor]


def cut_channels(network: nn.Module, wider: Mapping[str, Tensor]) -> Weights:
    """The weights, by name, of those chains of a network that have fewer inner channels in it than in `wider`.

    Chains that begin or end with other channels than in `wider`, or that have other kernels there, are left out.
    """
    found: Weights = {}
    for name, chain in _chains(network):
        if _is_narrower(name, chain, wider):
            found.update(_cut(name, chain, wider))
    return found


def _chains(network: nn.Module) -> Iterator[tuple[str, list[ConvNormAct]]]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            layers = [layer for layer in module if isinstance(layer, ConvNormAct)]
            if len(layers) > 1 and len(layers) == len(module):
                yield name, layers


def _is_narrower(name: str, chain: list[ConvNormAct], wider: Mapping[str, Tensor]) -> bool:
    own = [_convolution(layer) for layer in chain]
    theirs = [wider.get(f"{name}.{index}.0.weight") for index in range(len(chain) + 1)]
    if theirs[-1] is not None or any(kernel is None for kernel in theirs[:-1]):
        return False
    pairs = [(mine, kernel) for mine, kernel in zip(own, theirs, strict=False) if kernel is not None]
    if any(mine.weight.shape[2:] != kernel.shape[2:] or mine.out_channels > len(kernel) for mine, kernel in pairs):
        return False
    # A depthwise kernel has one input channel, whatever it reads.
    if any((mine.groups > 1) != (kernel.shape[1] == 1 and mine.weight.shape[1] == 1) for mine, kernel in pairs):
        return False
    (first, first_kernel), (last, last_kernel) = pairs[0], pairs[-1]
    same_ends = first.weight.shape[1] == first_kernel.shape[1] and last.out_channels == len(last_kernel)
    return same_ends and any(mine.out_channels < len(kernel) for mine, kernel in pairs)


def _cut(name: str, chain: list[ConvNormAct], wider: Mapping[str, Tensor]) -> Weights:
    cut: Weights = {}
    kept: Tensor | None = None  # of the channels that the next layer reads; None: all
    for index, layer in enumerate(chain):
        convolution, kernel = _convolution(layer), wider[f"{name}.{index}.0.weight"]
        if convolution.groups == 1:
            kernel = kernel if kept is None else kernel[:, kept]
            count = convolution.out_channels
            kept = None if count == len(kernel) else _loudest(name, index, chain, wider)[:count].sort().values
        rows = torch.arange(len(kernel)) if kept is None else kept
        cut[f"{name}.{index}.0.weight"] = kernel[rows].clone()
        for number in _NORMS:
            cut[f"{name}.{index}.1.{number}"] = wider[f"{name}.{index}.1.{number}"][rows].clone()
    return cut


def _loudest(name: str, index: int, chain: list[ConvNormAct], wider: Mapping[str, Tensor]) -> Tensor:
    """Channels that a layer makes, the most heard first."""
    reader = index + 1
    while _convolution(chain[reader]).groups > 1:
        reader += 1
    # The norm right in front of the reader: depthwise layers on the way scale each channel anew.
    scale = wider[f"{name}.{reader - 1}.1.weight"].abs()
    return (scale * wider[f"{name}.{reader}.0.weight"].abs().sum((0, 2, 3))).argsort(descending=True)


def _convolution(layer: ConvNormAct) -> nn.Conv2d:
    convolution = layer[0]
    assert isinstance(convolution, nn.Conv2d)
    return convolution
