"""The running mean of the weights: its closed form, its short start, its buffers, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lmedge.pipeline.training.averaging import WeightAverage

STEPS = 40


def small_network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def walk(network: nn.Module, average: WeightAverage, steps: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Moves all weights and buffers at random, tells the average, and returns what the network was after each step."""
    generator, seen = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn(tensor.shape, generator=generator))
                else:
                    tensor.add_(1)
        average.update()
        seen.append({name: tensor.clone().double() for name, tensor in network.state_dict().items()})
    return seen


def expected_mean(seen: list[dict[str, torch.Tensor]], decay: float) -> dict[str, torch.Tensor]:
    """What Tarvainen and Valpola's formula says, summed up: each step's weight is what later steps left of it."""
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, len(seen))]
    parts = [1.0, *(1 - d for d in decays)]
    for step in range(len(parts)):
        for later in decays[step:]:
            parts[step] *= later
    assert sum(parts) == pytest.approx(1)
    return {name: sum(part * at[name] for part, at in zip(parts, seen, strict=True)) for name in seen[0]}  # type: ignore[misc]


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.998])
def test_the_mean_of_weights_and_statistics_is_that_of_the_formula(decay: float) -> None:
    network = small_network()
    average = WeightAverage(network, decay)
    expected = expected_mean(walk(network, average, STEPS), decay)
    found = average.average.state_dict()
    assert found.keys() == expected.keys()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_counters_are_those_of_the_network() -> None:
    network = small_network()
    average = WeightAverage(network, 0.9)
    walk(network, average, 5)
    assert int(average.average.state_dict()["1.num_batches_tracked"]) == 5


def test_the_early_mean_forgets_where_it_started() -> None:
    """With the full decay from the first step, nearly all of it would still be the start."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 100.0)
    average = WeightAverage(network, 0.998)
    average.update()
    nn.init.zeros_(network.weight)
    for _ in range(STEPS):
        average.update()
    assert next(average.average.parameters()).item() < 1e-3


def test_the_network_itself_is_left_alone() -> None:
    network = small_network()
    average = WeightAverage(network, 0.9)
    seen = walk(network, average, 3)
    assert all(torch.equal(tensor.double(), seen[-1][name]) for name, tensor in network.state_dict().items())
    assert average.average is not network


def test_without_decay_it_is_the_network_of_the_last_step() -> None:
    network = small_network()
    average = WeightAverage(network, 0.0)
    walk(network, average, 3)
    assert average.average is network
    assert average.state_dict() == {}
    average.load_state_dict({})


@pytest.mark.parametrize("stop", [0, 1, 2, 15])
def test_a_mean_that_was_saved_goes_on_as_if_nothing_had_been(stop: int) -> None:
    torch.manual_seed(0)
    network, again = small_network(), small_network()
    again.load_state_dict(network.state_dict())
    whole, first = WeightAverage(network, 0.9), WeightAverage(again, 0.9)
    walk(network, whole, stop, seed=1)
    walk(again, first, stop, seed=1)
    second = WeightAverage(again, 0.9)
    second.load_state_dict(first.state_dict())
    walk(network, whole, 4, seed=2)
    walk(again, second, 4, seed=2)
    ours, theirs = second.average.state_dict(), whole.average.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
