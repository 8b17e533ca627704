"""Errors of landmarks, as the field defines them. All functions take image points in pixels and return fractions.

NME (normalised mean error): mean distance of a face's known points, divided by the schema's normalising distance.
CED (cumulative error distribution): the share of faces whose NME is at most t. AUC@t: the area under it up to t, divided by t.
Failure rate FR@t: the share above t. Sources: Sagonas et al., 300-W (IMAVIS 2016); Wu et al., WFLW (CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.schemas import LandmarkSchema

Floats = npt.NDArray[np.float64]

# Of a bootstrap: 8 MB of indices.
_DRAWN_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class PairedLoss:
    """What a network adds to the error of its reference on the same faces, in fractions of the normaliser; less is better.

    Attributes:
        nme: mean over faces of NME − the reference's NME.
        upper: one-sided 95 % upper bound of it, from a bootstrap over faces.
        groups: the same two numbers per region of the schema, (mean, upper).
        count: faces that have both.
        group_counts: the same per region, whose points may be labelled on fewer faces.
    """

    nme: float
    upper: float
    groups: Mapping[str, tuple[float, float]]
    count: int
    group_counts: Mapping[str, int] = field(default_factory=dict)


def point_errors_px(predicted_px: npt.NDArray[np.floating], true_px: npt.NDArray[np.floating]) -> Floats:
    """Distances (N, K) in pixels; NaN where the true point is unknown, infinite where only the predicted one is not finite."""
    predicted, true = np.asarray(predicted_px, np.float64), np.asarray(true_px, np.float64)
    if predicted.shape != true.shape or predicted.ndim != 3 or predicted.shape[2] != 2:
        raise InputError(f"Points must be two arrays (N, K, 2); got {predicted.shape} and {true.shape}.")
    errors = np.asarray(np.linalg.norm(predicted - true, axis=2))
    known = np.isfinite(true).all(axis=2)
    return np.where(known, np.where(np.isfinite(errors), errors, np.inf), np.nan)


def nme(
    predicted_px: npt.NDArray[np.floating],
    true_px: npt.NDArray[np.floating],
    schema: LandmarkSchema,
    indices: tuple[int, ...] | None = None,
) -> Floats:
    """NME per face (N,); NaN where the normalising points or all points are unknown, infinite where a predicted known point is
    not finite. `indices` restricts it to a group.
    """
    errors = point_errors_px(predicted_px, true_px)
    if indices is not None:
        errors = errors[:, list(indices)]
    known = ~np.isnan(errors)
    total = np.where(known, errors, 0).sum(axis=1)
    count = known.sum(axis=1)
    distance = schema.normalizer_px(np.asarray(true_px, np.float64))
    usable = (count > 0) & np.isfinite(distance) & (distance > 0)
    result = np.full(len(errors), np.nan)
    result[usable] = total[usable] / count[usable] / distance[usable]
    return result


def ced(nme_per_face: Floats, thresholds: Floats) -> Floats:
    """Share of faces with NME ≤ t, for every t; an infinite NME (a missed face) counts as a failure."""
    values = np.sort(_scored(nme_per_face))
    return np.searchsorted(values, thresholds, side="right") / len(values)


def failure_rate(nme_per_face: Floats, threshold: float = 0.10) -> float:
    """Share of faces with NME > threshold."""
    return float(np.mean(_scored(nme_per_face) > threshold))


def auc(nme_per_face: Floats, threshold: float = 0.10) -> float:
    """Area under the CED from 0 to threshold, divided by threshold; exact, since the CED is a step function."""
    values = _scored(nme_per_face)
    return float(np.mean(np.clip(threshold - values, 0, None)) / threshold)


def paired_loss(
    predicted_px: npt.NDArray[np.floating],
    reference_px: npt.NDArray[np.floating],
    true_px: npt.NDArray[np.floating],
    schema: LandmarkSchema,
) -> PairedLoss:
    """The loss of predicted points (N, K, 2) against a reference's on labelled faces; infinite where a prediction is no number.

    Any unit will do that is the same in x and y for all three, e.g. fractions of square crops. Pairing takes the difficulty of
    a face out of the comparison, so far fewer faces tell two networks apart.

    Raises:
        InputError: no face has an error under both.
    """

    def difference(indices: tuple[int, ...] | None) -> Floats:
        with np.errstate(invalid="ignore"):  # a face that is infinite under both has no difference
            values = nme(predicted_px, true_px, schema, indices) - nme(reference_px, true_px, schema, indices)
        return values[~np.isnan(values)]

    def mean_and_bound(values: Floats) -> tuple[float, float]:
        upper = upper_bound(values)
        return (float(values.mean()) if np.isfinite(values).all() else upper, upper)

    mean, upper = mean_and_bound(overall := difference(None))
    groups = {name: values for name, indices in schema.groups.items() if len(values := difference(indices))}
    return PairedLoss(
        nme=mean,
        upper=upper,
        groups={name: mean_and_bound(values) for name, values in groups.items()},
        count=len(overall),
        group_counts={name: len(values) for name, values in groups.items()},
    )


def upper_bound(values: Floats, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> float:
    """One-sided upper confidence bound of the mean by the percentile bootstrap (Efron 1979); infinite if a value is.

    Raises:
        InputError: no value.
    """
    if len(values) == 0:
        raise InputError("A bootstrap bound needs at least one value; no face has an error under both networks.")
    if not np.isfinite(values).all():
        return float("inf")
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // len(values))  # bounded memory; the same draws as all at once
    counts = [min(rows, resamples - row) for row in range(0, resamples, rows)]
    means = [values[rng.integers(0, len(values), (count, len(values)))].mean(axis=1) for count in counts]
    return float(np.quantile(np.concatenate(means), confidence))


def bootstrap_interval(values: Floats, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979); NaN values do not count."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        raise InputError("A bootstrap interval needs at least one finite value.")
    rng = np.random.default_rng(seed)
    means = np.array([finite[rng.integers(0, len(finite), len(finite))].mean() for _ in range(resamples)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _scored(nme_per_face: Floats) -> Floats:
    values = np.asarray(nme_per_face, np.float64)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise InputError("No face has an error to summarise: each lacks its normalising points.")
    return values
