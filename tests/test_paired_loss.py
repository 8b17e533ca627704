"""The upper bound of a mean, and what one network adds to another's error on the same faces."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge import metrics
from lmedge.errors import InputError
from lmedge.metrics import nme, paired_loss, upper_bound
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema

Points = npt.NDArray[np.float64]

NORMAL_95 = 1.645  # standard deviations, on one side

losses = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=40).map(np.array)


def test_the_upper_bound_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(0).normal(0.05, 0.02, 1000)
    distance = NORMAL_95 * values.std(ddof=1) / math.sqrt(len(values))
    assert upper_bound(values) == pytest.approx(values.mean() + distance, abs=0.1 * distance)


@pytest.mark.parametrize(("faces", "least"), [(20, 0.85), (200, 0.90)])
def test_the_upper_bound_holds_the_true_mean_nearly_as_often_as_it_says(faces: int, least: float) -> None:
    rng = np.random.default_rng(1)
    held = [upper_bound(rng.normal(0, 1, faces), resamples=400, seed=draw) >= 0 for draw in range(300)]
    assert least < np.mean(held) < 0.99


@given(losses)
def test_the_upper_bound_lies_within_the_values_and_rises_with_the_confidence(values: Points) -> None:
    bounds = [upper_bound(values, confidence, resamples=50) for confidence in (0.5, 0.8, 0.95, 1)]
    assert bounds == sorted(bounds)
    assert values.min() - 1e-12 <= bounds[0]
    assert bounds[-1] <= values.max() + 1e-12


@given(losses, st.floats(0.01, 100), st.floats(-10, 10))
def test_the_upper_bound_moves_with_the_values(values: Points, scale: float, shift: float) -> None:
    expected = scale * upper_bound(values, resamples=50) + shift
    assert upper_bound(scale * values + shift, resamples=50) == pytest.approx(expected, abs=1e-9)


def test_the_upper_bound_is_the_same_every_time_however_much_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(0, 1, 31)
    bound = upper_bound(values)
    for at_once in (1, 31, 1000):
        monkeypatch.setattr(metrics, "_DRAWN_AT_ONCE", at_once)
        assert upper_bound(values) == bound


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_no_number_has_no_finite_bound(bad: float) -> None:
    assert upper_bound(np.array([0.0, bad, 0.1])) == math.inf
    with pytest.raises(InputError, match="at least one value"):
        upper_bound(np.array([]))


def three_of_each(schema: LandmarkSchema, count: int, unknown_share: float) -> tuple[Points, Points, Points]:
    """Predictions, a reference's, and labels (count, K, 2), some of which are unknown."""
    rng = np.random.default_rng(6)
    true = rng.uniform(0, 100, (count, schema.num_points, 2))
    predicted, reference = (true + rng.normal(0, deviation, true.shape) for deviation in (3, 2))
    true[rng.random(true.shape[:2]) < unknown_share] = np.nan
    return predicted, reference, true


@pytest.mark.parametrize("schema", [IBUG_68, MMLAB_5], ids=lambda schema: schema.name)
@pytest.mark.parametrize("unknown_share", [0, 0.3])
def test_a_loss_is_the_mean_difference_of_errors_of_the_faces_that_have_one(
    schema: LandmarkSchema, unknown_share: float
) -> None:
    predicted, reference, true = three_of_each(schema, 60, unknown_share)
    loss = paired_loss(predicted, reference, true, schema)
    found = {None: (loss.nme, loss.upper, loss.count)}
    found |= {name: (*loss.groups[name], loss.group_counts[name]) for name in loss.groups}
    assert set(found) == {None, *schema.groups}
    for name, (mean, upper, count) in found.items():
        indices = schema.groups[name] if name else None
        pairs = nme(predicted, true, schema, indices) - nme(reference, true, schema, indices)
        scored = [float(value) for value in pairs if not math.isnan(value)]
        assert count == len(scored) > 10
        assert mean == pytest.approx(sum(scored) / len(scored))
        assert upper == pytest.approx(upper_bound(np.array(scored)))
        assert upper > mean


def test_a_network_loses_nothing_against_itself() -> None:
    predicted, _, true = three_of_each(MMLAB_5, 20, 0.3)
    loss = paired_loss(predicted, predicted, true, MMLAB_5)
    assert (loss.nme, loss.upper, *loss.groups.values()) == (0, 0, *[(0, 0)] * 3)


@given(st.floats(0.1, 10), st.floats(-50, 50))
def test_a_loss_does_not_depend_on_the_unit(zoom: float, shift: float) -> None:
    faces = three_of_each(MMLAB_5, 12, 0)
    loss, moved = (paired_loss(*arrays, MMLAB_5) for arrays in (faces, [zoom * points + shift for points in faces]))
    assert (moved.nme, moved.upper) == pytest.approx((loss.nme, loss.upper), rel=1e-6, abs=1e-9)


def test_hard_faces_do_not_widen_the_bound_when_both_fail_alike() -> None:
    """Unpaired, the error of half the faces being 50 px would drown a difference of a hundredth of a pixel."""
    _, _, true = three_of_each(MMLAB_5, 40, 0)
    true[:, :2] = [[30, 40], [70, 40]]
    reference = true.copy()
    reference[::2, :, 0] += 50
    predicted = reference + [0.01, 0]
    loss = paired_loss(predicted, reference, true, MMLAB_5)
    assert loss.nme == pytest.approx(0.01 / 40)
    assert loss.upper == pytest.approx(loss.nme, rel=1e-6)


def test_a_region_without_labels_has_no_loss_and_one_with_few_says_how_few() -> None:
    predicted, reference, true = three_of_each(MMLAB_5, 30, 0)
    true[:, 2] = np.nan
    true[7:, 3:] = np.nan
    loss = paired_loss(predicted, reference, true, MMLAB_5)
    assert (loss.count, dict(loss.group_counts)) == (30, {"eyes": 30, "mouth": 7})
    assert set(loss.groups) == {"eyes", "mouth"}


def test_answers_that_are_no_numbers_are_an_infinite_loss_unless_the_reference_fails_there_too() -> None:
    predicted, reference, true = three_of_each(MMLAB_5, 30, 0)
    predicted[3, 0] = np.nan
    loss = paired_loss(predicted, reference, true, MMLAB_5)
    assert (loss.nme, loss.upper, loss.groups["eyes"]) == (math.inf, math.inf, (math.inf, math.inf))
    assert np.isfinite(loss.groups["mouth"]).all()
    reference[3, 0] = np.nan
    loss = paired_loss(predicted, reference, true, MMLAB_5)
    assert (loss.count, loss.group_counts["mouth"]) == (29, 30)
    assert math.isfinite(loss.upper)
    reference[4, 0] = np.nan
    assert paired_loss(predicted, reference, true, MMLAB_5).upper == math.inf


def test_a_loss_needs_a_face_with_an_error() -> None:
    predicted, reference, true = three_of_each(MMLAB_5, 3, 0)
    with pytest.raises(InputError, match="no face has an error under both"):
        paired_loss(predicted, reference, np.full_like(true, np.nan), MMLAB_5)
