"""The networks: their published layout and cost, where training starts, and the preprocessing inside."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lmedge.errors import ConfigError
from lmedge.pipeline.configuration.config_checks import ACTIVATION_NAMES, HEAD_NAMES, TRUNK_NAMES
from lmedge.pipeline.models import (
    _HEADS,
    _TRUNKS,
    Architecture,
    DeployedNetwork,
    LandmarkNetwork,
    TrainedNetwork,
    build_network,
    count_macs,
    count_parameters,
)
from lmedge.pipeline.models.blocks import ACTIVATIONS, InvertedResidual, round_channels
from lmedge.pipeline.models.mobilenet_v2 import MobileNetV2
from tests.pipeline.networks import settle_norms

SMALL = Architecture("mobilenet_v2", 0.25, "relu", 16, 64, 5)


def network_of(architecture: Architecture = SMALL) -> LandmarkNetwork:
    torch.manual_seed(0)
    network = build_network(architecture)
    nn.init.normal_(network.head.linear.weight, std=0.05)
    settle_norms(network, architecture.input_px)
    return network.eval()


# Channels


@pytest.mark.parametrize(
    ("wish", "rounded"),
    [
        (32, 32),
        (32 * 0.75, 24),
        (24 * 0.75, 24),
        (16 * 0.35, 8),
        (320 * 0.75, 240),
        (1, 8),
        (11, 16),
        (12, 16),
        (96 * 1.4, 136),
    ],
)
def test_channels_are_rounded_as_in_the_reference_implementation(wish: float, rounded: int) -> None:
    assert round_channels(wish) == rounded


@given(wish=st.floats(1, 4096))
def test_channels_are_a_multiple_of_eight_and_never_far_below_the_wish(wish: float) -> None:
    rounded = round_channels(wish)
    assert rounded % 8 == 0
    assert 0.9 * wish <= rounded <= max(8, wish + 8)


@pytest.mark.parametrize(
    ("width", "stem", "outputs"),
    [
        (1.0, 32, [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]),
        (0.75, 24, [16, 24, 24, 24, 24, 24, 48, 48, 48, 48, 72, 72, 72, 120, 120, 120, 240]),
        (0.25, 8, [8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 24, 24, 24, 40, 40, 40, 80]),
    ],
)
def test_the_width_multiplier_scales_every_stage(width: float, stem: int, outputs: list[int]) -> None:
    trunk = MobileNetV2(width)
    stem_block, *residuals = trunk.blocks
    assert stem_block[0].out_channels == stem
    assert [block.layers[-1][0].out_channels for block in residuals] == outputs
    assert trunk.channels == (outputs[5], outputs[12], outputs[-1])


def test_shortcuts_are_where_shapes_allow() -> None:
    blocks = [block for block in MobileNetV2().blocks if isinstance(block, InvertedResidual)]
    assert [index for index, block in enumerate(blocks) if block.shortcut] == [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]


# Cost, by hand from table 2 of the paper: input channels, expansion, outputs, stride of each of the 17 blocks.

BLOCKS = [
    (32, 1, 16, 1), (16, 6, 24, 2), (24, 6, 24, 1), (24, 6, 32, 2), (32, 6, 32, 1), (32, 6, 32, 1), (32, 6, 64, 2),
    (64, 6, 64, 1), (64, 6, 64, 1), (64, 6, 64, 1), (64, 6, 96, 1), (96, 6, 96, 1), (96, 6, 96, 1), (96, 6, 160, 2),
    (160, 6, 160, 1), (160, 6, 160, 1), (160, 6, 320, 1),
]  # fmt: skip


def trunk_cost(size: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the trunk at width 1.0; a norm has a scale and an offset per channel."""
    size = math.ceil(size / 2)
    parameters, macs = 3 * 32 * 9 + 2 * 32, 3 * 32 * 9 * size**2
    for inputs, expansion, outputs, stride in BLOCKS:
        hidden = inputs * expansion
        if expansion > 1:
            parameters, macs = parameters + inputs * hidden + 2 * hidden, macs + inputs * hidden * size**2
        size = math.ceil(size / stride)
        parameters += 9 * hidden + 2 * hidden + hidden * outputs + 2 * outputs
        macs += (9 * hidden + hidden * outputs) * size**2
    return parameters, macs


def test_the_trunk_costs_what_the_published_network_does() -> None:
    # MobileNetV2 for ImageNet: 3,504,872 parameters, 300,774,272 MACs; less its last convolution to 1,280 channels with norm,
    # at 7 × 7, and its classifier of 1,000 classes.
    published = (
        3_504_872 - (320 * 1280 + 2 * 1280) - (1280 * 1000 + 1000),
        300_774_272 - 320 * 1280 * 49 - 1280 * 1000,
    )
    assert trunk_cost(224) == published == (1_811_712, 279_423_872)
    network = build_network(Architecture("mobilenet_v2", 1.0, "relu", 64, 224, 68))
    assert count_parameters(network.trunk) == published[0]
    assert count_macs(network, 224) - head_cost(7, 64, 68)[1] == published[1]


def head_cost(positions: int, squeeze: int, points: int) -> tuple[int, int]:
    flat, outputs = squeeze * positions**2, 2 * points
    parameters = 320 * squeeze + 2 * squeeze + flat * outputs + outputs
    return parameters, 320 * squeeze * positions**2 + flat * outputs


@pytest.mark.parametrize(("size", "positions", "points"), [(112, 4, 68), (112, 4, 98), (100, 4, 5), (96, 3, 68)])
def test_a_whole_network_costs_trunk_and_head(size: int, positions: int, points: int) -> None:
    network = build_network(Architecture("mobilenet_v2", 1.0, "relu", 64, size, points))
    trunk, head = trunk_cost(size), head_cost(positions, 64, points)
    assert count_parameters(network) == trunk[0] + head[0]
    assert count_macs(network, size) == trunk[1] + head[1]


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_network_as_it_was(training: bool) -> None:
    network = build_network(SMALL).train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert count_macs(network, SMALL.input_px) == count_macs(network, SMALL.input_px)
    assert network.training == training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# Architectures


def test_an_architecture_comes_back_from_json() -> None:
    assert Architecture(**json.loads(json.dumps(SMALL.to_json()))) == SMALL
    again = build_network(Architecture(**SMALL.to_json()))
    again.load_state_dict(build_network(SMALL).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trunk": "resnet"}, "No network is called 'resnet'; known: plain_cnn, resnet18, mobilenet_v1, mobilenet_v2"),
        ({"head": "simcc"}, "No head is called 'simcc'; known: pooled, flatten, multiscale, integral"),
        ({"width": 0.05}, "between 0.1 and 4; got 0.05"),
        ({"width": math.nan}, "between 0.1 and 4; got nan"),
        ({"activation": "gelu"}, "No activation is called 'gelu'; known: relu, relu6, hardswish"),
    ],
)
def test_an_unknown_architecture_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(replace(SMALL, **change))


def test_a_configuration_knows_the_same_names() -> None:
    assert (set(_TRUNKS), set(_HEADS)) == (set(TRUNK_NAMES), set(HEAD_NAMES))
    assert set(ACTIVATIONS) == set(ACTIVATION_NAMES)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_activation_is_used_everywhere(name: str) -> None:
    network = build_network(replace(SMALL, activation=name))
    used = {type(module) for module in network.modules() if isinstance(module, tuple(ACTIVATIONS.values()))}
    assert used == {ACTIVATIONS[name]}


# Answers


@pytest.mark.parametrize(("size", "points"), [(64, 5), (65, 5), (112, 68)])
def test_answers_are_a_pair_per_point(size: int, points: int) -> None:
    network = build_network(replace(SMALL, input_px=size, num_points=points)).eval()
    assert network(torch.zeros(3, 3, size, size)).shape == (3, points, 2)


def test_an_untrained_network_answers_the_mean_face() -> None:
    torch.manual_seed(0)
    mean_face = torch.rand(5, 2)
    network = build_network(SMALL)
    network.head.start_at(mean_face)
    answers = network.eval()(torch.randn(4, 3, 64, 64))
    torch.testing.assert_close(answers, mean_face.expand(4, 5, 2), atol=0.02, rtol=0)


def test_the_memory_format_does_not_change_the_answer() -> None:
    network = network_of()
    images = torch.randn(2, 3, 64, 64)
    plain = network(images)
    channels_last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, channels_last, atol=1e-5, rtol=0)


def test_a_face_does_not_depend_on_its_batch() -> None:
    network = network_of()
    images = torch.randn(3, 3, 64, 64)
    assert (network(images[:1]) - network(images[1:2])).abs().max() > 1e-2
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=0)


# Preprocessing inside


def test_crops_reach_the_network_in_bgr_order_and_normalised() -> None:
    seen = TrainedNetwork(nn.Identity(), 128.0, 64.0)  # type: ignore[arg-type]
    blue, green, red = 128, 192, 32
    crop = torch.tensor([blue, green, red], dtype=torch.uint8).expand(1, 4, 5, 3)
    images = seen(crop)
    assert images.shape == (1, 3, 4, 5)
    assert images[0, :, 2, 3].tolist() == [0.0, 1.0, -1.5]


def test_rows_stay_rows() -> None:
    seen = TrainedNetwork(nn.Identity(), 0.0, 1.0)  # type: ignore[arg-type]
    crop = torch.arange(4 * 5, dtype=torch.uint8).reshape(1, 4, 5, 1).expand(1, 4, 5, 3)
    assert seen(crop)[0, 0].tolist() == np.arange(20).reshape(4, 5).tolist()


def test_exchanged_channels_are_seen_unless_the_first_layer_is_exchanged_too() -> None:
    network = network_of()
    crop = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    answer = DeployedNetwork(network, 128.0, 64.0)(crop)
    with torch.no_grad():
        network.trunk.blocks[0][0].weight.copy_(network.trunk.blocks[0][0].weight.flip(1))
    exchanged = DeployedNetwork(network, 128.0, 64.0)
    assert (exchanged(crop) - answer).abs().max() > 1e-2
    torch.testing.assert_close(exchanged(crop.flip(3)), answer, atol=1e-5, rtol=0)


def test_preprocessing_has_no_weights() -> None:
    network = network_of()
    deployed = DeployedNetwork(network, 128.0, 64.0)
    assert [name.removeprefix("trained.network.") for name in deployed.state_dict()] == list(network.state_dict())
