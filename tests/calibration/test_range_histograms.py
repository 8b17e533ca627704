"""Ranges from histograms of values: percentiles, and the least squared error of the quantiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmedge.calibration import ranges as subject
from lmedge.calibration.place_qdq import DIALECTS, X86, Dialect
from lmedge.calibration.ranges import PERCENTILE, Histograms
from tests.calibration.quantiser import fake_quantised


def histogram(values: npt.NDArray[np.float64], bins: int = 2048) -> Histograms:
    counts, edges = np.histogram(values, bins, (min(values.min(), 0), max(values.max(), 0)))
    return Histograms({"t": counts.astype(np.int64)}, {"t": edges})


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, PERCENTILE])
def test_percentile_ranges_hold_their_share_and_hardly_more(share: float) -> None:
    values = np.random.default_rng(0).standard_normal(200_000)
    (ends,) = histogram(values).percentile_ranges(share).values()
    least, greatest = map(float, ends)
    held = ((values >= least) & (values <= greatest)).mean()
    assert share <= held <= share + 0.005
    assert (values < least).mean() == pytest.approx((values > greatest).mean(), abs=0.003), "as much at each end"


@given(hnp.arrays(np.float64, st.integers(2, 200), elements=st.floats(-1e3, 1e3)), st.floats(0.5, 1.0))
def test_percentile_ranges_hold_what_they_promise_of_any_values(values: npt.NDArray[np.float64], share: float) -> None:
    if not np.ptp(values) > 1e-6:
        values = np.append(values, values[0] + 1)
    ((least, greatest),) = histogram(values).percentile_ranges(share).values()
    slack = 1e-6 * np.abs(values).max()  # ends are float32
    assert ((values >= least - slack) & (values <= greatest + slack)).mean() >= share - 1e-9


def test_one_exploding_value_in_many_does_not_take_the_range() -> None:
    values = np.append(np.random.default_rng(0).uniform(0, 1, 100_000), 40.0)
    found = histogram(values)
    assert found.percentile_ranges()["t"][1] < 1.1
    for dialect in DIALECTS:
        assert found.mse_ranges(dialect)["t"][1] < 40


def mean_square(found: Histograms, ends: tuple[Any, Any], dialect: Dialect) -> float:
    centres = (found.edges["t"][:-1] + found.edges["t"][1:]) / 2
    return float(np.average(np.square(fake_quantised(centres, ends, dialect) - centres), weights=found.counts["t"]))


@given(hnp.arrays(np.float64, st.integers(2, 300), elements=st.floats(-50, 50)), st.sampled_from(DIALECTS))
def test_mse_ranges_are_never_worse_in_the_mean_square_than_min_max(values: npt.NDArray[np.float64], dialect: Dialect) -> None:
    found = histogram(np.append(values, 1.0))
    widest = found.edges["t"][0], found.edges["t"][-1]
    # The ends are float32, so values on the border between two levels may fall to the other side.
    assert mean_square(found, found.mse_ranges(dialect)["t"], dialect) <= mean_square(found, widest, dialect) * 1.001 + 1e-9


@pytest.mark.parametrize("dialect", DIALECTS)
def test_mse_ranges_clip_rare_tails(dialect: Dialect) -> None:
    found = histogram(np.random.default_rng(0).standard_t(3, 100_000))
    widest, ends = (found.edges["t"][0], found.edges["t"][-1]), found.mse_ranges(dialect)["t"]
    assert ends[1] < 0.9 * widest[1]
    assert mean_square(found, ends, dialect) < 0.9 * mean_square(found, widest, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_mse_ranges_leave_evenly_spread_values_alone(dialect: Dialect) -> None:
    found = histogram(np.linspace(-1, 1, 9999))
    np.testing.assert_allclose(found.mse_ranges(dialect)["t"], (-1, 1), rtol=0.02)


def test_a_search_for_the_greatest_error_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mutant:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, "argmax" if name == "argmin" else name)

    monkeypatch.setattr(subject, "np", Mutant())
    with pytest.raises(AssertionError):
        test_mse_ranges_clip_rare_tails(X86)
