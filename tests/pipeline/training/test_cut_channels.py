"""Fewer channels inside the blocks of a network: those stay that the next layer listens to, and nothing else changes."""

from __future__ import annotations

import pytest

from tests.requirements import require

require("torch")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from lmedge.pipeline.models import Architecture, build_network  # noqa: E402
from lmedge.pipeline.models.blocks import ConvNormAct  # noqa: E402
from lmedge.pipeline.training.checkpoint import Checkpoint, start_from  # noqa: E402
from lmedge.pipeline.training.cut_channels import cut_channels  # noqa: E402
from lmedge.preprocess import PreprocessSpec  # noqa: E402
from lmedge.schemas import MMLAB_5  # noqa: E402
from tests.pipeline.networks import settle_norms  # noqa: E402

WIDE, NARROW = 12, 8


def chain(hidden: int, outputs: int = 6, kernel: int = 3, depthwise: bool = True) -> nn.Sequential:
    inner = [ConvNormAct(hidden, hidden, kernel, groups=hidden)] if depthwise else [ConvNormAct(hidden, hidden, kernel)]
    return nn.Sequential(nn.Sequential(ConvNormAct(4, hidden), *inner, ConvNormAct(hidden, outputs, act="")))


def random_chain(hidden: int, **shape: int | bool) -> nn.Sequential:
    torch.manual_seed(hidden)
    made = chain(hidden, **shape)  # type: ignore[arg-type]
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert values is not None
                values.uniform_(0.5, 1.5)
    return made.eval()


@pytest.mark.parametrize("depthwise", [True, False])
def test_channels_that_nobody_hears_go_without_a_change(depthwise: bool) -> None:
    wide, narrow = random_chain(WIDE, depthwise=depthwise), random_chain(NARROW, depthwise=depthwise)
    silent = torch.tensor([1, 4, 5, 11])
    with torch.no_grad():
        for layer in wide[0][1:]:
            if layer[0].groups == 1:
                layer[0].weight[:, silent] = 0
        if not depthwise:
            # The middle layer makes channels of its own: of those, others are silent.
            wide[0][2][0].weight[:, torch.tensor([0, 2, 3, 9])] = 0
            wide[0][2][0].weight[:, silent] = torch.rand(6, 4, 1, 1)
    cut = cut_channels(narrow, wide.state_dict())
    narrow.load_state_dict({**narrow.state_dict(), **cut})
    images = torch.rand(2, 4, 9, 9)
    torch.testing.assert_close(narrow(images), wide(images))


def test_the_loudest_channels_stay_whatever_their_own_weights() -> None:
    wide, narrow = random_chain(WIDE), random_chain(NARROW)
    loud = torch.tensor([0, 1, 3, 5, 6, 7, 10, 11])
    with torch.no_grad():
        wide[0][1][1].weight.fill_(0.01)
        wide[0][1][1].weight[loud] = 1
        wide[0][0][0].weight[loud] *= 1e-3
    cut = cut_channels(narrow, wide.state_dict())
    torch.testing.assert_close(cut["0.0.0.weight"], wide[0][0][0].weight[loud])
    torch.testing.assert_close(cut["0.1.0.weight"], wide[0][1][0].weight[loud])
    torch.testing.assert_close(cut["0.2.0.weight"], wide[0][2][0].weight[:, loud])
    torch.testing.assert_close(cut["0.1.1.running_mean"], wide[0][1][1].running_mean[loud])


@pytest.mark.parametrize(
    "other",
    [{"outputs": 5}, {"kernel": 5}, {"depthwise": False}],
    ids=["other channels at the end", "other kernels", "no depthwise layer"],
)
def test_another_chain_is_left_alone(other: dict[str, int | bool]) -> None:
    assert cut_channels(chain(NARROW), chain(WIDE, **other).state_dict()) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden", [WIDE, WIDE + 4])
def test_a_chain_that_is_no_narrower_is_left_alone(hidden: int) -> None:
    assert cut_channels(chain(hidden), chain(WIDE).state_dict()) == {}


def test_a_trimmed_network_starts_from_the_whole_one() -> None:
    torch.manual_seed(0)
    whole = Architecture("mobilenet_v4_conv_small", 0.25, "relu", 16, 64, 5, "integral")
    network = build_network(whole)
    settle_norms(network, 64)
    given = Checkpoint(network.state_dict(), whole, MMLAB_5, PreprocessSpec(input_hw=(64, 64)), {})
    trimmed = build_network(Architecture("mobilenet_v4_trimmed", 0.25, "relu", 16, 64, 5, "integral"))
    assert start_from(trimmed, given) == []
