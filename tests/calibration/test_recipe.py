"""Recipes: what they are called, what they prepare, and that the choice among them is the one that adds least to the error."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import requirements

requirements.require("onnx", "onnxruntime")

from lmedge.calibration import recipe as subject  # noqa: E402
from lmedge.calibration.equalise import equalise  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect, place_qdq, quantised_layers, quantised_tensors  # noqa: E402
from lmedge.calibration.ranges import METHODS, Measured, measure  # noqa: E402
from lmedge.calibration.recipe import BASES, BEST, Prepared, Recipe, candidates, choose, prepare  # noqa: E402
from lmedge.calibration.sensitivity import Judge, NetworkLoss  # noqa: E402
from lmedge.errors import CalibrationError  # noqa: E402
from lmedge.export.graph.compare import max_distance_px, run_onnx  # noqa: E402
from lmedge.schemas import MMLAB_5  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, landmark_graph, smooth_crops  # noqa: E402
from tests.calibration.layer_costs import loss  # noqa: E402

MODEL, CROPS = landmark_graph(unequal=20.0), smooth_crops(24)
HW = (CROP_PX, CROP_PX)


@cache
def prepared(*recipes: Recipe) -> list[Prepared]:
    return prepare(MODEL, CROPS, recipes)


# ---- names ----


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe(), "equalised, biases corrected, coverage 0.95 ranges"),
        (Recipe(equalise=False, correct_bias=False, ranges="min-max"), "min-max ranges"),
        (Recipe(correct_bias=False, ranges="mse"), "equalised, mse ranges"),
        (Recipe(coverage=0.8), "equalised, biases corrected, coverage 0.8 ranges"),
        (Recipe(base="nncf"), "NNCF, biases corrected, mean min-max ranges"),
        (Recipe(base="nncf", correct_bias=False), "NNCF, mean min-max ranges"),
    ],
)
def test_a_recipe_says_what_it_does(recipe: Recipe, name: str) -> None:
    assert str(recipe) == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "tflite"}, "base lmedge or nncf, ranges min-max, coverage, percentile, mse; got base 'tflite'"),
        ({"ranges": "entropy"}, "got base 'lmedge', ranges 'entropy'"),
        ({"ranges": BEST}, "ranges 'best'"),
        ({"coverage": 0.5}, r"coverage must be above 0\.5 and at most 1 \(plain min-max\); got 0\.5"),
        ({"coverage": 1.01}, r"got 1\.01"),
        ({"coverage": float("nan")}, "got nan"),
    ],
)
def test_what_is_no_recipe_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Recipe(**change)


# ---- candidates ----


def test_best_tries_both_bases_and_every_kind_of_range_once() -> None:
    found = candidates(Recipe(), base=BEST, ranges=BEST)
    assert len(set(found)) == len(found)
    assert {recipe.base for recipe in found} == set(BASES)
    assert [recipe.base for recipe in found].count("nncf") == 1
    assert {recipe.ranges for recipe in found} >= {"min-max", "coverage", "mse"}
    assert found[0] == Recipe(), "the first is taken where nothing can be measured"


@pytest.mark.parametrize("method", METHODS)
def test_named_ranges_are_the_only_ones(method: Any) -> None:
    start = Recipe(equalise=False, coverage=0.9)
    assert candidates(start, base="lmedge", ranges=method) == [replace(start, ranges=method)]
    assert candidates(start, base="nncf", ranges=method) == [replace(start, base="nncf")]
    assert len(candidates(start, base=BEST, ranges=method)) == 2


@given(st.booleans(), st.booleans(), st.sampled_from([*BASES, BEST]), st.sampled_from([*METHODS, BEST]))
def test_the_steps_are_those_that_were_asked_for(equalised: bool, corrected: bool, base: str, ranges: str) -> None:
    found = candidates(Recipe(equalise=equalised, correct_bias=corrected), base=base, ranges=ranges)
    assert {(recipe.equalise, recipe.correct_bias) for recipe in found} == {(equalised, corrected)}
    assert {recipe.base for recipe in found} == ({base} if base != BEST else set(BASES))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"base": "tflite", "ranges": BEST}, "base must be one of lmedge, nncf, best; got 'tflite'"),
        ({"base": "lmedge", "ranges": "entropy"}, "ranges 'entropy'"),
    ],
)
def test_unknown_names_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        candidates(Recipe(), **names)


# ---- preparing ----


@pytest.mark.parametrize("equalised", [True, False])
def test_a_recipe_prepares_the_network_by_its_steps(equalised: bool) -> None:
    (found,) = prepared(Recipe(equalise=equalised, correct_bias=False, coverage=0.8))
    expected = equalise(MODEL, CROPS) if equalised else MODEL
    assert found.float_model.SerializeToString() == expected.SerializeToString()
    ranges = measure(expected, quantised_tensors(expected), CROPS, histograms=False).ranges("coverage", PORTABLE, 0.8)
    assert found.ranges(PORTABLE) == ranges
    plain = place_qdq(expected, ranges, PORTABLE)
    assert found.place(PORTABLE).SerializeToString() == plain.SerializeToString()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("base", BASES)
def test_correcting_biases_changes_biases_alone(base: Any, dialect: Dialect) -> None:
    requirements.require(*["nncf"] * (base == "nncf"))
    recipes = Recipe(base=base), Recipe(base=base, correct_bias=False)
    corrected, plain = (each.place(dialect) for each in prepared(*recipes))
    assert list(corrected.graph.node) == list(plain.graph.node)
    pairs = zip(corrected.graph.initializer, plain.graph.initializer, strict=True)
    changed = [one.name for one, other in pairs if one != other]
    assert len(changed) > 5
    assert all("bias" in name for name in changed)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(equalise=False, ranges="mse"), Recipe(base="nncf")], ids=str)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_with_all_layers_in_float_the_prepared_network_is_the_float_one(recipe: Recipe, dialect: Dialect) -> None:
    requirements.require(*["nncf"] * (recipe.base == "nncf"))
    (found,) = prepared(recipe)
    in_float = found.place(dialect, quantised_layers(MODEL))
    assert max_distance_px(run_onnx(in_float, CROPS), run_onnx(MODEL, CROPS), HW) < 1e-3
    assert max_distance_px(run_onnx(found.place(dialect), CROPS), run_onnx(MODEL, CROPS), HW) > 1e-2


def test_recipes_that_differ_in_ranges_alone_share_one_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def counted(*given: Any, histograms: bool, **options: Any) -> Measured:
        calls.append(histograms)
        return measure(*given, histograms=histograms, **options)

    monkeypatch.setattr(subject, "measure", counted)
    found = prepare(MODEL, CROPS, [*(Recipe(ranges=method) for method in METHODS), Recipe(equalise=False)])
    assert calls == [True, True], "one for each way to begin"
    assert len({id(each.float_model) for each in found[:4]}) == 1
    assert len({id(each.activations) for each in found[:4]}) == 1
    calls.clear()
    prepare(MODEL, CROPS, [Recipe(), Recipe(ranges="min-max")])
    assert calls == [False], "no histograms without need"


def test_the_given_network_is_not_changed_and_tools_are_named() -> None:
    before = MODEL.SerializeToString()
    (found,) = prepare(MODEL, CROPS, [Recipe()])
    found.place(X86, ("stem",))
    assert MODEL.SerializeToString() == before
    assert set(found.tool_versions) == {"onnxruntime", "onnx"}


# ---- choosing ----

USUAL = Recipe()


@dataclass(frozen=True, eq=False)
class Stub:
    """Stands for a prepared network; what it places is its own number."""

    number: int
    recipe: Recipe = USUAL

    def place(self, dialect: Dialect) -> Any:
        return (self.number, dialect)


def stubs(count: int) -> Any:
    return [Stub(number) for number in range(count)]


def judge_of(uppers: list[float], nmes: list[float] | None = None) -> Callable[[Any], NetworkLoss]:
    return lambda placed: loss(uppers[placed[0]], None if nmes is None else nmes[placed[0]])


@given(st.lists(st.floats(-0.01, 0.05), min_size=1, max_size=12))
def test_the_recipe_with_the_lowest_upper_bound_is_chosen(uppers: list[float]) -> None:
    chosen, results = choose(stubs(len(uppers)), X86, judge_of(uppers))
    assert chosen.number == uppers.index(min(uppers))  # type: ignore[attr-defined]
    assert [result.chosen for result in results] == [number == chosen.number for number in range(len(uppers))]  # type: ignore[attr-defined]
    assert [result.loss.added.upper for result in results] == uppers
    assert {result.dialect for result in results} == {X86}


@pytest.mark.parametrize("wrong", ["nanargmax", "argmax"])
def test_taking_the_highest_would_be_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mutant:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, wrong if name == "nanargmin" else name)

    monkeypatch.setattr(subject, "np", Mutant())
    with pytest.raises(AssertionError):
        test_the_recipe_with_the_lowest_upper_bound_is_chosen()


def test_the_upper_bound_counts_and_not_the_mean() -> None:
    chosen, _ = choose(stubs(2), PORTABLE, judge_of([0.004, 0.003], nmes=[0.001, 0.002]))
    assert chosen.number == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_recipe_whose_answers_are_no_numbers_is_never_chosen(bad: float, place: int) -> None:
    uppers = [0.02, 0.01]
    uppers.insert(place, bad)
    chosen, _ = choose(stubs(3), PORTABLE, judge_of(uppers))
    assert uppers[chosen.number] == 0.01  # type: ignore[attr-defined]


@pytest.mark.parametrize("uppers", [[np.nan], [np.inf, np.nan]])
def test_where_no_recipe_answers_in_numbers_that_is_said(uppers: list[float]) -> None:
    with pytest.raises(CalibrationError, match="No recipe gives an int8 network of the dialect x86 whose answers are numbers"):
        choose(stubs(len(uppers)), X86, judge_of(uppers))


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no recipe to choose from"):
        choose([], PORTABLE, judge_of([]))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_on_a_real_network_the_choice_spoils_least(dialect: Dialect) -> None:
    """Of crops one of which explodes, min-max ranges are what the choice must avoid."""
    crops = np.concatenate([smooth_crops(30) // 16 + 120, smooth_crops(1, seed=5)])
    found = prepare(MODEL, crops, [Recipe(equalise=False, ranges="min-max"), Recipe(equalise=False, coverage=0.95)])
    truth = run_onnx(MODEL, crops) + np.random.default_rng(0).normal(0, 0.01, (31, 5, 2))
    judge = Judge(MODEL, crops[:30], truth[:30], MMLAB_5)
    chosen, results = choose(found, dialect, judge)
    uppers = [result.loss.added.upper for result in results]
    assert chosen is found[int(np.argmin(uppers))]
    assert chosen.recipe.ranges == "coverage"
    assert results[1].loss.rms_px < results[0].loss.rms_px


def test_a_result_is_plain_data() -> None:
    _, (first, second) = choose([Stub(0), Stub(1, Recipe(base="nncf"))], PORTABLE, judge_of([0.01, 0.02]))  # type: ignore[list-item]
    document = json.loads(json.dumps([first.to_json(), second.to_json()]))
    assert [row["chosen"] for row in document] == [True, False]
    assert document[0]["recipe"] == {
        "base": "lmedge",
        "equalise": True,
        "correct_bias": True,
        "ranges": "coverage",
        "coverage": 0.95,
    }
    assert document[1]["name"] == str(Recipe(base="nncf"))
    assert document[0]["loss"]["added"]["upper"] == 0.01
