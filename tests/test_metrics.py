"""Metrics against their definitions, written out point by point."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.errors import InputError
from lmedge.metrics import auc, bootstrap_interval, ced, failure_rate, nme, point_errors_px
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema

Points = npt.NDArray[np.float64]

NORMAL_95 = 1.96  # standard deviations


def random_faces(schema: LandmarkSchema, count: int, unknown_share: float, seed: int) -> tuple[Points, Points]:
    """Predicted and true points (count, K, 2); some true points are unknown."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 100, (count, schema.num_points, 2))
    predicted = true + rng.normal(0, 3, true.shape)
    true[rng.random(true.shape[:2]) < unknown_share] = np.nan
    return predicted, true


def literal_nme(predicted: Points, true: Points, schema: LandmarkSchema, indices: tuple[int, ...]) -> float:
    """The mean distance of one face's known points, divided by the distance of its two normalising points."""
    distances = []
    for index in indices:
        if not math.isnan(true[index][0]):
            distances.append(math.hypot(predicted[index][0] - true[index][0], predicted[index][1] - true[index][1]))
    means = []
    for group in schema.normalizer:
        means.append([sum(true[i][axis] for i in group) / len(group) for axis in (0, 1)])
    normalizer = math.dist(*means)
    return sum(distances) / len(distances) / normalizer if distances else math.nan


@pytest.mark.parametrize("schema", [IBUG_68, MMLAB_5], ids=lambda schema: schema.name)
@pytest.mark.parametrize("unknown_share", [0, 0.3])
@pytest.mark.parametrize("region", [None, "eyes", "mouth", "nose"])
def test_nme_is_its_definition(schema: LandmarkSchema, unknown_share: float, region: str | None) -> None:
    predicted, true = random_faces(schema, 40, unknown_share, seed=1)
    indices = None if region is None else schema.groups[region]
    expected = [
        literal_nme(p, t, schema, indices or tuple(range(schema.num_points))) for p, t in zip(predicted, true, strict=True)
    ]
    assert nme(predicted, true, schema, indices) == pytest.approx(np.array(expected), nan_ok=True)
    assert np.isfinite(expected).any()


def test_nme_of_a_face_worked_by_hand() -> None:
    """Eyes 10 px apart; one point 5 px off, one 3 px, three exact: 8 / 5 / 10."""
    true = np.array([[[0, 0], [10, 0], [5, 5], [2, 9], [8, 9]]], float)
    predicted = true.copy()
    predicted[0, 2] += (3, 4)
    predicted[0, 4] += (0, -3)
    assert nme(predicted, true, MMLAB_5).tolist() == pytest.approx([0.16])
    assert nme(predicted, true, MMLAB_5, MMLAB_5.groups["mouth"]).tolist() == pytest.approx([0.15])


@given(st.floats(0.1, 10), st.floats(-500, 500), st.floats(-180, 180))
def test_nme_does_not_depend_on_the_size_place_or_turn_of_a_face(zoom: float, shift: float, angle_deg: float) -> None:
    predicted, true = random_faces(MMLAB_5, 5, 0, seed=2)
    angle = math.radians(angle_deg)
    turn = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = nme(predicted @ turn.T + shift, true @ turn.T + shift, MMLAB_5)
    assert moved == pytest.approx(nme(predicted, true, MMLAB_5), rel=1e-6)


@pytest.mark.parametrize("unknown", [(0,), (1,), (0, 1, 2, 3, 4)], ids=["one eye", "the other eye", "all points"])
def test_a_face_without_normaliser_or_points_has_no_nme(unknown: tuple[int, ...]) -> None:
    predicted, true = random_faces(MMLAB_5, 3, 0, seed=3)
    true[1, list(unknown)] = np.nan
    assert np.isnan(nme(predicted, true, MMLAB_5)).tolist() == [False, True, False]


def test_a_normaliser_of_no_length_gives_no_nme() -> None:
    predicted, true = random_faces(MMLAB_5, 2, 0, seed=3)
    true[0, 1] = true[0, 0]
    assert np.isnan(nme(predicted, true, MMLAB_5)).tolist() == [True, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_a_number_is_a_failure_not_an_unknown_point(bad: float) -> None:
    predicted, true = random_faces(MMLAB_5, 3, 0, seed=4)
    predicted[1, 2, 0] = bad
    true[2, 4] = np.nan
    predicted[2, 4] = bad
    errors = nme(predicted, true, MMLAB_5)
    assert np.isinf(errors).tolist() == [False, True, False]
    assert failure_rate(errors, 10.0) == pytest.approx(1 / 3)


def test_point_errors_are_distances() -> None:
    predicted, true = random_faces(MMLAB_5, 4, 0.3, seed=5)
    expected = np.hypot(*np.moveaxis(predicted - true, 2, 0))
    assert point_errors_px(predicted, true) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("first", "second"), [((3, 5, 2), (3, 4, 2)), ((5, 2), (5, 2)), ((3, 5, 3), (3, 5, 3)), ((1, 5, 2), (3, 5, 2))]
)
def test_points_that_do_not_belong_together_are_refused(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"two arrays \(N, K, 2\); got"):
        point_errors_px(np.zeros(first), np.zeros(second))


# Curves and areas. A missed face has an infinite error, a face without a normaliser none (NaN).

errors_lists = st.lists(
    st.one_of(st.floats(0, 0.3), st.just(math.inf), st.just(math.nan), st.just(0.1)), min_size=1, max_size=30
).filter(lambda values: not all(map(math.isnan, values)))
thresholds = st.floats(0.01, 0.2)


@given(errors_lists, thresholds)
def test_ced_and_failure_rate_count_faces(values: list[float], threshold: float) -> None:
    scored = [value for value in values if not math.isnan(value)]
    within = sum(value <= threshold for value in scored)
    assert ced(np.array(values), np.array([threshold]))[0] == within / len(scored)
    assert failure_rate(np.array(values), threshold) == pytest.approx(1 - within / len(scored))


@given(errors_lists, thresholds)
def test_auc_is_the_area_under_the_ced(values: list[float], threshold: float) -> None:
    """By the midpoint rule on a fine grid; each of at most 30 steps may fall anywhere within one cell."""
    cells = 20000
    grid = (np.arange(cells) + 0.5) * threshold / cells
    area = ced(np.array(values), grid).mean()
    assert auc(np.array(values), threshold) == pytest.approx(area, abs=1 / cells)


@pytest.mark.parametrize(
    ("values", "expected_auc", "expected_failures"),
    [
        ([0.0], 1, 0),
        ([0.05], 0.5, 0),
        ([0.10], 0, 0),  # a failure is above the threshold, not at it
        ([0.11], 0, 1),
        ([0.0, math.inf], 0.5, 0.5),
        ([0.0, math.nan], 1, 0),
        ([0.02, 0.04, 0.5, math.inf], (0.8 + 0.6) / 4, 0.5),
    ],
)
def test_auc_and_failure_rate_worked_by_hand(values: list[float], expected_auc: float, expected_failures: float) -> None:
    assert auc(np.array(values)) == pytest.approx(expected_auc)
    assert failure_rate(np.array(values)) == expected_failures


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_scored_face_gives_no_figure(values: list[float]) -> None:
    for figure in (auc, failure_rate):
        with pytest.raises(InputError, match="No face has an error to summarise"):
            figure(np.array(values))
    with pytest.raises(InputError, match="at least one finite value"):
        bootstrap_interval(np.array(values))


def test_the_bootstrap_interval_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(0).normal(0.05, 0.02, 1000)
    low, high = bootstrap_interval(values)
    half_width = NORMAL_95 * values.std(ddof=1) / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_the_bootstrap_interval_is_the_same_every_time_and_ignores_faces_without_an_error() -> None:
    values = np.random.default_rng(1).random(50)
    assert bootstrap_interval(values) == bootstrap_interval(np.append(values, [math.nan, math.inf]))
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)
