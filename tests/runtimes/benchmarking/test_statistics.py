"""Figures: a percentile needs its tail, and an interval has to hold what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.runtimes.benchmarking.statistics import (
    LEAST_BLOCKS,
    MOST_BLOCKS,
    P999_CALLS,
    block_size,
    few_calls,
    figures,
    ratio_interval,
)


def test_percentiles_are_those_of_all_calls() -> None:
    times = np.arange(1, 10_001, dtype=np.float64)
    found = figures(times[::-1], 100)
    np.testing.assert_allclose(
        (found.p50_ms, found.p90_ms, found.p99_ms, found.p999_ms), np.percentile(times, (50, 90, 99, 99.9))
    )


@pytest.mark.parametrize(("count", "there"), [(P999_CALLS - 1, False), (P999_CALLS, True)])
def test_p999_is_refused_with_a_reason_below_ten_thousand_calls(count: int, there: bool) -> None:
    assert (figures(np.ones(count), 100).p999_ms is not None) == there
    assert (few_calls(count) == "") == there
    if not there:
        assert f"{count} were timed" in few_calls(count)
        assert "--iterations 10000" in few_calls(count)


def test_blocks_are_of_successive_calls_and_full() -> None:
    assert figures(np.array([1.0, 2, 3, 7, 8, 9, 100]), 3).blocks_ms == (2.0, 8.0)


@given(st.integers(1, 200_000), st.integers(1, 50))
def test_a_block_is_made_of_whole_bursts_and_blocks_are_few(iterations: int, burst: int) -> None:
    block = block_size(iterations, burst)
    assert block % burst == 0
    assert iterations / block <= MOST_BLOCKS


def test_few_blocks_give_no_interval() -> None:
    few, enough = (1.0,) * (LEAST_BLOCKS - 1), (1.0,) * LEAST_BLOCKS
    assert ratio_interval(few, enough, paired=False) is None
    assert ratio_interval(enough, enough, paired=False) == (1.0, 1.0)
    assert ratio_interval(enough, (*enough, 1.0), paired=True) is None


def drifting(rng: np.random.Generator, count: int = 40) -> np.ndarray:
    """A machine whose speed wanders by several percent."""
    return 1 + 0.02 * np.cumsum(rng.normal(0, 0.3, count))


def test_pairs_do_not_see_the_drift_of_the_machine() -> None:
    drift = drifting(np.random.default_rng(3))
    ours, theirs = tuple(0.98 * drift), tuple(drift)
    low, high = ratio_interval(ours, theirs, paired=True) or (0.0, 9.0)
    assert low == pytest.approx(0.98)
    assert high == pytest.approx(0.98)
    low, high = ratio_interval(ours, theirs, paired=False) or (0.0, 9.0)
    assert low < 0.98 < high
    assert high - low > 0.01


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        ours, theirs = (tuple(scale * np.exp(rng.normal(0, 0.05, 40))) for scale in (1.1, 1.0))
        low, high = ratio_interval(ours, theirs, paired=False) or (0.0, 0.0)
        held += low <= 1.1 <= high
    assert 88 <= held <= 99
