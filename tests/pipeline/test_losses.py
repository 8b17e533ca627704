"""Losses: their formulas, computed by hand, and that no wrong answer is free."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmedge.errors import ConfigError
from lmedge.pipeline.config_checks import LOSS_NAMES
from lmedge.pipeline.losses import LOSSES, Loss, get_loss, l2_loss, wing_loss

SIDE = 100
# Wing's constant for ω = 10 px and ε = 2 px: 10 − 10 ln(1 + 10 / 2).
WING_C = 10 - 10 * math.log(6)

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def of_distances(loss: Loss, distances_px: list[list[float]], known: list[bool] | None = None) -> float:
    """The loss of one face whose points are this far (x, y) from the truth."""
    true = torch.full((1, len(distances_px), 2), 0.5, dtype=torch.float64)
    predicted = true + torch.tensor([distances_px], dtype=torch.float64) / SIDE
    mask = torch.tensor([known or [True] * len(distances_px)])
    return float(loss(predicted, true, mask, SIDE))


# Formulas


@pytest.mark.parametrize(
    ("distances_px", "expected"),
    [([[0, 0]], 0), ([[3, 0]], 9 / 2), ([[3, -4]], (9 + 16) / 2), ([[1, 1], [2, 2]], (1 + 1 + 4 + 4) / 4), ([[50, 0]], 1250)],
)
def test_l2_is_the_mean_squared_coordinate_error_in_pixels(distances_px: list[list[float]], expected: float) -> None:
    assert of_distances(l2_loss, distances_px) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distance_px", "expected"),
    [
        (0.0, 0.0),
        (2.0, 10 * math.log(2)),
        (-2.0, 10 * math.log(2)),
        (4.0, 10 * math.log(3)),
        (9.999, 10 * math.log(1 + 9.999 / 2)),
        (10.0, 10 * math.log(6)),
        (30.0, 30 - WING_C),
        (-30.0, 30 - WING_C),
    ],
)
def test_wing_is_logarithmic_near_and_linear_far_in_pixels(distance_px: float, expected: float) -> None:
    assert of_distances(wing_loss, [[distance_px, distance_px]]) == pytest.approx(expected)


def test_wing_has_no_step_where_its_parts_meet() -> None:
    below, above = of_distances(wing_loss, [[10 - 1e-9, 0]]), of_distances(wing_loss, [[10 + 1e-9, 0]])
    assert above - below == pytest.approx(0, abs=1e-8)


def test_wing_counts_pixels_of_the_crop_not_fractions() -> None:
    true, mask = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
    fractions = torch.full((1, 1, 2), 0.05)
    assert float(wing_loss(fractions, true, mask, 100)) == pytest.approx(10 * math.log(1 + 5 / 2))
    assert float(wing_loss(fractions, true, mask, 400)) == pytest.approx(20 - WING_C)


@every_loss
@pytest.mark.parametrize("distance_px", [0.05, 1.0, 9.0, 11.0, 200.0])
def test_the_gradient_points_away_from_the_truth(loss: Loss, distance_px: float) -> None:
    true = torch.full((1, 2, 2), 0.5)
    predicted = (true + torch.tensor([1.0, -1.0]) * distance_px / SIDE).requires_grad_()
    loss(predicted, true, torch.ones(1, 2, dtype=torch.bool), SIDE).backward()
    assert predicted.grad is not None
    assert (predicted.grad.sign() == torch.tensor([1.0, -1.0])).all()
    assert torch.isfinite(predicted.grad).all()


# Known defects of public training code: a loss multiplied by pose and attribute weights is zero for some wrong answers.


@every_loss
@given(distances=st.lists(st.tuples(st.floats(-300, 300), st.floats(-300, 300)), min_size=1, max_size=6))
def test_no_wrong_answer_is_free(loss: Loss, distances: list[tuple[float, float]]) -> None:
    value = of_distances(loss, [list(pair) for pair in distances])
    wrong = max(max(abs(x), abs(y)) for x, y in distances) > 1e-3
    assert value > 0 if wrong else value >= 0


@every_loss
@given(near=st.floats(0, 300), further=st.floats(0.01, 300))
def test_further_off_costs_more(loss: Loss, near: float, further: float) -> None:
    assert of_distances(loss, [[near + further, 0]]) > of_distances(loss, [[near, 0]])


@every_loss
def test_every_face_of_a_batch_counts_alike(loss: Loss) -> None:
    torch.manual_seed(0)
    true, predicted = torch.rand(4, 5, 2), torch.rand(4, 5, 2)
    mask = torch.ones(4, 5, dtype=torch.bool)
    each = [loss(predicted[i : i + 1], true[i : i + 1], mask[:1], SIDE) for i in range(4)]
    torch.testing.assert_close(loss(predicted, true, mask, SIDE), torch.stack(each).mean())


# Unknown points


def holed() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    true = torch.rand(2, 5, 2)
    true[0, 1], true[1, 4, 0] = torch.nan, torch.nan
    return torch.rand(2, 5, 2), true, torch.isfinite(true).all(dim=2)


@every_loss
def test_unknown_points_have_no_influence(loss: Loss) -> None:
    predicted, true, mask = holed()
    value = loss(predicted, true, mask, SIDE)
    moved = torch.where(mask.unsqueeze(-1), predicted, predicted + 3)
    assert torch.isfinite(value)
    assert loss(moved, true, mask, SIDE) == value
    known = loss(predicted[mask][None], true[mask][None], torch.ones(1, int(mask.sum()), dtype=torch.bool), SIDE)
    torch.testing.assert_close(value, known)


@every_loss
def test_unknown_points_have_no_gradient_and_spoil_none(loss: Loss) -> None:
    predicted, true, mask = holed()
    predicted.requires_grad_()
    loss(predicted, true, mask, SIDE).backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
    assert (predicted.grad[~mask] == 0).all()
    assert (predicted.grad[mask] != 0).all()


@every_loss
def test_a_batch_without_known_points_costs_nothing(loss: Loss) -> None:
    true = torch.full((1, 5, 2), torch.nan)
    predicted = torch.rand(1, 5, 2, requires_grad=True)
    value = loss(predicted, true, torch.zeros(1, 5, dtype=torch.bool), SIDE)
    value.backward()
    assert value.item() == 0
    assert predicted.grad is not None
    assert (predicted.grad == 0).all()


@every_loss
def test_an_answer_that_is_no_number_is_not_hidden(loss: Loss) -> None:
    predicted = torch.full((1, 5, 2), torch.nan)
    assert torch.isnan(loss(predicted, torch.zeros(1, 5, 2), torch.ones(1, 5, dtype=torch.bool), SIDE))


# Names


def test_losses_are_found_by_name() -> None:
    assert {name: get_loss(name) for name in LOSSES} == {"l2": l2_loss, "wing": wing_loss}
    assert set(LOSSES) == set(LOSS_NAMES)


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="No loss is called 'adaptive'; known: l2, wing"):
        get_loss("adaptive")
