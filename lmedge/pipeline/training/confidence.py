"""How sure a network is of each point: what its third number means, how it is learned, calibrated and judged.

A confident head answers a logit z per point. Its confidence c = sigmoid(z) is the probability that the point lies within
`NEAR` of its true place. Under a Gaussian of scale s around the answer that probability is 1 − exp(−NEAR² / 2s²), so s² =
NEAR² / (2 softplus(z)), and z is learned by that Gaussian's likelihood (Kendall and Gal, "What Uncertainties Do We Need in
Bayesian Deep Learning for Computer Vision?", NIPS 2017). Errors on training faces are smaller than elsewhere, so z is then
rescaled on validation faces (Platt, "Probabilistic Outputs for Support Vector Machines", 1999).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Floats = npt.NDArray[np.float64]

# As a fraction of the crop's side: 3.4 px of 112, about 6 % of the inter-ocular distance.
NEAR = 0.03
# An error of more than this many times NEAR says no more than one of exactly that: a wrong label must not decide.
_MOST_NEAR = 8.0
_BINS = 10
_RETAINED = tuple(part / 20 for part in range(20, 1, -1))
_CALIBRATION_STEPS, _CALIBRATION_PULL, _CALIBRATED = 100, 1e-3, 1e-9
# Of the mean error: below it, errors are all alike up to rounding, and no order of them is better than another.
_LEAST_DROP = 1e-6


@dataclass(frozen=True)
class ConfidenceReport:
    """How well confidence tells small errors from large ones, on validation faces.

    Attributes:
        near: the distance, as a fraction of the crop, within which a confident point lies.
        factor, offset: what the logits were rescaled by.
        bins: of points sorted into ten parts of equal size: mean confidence, share of points that are near, and how many.
        retained: parts of the points that are kept, the most certain first; `errors` their mean error in parts of the
            normaliser, `best_errors` the same if the points were sorted by their true error.
        drop_ratio: by how much the error of the most certain 80 % is below that of all, over what sorting by the true error
            gives.
    """

    near: float
    factor: float
    offset: float
    bins: tuple[tuple[float, float, int], ...]
    retained: tuple[float, ...]
    errors: tuple[float, ...]
    best_errors: tuple[float, ...]
    drop_ratio: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def likelihood_loss(answers: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of the true points (N, K, 2) under each answer's Gaussian, up to a constant: the mean over the
    known points (N, K) of each face, then over faces.

    The places are taken as they are: only the third number of the answers (N, K, 3) has a gradient.
    """
    known = torch.where(mask.unsqueeze(2), true, 0.0)
    distance = (answers[:, :, :2].detach() - known).square().sum(2) / NEAR**2
    inverse = F.softplus(answers[:, :, 2])
    # softplus may round to zero, far out.
    per_point = torch.where(mask, distance.clamp(max=_MOST_NEAR**2) * inverse - torch.log(inverse + 1e-6), 0.0)
    return (per_point.sum(1) / mask.sum(1).clamp(min=1)).sum() / mask.any(1).sum().clamp(min=1)


def calibrate(logits: Floats, distances: Floats) -> tuple[float, float]:
    """The factor and offset with which sigmoid(factor · z + offset) fits whether points are near best (logistic regression).

    They are 1 and 0 where the best factor would not be positive: it would turn the network's own order around, which a few odd
    faces can ask for.

    Args:
        logits: (M,).
        distances: (M,) of the answers from the true points, as fractions of the crop.
    """
    z, near = np.asarray(logits, np.float64), (np.asarray(distances) <= NEAR).astype(np.float64)
    start = np.array([1.0, 0.0])
    rows = np.column_stack([z, np.ones_like(z)])

    def cost(parameters: Floats) -> float:
        answers = rows @ parameters
        # A little of the start keeps the best finite where all points are near, or none is.
        pull = 0.5 * _CALIBRATION_PULL * float(np.square(parameters - start).sum())
        return float((np.logaddexp(0, answers) - near * answers).sum()) + pull

    parameters, least = start, cost(start)
    for _ in range(_CALIBRATION_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(rows @ parameters, -500, 500)))
        gradient = rows.T @ (probability - near) + _CALIBRATION_PULL * (parameters - start)
        curvature = (rows * (probability * (1 - probability))[:, None]).T @ rows + _CALIBRATION_PULL * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # Newton's step overshoots where the network was far too sure: it is halved until it helps.
        while (found := cost(parameters - step)) > least and np.abs(step).max() > _CALIBRATED:
            step = step / 2
        if np.abs(step).max() <= _CALIBRATED:
            break
        parameters, least = parameters - step, found
    return (float(parameters[0]), float(parameters[1])) if parameters[0] > 0 else (1.0, 0.0)


def cross_calibrated(logits: Floats, distances: Floats) -> Floats:
    """The confidence (N, K) of points of N faces, each half of the faces calibrated on the other half: what a report may show
    of faces that calibration itself used. Unknown points (NaN distance) count in neither half."""
    confidence = np.full(logits.shape, np.nan)
    half = np.arange(len(logits)) % 2 == 0
    for judged, fitted in ((half, ~half), (~half, half)):
        known = np.isfinite(distances[fitted])
        factor, offset = calibrate(logits[fitted][known], distances[fitted][known])
        confidence[judged] = 1 / (1 + np.exp(-(factor * logits[judged] + offset)))
    return confidence


def judge(confidence: Floats, distances: Floats, errors: Floats, factor: float, offset: float) -> ConfidenceReport:
    """What confidence is worth.

    Args:
        confidence, distances, errors: (N, K); distances as fractions of the crop, errors in parts of the normaliser; NaN where
            there is no label.
    """
    known = np.isfinite(errors) & np.isfinite(distances)
    sure, near, error = confidence[known], distances[known] <= NEAR, errors[known]
    order = np.argsort(-sure, kind="stable")
    parts = [part for part in np.array_split(order[::-1], _BINS) if len(part)]
    bins = [(float(sure[part].mean()), float(near[part].mean()), len(part)) for part in parts]
    by_confidence, by_error = _kept_means(error[order]), _kept_means(np.sort(error))
    place = _RETAINED.index(0.8)
    possible = by_error[0] - by_error[place]
    return ConfidenceReport(
        near=NEAR,
        factor=factor,
        offset=offset,
        bins=tuple(bins),
        retained=_RETAINED,
        errors=by_confidence,
        best_errors=by_error,
        drop_ratio=float((by_confidence[0] - by_confidence[place]) / possible) if possible > _LEAST_DROP * by_error[0] else 0.0,
    )


def _kept_means(sorted_errors: Floats) -> tuple[float, ...]:
    """The mean of the first part of the errors, for every part that is retained."""
    return tuple(float(sorted_errors[: max(1, round(part * len(sorted_errors)))].mean()) for part in _RETAINED)
