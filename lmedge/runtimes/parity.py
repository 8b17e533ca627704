"""Proof that an engine says what its reference says: on any crops against PyTorch, and on golden vectors inside the bundle.

    lmedge.assert_parity("bundle/")                          # in a test suite: every installed engine the bundle serves
    lmedge.assert_parity("runs/demo/bundle", run="runs/demo", crops=crops)      # beside the golden vectors, against PyTorch

Three causes of difference have their own gates: the crop (gray levels), the network (pixels, on recorded crops), and both
together (pixels, from the frame); a network that says how sure it is has one more. See `lmedge.runtimes.gates` for the limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact, Bundle, network_specs
from lmedge.errors import BundleError, InputError, ParityError
from lmedge.landmarks import FaceBox
from lmedge.metrics import PairedLoss, nme, paired_loss
from lmedge.preprocess import crop_face, crop_transform
from lmedge.reports import GateResult, ParityReport
from lmedge.runtimes import find_runtime
from lmedge.runtimes.answers import Answers, all_answers
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.checks import check_lineage, plan_checks
from lmedge.runtimes.gates import GOLDEN, PYTORCH, Difference, GateLimits, confidence_gates, loss_fields, parity_gates
from lmedge.runtimes.golden import Golden
from lmedge.runtimes.landmarker import FaceLandmarker, face_boxes
from lmedge.schemas import LandmarkSchema

Floats = npt.NDArray[np.floating]
PROGRAM = "model.pt2"


def compare(
    runtime: Runtime,
    crops: npt.NDArray[np.uint8],
    expected: Answers | Floats,
    *,
    schema: LandmarkSchema,
    limits: GateLimits | None = None,
    true_fractions: Floats | None = None,
    reference: str = PYTORCH,
) -> ParityReport:
    """Compares an engine with a reference on the same crops; the gates are those of the artifact's precision.

    Args:
        crops: uint8 (N, h, w, 3) BGR, N at least 1.
        expected: the reference's answers; an array (N, K, 2) where they are points alone.
        true_fractions: (N, K, 2) labels, NaN where unknown, for the loss of NME; without them its gates are left out.
        reference: what answered, for the report.

    Raises:
        InputError: arrays that do not belong together.
    """
    crops = _checked_crops(crops)
    wanted, limits = Answers.of(expected), limits or GateLimits()
    shape = (len(crops), schema.num_points, 2)
    fitting = wanted.confidence is None or wanted.confidence.shape == shape[:2]
    if wanted.fractions.shape != shape or not fitting or (true_fractions is not None and np.shape(true_fractions) != shape):
        sure = "none" if wanted.confidence is None else wanted.confidence.shape
        raise InputError(
            f"Reference answers and labels of {len(crops)} crops must be {shape}, and confidence {shape[:2]}; "
            f"got {wanted.fractions.shape}, and {sure}."
        )
    if not all(np.isfinite(part).all() for part in (wanted.fractions, wanted.confidence) if part is not None):
        raise InputError(f"The answers of {reference} are not all finite; there is nothing to compare with.")
    answers = all_answers(runtime, crops)
    found = Difference.between(answers.fractions, wanted.fractions, crops.shape[2])
    loss = None if true_fractions is None else _added_error(answers.fractions, wanted.fractions, true_fractions, schema)
    precision = runtime.artifact.precision
    sure = confidence_gates(precision, answers, wanted, limits, golden=reference == GOLDEN)
    gates = (*parity_gates(precision, found, loss, limits), *sure)
    return _report(runtime, reference, len(crops), found, loss, gates)


def answer(runtime: Runtime, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
    """The fractions (N, K, 2) that a runtime answers to crops uint8 (N, h, w, 3), whatever batch it was opened for."""
    return all_answers(runtime, crops).fractions


def self_test(
    bundle: Bundle,
    backend: str,
    precision: str = "fp32",
    *,
    dialect: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    limits: GateLimits | None = None,
) -> ParityReport:
    """Checks an engine against the golden vectors in the bundle: what a device can do without PyTorch or data.

    Raises:
        BundleError: the bundle has no golden vectors, or nothing for this backend and precision.
        BackendUnavailableError: the engine or its device is not here.
    """
    with FaceLandmarker.open(
        bundle, backend=backend, precision=precision, device=device, threads=threads, dialect=dialect, self_test=False
    ) as landmarker:
        return check_golden(landmarker, limits)


def check_golden(landmarker: FaceLandmarker, limits: GateLimits | None = None) -> ParityReport:
    """`self_test` of an opened landmarker; its gates are "golden_crop", "golden_network" and "golden_frame", and of a confident
    network "golden_confidence_max" or "golden_confidence_mean".

    Raises:
        BundleError: the bundle has no golden vectors.
    """
    limits = limits or GateLimits()
    golden = Golden.from_file(landmarker.bundle.golden_file())
    runtime, spec = landmarker.runtime, landmarker.spec
    if golden.fractions.shape[1] != landmarker.schema.num_points or golden.crops.shape[1:3] != spec.input_hw:
        raise BundleError(f"The golden vectors of {landmarker.bundle.root} are of another network. Build the bundle again.")
    boxes = face_boxes(golden.boxes_xyxy)
    crops = np.stack([crop_face(frame, box, spec)[0] for frame, box in zip(golden.frames, boxes, strict=True)])
    levels = np.abs(crops.astype(np.int16) - golden.crops).max()
    answers, precision = all_answers(runtime, golden.crops), runtime.artifact.precision
    found = Difference.between(answers.fractions, golden.fractions, spec.input_hw[1])
    limit = limits.golden_px(precision)
    # `predict` refuses answers that are no numbers; here they are a failed gate.
    frame_px = _frame_difference_px(landmarker, golden, boxes) if np.isfinite(found.max_px) else float("nan")
    gates = (
        GateResult("golden_crop", float(levels), limits.crop_levels, "levels"),
        GateResult("golden_network", found.max_px, limit, "px"),
        GateResult("golden_frame", frame_px, limit + limits.golden_crop_px, "px"),
        *confidence_gates(precision, answers, golden.answers, limits, golden=True),
    )
    return _report(runtime, GOLDEN, len(golden.crops), found, None, gates)


def assert_parity(
    bundle: Bundle | str | Path,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    *,
    limits: GateLimits | None = None,
    run: str | Path | None = None,
    crops: npt.NDArray[np.uint8] | None = None,
    true_fractions: Floats | None = None,
    threads: int | None = None,
) -> list[ParityReport]:
    """Holds a bundle to its gates: digests, lineage, golden vectors, and with `run` parity with the PyTorch network.

    Args:
        backends: those that must be checked; None takes every installed one the bundle serves (`plan_checks` names the rest).
        precisions: None takes all.
        run: the run folder that the bundle came from, for its exported program; needs torch.
        crops: uint8 (N, h, w, 3) BGR for the comparison with PyTorch; without them, the golden crops.
        true_fractions: (N, K, 2) labels of these crops, for the loss of NME.

    Returns:
        One report for each check that ran; nothing that was skipped is among them.

    Raises:
        ParityError: naming every gate that does not hold.
        DigestMismatchError: a file was changed.
        BackendUnavailableError: a backend that was named, or every one, is missing.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    planned, _ = plan_checks(opened, backends, precisions)
    opened.verify_digests()
    check_lineage(opened, None if run is None else program_of(Path(run), opened).sha256)
    reference = None if run is None else reference_answers(opened, run, crops)
    labels = None if crops is None else true_fractions
    reports = []
    for check in planned:
        with find_runtime(check.backend).open(check.artifact, threads=threads) as runtime:
            reports.append(check_golden(FaceLandmarker(opened, runtime), limits))
            if reference is not None:
                schema = opened.manifest.schema
                reports.append(compare(runtime, *reference, schema=schema, limits=limits, true_fractions=labels))
    require(reports)
    return reports


def reference_answers(
    bundle: Bundle, run: str | Path, crops: npt.NDArray[np.uint8] | None = None
) -> tuple[npt.NDArray[np.uint8], Answers]:
    """Crops, and what the PyTorch program of a run folder answers to them, as `compare` takes them.

    Args:
        crops: uint8 (N, h, w, 3) BGR; without them, the golden ones of the bundle.

    Raises:
        InputError: the folder does not hold one exported program.
        BackendUnavailableError: torch is not installed.
    """
    checked = Golden.from_file(bundle.golden_file()).crops if crops is None else _checked_crops(crops)
    # The adapter lives above this layer and is found by its name.
    with find_runtime("torch").open(program_of(Path(run), bundle), batch=None) as program:
        return checked, all_answers(program, checked)


def require(reports: Sequence[ParityReport]) -> None:
    """Raises when a gate does not hold.

    Raises:
        ParityError: naming every gate that does not hold, with its value and limit; or that there is no gate at all.
    """
    failures = [
        f"{report.backend} {report.precision} ({report.artifact}) against {report.reference}: "
        f"{gate.gate} is {gate.value:.4g} {gate.unit}{f' ({gate.basis})' if gate.basis else ''}, allowed {gate.limit:.4g}"
        for report in reports
        for gate in report.gates
        if not gate.passed
    ]
    failures += [f"{report.backend} {report.precision}: no gate was checked" for report in reports if not report.gates]
    if failures or not reports:
        raise ParityError("\n".join(failures) or "Nothing was checked.")


def program_of(run: Path, bundle: Bundle) -> Artifact:
    """The exported program of a run folder.

    Raises:
        InputError: the folder does not hold exactly one.
    """
    files = sorted(path for path in run.rglob(PROGRAM) if path.is_file())
    if len(files) != 1:
        raise InputError(
            f"{run} must hold one {PROGRAM}; it has {len(files)}. Give the folder that `lmedge build --out` wrote."
        )
    confident = any(len(artifact.outputs) > 1 for artifact in bundle.manifest.artifacts)
    inputs, outputs = network_specs(bundle.manifest.preprocess, bundle.manifest.schema, confidence=confident)
    return Artifact.of_file(files[0], run, format="torch", precision="fp32", inputs=inputs, outputs=outputs)


def _checked_crops(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.ndim != 4 or len(crops) == 0:
        came = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise InputError(f"Crops must be uint8 (N, h, w, 3) with N at least 1; got {came}.")
    return crops


def _added_error(fractions: Floats, reference: Floats, truth: Floats, schema: LandmarkSchema) -> PairedLoss:
    """What the answers add to the reference's error: infinite where an answer is no number, and none if no face has labels."""
    if np.isnan(nme(reference, truth, schema)).all():
        return PairedLoss(float("nan"), float("nan"), {}, 0)
    return paired_loss(fractions, reference, truth, schema)


def _frame_difference_px(landmarker: FaceLandmarker, golden: Golden, boxes: list[FaceBox]) -> float:
    """The largest distance from the recorded image points, in pixels of the crop."""
    distances = []
    for frame, box, expected_px in zip(golden.frames, boxes, golden.points_px, strict=True):
        transform = crop_transform(box, landmarker.spec)
        found = landmarker.predict(frame, [box])[0].points_px
        difference = transform.to_crop(found) - transform.to_crop(expected_px)
        distances.append(np.linalg.norm(difference, axis=1))
    return float(np.max(distances))


def _report(
    runtime: Runtime, reference: str, crops: int, found: Difference, loss: PairedLoss | None, gates: tuple[GateResult, ...]
) -> ParityReport:
    artifact = runtime.artifact
    return ParityReport(
        backend=runtime.name,
        precision=artifact.precision,
        dialect=artifact.dialect,
        artifact=artifact.path,
        reference=reference,
        crops=crops,
        max_px=found.max_px,
        p99_px=found.p99_px,
        mean_px=found.mean_px,
        shift_x_px=found.shift_x_px,
        shift_y_px=found.shift_y_px,
        gates=gates,
        engine_precision=runtime.precision_used,
        **loss_fields(loss),
    )
