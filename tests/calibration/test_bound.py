"""Layers leave int8 until the loss is surely below a bound: no more than it takes, and fewer for a looser bound."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmedge.calibration import bound as bound_module
from lmedge.calibration.bound import BoundResult, FloatPoint, leave_float, path_sizes
from lmedge.calibration.place_qdq import DIALECTS, Dialect
from lmedge.calibration.sensitivity import Judge, NetworkLoss
from lmedge.calibration.stopwatch import Stopwatch, Timing
from lmedge.errors import AccuracyError, CalibrationError, GateError
from lmedge.schemas import MMLAB_5
from tests.calibration.layer_costs import FP32_MS, FloatTime, SquareSum, loss, make, narrow_network

LAYERS = tuple("abcdefgh")
SQUARES = dict(zip(LAYERS, (8e-4, 4e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5, 0.0), strict=True))
TIMES_MS = dict.fromkeys(LAYERS, 0.5)
TOTAL = sum(SQUARES.values())


def bounded(max_nme_loss: float | None, min_speedup: float | None = None, **options: Any) -> BoundResult:
    return leave_float(
        make, LAYERS, SquareSum(SQUARES), FloatTime(TIMES_MS), max_nme_loss=max_nme_loss, min_speedup=min_speedup, **options
    )


# The choice


@pytest.mark.parametrize(
    ("max_nme_loss", "left"),
    [(1.0, ""), (TOTAL, ""), (TOTAL * 0.99, "a"), (8e-4, "a"), (4e-4, "ab"), (2e-5, "abcdef"), (0.0, "abcdefg")],
)
def test_the_fewest_of_the_most_harmful_layers_are_left_in_float(max_nme_loss: float, left: str) -> None:
    result = bounded(max_nme_loss)
    assert result.chosen.float_layers == tuple(left)
    assert result.met


def test_nothing_is_left_in_float_where_no_bound_was_asked_for() -> None:
    assert bounded(None, min_speedup=1.0).chosen.float_layers == ()


def test_the_upper_bound_counts_and_not_the_mean() -> None:
    def measure(model: Any) -> NetworkLoss:
        return loss(upper=0.002 - 0.001 * len(model.float_layers), nme=0.0)

    chosen = leave_float(make, LAYERS, measure, FloatTime(TIMES_MS), max_nme_loss=0.001).chosen
    assert chosen.float_layers == ("a",)


def test_a_network_that_is_better_than_float_meets_every_bound() -> None:
    def measure(model: Any) -> NetworkLoss:
        return loss(upper=-1e-4)

    assert leave_float(make, LAYERS, measure, FloatTime(TIMES_MS), max_nme_loss=0.0).chosen.float_layers == ()


def assert_choice_is_right() -> None:
    """What a choice that takes more for better gets wrong."""
    assert bounded(1.0).chosen.float_layers == ()
    assert bounded(8e-4).chosen.float_layers == ("a",)
    assert bounded(0.0).chosen.loss.added.upper == 0


def more_is_better(point: FloatPoint, max_nme_loss: float | None) -> bool:
    return max_nme_loss is None or point.loss.added.upper >= max_nme_loss


def negated(point: FloatPoint, max_nme_loss: float | None) -> bool:
    """As a tool does that is given −NME and a largest drop, once too often."""
    return max_nme_loss is None or -point.loss.added.upper <= max_nme_loss


@pytest.mark.parametrize("mutant", [more_is_better, negated])
def test_a_choice_with_the_sign_turned_round_would_be_noticed(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_choice_is_right()
    monkeypatch.setattr(bound_module, "is_accurate", mutant)
    with pytest.raises(AssertionError):
        assert_choice_is_right()


# From float to int8 as the bound loosens, whatever was measured

POSITIVE = st.floats(1e-3, 10)
ANY_LOSS = st.one_of(st.floats(-1e-3, 1e-2), st.just(float("inf")))


class Listed:
    """Measures by the number of float layers, from a list: any noise at all."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values

    def __call__(self, model: Any) -> NetworkLoss:
        return loss(upper=self.values[len(model.float_layers)])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), layers=st.integers(0, 40), bounds=st.tuples(st.floats(0, 1e-2), st.floats(0, 1e-2)).map(sorted))
def test_a_looser_bound_leaves_no_more_layers_in_float_and_none_other(
    data: st.DataObject, layers: int, bounds: Sequence[float]
) -> None:
    names = tuple(f"layer{number}" for number in range(layers))
    measure = Listed(data.draw(st.lists(ANY_LOSS, min_size=layers + 1, max_size=layers + 1)))
    latency = FloatTime({name: data.draw(POSITIVE) for name in names})
    tight, loose = (leave_float(make, names, measure, latency, max_nme_loss=bound) for bound in bounds)
    fewer = loose.chosen.float_layers
    assert fewer == tight.chosen.float_layers[: len(fewer)]
    assert loose.chosen.timing.latency_ms <= tight.chosen.timing.latency_ms
    assert loose.chosen.file_bytes <= tight.chosen.file_bytes
    assert loose.met or not tight.met


@settings(max_examples=60, deadline=None)
@given(data=st.data(), layers=st.integers(0, 40), limit=st.floats(0, 1e-2))
def test_the_first_point_that_meets_the_bound_is_chosen_or_else_the_best(
    data: st.DataObject, layers: int, limit: float
) -> None:
    names = tuple(f"layer{number}" for number in range(layers))
    uppers = data.draw(st.lists(ANY_LOSS, min_size=layers + 1, max_size=layers + 1))
    result = leave_float(make, names, Listed(uppers), FloatTime(dict.fromkeys(names, 1.0)), max_nme_loss=limit)
    tried = [uppers[size] for size in path_sizes(layers)]
    meeting = [size for size in path_sizes(layers) if uppers[size] <= limit]
    assert result.met == bool(meeting)
    assert len(result.chosen.float_layers) == (meeting[0] if meeting else path_sizes(layers)[tried.index(min(tried))])


@settings(max_examples=50, deadline=None)
@given(st.lists(POSITIVE, min_size=1, max_size=30), st.floats(0, 1))
def test_looking_at_the_whole_path_changes_no_choice(squares: list[float], part: float) -> None:
    named = {f"layer{number}": square for number, square in enumerate(sorted(squares, reverse=True))}
    choices = [
        leave_float(make, named, SquareSum(named), FloatTime(named), max_nme_loss=part * sum(squares), whole_path=whole).chosen
        for whole in (False, True)
    ]
    assert choices[0] == choices[1]


# Few networks are tried


@given(st.integers(0, 2000))
def test_the_path_has_few_points_and_ends_in_float(layers: int) -> None:
    sizes = path_sizes(layers)
    assert (sizes[0], sizes[-1]) == (0, layers)
    assert all(0 < after - before <= max(1, before // 4) for before, after in itertools.pairwise(sizes))
    assert len(sizes) <= 10 + 5 * np.log(layers + 1)


def test_layers_are_ranked_only_where_full_int8_is_not_good_enough() -> None:
    asked = []

    def ranked() -> Iterator[str]:
        asked.append(True)
        yield from LAYERS

    for max_nme_loss, count in ((1.0, 0), (1e-4, 1)):
        leave_float(make, ranked(), SquareSum(SQUARES), FloatTime(TIMES_MS), max_nme_loss=max_nme_loss)
        assert len(asked) == count


def test_points_behind_the_chosen_one_are_measured_only_for_the_whole_path() -> None:
    assert [len(point.float_layers) for point in bounded(8e-4).points] == [0, 1]
    assert [len(point.float_layers) for point in bounded(8e-4, whole_path=True).points] == path_sizes(len(LAYERS))


def test_a_network_that_is_the_same_is_not_measured_again() -> None:
    measure = SquareSum(SQUARES)
    without_b = lambda float_layers: make(float_layers - {"b"})  # noqa: E731
    result = leave_float(without_b, LAYERS, measure, FloatTime(TIMES_MS), max_nme_loss=0.0, whole_path=True)
    assert len(measure.asked) == len(result.points) - 1
    assert result.points[2].float_layers == ("a", "b")
    assert result.points[2].loss == result.points[1].loss


def test_progress_counts_points() -> None:
    seen: list[tuple[int, int]] = []
    bounded(0.0, whole_path=True, progress=lambda done, total, text: seen.append((done, total)))
    points = len(path_sizes(len(LAYERS)))
    assert seen == [(done, points) for done in range(1, points)]


# A bound on speed beside it


@pytest.mark.parametrize(
    ("max_nme_loss", "min_speedup", "met"),
    [(1.0, 2.5, True), (1.0, 2.6, False), (4e-4, 2.0, True), (4e-4, 2.1, False), (0.0, 1.33, True), (0.0, 1.34, False)],
)
def test_both_bounds_must_be_met(max_nme_loss: float, min_speedup: float, met: bool) -> None:
    result = bounded(max_nme_loss, min_speedup)
    assert result.met == met
    assert result.chosen == bounded(max_nme_loss).chosen  # speed decides no choice
    if met:
        result.require()
    else:
        with pytest.raises(AccuracyError):
            result.require()


def test_a_pair_that_cannot_be_met_is_a_failed_gate_with_the_best_found_and_the_front() -> None:
    with pytest.raises(GateError) as caught:
        bounded(4e-4, 2.2).require()
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "Asked for at most 0.04 points of NME added and 2.2 times the speed of fp32 or more; the path from int8 to float gives:"
    )
    assert lines[1].strip() == (
        "0 layers in float: adds +0.158 points, at most +0.158; 4.00 ms, 2.50 times as fast as fp32; 0.00 MB"
    )
    assert "2.22 times as fast" in lines[2]
    assert lines[3].endswith("best found")
    assert lines[4] == (
        "Each can be had, not both: the most accurate that is fast enough adds up to 0.078 points. Loosen one of the two."
    )


def test_a_speed_that_no_point_has_is_said() -> None:
    with pytest.raises(AccuracyError, match=r"None is that fast here; the fastest is 2\.50 times as fast as fp32"):
        bounded(None, 4.0).require()


def test_a_loss_that_no_point_has_is_said_with_one_that_can_be_had() -> None:
    def measure(model: Any) -> NetworkLoss:
        return loss(upper=0.002 if "a" in model.float_layers else 0.004)

    result = leave_float(make, LAYERS, measure, FloatTime(TIMES_MS), max_nme_loss=0.001)
    assert result.chosen.float_layers == ("a",)
    with pytest.raises(AccuracyError, match=r"--max-nme-loss 0\.2$"):
        result.require()


@pytest.mark.parametrize(
    ("limits", "name"), [((-1e-4, None), "max_nme_loss"), ((float("nan"), None), "max_nme_loss"), ((None, 0), "min_speedup")]
)
def test_bounds_that_mean_nothing_are_refused(limits: tuple[Any, Any], name: str) -> None:
    with pytest.raises(CalibrationError, match=name):
        bounded(*limits)


# The front


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e-3, 1e-2), st.floats(1, 20)), min_size=1, max_size=20))
def test_no_point_of_the_front_is_beaten_and_every_other_is(measured: list[tuple[float, float]]) -> None:
    points = tuple(FloatPoint((), loss(upper), Timing(ms, FP32_MS), 1) for upper, ms in measured)
    front = BoundResult(points, points[0], None, None).front
    assert front

    def beats(one: FloatPoint, other: FloatPoint) -> bool:
        mine, its = ((p.loss.added.upper, 1 / p.timing.speedup) for p in (one, other))
        return mine != its and mine[0] <= its[0] and mine[1] <= its[1]

    for point in points:
        assert any(point is kept for kept in front) == (not any(beats(other, point) for other in points))


def test_the_record_is_plain_data_with_the_chosen_point_and_the_front_marked() -> None:
    document = json.loads(json.dumps(bounded(4e-4, 2.2).to_json()))
    assert [row["chosen"] for row in document["points"]] == [False, False, True]
    assert all(row["front"] for row in document["points"])
    assert (document["met"], document["max_nme_loss"], document["min_speedup"]) == (False, 4e-4, 2.2)
    assert document["points"][2]["speedup"] == 2.0
    assert "best found" in document["text"]


# A real network


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_real_network_goes_from_int8_to_float_as_the_bound_tightens(dialect: Dialect) -> None:
    network = narrow_network("depthwise_2")
    judge, maker = Judge(network.fp32, network.crops, network.labels, MMLAB_5), network.maker(dialect)
    order = ("depthwise_2", "project_2", *(name for name in network.layers if name not in ("depthwise_2", "project_2")))
    full = judge(maker(frozenset())).added.upper
    with Stopwatch(network.fp32, calls=3) as stopwatch:
        results = [leave_float(maker, order, judge, stopwatch, max_nme_loss=part * full) for part in (1.0, 0.3, 0.0)]
    left = [result.chosen.float_layers for result in results]
    assert left[0] == ()
    assert 0 < len(left[1]) < len(order)
    assert left[-1] == order
    assert all(fewer == more[: len(fewer)] for fewer, more in itertools.pairwise(left))
    assert all(result.met for result in results)
    assert results[-1].chosen.loss.mean_px == pytest.approx(0, abs=1e-4)
