"""Trunks: features of three strides from each, and the layout and cost that their papers publish.

MobileNetV2 is in test_models.py, MobileNetV3 in test_mobilenet_v3.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import pytest
import torch
from torch import nn

from lmedge.pipeline.models import _TRUNKS, Architecture, build_network, count_macs, count_parameters
from lmedge.pipeline.models.blocks import ACTIVATIONS, STRIDES, ConvNormAct, halve, round_channels
from lmedge.pipeline.models.mobilenet_v1 import MobileNetV1
from lmedge.pipeline.models.mobilenet_v4 import (
    MobileNetV4ConvSmall,
    MobileNetV4Trimmed,
    MobileNetV4TrimmedMore,
    UniversalBottleneck,
)
from lmedge.pipeline.models.plain_cnn import PlainCnn
from lmedge.pipeline.models.resnet import BasicBlock, ResNet18
from tests.pipeline.networks import settle_norms

every_trunk = pytest.mark.parametrize("name", _TRUNKS)


# What every trunk gives


@every_trunk
@pytest.mark.parametrize("size", [32, 64, 65, 100, 112])
def test_features_have_an_eighth_a_sixteenth_and_a_32nd_of_the_size(name: str, size: int) -> None:
    trunk = _TRUNKS[name](0.25, "relu").eval()
    features = trunk(torch.zeros(2, 3, size, size))
    sides = [math.ceil(size / stride) for stride in STRIDES]
    assert [each.shape for each in features] == [(2, c, side, side) for c, side in zip(trunk.channels, sides, strict=True)]


@every_trunk
def test_features_are_what_the_last_block_of_their_stride_makes(name: str) -> None:
    trunk = _TRUNKS[name](0.25, "relu").eval()
    blocks = trunk.blocks if hasattr(trunk, "blocks") else [trunk.stride_8, trunk.stride_16, trunk.stride_32]
    made, last = torch.randn(1, 3, 64, 64), {}
    features = trunk(made)
    for block in blocks:
        made = block(made)
        last[64 // made.shape[2]] = made
    for feature, stride in zip(features, STRIDES, strict=True):
        assert torch.equal(feature, last[stride])


@every_trunk
def test_features_follow_the_picture(name: str) -> None:
    torch.manual_seed(0)
    trunk = _TRUNKS[name](0.25, "relu6")
    settle_norms(trunk, 64)
    for first, second in zip(trunk.eval()(torch.randn(1, 3, 64, 64)), trunk(torch.randn(1, 3, 64, 64)), strict=True):
        assert (first - second).abs().max() > 0.1


@every_trunk
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_is_the_chosen_one(name: str, activation: str) -> None:
    used = {
        type(module) for module in _TRUNKS[name](0.25, activation).modules() if isinstance(module, tuple(ACTIVATIONS.values()))
    }
    paper = {nn.ReLU, nn.ReLU6} if name.startswith("mobilenet_v3") else set()  # its gates, and where it has no h-swish
    assert ACTIVATIONS[activation] in used
    assert used <= {ACTIVATIONS[activation]} | paper


@every_trunk
def test_the_width_scales_channels(name: str) -> None:
    whole, half = _TRUNKS[name](1.0, "relu"), _TRUNKS[name](0.5, "relu")
    assert half.channels == tuple(round_channels(channels * 0.5) for channels in whole.channels)
    assert count_parameters(half) < 0.4 * count_parameters(whole)


@pytest.mark.parametrize("size", [1, 2, 7, 14, 15, 112])
def test_pooling_halves_as_a_convolution_of_stride_2_does(size: int) -> None:
    images = torch.zeros(1, 3, size, size)
    assert halve()(images).shape == ConvNormAct(3, 3, 3, 2)(images.expand(2, -1, -1, -1))[:1].shape


# Cost at 224 px, counted from the tables of the papers; a norm has a scale and an offset per channel.


class Layer(NamedTuple):
    """A convolution with a norm: kernel, channels in and out, side of what it makes, and whether each channel is for itself."""

    kernel: int
    inputs: int
    outputs: int
    side: int
    depthwise: bool = False


def cost(layers: Iterable[Layer]) -> tuple[int, int]:
    parameters = macs = 0
    for kernel, inputs, outputs, side, depthwise in layers:
        weights = kernel**2 * outputs * (1 if depthwise else inputs)
        parameters, macs = parameters + weights + 2 * outputs, macs + weights * side**2
    return parameters, macs


def counted(name: str) -> tuple[int, int]:
    network = build_network(Architecture(name, 1.0, "relu", 64, 224, 5, "pooled"))
    return count_parameters(network.trunk), count_macs(network, 224) - network.trunk.channels[2] * 10


# channels in and out, side of the output (table 1 of MobileNetV1)
V1 = [
    (32, 64, 112), (64, 128, 56), (128, 128, 56), (128, 256, 28), (256, 256, 28), (256, 512, 14),
    *[(512, 512, 14)] * 5, (512, 1024, 7), (1024, 1024, 7),
]  # fmt: skip


def v1_layers() -> list[Layer]:
    filters = [Layer(3, inputs, inputs, side, depthwise=True) for inputs, _, side in V1]
    return [Layer(3, 3, 32, 112), *filters, *(Layer(1, *row) for row in V1)]


def test_mobilenet_v1_costs_what_is_published() -> None:
    # 4.2 million parameters and 569 million multiply-adds (table 8), of which the classifier of 1,000 classes has these.
    parameters, macs = cost(v1_layers())
    assert (parameters + 1024 * 1000 + 1000, macs + 1024 * 1000) == (4_231_976, 568_740_352)
    assert counted("mobilenet_v1") == (parameters, macs)


# kernel, channels in and out, side (table 1 of ResNet, 18 layers; a shortcut is 1 × 1)
RESNET = [
    Layer(7, 3, 64, 112), *[Layer(3, 64, 64, 56)] * 4,
    Layer(3, 64, 128, 28), *[Layer(3, 128, 128, 28)] * 3, Layer(1, 64, 128, 28),
    Layer(3, 128, 256, 14), *[Layer(3, 256, 256, 14)] * 3, Layer(1, 128, 256, 14),
    Layer(3, 256, 512, 7), *[Layer(3, 512, 512, 7)] * 3, Layer(1, 256, 512, 7),
]  # fmt: skip


def test_resnet_18_costs_what_is_published() -> None:
    # 1.8 billion multiply-adds (table 1); 11,689,512 parameters as torchvision counts them, with the classifier.
    parameters, macs = cost(RESNET)
    assert (parameters + 512 * 1000 + 1000, macs + 512 * 1000) == (11_689_512, 1_814_073_344)
    assert counted("resnet18") == (parameters, macs)


class Bottleneck(NamedTuple):
    """A line of table 11 of MobileNetV4: kernels before and inside (0: none), expanded channels, channels, stride."""

    before: int
    inside: int
    expanded: int
    outputs: int
    stride: int


# The table writes the expanded channels out; the package has the expansion.
V4 = [
    Bottleneck(5, 5, 192, 96, 2), *[Bottleneck(0, 3, 192, 96, 1)] * 4, Bottleneck(3, 0, 384, 96, 1),
    Bottleneck(3, 3, 576, 128, 2), Bottleneck(5, 5, 512, 128, 1), Bottleneck(0, 5, 512, 128, 1), Bottleneck(0, 5, 384, 128, 1),
    *[Bottleneck(0, 3, 512, 128, 1)] * 2,
]  # fmt: skip


def v4_layers() -> list[Layer]:
    layers = [Layer(3, 3, 32, 112), Layer(3, 32, 32, 56), Layer(1, 32, 32, 56), Layer(3, 32, 96, 28), Layer(1, 96, 64, 28)]
    inputs, side = 64, 28
    for row in V4:
        after = side // row.stride
        if row.before:
            layers.append(Layer(row.before, inputs, inputs, side if row.inside else after, depthwise=True))
        layers.append(Layer(1, inputs, row.expanded, side if row.inside else after))
        if row.inside:
            layers.append(Layer(row.inside, row.expanded, row.expanded, after, depthwise=True))
        layers.append(Layer(1, row.expanded, row.outputs, after))
        inputs, side = row.outputs, after
    return layers


def test_mobilenet_v4_costs_what_is_published() -> None:
    parameters, macs = cost(v4_layers())
    assert counted("mobilenet_v4_conv_small") == (parameters, macs)
    # Behind it, for classification: 1 × 1 to 960 channels at 7 × 7, pooling, 1 × 1 to 1,280, both with norms; 1,000 classes.
    behind, behind_macs = cost([Layer(1, 128, 960, 7), Layer(1, 960, 1280, 1)])
    whole = parameters + behind + 1280 * 1000 + 1000
    assert whole == 3_774_024, "3.8 million in the paper"
    assert (macs + behind_macs + 1280 * 1000) / 1e9 == pytest.approx(0.2, abs=0.05), "0.2 billion in the paper"


def test_mobilenet_v4_is_the_table_block_by_block() -> None:
    trunk = MobileNetV4ConvSmall()
    stem = [(layer[0].kernel_size[0], layer[0].out_channels, layer[0].stride[0]) for layer in trunk.stride_8]
    assert stem == [(3, 32, 2), (3, 32, 2), (1, 32, 1), (3, 96, 2), (1, 64, 1)]
    inputs = 64
    for block, row in zip([*trunk.stride_16, *trunk.stride_32], V4, strict=True):
        convolutions = [(layer[0].kernel_size[0], layer[0].out_channels, layer[0].stride[0]) for layer in block.layers]
        first = [(row.before, inputs, 1)] if row.before else []
        inner = [(row.inside, row.expanded, row.stride)] if row.inside else []
        assert convolutions == [*first, (1, row.expanded, 1), *inner, (1, row.outputs, 1)]
        assert [len(layer) == 3 for layer in block.layers] == [*[False] * len(first), True, *[True] * len(inner), False]
        assert block.shortcut == (row.stride == 1 and row.outputs == inputs)
        inputs = row.outputs


def test_a_trimmed_mobilenet_v4_is_the_whole_one_with_fewer_blocks_and_inner_channels() -> None:
    whole, trimmed = MobileNetV4ConvSmall(), MobileNetV4Trimmed()
    assert trimmed.channels == whole.channels
    assert [layer[0].out_channels for layer in trimmed.stride_8] == [16, 32, 32, 64, 64]
    assert [len(trunk.stride_32) for trunk in (whole, trimmed, MobileNetV4TrimmedMore())] == [6, 2, 1]
    own, wider = trimmed.state_dict(), whole.state_dict()
    assert set(own) < set(wider)
    other = {name.rpartition(".layers.")[0] or name.split(".")[0] for name in own if own[name].shape != wider[name].shape}
    assert other == {"stride_8", "stride_32.0"}


@pytest.mark.parametrize(("before", "inside"), [(0, 3), (3, 0), (5, 3)])
def test_a_universal_bottleneck_halves_once(before: int, inside: int) -> None:
    block = UniversalBottleneck(8, 16, before=before, inside=inside, expansion=2, stride=2, act="relu")
    assert block(torch.zeros(2, 8, 14, 14)).shape == (2, 16, 7, 7)


# channels of each convolution by the side that it works at
PLAIN = {224: [16], 112: [32], 56: [64, 64], 28: [96, 96], 14: [128, 128], 7: [256, 256]}


def test_the_plain_network_is_stacks_of_convolutions_and_as_large_as_a_small_mobile_one() -> None:
    layers, inputs = [], 3
    for side, stack in PLAIN.items():
        for outputs in stack:
            layers.append(Layer(3, inputs, outputs, side))
            inputs = outputs
    assert counted("plain_cnn") == cost(layers)
    network = build_network(Architecture("plain_cnn", 1.0, "relu", 64, 112, 68, "pooled"))
    assert count_parameters(network) < 1.5e6
    assert count_macs(network, 112) < 130e6


# Blocks


def test_the_plain_network_has_nothing_but_convolutions_norms_activations_and_pooling() -> None:
    kinds = {type(module) for module in PlainCnn(act="relu").modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d}
    assert all(module.groups == 1 for module in PlainCnn().modules() if isinstance(module, nn.Conv2d))


def test_mobilenet_v1_filters_each_channel_and_then_mixes_them() -> None:
    for block, (inputs, outputs, _) in zip(list(MobileNetV1().blocks)[1:], V1, strict=True):
        (filters, _, first), (mixes, _, second) = block
        assert (filters.groups, filters.out_channels, filters.kernel_size) == (inputs, inputs, (3, 3))
        assert (mixes.groups, mixes.out_channels, mixes.kernel_size) == (1, outputs, (1, 1))
        assert isinstance(first, nn.ReLU)
        assert isinstance(second, nn.ReLU), "no layer of it is linear"


def test_a_basic_block_activates_the_sum_of_shortcut_and_residual() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 8, 6, 6)
    same, other = BasicBlock(8, 8, 1, "relu").eval(), BasicBlock(8, 16, 2, "relu").eval()
    torch.testing.assert_close(same(images), (images + same.layers(images)).relu())
    torch.testing.assert_close(other(images), (other.shortcut(images) + other.layers(images)).relu())
    assert [len(layer) for layer in same.layers] == [3, 2], "nothing between the second norm and the sum"


def test_shortcuts_of_resnet_18_are_convolutions_where_the_shape_changes() -> None:
    blocks = [block for block in ResNet18().modules() if isinstance(block, BasicBlock)]
    assert [isinstance(block.shortcut, ConvNormAct) for block in blocks] == [False, False, *[True, False] * 3]
