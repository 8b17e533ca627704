"""Which values an activation takes on the calibration crops, and the range that a quantiser gets.

First the least and greatest value of each tensor on each crop, then a histogram of each tensor between its extremes over all
crops. Memory holds two numbers per tensor and crop and one histogram per tensor, whatever the size of the features. Counts are
whole numbers, so the order of the crops changes nothing. (ONNX Runtime's own calibrators offer
either the extremes over all crops or histograms that keep every feature in memory, and `CalibMaxIntermediateOutputs`, meant to
save it, forgets what it flushed: onnxruntime issue 32577.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from lmedge.calibration.crop_store import Crops
from lmedge.calibration.place_qdq import PORTABLE, Dialect, Ranges
from lmedge.calibration.probe import probe
from lmedge.errors import CalibrationError
from lmedge.progress import Progress

if TYPE_CHECKING:
    import onnx

RangeMethod = Literal["min-max", "coverage", "percentile", "mse"]
METHODS: tuple[RangeMethod, ...] = ("min-max", "coverage", "percentile", "mse")

# "coverage": the part of the crops on which a range holds every value. A network with ReLU can answer one face in a hundred
# with values forty times larger than on all others; a range that covers those leaves a handful of levels for the rest.
COVERAGE = 0.95
# "percentile": the part of all values that a range holds.
PERCENTILE = 0.9999
_BINS = 2048
# "mse": ranges that are tried, as parts of the widest.
_TRIED = np.linspace(0.2, 1.0, 81)
_SIGNED_LEVELS, _UNSIGNED_LEVELS = 127, 255

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Extremes:
    """Least and greatest value of each tensor on each crop, arrays (N,) by name."""

    least: dict[str, Floats]
    greatest: dict[str, Floats]

    def ranges(self, coverage: float = COVERAGE) -> Ranges:
        """The range of each tensor that holds all of its values on at least this part of the crops; 1 is plain min-max."""
        return {
            name: (
                np.quantile(self.least[name], 1 - coverage, method="lower"),
                np.quantile(self.greatest[name], coverage, method="higher"),
            )
            for name in self.least
        }


@dataclass(frozen=True, eq=False)
class Histograms:
    """How often each tensor takes which values over all crops: `counts` (bins,) and `edges` (bins + 1,) by name."""

    counts: dict[str, npt.NDArray[np.int64]]
    edges: dict[str, npt.NDArray[np.float64]]

    def percentile_ranges(self, share: float = PERCENTILE) -> Ranges:
        """Ranges that hold this part of all values: half of the rest is cut off at each end."""
        return {name: self._quantiles(name, (1 - share) / 2, (1 + share) / 2) for name in self.counts}

    def mse_ranges(self, dialect: Dialect) -> Ranges:
        """The ranges whose quantiser, as the dialect has it, changes the values least in the mean square."""
        return {name: self._least_squares(name, dialect) for name in self.counts}

    def _quantiles(self, name: str, low: float, high: float) -> tuple[np.float32, np.float32]:
        summed = np.cumsum(self.counts[name])
        first = int(np.searchsorted(summed, low * summed[-1], side="right"))
        last = int(np.searchsorted(summed, high * summed[-1], side="left"))
        return np.float32(self.edges[name][first]), np.float32(self.edges[name][last + 1])

    def _least_squares(self, name: str, dialect: Dialect) -> tuple[np.float32, np.float32]:
        edges = self.edges[name]
        used = self.counts[name] > 0
        values, counts = ((edges[:-1] + edges[1:]) / 2)[used], self.counts[name][used]
        lowest, highest = edges[0], edges[-1]
        errors = [
            float(counts @ np.square(_quantised(values, part * lowest, part * highest, dialect) - values)) for part in _TRIED
        ]
        best = _TRIED[int(np.argmin(errors))]
        return np.float32(best * lowest), np.float32(best * highest)


@dataclass(frozen=True, eq=False)
class Measured:
    """What the calibration crops say about each tensor; `histograms` is None where no method needed them."""

    extremes: Extremes
    histograms: Histograms | None

    def ranges(self, method: RangeMethod, dialect: Dialect, coverage: float = COVERAGE) -> Ranges:
        """The ranges that a method chooses for a dialect.

        Raises:
            CalibrationError: no such method, or one that needs histograms where none were measured.
        """
        if method == "min-max":
            return self.extremes.ranges(1.0)
        if method == "coverage":
            return self.extremes.ranges(coverage)
        if method not in METHODS:
            raise CalibrationError(f"No range method is called {method!r}; known: {', '.join(METHODS)}.")
        if self.histograms is None:
            raise CalibrationError(f"The ranges {method!r} need histograms; measure with histograms=True.")
        return self.histograms.percentile_ranges() if method == "percentile" else self.histograms.mse_ranges(dialect)


def measure(
    model: onnx.ModelProto | Path,
    tensors: list[str],
    crops_uint8: Crops,
    *,
    histograms: bool,
    progress: Progress | None = None,
) -> Measured:
    """Runs the network on each crop (N, H, W, 3) and notes the values of the named tensors."""
    extremes = measure_extremes(model, tensors, crops_uint8, progress)
    return Measured(extremes, measure_histograms(model, extremes, crops_uint8, progress) if histograms else None)


def measure_extremes(
    model: onnx.ModelProto | Path, tensors: list[str], crops_uint8: Crops, progress: Progress | None = None
) -> Extremes:
    """The extremes of the named tensors on each crop (N, H, W, 3).

    Raises:
        CalibrationError: a tensor that holds something else than finite numbers, of which no range can be told.
    """
    found = []
    for kind in ("ReduceMin", "ReduceMax"):
        rows = np.empty((len(crops_uint8), len(tensors)), np.float32)
        for index, values in enumerate(probe(model, tensors, crops_uint8, reduce=kind, progress=progress)):
            rows[index] = values
        if not (finite := np.isfinite(rows)).all():
            row, number = np.argwhere(~finite)[0]
            raise CalibrationError(
                f"On calibration crop {row} the tensor {tensors[number]!r} holds {rows[row, number]}, so it has no range. "
                "The float network is broken; train it again."
            )
        found.append({name: rows[:, number] for number, name in enumerate(tensors)})
    return Extremes(*found)


def measure_histograms(
    model: onnx.ModelProto | Path, extremes: Extremes, crops_uint8: Crops, progress: Progress | None = None
) -> Histograms:
    """A histogram of each tensor between its extremes over these same crops."""
    tensors = list(extremes.least)
    bounds = {name: _widened(extremes.least[name].min(), extremes.greatest[name].max()) for name in tensors}
    counts = {name: np.zeros(_BINS, np.int64) for name in tensors}
    for answers in probe(model, tensors, crops_uint8, progress=progress, doing="counting activations"):
        for name, values in zip(tensors, answers, strict=True):
            counts[name] += _count(values, bounds[name])
    return Histograms(counts, {name: np.linspace(*bounds[name], _BINS + 1) for name in tensors})


def _count(values: Floats, bounds: tuple[float, float]) -> npt.NDArray[np.int64]:
    """A histogram with equal bins, several times as fast as numpy's."""
    low, high = bounds
    bins = ((values.reshape(-1) - np.float32(low)) * np.float32(_BINS / (high - low))).astype(np.int32)
    return np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)


def _widened(least: np.float32, greatest: np.float32) -> tuple[float, float]:
    """Bounds that include zero, as a quantiser's do, and are never equal."""
    low, high = min(float(least), 0.0), max(float(greatest), 0.0)
    return (low, high) if high > low else (low, low + 1.0)


def _quantised(values: npt.NDArray[np.float64], low: float, high: float, dialect: Dialect) -> npt.NDArray[np.float64]:
    """What a quantiser of this range makes of values."""
    if dialect == PORTABLE:
        scale = max(-low, high) / _SIGNED_LEVELS
        return np.asarray(np.clip(np.round(values / scale), -_SIGNED_LEVELS - 1, _SIGNED_LEVELS) * scale)
    scale = (high - low) / _UNSIGNED_LEVELS
    zero = np.round(-low / scale)
    return np.asarray((np.clip(np.round(values / scale) + zero, 0, _UNSIGNED_LEVELS) - zero) * scale)
