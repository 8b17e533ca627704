"""Ranges of activations: what is counted, and which range each method makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect, place_qdq, quantised_tensors  # noqa: E402
from lmedge.calibration.probe import probe  # noqa: E402
from lmedge.calibration.ranges import (  # noqa: E402
    METHODS,
    Extremes,
    Measured,
    measure,
    measure_extremes,
    measure_histograms,
)
from lmedge.errors import CalibrationError  # noqa: E402
from lmedge.export.graph.compare import run_onnx  # noqa: E402
from tests.bundles import SPEC, random_crops, tiny_onnx  # noqa: E402
from tests.calibration.graph_writer import constant, set_constant  # noqa: E402
from tests.calibration.landmark_graph import landmark_graph, smooth_crops  # noqa: E402
from tests.calibration.quantiser import fake_quantised  # noqa: E402

VALUES = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32))
TENSORS = ["stem.out", "stem.out.clip", "project_1.out", "sum"]
MODEL, CROPS = landmark_graph(), smooth_crops(12)


def one(greatest: np.ndarray, coverage: float) -> tuple[np.float32, np.float32]:
    return Extremes({"t": -greatest}, {"t": greatest}).ranges(coverage)["t"]


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure(MODEL, TENSORS, CROPS, histograms=True)


@pytest.fixture(scope="module")
def everything() -> dict[str, npt.NDArray[np.float32]]:
    """All values of each tensor on all crops at once."""
    rows = list(probe(MODEL, TENSORS, CROPS))
    return {name: np.concatenate([row[number].ravel() for row in rows]) for number, name in enumerate(TENSORS)}


# ---- extremes ----


def test_the_extremes_are_those_of_the_arithmetic(tmp_path: Path) -> None:
    crops = random_crops(5)
    found = measure_extremes(tiny_onnx(tmp_path), ["normalised", "features", "active"], crops)
    normalised = (crops.astype(np.float32) - SPEC.mean) / SPEC.std
    np.testing.assert_array_equal(found.least["normalised"], normalised.min(axis=(1, 2, 3)))
    np.testing.assert_array_equal(found.greatest["normalised"], normalised.max(axis=(1, 2, 3)))
    np.testing.assert_array_equal(found.greatest["active"], np.maximum(found.greatest["features"], 0))
    assert (found.least["features"] < found.greatest["features"]).all()


@given(VALUES)
def test_coverage_1_is_min_max(greatest: np.ndarray) -> None:
    least, most = one(greatest, 1.0)
    assert most == greatest.max()
    assert least == (-greatest).min()


@given(VALUES, st.floats(0.51, 1.0))
def test_a_range_covers_what_it_promises_and_no_order_changes_it(greatest: np.ndarray, coverage: float) -> None:
    least, most = one(greatest, coverage)
    assert (greatest <= most).mean() >= coverage - 1e-9
    assert (-greatest >= least).mean() >= coverage - 1e-9
    assert most in greatest, "a value that was seen"
    assert one(greatest[::-1], coverage) == (least, most)


@given(VALUES)
def test_less_coverage_never_widens_a_range(greatest: np.ndarray) -> None:
    tops = [one(greatest, coverage)[1] for coverage in (0.6, 0.8, 0.95, 1.0)]
    assert tops == sorted(tops)


@pytest.mark.parametrize(("count", "left_out"), [(10, 0), (19, 0), (20, 0), (21, 1), (100, 4), (300, 14)])
def test_few_crops_all_count(count: int, left_out: int) -> None:
    greatest = np.arange(count, dtype=np.float32)
    assert one(greatest, 0.95)[1] == count - 1 - left_out


def with_weight(value: float, name: str = "project_1.weight", rows: Any = (2, 1)) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(MODEL)
    weight = constant(changed, name).copy()
    weight[rows] = value
    set_constant(changed, name, weight)
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_whose_values_are_no_numbers_is_refused(value: float) -> None:
    with pytest.raises(CalibrationError, match=r"On calibration crop 0 the tensor 'sum' holds nan, so it has no range"):
        measure_extremes(with_weight(value), TENSORS, CROPS)


# ---- histograms ----


def test_histograms_count_every_value_where_numpy_does(measured: Measured, everything: dict[str, Any]) -> None:
    histograms = measured.histograms
    assert histograms is not None
    for name, values in everything.items():
        expected, edges = np.histogram(values, bins=histograms.edges[name])
        np.testing.assert_array_equal(edges, histograms.edges[name])
        assert histograms.counts[name].sum() == values.size
        # A value on an edge may fall to either side of it: numpy compares in float64.
        moved = np.abs(np.cumsum(histograms.counts[name]) - np.cumsum(expected))
        assert moved.sum() <= 1e-3 * values.size


def test_histograms_reach_from_the_least_value_to_the_greatest_and_include_zero(
    measured: Measured, everything: dict[str, Any]
) -> None:
    assert measured.histograms is not None
    for name, values in everything.items():
        edges = measured.histograms.edges[name]
        assert (edges[0], edges[-1]) == (min(values.min(), 0), max(values.max(), 0))


def test_histograms_of_parts_add_up(measured: Measured) -> None:
    assert measured.histograms is not None
    parts = [measure_histograms(MODEL, measured.extremes, CROPS[rows]) for rows in (slice(5), slice(5, None))]
    for name, counts in measured.histograms.counts.items():
        np.testing.assert_array_equal(counts, parts[0].counts[name] + parts[1].counts[name])


def test_without_need_no_histograms_are_measured() -> None:
    assert measure(MODEL, ["sum"], CROPS[:2], histograms=False).histograms is None


@settings(max_examples=15)
@given(st.permutations(range(len(CROPS))))
def test_no_order_of_the_crops_changes_a_count_or_a_range(order: list[int]) -> None:
    straight = measure(MODEL, TENSORS, CROPS, histograms=True)
    mixed = measure(MODEL, TENSORS, CROPS[order], histograms=True)
    assert straight.histograms is not None
    assert mixed.histograms is not None
    for name, counts in straight.histograms.counts.items():
        np.testing.assert_array_equal(counts, mixed.histograms.counts[name])
    for method in METHODS:
        for dialect in DIALECTS:
            assert straight.ranges(method, dialect, 0.8) == mixed.ranges(method, dialect, 0.8)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_mse_ranges_of_a_network_are_not_worse_on_its_own_values(
    measured: Measured, everything: dict[str, Any], dialect: Dialect
) -> None:
    widest, found = measured.ranges("min-max", dialect), measured.ranges("mse", dialect)
    for name, values in everything.items():
        errors = [np.square(fake_quantised(values, each[name], dialect) - values).mean() for each in (found, widest)]
        assert errors[0] <= 1.01 * errors[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_always_zero_can_be_quantised(method: Any) -> None:
    dead = with_weight(0.0, rows=...)
    set_constant(dead, "project_1.bias", np.zeros(6, np.float32))
    found = measure(dead, quantised_tensors(dead), CROPS, histograms=True)
    assert found.extremes.ranges(1.0)["project_1.out"] == (0, 0)
    for dialect in DIALECTS:
        answers = run_onnx(place_qdq(dead, found.ranges(method, dialect), dialect), CROPS)
        np.testing.assert_allclose(answers, run_onnx(dead, CROPS), atol=0.05)


# ---- methods by name ----


def test_each_method_gives_its_own_ranges(measured: Measured) -> None:
    assert measured.histograms is not None
    assert measured.ranges("min-max", PORTABLE) == measured.extremes.ranges(1.0)
    assert measured.ranges("coverage", PORTABLE, 0.8) == measured.extremes.ranges(0.8) != measured.extremes.ranges(1.0)
    assert measured.ranges("percentile", X86) == measured.histograms.percentile_ranges()
    assert measured.ranges("mse", X86) == measured.histograms.mse_ranges(X86) != measured.ranges("mse", PORTABLE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_range_is_a_pair_of_numbers_in_order_within_min_max(measured: Measured, method: Any, dialect: Dialect) -> None:
    widest = measured.extremes.ranges(1.0)
    for name, (least, greatest) in measured.ranges(method, dialect).items():
        assert np.isfinite([least, greatest]).all()
        assert least < greatest
        # Ranges of histograms include zero.
        assert min(widest[name][0], 0) * 1.0001 <= least
        assert greatest <= max(widest[name][1], 0) * 1.0001


def test_an_unknown_method_is_named_with_those_that_exist(measured: Measured) -> None:
    with pytest.raises(
        CalibrationError, match="No range method is called 'entropy'; known: min-max, coverage, percentile, mse"
    ):
        measured.ranges("entropy", PORTABLE)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_a_method_that_needs_histograms_says_so(measured: Measured, method: Any) -> None:
    with pytest.raises(CalibrationError, match=f"'{method}' need histograms; measure with histograms=True"):
        Measured(measured.extremes, None).ranges(method, PORTABLE)


def test_progress_counts_the_crops_of_every_pass() -> None:
    seen: list[str] = []
    measure(MODEL, ["sum"], CROPS, histograms=True, progress=lambda done, total, doing: seen.append(f"{doing} {done}/{total}"))
    assert seen.count("measuring activations 12/12") == 2, "least and greatest values"
    assert seen.count("counting activations 12/12") == 1
