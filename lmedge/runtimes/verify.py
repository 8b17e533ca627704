"""Everything `lmedge verify` checks of a bundle on this machine: digests, lineage, golden answers, parity, error on faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Bundle
from lmedge.data.crops import labelled_crops
from lmedge.data.samples import FaceSample
from lmedge.progress import Progress
from lmedge.reports import EvaluationReport, ParityReport
from lmedge.runtimes import find_runtime
from lmedge.runtimes.added_error import Evaluated, added_errors
from lmedge.runtimes.checks import SkippedCheck, check_lineage, plan_checks
from lmedge.runtimes.evaluate import evaluate
from lmedge.runtimes.gates import GateLimits, accuracy_report
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.parity import check_golden, compare, program_of, reference_answers


@dataclass(frozen=True)
class VerifyOutcome:
    """What was verified.

    Attributes:
        files: number of files whose digest was checked.
        parity: golden self-tests, comparisons with PyTorch, and the gates on NME.
        evaluations: NME of every engine and file on the given faces.
        skipped: what this machine could not verify.
    """

    files: int
    parity: tuple[ParityReport, ...]
    evaluations: tuple[EvaluationReport, ...]
    skipped: tuple[SkippedCheck, ...]

    @property
    def passed(self) -> bool:
        return bool(self.parity) and all(report.passed for report in self.parity)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "files": self.files,
            "parity": [report.to_json() for report in self.parity],
            "evaluations": [report.to_json() for report in self.evaluations],
            "not_verified": [{"backend": skip.backend, "reason": skip.reason} for skip in self.skipped],
        }


def verify_bundle(
    bundle: Bundle,
    *,
    backends: Sequence[str] | None = None,
    run: Path | None = None,
    samples: Sequence[FaceSample] | None = None,
    parity_samples: Sequence[FaceSample] | None = None,
    limits: GateLimits | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyOutcome:
    """Checks a bundle; gates that fail are in the outcome, not raised.

    Args:
        backends: those that must be checked; None takes every installed one that the bundle serves.
        run: the run folder of the bundle, for parity with PyTorch (needs torch).
        samples: labelled faces for the NME; all of them are used.
        parity_samples: faces whose crops are compared with PyTorch's answers; `samples`, else the golden crops, without them.
            Only labels of `samples` count for the NME that quantised files add: of faces that a network was trained on or
            calibrated with, it says too little.
        progress: called with (checks done, checks in all, what).

    Raises:
        DigestMismatchError: a file was changed.
        ParityError: a file is stale, or made from another program than that of the run.
        BackendUnavailableError: a named backend, or every one, is missing here.
        DataError: an image cannot be read.
    """
    limits = limits or GateLimits()
    planned, skipped = plan_checks(bundle, backends)
    files = bundle.verify_digests()
    check_lineage(bundle, None if run is None else program_of(run, bundle).sha256)
    faces = parity_samples or samples
    crops, labels = _crops_of(faces, samples or (), bundle) if faces and run else (None, None)
    reference = None if run is None else reference_answers(bundle, run, crops)
    parity: list[ParityReport] = []
    evaluations: list[EvaluationReport] = []
    evaluated: list[Evaluated] = []
    for done, check in enumerate(planned, start=1):
        with find_runtime(check.backend).open(check.artifact, threads=threads) as runtime:
            landmarker = FaceLandmarker(bundle, runtime)
            parity.append(check_golden(landmarker, limits))
            if reference is not None:
                schema = bundle.manifest.schema
                parity.append(compare(runtime, *reference, schema=schema, limits=limits, true_fractions=labels))
            if samples:
                report, results = evaluate(landmarker, samples, boxes="annotated", split="all")
                evaluations.append(report)
                evaluated.append(Evaluated(check.backend, check.artifact, results))
        if progress:
            progress(done, len(planned), "verifying")
    parity += [
        accuracy_report(one.backend, one.artifact, report.count, report.nme, limits, loss=loss)
        for report, one, loss in zip(evaluations, evaluated, added_errors(evaluated), strict=True)
    ]
    return VerifyOutcome(files, tuple(parity), tuple(evaluations), tuple(skipped))


def _crops_of(
    faces: Sequence[FaceSample], scored: Sequence[FaceSample], bundle: Bundle
) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.float64] | None]:
    """The crops of faces of the bundle's own schema, with labels as fractions, NaN where the face is not to be scored; faces of
    another schema are only evaluated."""
    if faces[0].schema != bundle.manifest.schema:
        return None, None
    crops, fractions = labelled_crops(faces, bundle.manifest.preprocess)
    known = {id(face) for face in scored}
    fractions[[id(face) not in known for face in faces]] = np.nan
    return crops, fractions if known else None
