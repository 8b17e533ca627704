"""From single times to figures: percentiles, and medians of successive blocks, which tell how far a median can be trusted.

Successive calls are alike: a processor that clocks down slows many in a row. Resampling single calls would take them for
independent and give intervals that are far too narrow; resampling blocks of them does not (Künsch 1989, The jackknife and the
bootstrap for general stationary observations).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

# Ten calls beyond the percentile; with fewer it is the luck of one or two.
P999_CALLS = 10_000
MOST_BLOCKS, LEAST_BLOCKS = 100, 8
_RESAMPLES = 4000
_SEED = 0
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Figures:
    """Percentiles of one action in ms, `p999_ms` None where the calls are too few, and the medians of its blocks."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float | None
    blocks_ms: tuple[float, ...]


def figures(times_ms: Times, block: int) -> Figures:
    """The figures of all calls of one action, in the order in which they were made; a last block must be full to count."""
    p50, p90, p99, p999 = np.percentile(times_ms, (50, 90, 99, 99.9))
    full = len(times_ms) // block * block
    medians = np.median(times_ms[:full].reshape(-1, block), axis=1)
    return Figures(
        float(p50),
        float(p90),
        float(p99),
        float(p999) if len(times_ms) >= P999_CALLS else None,
        tuple(round(float(median), 6) for median in medians),
    )


def block_size(iterations: int, burst: int) -> int:
    """Whole bursts, so that no block has a pause in it, and `MOST_BLOCKS` blocks at most."""
    return burst * math.ceil(iterations / (burst * MOST_BLOCKS))


def few_calls(count: int) -> str:
    """Why there is no p99.9; "" where there is."""
    if count >= P999_CALLS:
        return ""
    return f"a p99.9 needs {P999_CALLS} calls, of which 10 lie above it; {count} were timed. Give --iterations {P999_CALLS}"


def ratio_interval(
    blocks_ms: tuple[float, ...], other_blocks_ms: tuple[float, ...], *, paired: bool
) -> tuple[float, float] | None:
    """The 95 % interval of the ratio of two medians by a bootstrap over blocks; None with fewer than `LEAST_BLOCKS`.

    Args:
        paired: block i of both was timed at the same time, so both are drawn together.
    """
    ours, theirs = np.asarray(blocks_ms), np.asarray(other_blocks_ms)
    if min(len(ours), len(theirs)) < LEAST_BLOCKS or (paired and len(ours) != len(theirs)):
        return None
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(0, len(ours), (_RESAMPLES, len(ours)))
    drawn_there = drawn if paired else rng.integers(0, len(theirs), (_RESAMPLES, len(theirs)))
    ratios = np.median(ours[drawn], axis=1) / np.median(theirs[drawn_there], axis=1)
    low, high = np.quantile(ratios, _TAILS)
    return float(low), float(high)
