"""How a quantity spreads over faces: percentiles, and histograms with round bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MOST_BINS = 12

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Percentiles of a quantity over faces."""

    min: float
    p5: float
    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: Floats) -> Spread | None:
        """The spread of the finite values; None where there are none."""
        finite = values[np.isfinite(values)]
        if len(finite) == 0:
            return None
        return cls(*(round(float(value), 2) for value in np.percentile(finite, (0, 5, 50, 95, 100))))


@dataclass(frozen=True)
class Histogram:
    """Faces per bin: `counts[i]` lie from `edges[i]` to `edges[i + 1]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Floats, edges: Sequence[float] | None = None) -> Histogram:
        """Of the finite values; values beyond the edges count in the outermost bins. Without edges, up to 12 round bins."""
        finite = values[np.isfinite(values)]
        bins = np.array(edges if edges is not None else _round_edges(finite), float)
        counts, _ = np.histogram(np.clip(finite, bins[0], bins[-1]), bins)
        return cls(tuple(bins.tolist()), tuple(counts.tolist()))


def _round_edges(values: Floats) -> Floats:
    """Edges at multiples of 1, 2 or 5 times a power of ten that hold all values in at most 12 bins."""
    if len(values) == 0:
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    decade = 10.0 ** np.floor(np.log10(max(high - low, 1.0) / _MOST_BINS))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * decade
        edges = np.arange(np.floor(low / step), np.floor(high / step) + 2) * step
        if len(edges) <= _MOST_BINS + 1:
            break
    return np.asarray(edges)
