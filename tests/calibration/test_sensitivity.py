"""Which layer of an int8 network costs how much: the worst ones come first, whatever the luck of the faces."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmedge.calibration import sensitivity
from lmedge.calibration.place_qdq import DIALECTS, Dialect
from lmedge.calibration.sensitivity import Judge, NetworkLoss, Sensitivity, measure_sensitivity
from lmedge.errors import CalibrationError
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.calibration.layer_costs import SquareSum, loss, make, narrow_network, noisy_answers

LAYERS = ("stem", "expand", "filter", "project", "add")
SQUARES = {"stem": 4e-6, "expand": 1e-6, "filter": 36e-6, "project": 0.0, "add": 9e-6}
ORDER = ("filter", "add", "stem", "expand", "project")
EVERYTHING = frozenset(LAYERS)


def faces(count: int, seed: int = 0) -> tuple[Any, Any]:
    """Crops and labels of 68 points, spread as a face's are; nothing looks at the crops."""
    random = np.random.default_rng(seed)
    labels = 0.5 + random.uniform(-0.3, 0.3, IBUG_68.num_points * 2).reshape(-1, 2) + random.normal(0, 0.02, (count, 68, 2))
    return np.zeros((count, 112, 112, 3), np.uint8), labels


def judge_of(squares: dict[str, float], count: int = 40, seed: int = 0) -> Judge:
    crops, labels = faces(count, seed)
    float_answer = labels + np.random.default_rng(seed + 1).normal(0, 0.02, labels.shape)
    return Judge(make(EVERYTHING), crops, labels, IBUG_68, answer=noisy_answers(squares, float_answer, seed))


@pytest.fixture(scope="module")
def measured() -> Sensitivity:
    return measure_sensitivity(make, LAYERS, judge_of(SQUARES), freed=2, what={"filter": "3×3 depthwise convolution, 8"})


# The order


def test_the_layer_whose_rounding_moves_points_furthest_comes_first(measured: Sensitivity) -> None:
    assert measured.order == ORDER


def test_parts_are_shares_of_the_whole_square(measured: Sensitivity) -> None:
    expected = {layer: square / sum(SQUARES.values()) for layer, square in SQUARES.items()}
    assert {row.layer: row.part for row in measured.layers} == pytest.approx(expected, abs=0.02)


def test_leaving_the_first_layer_in_float_gains_more_than_any_other() -> None:
    judge = judge_of(SQUARES)
    order = measure_sensitivity(make, LAYERS, judge, freed=0).order
    left = {layer: judge(make(frozenset({layer}))).rms_px for layer in LAYERS}
    assert min(left, key=lambda layer: left[layer]) == order[0]
    assert max(left, key=lambda layer: left[layer]) == order[-1]


def test_an_order_with_the_sign_turned_round_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "sorted", lambda names, key: sorted(names, key=lambda name: -key(name)), raising=False)
    with pytest.raises(AssertionError):
        test_leaving_the_first_layer_in_float_gains_more_than_any_other()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True))
def test_any_squares_are_found_in_falling_order(squares: list[float]) -> None:
    named = {f"layer{number}": square for number, square in enumerate(squares)}
    found = measure_sensitivity(make, list(named), SquareSum(named), freed=0)
    assert [named[layer] for layer in found.order] == sorted(squares, reverse=True)


def test_layers_that_cost_the_same_stay_in_graph_order() -> None:
    assert measure_sensitivity(make, LAYERS, SquareSum(dict.fromkeys(LAYERS, 1.0))).order == LAYERS


def test_a_layer_that_makes_answers_no_numbers_comes_first() -> None:
    squares = SquareSum(SQUARES)

    def judge(model: Any) -> NetworkLoss:
        return squares(model) if "expand" in model.float_layers else loss(np.inf)

    found = measure_sensitivity(make, LAYERS, judge)
    assert found.order[0] == "expand"
    assert found.layers[0].part == np.inf
    assert found.layers[0].freed is not None
    assert np.isfinite(found.layers[0].freed.rms_px)


# What is measured


def test_each_layer_is_measured_alone_in_int8_and_the_worst_alone_in_float() -> None:
    judge = SquareSum(SQUARES)
    measure_sensitivity(make, LAYERS, judge, freed=2)
    assert judge.asked[0] == frozenset()
    assert judge.asked[1:6] == [EVERYTHING - {layer} for layer in LAYERS]
    assert judge.asked[6:] == [{"filter"}, {"add"}]


def test_what_leaving_a_layer_in_float_leaves_is_measured_for_the_worst(measured: Sensitivity) -> None:
    assert [row.freed is not None for row in measured.layers] == [True, True, False, False, False]
    freed = measured.layers[0].freed
    assert freed is not None
    assert freed.rms_px**2 == pytest.approx(measured.full.rms_px**2 * (1 - measured.layers[0].part), rel=0.1)


def test_words_for_a_layer_are_kept(measured: Sensitivity) -> None:
    assert [row.what for row in measured.layers] == ["3×3 depthwise convolution, 8", "", "", "", ""]


def test_two_halves_of_the_faces_agree_where_layers_differ(measured: Sensitivity) -> None:
    assert measured.agreement == pytest.approx(1.0)
    names = [f"layer{number}" for number in range(20)]
    equal = measure_sensitivity(make, names, judge_of(dict.fromkeys(names, 1e-6)), freed=0)
    assert abs(equal.agreement) < 0.5


def test_progress_counts_networks() -> None:
    seen: list[tuple[int, int]] = []
    measure_sensitivity(
        make, LAYERS, SquareSum(SQUARES), freed=3, progress=lambda done, total, text: seen.append((done, total))
    )
    assert seen == [(done, 9) for done in range(1, 10)]


def test_the_record_is_plain_data(measured: Sensitivity) -> None:
    document = json.loads(json.dumps(measured.to_json()))
    assert [row["layer"] for row in document["layers"]] == list(ORDER)
    assert set(document["full"]) == {"added", "mean_px", "rms_px", "p99_px"}


# Losses


def test_the_float_network_loses_nothing_against_itself() -> None:
    same = judge_of(SQUARES)(make(EVERYTHING))
    assert (same.added.nme, same.added.upper, same.mean_px, same.p99_px) == (0, 0, 0, 0)


def test_distances_are_in_pixels_of_the_crop() -> None:
    crops, labels = faces(10)

    def answer(model: Any, crops_uint8: Any) -> Any:
        return labels if model.float_layers else labels + np.array([3, 4]) / 112

    found = Judge(make(EVERYTHING), crops, labels, IBUG_68, answer=answer)(make(frozenset()))
    assert (found.mean_px, found.rms_px, found.p99_px) == pytest.approx((5, 5, 5))
    assert found.added.nme > 0


def test_an_answer_that_is_no_number_is_infinitely_bad() -> None:
    crops, labels = faces(200)

    def answer(model: Any, crops_uint8: Any) -> Any:
        answers = labels.copy()
        answers[:5, 0] = np.nan if not model.float_layers else answers[:5, 0]
        return answers

    found = Judge(make(EVERYTHING), crops, labels, IBUG_68, answer=answer)(make(frozenset()))
    assert found.added.upper == found.mean_px == found.rms_px == found.p99_px == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda crops, labels: (crops[:0], labels[:0]), "at least one crop"),
        (lambda crops, labels: (crops, labels[:5]), r"labels of these crops must be \(10, 68, 2\); got \(5, 68, 2\)"),
        (lambda crops, labels: (crops.astype(float), labels), "uint8"),
        (lambda crops, labels: (crops, labels * np.nan), "not all numbers"),
    ],
)
def test_faces_that_cannot_judge_are_refused(change: Any, message: str) -> None:
    crops, labels = change(*faces(10))
    with pytest.raises(CalibrationError, match=message):
        Judge(make(EVERYTHING), crops, labels, IBUG_68, answer=lambda model, crops_uint8: labels)


def test_a_network_with_other_points_is_refused() -> None:
    crops, labels = faces(4)
    with pytest.raises(CalibrationError, match=r"shape \(4, 5, 2\); the labels have \(4, 68, 2\)"):
        Judge(make(EVERYTHING), crops, labels, IBUG_68, answer=lambda model, crops_uint8: labels[:, :5])


@pytest.mark.parametrize("layers", [(), ("stem", "stem")])
def test_no_layers_and_one_layer_twice_are_refused(layers: tuple[str, ...]) -> None:
    with pytest.raises(CalibrationError, match="each once"):
        measure_sensitivity(make, layers, SquareSum(SQUARES))


# A real network


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("spoilt", ["depthwise_1", "expand_3"])
def test_a_layer_whose_range_is_far_too_narrow_is_found(dialect: Dialect, spoilt: str) -> None:
    network = narrow_network(spoilt)
    judge = Judge(network.fp32, network.crops, network.labels, MMLAB_5)
    found = measure_sensitivity(network.maker(dialect), network.layers, judge, freed=3)
    # The tensor belongs to the layer that makes it and to the one that reads it.
    reader = network.layers[network.layers.index(spoilt) + 1]
    assert found.order[0] in (spoilt, reader)
    assert found.layers[0].part > 0.3
