"""What int8 may add to the error on labelled faces: its upper bound, overall, at eyes and mouth, and over which faces."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.bundle import ANY_ARCH, Manifest, file_digest, write_bundle
from lmedge.data.samples import FaceSample
from lmedge.errors import ParityError
from lmedge.metrics import PairedLoss
from lmedge.preprocess import crop_transform
from lmedge.reports import MEAN_OF_FEW, UPPER_BOUND, GateResult, ParityReport
from lmedge.runtimes.added_error import Evaluated, added_errors
from lmedge.runtimes.base import Results
from lmedge.runtimes.evaluate import FaceResult
from lmedge.runtimes.fake import FakeRuntime, fake_bundle
from lmedge.runtimes.gates import LEAST_FACES, GateLimits, accuracy_report, loss_gates
from lmedge.runtimes.parity import compare, require
from lmedge.runtimes.verify import verify_bundle
from tests.bundles import SCHEMA, SPEC, artifact_of, random_crops, tiny_golden, tiny_onnx, tiny_program
from tests.parity.mutants import AnyAnswer, numpy_artifact
from tests.requirements import require as require_package

Fractions = npt.NDArray[np.float32]
LIMITS = GateLimits()

# Eyes 0.4 of the crop apart, which is what divides the error.
FACE = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]], np.float32)
NORMALISER = 0.4
REGIONS = {"eyes": (0, 1), "nose": (2,), "mouth": (3, 4)}


def exact(faces: int = 40) -> Fractions:
    """Answers that are the labels."""
    return np.repeat(FACE[None], faces, axis=0)


def spoilt(region: str, nme: float, faces: slice = slice(None), count: int = 40) -> Fractions:
    """Answers that are exact but for some faces, where the region's own error is `nme`; its points move apart, so nothing
    shifts."""
    answers = exact(count)
    for number, index in enumerate(REGIONS[region]):
        answers[faces, index, 1] += (-1) ** number * nme * NORMALISER
    return answers


def held(folder: Path, answers: Fractions, labels: Fractions | None = None, precision: str = "int8") -> ParityReport:
    """An engine that answers so, against a reference that answers exactly."""
    expected = exact(len(answers))
    with AnyAnswer.open(numpy_artifact(folder, precision), batch=None) as runtime:
        assert isinstance(runtime, AnyAnswer)
        remaining = list(answers)
        runtime.answer = lambda crops: np.array([remaining.pop(0) for _ in crops])
        truth = expected if labels is None else labels
        return compare(runtime, random_crops(len(answers)), expected, schema=SCHEMA, true_fractions=truth)


def gates_of(report: ParityReport) -> dict[str, GateResult]:
    return {gate.gate: gate for gate in report.gates}


def failed(report: ParityReport) -> set[str]:
    return {gate.gate for gate in report.gates if not gate.passed}


# Mutants, each for one gate


@pytest.mark.parametrize("precision", ["int8", "fp16-int8"])
def test_a_mean_within_the_limit_is_not_enough_when_few_faces_carry_it(tmp_path: Path, precision: str) -> None:
    """One face of 40 loses 1.6 points: 0.04 in the mean, but as easily none or three such faces would have been drawn."""
    report = held(tmp_path, spoilt("nose", 0.016 * 5, slice(0, 1)), precision=precision)
    assert report.nme_loss == pytest.approx(0.0004, rel=1e-3)
    assert report.nme_loss is not None
    assert report.nme_loss < LIMITS.int8_nme_loss
    assert failed(report) == {"nme_loss"}
    assert gates_of(report)["nme_loss"].value == report.nme_loss_upper == pytest.approx(0.0012, rel=1e-3)


@pytest.mark.parametrize("region", ["eyes", "mouth"])
def test_an_engine_that_is_worse_at_one_region_fails_there_alone(tmp_path: Path, region: str) -> None:
    report = held(tmp_path, spoilt(region, 0.0012))
    assert failed(report) == {f"{region}_loss"}
    assert report.nme_loss == pytest.approx(0.0012 * 2 / 5, rel=1e-2)
    with pytest.raises(
        ParityError, match=rf"{region}_loss is 0\.0012 of the normaliser \(upper 95 % bound, 40 faces\), allowed 0\.001"
    ):
        require([report])


def test_the_same_error_spread_over_all_faces_passes(tmp_path: Path) -> None:
    report = held(tmp_path, spoilt("nose", 0.0004 * 5))
    assert report.nme_loss == pytest.approx(0.0004, rel=1e-2)
    assert report.passed


def test_float_engines_are_held_to_pixels_not_to_labels(tmp_path: Path) -> None:
    assert set(gates_of(held(tmp_path, exact(), precision="fp16"))) == {"max_px"}


# How many faces


@pytest.mark.parametrize(
    ("faces", "statistic"), [(1, MEAN_OF_FEW), (LEAST_FACES - 1, MEAN_OF_FEW), (LEAST_FACES, UPPER_BOUND), (60, UPPER_BOUND)]
)
def test_a_gate_says_how_many_faces_it_is_from_and_what_it_made_of_them(tmp_path: Path, faces: int, statistic: str) -> None:
    report = held(tmp_path, exact(faces))
    assert report.loss_faces == faces
    for name in ("nme_loss", "eyes_loss", "mouth_loss"):
        assert (gates_of(report)[name].statistic, gates_of(report)[name].faces) == (statistic, faces)


def test_few_faces_are_judged_by_their_mean_and_can_still_fail(tmp_path: Path) -> None:
    few = LEAST_FACES - 1
    within = held(tmp_path, spoilt("nose", 0.0004 * 5 * few, slice(0, 1), few))
    assert within.passed
    assert within.nme_loss_upper is not None
    assert within.nme_loss_upper > LIMITS.int8_nme_loss
    assert failed(held(tmp_path, spoilt("nose", 0.0006 * 5 * few, slice(0, 1), few))) == {"nme_loss"}


def test_faces_without_labels_are_not_counted(tmp_path: Path) -> None:
    """Training faces among the crops are there for the pixels; here all of them are wrong at the eyes."""
    labels = exact(50)
    labels[25:] = np.nan
    report = held(tmp_path, spoilt("eyes", 0.01, slice(25, None), 50), labels)
    assert (report.crops, report.loss_faces, report.nme_loss_upper) == (50, 25, 0)
    assert report.passed


def test_a_region_with_labels_on_few_faces_says_so_alone(tmp_path: Path) -> None:
    labels = exact()
    labels[5:, 3:] = np.nan
    gates = gates_of(held(tmp_path, exact(), labels))
    assert (gates["mouth_loss"].statistic, gates["mouth_loss"].faces) == (MEAN_OF_FEW, 5)
    assert (gates["eyes_loss"].statistic, gates["eyes_loss"].faces) == (UPPER_BOUND, 40)


def test_a_region_that_the_schema_does_not_have_has_no_gate() -> None:
    assert [gate.gate for gate in loss_gates(PairedLoss(0, 0, {"nose": (0, 0), "eyes": (0, 0)}, 30), LIMITS)] == [
        "nme_loss",
        "eyes_loss",
    ]


def test_crops_of_which_none_has_labels_never_pass(tmp_path: Path) -> None:
    report = held(tmp_path, exact(), np.full_like(exact(), np.nan))
    assert failed(report) == {"nme_loss"}
    assert math.isnan(gates_of(report)["nme_loss"].value)


# From photo to image points

IMAGE = np.zeros((200, 200, 3), np.uint8)


def results(answers: Fractions, missed: Sequence[int] = ()) -> list[FaceResult]:
    """Evaluated faces in a photo of 100 px per unit."""
    return [
        FaceResult(
            FaceSample(image=IMAGE, points_px=100 * FACE, schema=SCHEMA, photo_key=f"face{number}"),
            None if number in missed else (100 * answer).astype(np.float32),
            0.0,
            None,
        )
        for number, answer in enumerate(answers)
    ]


def evaluated(folder: Path, backend: str, precision: str, found: list[FaceResult]) -> Evaluated:
    file = folder / f"{backend}.{precision}"
    file.write_text(precision)
    return Evaluated(backend, artifact_of(file, precision=precision), found)


def test_the_reference_is_the_fp32_file_on_the_same_engine(tmp_path: Path) -> None:
    files = [
        evaluated(tmp_path, "here", "fp32", results(exact())),
        evaluated(tmp_path, "here", "int8", results(spoilt("eyes", 0.0012))),
        evaluated(tmp_path, "there", "fp32", results(spoilt("eyes", 0.0012))),
        evaluated(tmp_path, "there", "fp16", results(exact())),
        evaluated(tmp_path, "there", "int8", results(spoilt("eyes", 0.0012))),
        evaluated(tmp_path, "nowhere", "int8", results(spoilt("eyes", 0.0012))),
    ]
    losses = added_errors(files)
    assert [loss and round(loss.groups["eyes"][0], 5) for loss in losses] == [None, 0.0012, None, None, 0, 0.0012]
    assert added_errors(files[1:2]) == [None]


def test_a_face_that_only_int8_loses_is_an_infinite_loss(tmp_path: Path) -> None:
    fp32 = evaluated(tmp_path, "here", "fp32", results(exact(), missed=[3]))
    both = evaluated(tmp_path, "here", "int8", results(exact(), missed=[3]))
    more = evaluated(tmp_path, "here", "fp16-int8", results(exact(), missed=[3, 4]))
    _, same, worse = added_errors([fp32, both, more])
    assert same is not None
    assert (same.nme, same.upper, same.count) == (0, 0, 39)
    assert worse is not None
    assert worse.upper == math.inf


# Whole bundles, as `lmedge verify` looks at them


def test_an_int8_file_that_is_worse_at_the_mouth_fails_there_when_a_bundle_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_bundle(tmp_path / "bundle", SCHEMA, SPEC)
    fp32 = fake.manifest.artifacts[0]
    file = fake.root / "model.int8.fake"
    file.write_text("int8")
    int8 = dataclasses.replace(fp32, path=file.name, sha256=file_digest(file), precision="int8", made_from=fp32.sha256)
    bundle = dataclasses.replace(fake, manifest=dataclasses.replace(fake.manifest, artifacts=(fp32, int8)))
    samples = [result.sample for result in results(exact(25))]
    fractions = crop_transform(samples[0].box(), SPEC).to_fractions(samples[0].points_px).astype(np.float32)

    def infer(self: FakeRuntime, feeds: Results) -> Results:
        answers = np.repeat(fractions[None], len(feeds["image"]), axis=0)
        if self.artifact.precision == "int8":
            answers[:, 3:, 1] += np.array([0.001, -0.001], np.float32)
        return {"landmarks": answers}

    monkeypatch.setattr(FakeRuntime, "_infer", infer)
    reports = {(r.precision, r.reference): r for r in verify_bundle(bundle, samples=samples).parity}
    assert failed(reports["int8", "labels"]) == {"mouth_loss"}
    assert gates_of(reports["int8", "labels"])["mouth_loss"].basis == "upper 95 % bound, 25 faces"
    assert reports["fp32", "labels"].passed


def test_training_faces_that_engines_are_compared_on_have_no_part_in_what_int8_adds(tmp_path: Path) -> None:
    require_package("torch", "onnxruntime")
    program = tiny_program(tmp_path / "run" / "train")
    fp32 = artifact_of(tiny_onnx(tmp_path / "fp32"), serves={"onnxruntime": (ANY_ARCH,)}, made_from=file_digest(program))
    file = tiny_onnx(tmp_path / "int8").rename(tmp_path / "int8" / "model.int8.onnx")
    int8 = artifact_of(file, precision="int8", serves={"onnxruntime": (ANY_ARCH,)}, made_from=fp32.sha256)
    manifest = Manifest(name="tiny", schema=SCHEMA, preprocess=SPEC, artifacts=(fp32, int8))
    bundle = write_bundle(tmp_path / "bundle", manifest, tiny_golden().to_bytes())
    faces = [result.sample for result in results(exact(5))]
    outcome = verify_bundle(bundle, run=tmp_path / "run", samples=faces[:3], parity_samples=faces)
    (report,) = (report for report in outcome.parity if (report.precision, report.reference) == ("int8", "pytorch"))
    assert (report.crops, report.loss_faces) == (5, 3)


def of_labels(precision: str, loss: PairedLoss | None, photos: int | None = 0) -> ParityReport:
    artifact = artifact_of(Path(__file__), precision=precision)
    return accuracy_report("here", artifact, 40, 0.05, LIMITS, loss=loss, calibration_photos=photos)


def test_what_int8_adds_from_photo_to_points_is_held_to_the_same_limits(tmp_path: Path) -> None:
    fp32 = evaluated(tmp_path, "here", "fp32", results(exact()))
    for region, expected in {"eyes": {"eyes_loss"}, "mouth": {"mouth_loss"}, "nose": set()}.items():
        _, loss = added_errors([fp32, evaluated(tmp_path, "here", "int8", results(spoilt(region, 0.0012)))])
        report = of_labels("int8", loss)
        assert failed(report) == expected
        assert gates_of(report)["nme_loss"].basis == "upper 95 % bound, 40 faces"
        assert set(gates_of(of_labels("fp32", loss))) == {"nme"}


@pytest.mark.parametrize(("photos", "expected"), [(0, set()), (1, {"calibration_photos"}), (40, {"calibration_photos"})])
def test_a_photo_that_calibration_saw_fails_its_gate(photos: int, expected: set[str]) -> None:
    loss = PairedLoss(0, 0, {}, 40)
    assert failed(of_labels("int8", loss, photos)) == expected
    assert failed(of_labels("fp32", loss, photos)) == set()
    assert "calibration_photos" not in gates_of(of_labels("int8", loss, None))
