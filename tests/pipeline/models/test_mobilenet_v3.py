"""MobileNetV3 large and small: their published layout and cost, and that they reach ONNX as what they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from lmedge.pipeline.models import (
    Architecture,
    DeployedNetwork,
    LandmarkNetwork,
    build_network,
    count_macs,
    count_parameters,
)
from lmedge.pipeline.models.blocks import ConvNormAct, SqueezeExcite, round_channels
from lmedge.pipeline.models.heads import FlattenHead, HeadPlan
from lmedge.pipeline.models.mobilenet_v3 import MobileNetV3, MobileNetV3Large, MobileNetV3Small
from tests import requirements
from tests.pipeline.networks import settle_norms

TRUNKS: dict[str, type[MobileNetV3]] = {"mobilenet_v3_large": MobileNetV3Large, "mobilenet_v3_small": MobileNetV3Small}


class Row(NamedTuple):
    """A line of tables 1 and 2 of the paper, the input of which is the output of the line before."""

    kernel: int
    expanded: int
    outputs: int
    excited: bool
    nonlinearity: str
    stride: int


# Written down from the paper once more, apart from the package. RE is ReLU there, HS h-swish.
TABLES = {
    "mobilenet_v3_large": [
        Row(3, 16, 16, False, "RE", 1),
        Row(3, 64, 24, False, "RE", 2),
        Row(3, 72, 24, False, "RE", 1),
        Row(5, 72, 40, True, "RE", 2),
        Row(5, 120, 40, True, "RE", 1),
        Row(5, 120, 40, True, "RE", 1),
        Row(3, 240, 80, False, "HS", 2),
        Row(3, 200, 80, False, "HS", 1),
        Row(3, 184, 80, False, "HS", 1),
        Row(3, 184, 80, False, "HS", 1),
        Row(3, 480, 112, True, "HS", 1),
        Row(3, 672, 112, True, "HS", 1),
        Row(5, 672, 160, True, "HS", 2),
        Row(5, 960, 160, True, "HS", 1),
        Row(5, 960, 160, True, "HS", 1),
    ],
    "mobilenet_v3_small": [
        Row(3, 16, 16, True, "RE", 2),
        Row(3, 72, 24, False, "RE", 2),
        Row(3, 88, 24, False, "RE", 1),
        Row(5, 96, 40, True, "HS", 2),
        Row(5, 240, 40, True, "HS", 1),
        Row(5, 240, 40, True, "HS", 1),
        Row(5, 120, 48, True, "HS", 1),
        Row(5, 144, 48, True, "HS", 1),
        Row(5, 288, 96, True, "HS", 2),
        Row(5, 576, 96, True, "HS", 1),
        Row(5, 576, 96, True, "HS", 1),
    ],
}


class Published(NamedTuple):
    """What is known of the whole network for ImageNet at 224 px, classifier of 1,000 classes included."""

    parameters: int  # as torchvision counts them; the paper says 5.4 and 2.5 million
    million_macs: int  # in the paper
    features: int  # channels of the last 1 × 1 convolution, which has a norm and no bias
    hidden: int  # width of the first of the two linear layers behind the pooling


PUBLISHED = {
    "mobilenet_v3_large": Published(5_483_032, 219, 960, 1280),
    "mobilenet_v3_small": Published(2_542_856, 56, 576, 1024),
}


def classifier_cost(name: str, positions: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of what classification adds to the trunk."""
    channels, known = TABLES[name][-1].outputs, PUBLISHED[name]
    linear = known.features * known.hidden + known.hidden * 1000
    biases = known.hidden + 1000
    squeeze = channels * known.features
    return squeeze + 2 * known.features + linear + biases, squeeze * positions + linear


def trunk_cost(name: str, size: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the trunk at width 1.0; a norm has a scale and an offset per channel."""
    size, inputs = math.ceil(size / 2), 16
    parameters, macs = 3 * inputs * 9 + 2 * inputs, 3 * inputs * 9 * size**2
    for row in TABLES[name]:
        if row.expanded != inputs:
            parameters, macs = parameters + inputs * row.expanded + 2 * row.expanded, macs + inputs * row.expanded * size**2
        size = math.ceil(size / row.stride)
        filters, projection = row.kernel**2 * row.expanded, row.expanded * row.outputs
        parameters += filters + 2 * row.expanded + projection + 2 * row.outputs
        macs += (filters + projection) * size**2
        if row.excited:
            squeezed = round_channels(row.expanded / 4)
            parameters += 2 * row.expanded * squeezed + squeezed + row.expanded
            macs += 2 * row.expanded * squeezed
        inputs = row.outputs
    return parameters, macs


# ---- cost ----


@pytest.mark.parametrize("name", TRUNKS)
def test_the_trunk_has_the_parameters_of_the_published_network(name: str) -> None:
    published = PUBLISHED[name].parameters - classifier_cost(name, 49)[0]
    assert count_parameters(TRUNKS[name]()) == published == trunk_cost(name, 224)[0]


@pytest.mark.parametrize("name", TRUNKS)
def test_the_trunk_does_the_work_of_the_published_network(name: str) -> None:
    network = build_network(Architecture(name, 1.0, "hardswish", 64, 224, 68))
    flat, outputs = 64 * 49, 2 * 68
    head = network.trunk.channels[2] * flat + flat * outputs
    macs = count_macs(network, 224) - head
    assert macs == trunk_cost(name, 224)[1]
    # The paper gives whole millions, and may count means and gates as work.
    assert (macs + classifier_cost(name, 49)[1]) / 1e6 == pytest.approx(PUBLISHED[name].million_macs, rel=0.02)


@pytest.mark.parametrize("size", [96, 100, 112])
@pytest.mark.parametrize("name", TRUNKS)
def test_the_work_at_the_sizes_of_crops(name: str, size: int) -> None:
    network = build_network(Architecture(name, 1.0, "hardswish", 64, size, 5))
    positions = math.ceil(size / 32) ** 2
    head = network.trunk.channels[2] * 64 * positions + 64 * positions * 10
    assert count_macs(network, size) == trunk_cost(name, size)[1] + head


# ---- layout ----


def blocks_of(trunk: MobileNetV3) -> list[Any]:
    """The bottlenecks, behind the stem."""
    return list(trunk.blocks)[1:]


def depthwise_of(block: Any) -> ConvNormAct:
    return next(layer for layer in block.layers if isinstance(layer, ConvNormAct) and layer[0].groups > 1)


@pytest.mark.parametrize("name", TRUNKS)
def test_every_block_is_a_line_of_the_table(name: str) -> None:
    trunk, inputs = TRUNKS[name](), 16
    assert (trunk.blocks[0][0].out_channels, trunk.blocks[0][0].stride) == (16, (2, 2))
    assert len(blocks_of(trunk)) == len(TABLES[name])
    for block, row in zip(blocks_of(trunk), TABLES[name], strict=True):
        filters, project = depthwise_of(block)[0], block.layers[-1]
        assert (filters.kernel_size[0], filters.out_channels, filters.stride[0]) == (row.kernel, row.expanded, row.stride)
        assert filters.groups == filters.in_channels == row.expanded
        assert (block.layers[0][0].in_channels, project[0].out_channels) == (inputs, row.outputs)
        assert (block.layers[0][0].groups == 1) == (row.expanded != inputs), "nothing to expand, no convolution for it"
        assert len(project) == 2, "the projection is linear"
        inputs = row.outputs
    assert trunk.channels[2] == inputs


@pytest.mark.parametrize("name", TRUNKS)
def test_shortcuts_are_where_shapes_allow(name: str) -> None:
    table = TABLES[name]
    before = [16, *(row.outputs for row in table)]
    expected = [row.stride == 1 and row.outputs == inputs for row, inputs in zip(table, before, strict=False)]
    assert [block.shortcut for block in blocks_of(TRUNKS[name]())] == expected
    assert sum(expected) == {"mobilenet_v3_large": 10, "mobilenet_v3_small": 6}[name]


def test_a_shortcut_adds_the_input() -> None:
    first = blocks_of(MobileNetV3Large())[0].eval()
    images = torch.rand(1, 16, 8, 8)
    torch.testing.assert_close(first(images), images + first.layers(images))


@pytest.mark.parametrize("name", TRUNKS)
def test_squeeze_and_excite_is_between_filter_and_projection_where_the_table_has_it(name: str) -> None:
    for block, row in zip(blocks_of(TRUNKS[name]()), TABLES[name], strict=True):
        places = [number for number, layer in enumerate(block.layers) if isinstance(layer, SqueezeExcite)]
        assert places == ([len(block.layers) - 2] if row.excited else [])
        if row.excited:
            squeeze, excite = (layer for layer in block.layers[-2].gate if isinstance(layer, nn.Conv2d))
            assert (squeeze.in_channels, squeeze.out_channels) == (row.expanded, round_channels(row.expanded / 4))
            assert (excite.in_channels, excite.out_channels) == (squeeze.out_channels, row.expanded)


def test_squeeze_and_excite_weighs_channels_between_nothing_and_all() -> None:
    torch.manual_seed(0)
    excite = SqueezeExcite(16)
    images = torch.randn(2, 16, 5, 7)
    weights = (excite(images) / images).mean(dim=(2, 3))
    torch.testing.assert_close(excite(images), images * weights[:, :, None, None])
    assert ((weights >= 0) & (weights <= 1)).all()
    expected = nn.functional.hardsigmoid(excite.gate[2](excite.gate[1](excite.gate[0](images.mean((2, 3), keepdim=True)))))
    torch.testing.assert_close(weights, expected[:, :, 0, 0])


@pytest.mark.parametrize("activation", ["hardswish", "relu6"])
@pytest.mark.parametrize("name", TRUNKS)
def test_the_activation_stands_where_the_paper_has_h_swish_and_relu6_where_it_has_relu(name: str, activation: str) -> None:
    kinds = {"HS": nn.Hardswish if activation == "hardswish" else nn.ReLU6, "RE": nn.ReLU6}
    trunk = TRUNKS[name](act=activation)
    assert isinstance(trunk.blocks[0][2], kinds["HS"])
    for block, row in zip(blocks_of(trunk), TABLES[name], strict=True):
        for layer in list(block.layers)[:-1]:
            if isinstance(layer, ConvNormAct):
                assert isinstance(layer[2], kinds[row.nonlinearity])


@pytest.mark.parametrize("width", [0.35, 0.75, 1.25])
@pytest.mark.parametrize("name", TRUNKS)
def test_the_width_multiplier_scales_every_stage(name: str, width: float) -> None:
    trunk = TRUNKS[name](width)
    assert trunk.blocks[0][0].out_channels == round_channels(16 * width)
    outputs = [block.layers[-1][0].out_channels for block in blocks_of(trunk)]
    assert outputs == [round_channels(row.outputs * width) for row in TABLES[name]]
    expanded = [depthwise_of(block)[0].out_channels for block in blocks_of(trunk)]
    assert expanded == [round_channels(row.expanded * width) for row in TABLES[name]]


# ---- answers and export ----


class Excerpt(MobileNetV3):
    """Three lines of the small network's table, with every kind of node in them."""

    layout = ((3, 16, 16, True, False, 4), (5, 96, 40, True, True, 4), (5, 240, 40, True, True, 1))
    last = (1, 2, 3)


def test_the_onnx_file_has_each_h_swish_as_one_node(tmp_path: Path) -> None:
    requirements.require("onnx", "onnxruntime", "onnxscript", "onnxslim")
    import onnx

    from lmedge.export.torch_to_onnx import export_onnx
    from tests.export.networks import CROP_PX, picture_crops, save_program

    torch.manual_seed(0)
    trunk = Excerpt(0.5)
    network = LandmarkNetwork(trunk, FlattenHead(HeadPlan(trunk.channels, CROP_PX, 5, 16, "hardswish")))
    settle_norms(network, CROP_PX)
    program = save_program(DeployedNetwork(network, 128.0, 64.0).eval(), tmp_path / "model.pt2")
    export_onnx(program, tmp_path / "model.onnx", picture_crops(2))
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    kinds = ("HardSwish", "HardSigmoid", "Clip", "Relu", "Mul", "ReduceMean", "Add")
    counts = {kind: sum(node.op_type == kind for node in nodes) for kind in kinds}
    # An h-swish: stem, head, and twice in both blocks of that kind. A gate: ReduceMean, Relu, HardSigmoid and Mul.
    assert counts == {"HardSwish": 6, "Clip": 1, **dict.fromkeys(("HardSigmoid", "Relu", "Mul", "ReduceMean"), 3), "Add": 1}


@pytest.mark.parametrize(("dialect", "rounded"), [("portable", False), ("x86", True)])
def test_gates_have_int8_weights_and_where_the_file_is_portable_read_what_is_not_rounded(dialect: str, rounded: bool) -> None:
    """A gate's weights are a large part of the file; where two engines round one of its values differently, a channel moves."""
    requirements.require("onnx", "onnxruntime", "onnxscript", "onnxslim")
    from lmedge.export.graph.qdq_graph import QdqGraph
    from tests.pipeline.int8_networks import int8_network

    view = QdqGraph(int8_network("swishes").int8[dialect].graph)
    gates = [node for node in view.nodes if node.op_type == "Conv" and view.is_pooled(node.input[0])]
    assert len(gates) == 6, "two convolutions in each of three"
    assert [view.op_type(node.input[1]) for node in gates] == ["DequantizeLinear"] * 6
    assert [view.pair(node.input[0]) is not None for node in gates] == [rounded] * 6


def test_answers_follow_the_image() -> None:
    torch.manual_seed(0)
    network = build_network(Architecture("mobilenet_v3_large", 0.35, "hardswish", 16, 64, 5))
    nn.init.normal_(network.head.linear.weight, std=0.05)
    settle_norms(network, 64)
    answers = network.eval()(torch.randn(2, 3, 64, 64)).detach().numpy()
    assert answers.shape == (2, 5, 2)
    assert np.abs(answers[0] - answers[1]).max() > 1e-2
