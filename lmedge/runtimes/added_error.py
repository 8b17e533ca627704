"""What quantised files add to the error of their fp32 file, face by face, from photo to image points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact
from lmedge.metrics import PairedLoss, paired_loss
from lmedge.runtimes.evaluate import FaceResult
from lmedge.runtimes.gates import QUANTISED


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One file on one engine, with what `evaluate` found for each face."""

    backend: str
    artifact: Artifact
    results: Sequence[FaceResult]


def added_errors(evaluated: Sequence[Evaluated]) -> list[PairedLoss | None]:
    """The loss of each file, all of them evaluated on the same faces in the same order.

    The reference is the fp32 file on the same engine, or where that was not evaluated on another. None for a float file, and
    where no fp32 file was evaluated.

    Raises:
        InputError: no face has an error under both files.
    """
    floats = [one for one in evaluated if one.artifact.precision == "fp32"]
    losses: list[PairedLoss | None] = []
    for one in evaluated:
        own = [reference for reference in floats if reference.backend == one.backend] or floats
        comparable = own and one.artifact.precision in QUANTISED
        losses.append(_loss(one.results, own[0].results) if comparable else None)
    return losses


def _loss(results: Sequence[FaceResult], reference: Sequence[FaceResult]) -> PairedLoss:
    true_px = np.stack([result.sample.points_px for result in results])
    return paired_loss(_points_px(results), _points_px(reference), true_px, results[0].sample.schema)


def _points_px(results: Sequence[FaceResult]) -> npt.NDArray[np.float32]:
    """Predicted points (N, K, 2); not a number where the detector missed the face, which counts as an infinite error."""
    missed = np.full((results[0].sample.schema.num_points, 2), np.nan, np.float32)
    return np.stack([missed if result.points_px is None else result.points_px for result in results])
