"""Losses: their formulas, computed by hand, that no wrong answer is free, and how faces and points are averaged."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmedge.errors import ConfigError, InputError
from lmedge.pipeline.configuration.config_checks import LOSS_NAMES
from lmedge.pipeline.training.losses import AVERAGE_NORMALIZER, LOSSES, Loss, get_loss

SIDE = 100
# Wing's constant for ω = 10 px and ε = 2 px: 10 − 10 ln(1 + 10 / 2).
WING_C = 10 - 10 * math.log(6)
# SoftWing's for ω1 = 2 px, ω2 = 20 and ε = 0.5 px: 2 − 20 ln(1 + 2 / 0.5).
SOFT_WING_B = 2 - 20 * math.log(5)

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
    assert of_distances(get_loss("l2"), distances_px) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distances_px", "expected"),
    [([[0, 0]], 0), ([[3, 0]], 3 / 2), ([[3, -4]], 7 / 2), ([[1, 1], [2, -2]], 6 / 4), ([[50, 0]], 25)],
)
def test_l1_is_the_mean_coordinate_error_in_pixels(distances_px: list[list[float]], expected: float) -> None:
    assert of_distances(get_loss("l1"), distances_px) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distance_px", "expected"), [(0.0, 0.0), (0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (-3.0, 2.5), (40.0, 39.5)]
)
def test_smooth_l1_is_a_parabola_up_to_one_pixel_and_straight_above(distance_px: float, expected: float) -> None:
    assert of_distances(get_loss("smooth_l1"), [[distance_px, distance_px]]) == pytest.approx(expected)


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
    assert of_distances(get_loss("wing"), [[distance_px, distance_px]]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distance_px", "expected"),
    [
        (0.0, 0.0),
        (0.5, 0.5),
        (-1.999, 1.999),
        (2.0, 2.0),
        (4.5, 20 * math.log(10) + SOFT_WING_B),
        (-30.0, 20 * math.log(61) + SOFT_WING_B),
    ],
)
def test_soft_wing_is_linear_near_and_logarithmic_far_in_pixels(distance_px: float, expected: float) -> None:
    assert of_distances(get_loss("soft_wing"), [[distance_px, distance_px]]) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "turn_px"), [("smooth_l1", 1), ("wing", 10), ("soft_wing", 2)])
def test_there_is_no_step_where_two_parts_meet(name: str, turn_px: float) -> None:
    below, above = (of_distances(get_loss(name), [[turn_px + side, 0]]) for side in (-1e-9, 1e-9))
    assert above - below == pytest.approx(0, abs=1e-7)


@every_loss
@pytest.mark.parametrize("distance_px", [0.05, 1.0, 9.0, 11.0, 200.0])
def test_the_gradient_points_away_from_the_truth(loss: Loss, distance_px: float) -> None:
    true = torch.full((1, 2, 2), 0.5)
    predicted = (true + torch.tensor([1.0, -1.0]) * distance_px / SIDE).requires_grad_()
    loss(predicted, true, torch.ones(1, 2, dtype=torch.bool), SIDE).backward()
    assert predicted.grad is not None
    assert (predicted.grad.sign() == torch.tensor([1.0, -1.0])).all()
    assert torch.isfinite(predicted.grad).all()


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


# Unknown points


def holed() -> tuple[Tensor, Tensor, Tensor]:
    """Two faces, of five and of three known points."""
    torch.manual_seed(0)
    true = torch.rand(2, 5, 2)
    true[1, 1], true[1, 4, 0] = torch.nan, torch.nan
    return torch.rand(2, 5, 2), true, torch.isfinite(true).all(dim=2)


@every_loss
def test_unknown_points_have_no_influence(loss: Loss) -> None:
    predicted, true, mask = holed()
    value = loss(predicted, true, mask, SIDE)
    moved = torch.where(mask.unsqueeze(-1), predicted, predicted + 3)
    assert torch.isfinite(value)
    assert loss(moved, true, mask, SIDE) == value


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


# Averages


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Two halves of a batch: answers, labels, and which of them are known, at least one of each face."""
    half, points = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    predicted, true = torch.rand(2, 2 * half, points, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(2 * half, points, generator=generator) < 0.5
    mask[:, 0] = True
    return predicted, torch.where(mask.unsqueeze(-1), true, torch.nan), mask


@every_loss
@given(batch=batches())
def test_the_halves_of_a_batch_average_to_the_whole(loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    halves = [loss(*part, SIDE) for part in zip(*(tensor.chunk(2) for tensor in batch), strict=True)]
    torch.testing.assert_close(loss(*batch, SIDE), torch.stack(halves).mean())


@every_loss
def test_a_face_without_known_points_leaves_the_others_as_they_are(loss: Loss) -> None:
    predicted, true, mask = holed()
    empty = torch.full((1, 5, 2), torch.nan)
    joined = loss(
        torch.cat([predicted, predicted[:1]]), torch.cat([true, empty]), torch.isfinite(torch.cat([true, empty])).all(2), SIDE
    )
    torch.testing.assert_close(joined, loss(predicted, true, mask, SIDE))


# Divided by what the error is divided by


def normalised(loss: Loss, distance_px: float, normalizer: float) -> float:
    true = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    given = torch.tensor([normalizer], dtype=torch.float64)
    return float(loss(true + distance_px / SIDE, true, mask, SIDE, given))


@every_loss
@given(nme=st.floats(0.001, 1), normalizer=st.floats(AVERAGE_NORMALIZER / 4, 2))
def test_faces_with_the_same_nme_cost_the_same(loss: Loss, nme: float, normalizer: float) -> None:
    average = normalised(loss, nme * AVERAGE_NORMALIZER * SIDE, AVERAGE_NORMALIZER)
    assert normalised(loss, nme * normalizer * SIDE, normalizer) == pytest.approx(average)
    assert average == pytest.approx(of_distances(loss, [[nme * AVERAGE_NORMALIZER * SIDE] * 2]))


def test_each_face_is_divided_by_its_own() -> None:
    predicted, true, mask = (
        torch.zeros(2, 1, 2),
        torch.tensor([[[0.04, 0.0]], [[0.04, 0.0]]]),
        torch.ones(2, 1, dtype=torch.bool),
    )
    both = get_loss("l1")(predicted, true, mask, SIDE, AVERAGE_NORMALIZER * torch.tensor([0.5, 2.0]))
    assert float(both) == pytest.approx((8 / 2 + 2 / 2) / 2)


@every_loss
@pytest.mark.parametrize("normalizer", [1e-12, 0.0, -1.0, AVERAGE_NORMALIZER / 5])
def test_a_face_from_the_side_counts_for_four_at_most(loss: Loss, normalizer: float) -> None:
    assert normalised(loss, 3.0, normalizer) == pytest.approx(of_distances(loss, [[12, 12]]))


@every_loss
def test_a_face_without_a_normaliser_counts_as_an_average_one(loss: Loss) -> None:
    assert normalised(loss, 3.0, math.nan) == pytest.approx(of_distances(loss, [[3, 3]]))


# Names and shapes


def test_a_configuration_knows_the_same_names() -> None:
    assert set(LOSSES) == set(LOSS_NAMES)


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="No loss is called 'adaptive'; known: l2, l1, smooth_l1, wing, soft_wing"):
        get_loss("adaptive")


POINTS, KNOWN = torch.zeros(2, 5, 2), torch.ones(2, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("predicted", "true", "mask", "normalizer"),
    [
        (torch.zeros(2, 5, 3), POINTS, KNOWN, None),
        (POINTS, torch.zeros(1, 5, 2), KNOWN, None),
        (POINTS, POINTS, torch.ones(2, 1, dtype=torch.bool), None),
        (POINTS, POINTS, KNOWN.unsqueeze(-1), None),
        (POINTS, POINTS, KNOWN.float(), None),
        (POINTS, POINTS, KNOWN, torch.ones(2, 1)),
        (POINTS, POINTS, KNOWN, torch.ones(5)),
    ],
)
def test_shapes_that_would_be_stretched_are_refused(
    predicted: Tensor, true: Tensor, mask: Tensor, normalizer: Tensor | None
) -> None:
    with pytest.raises(InputError, match=r"predicted and true points \(N, K, 2\)"):
        get_loss("l1")(predicted, true, mask, SIDE, normalizer)
