"""Each way in which a deployment goes wrong is caught by a gate that is named here; the right one passes all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lmedge import preprocess
from lmedge.bundle import Bundle
from lmedge.errors import ParityError
from lmedge.preprocess import CropTransform
from lmedge.reports import ParityReport
from lmedge.runtimes import crops as crops_module
from lmedge.runtimes.checks import check_lineage
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.parity import check_golden, compare, require
from tests.bundles import SCHEMA, artifact_of, random_crops, tiny_answer
from tests.parity.mutants import (
    CONFIDENCE_MUTANTS,
    MUTANTS,
    SIZE_PX,
    Answer,
    AnyAnswer,
    Sureness,
    confident_answers,
    numpy_artifact,
    numpy_bundle,
    tiny_confidence,
)

CROPS = random_crops(40, seed=5)
PRECISIONS = ("fp32", "fp16", "int8", "fp16-int8")

# Mutant → the gates that must catch it in an int8 engine; a float engine has one gate, "max_px", that catches all of them.
INT8_GATES = {
    "R and B swapped": {"p99_px"},
    "half a pixel to the right and down": {"shift_x_px", "shift_y_px"},
    "x and y swapped": {"p99_px"},
    "doubled output": {"p99_px", "shift_x_px", "shift_y_px"},
    "mean omitted": {"p99_px"},
    "another network": {"p99_px"},
    "the crop before": {"p99_px"},
    "not a number": {"p99_px", "shift_x_px"},
    "one lost point": {"p99_px"},
}


def failed(report: ParityReport) -> set[str]:
    return {gate.gate for gate in report.gates if not gate.passed}


def compared(folder: Path, precision: str, answer: Answer, **options: npt.NDArray[np.float32]) -> ParityReport:
    with AnyAnswer.open(numpy_artifact(folder, precision)) as runtime:
        assert isinstance(runtime, AnyAnswer)
        runtime.answer = answer
        return compare(runtime, CROPS, tiny_answer(CROPS), schema=SCHEMA, **options)


def test_every_mutant_has_its_gate() -> None:
    assert set(INT8_GATES) == set(MUTANTS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_right_answer_passes(tmp_path: Path, precision: str) -> None:
    report = compared(tmp_path, precision, tiny_answer, true_fractions=tiny_answer(CROPS, seed=2))
    assert report.passed
    assert report.max_px == report.nme_loss == report.nme_loss_upper == 0
    assert report.loss_faces == len(CROPS)
    require([report])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_float_engine_is_held_to_its_maximum(tmp_path: Path, mutant: str, precision: str) -> None:
    report = compared(tmp_path, precision, MUTANTS[mutant])
    assert failed(report) == {"max_px"}
    with pytest.raises(ParityError, match="max_px"):
        require([report])


@pytest.mark.parametrize("precision", ["int8", "fp16-int8"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_int8_engine_is_held_to_percentile_and_shift(tmp_path: Path, mutant: str, precision: str) -> None:
    assert failed(compared(tmp_path, precision, MUTANTS[mutant])) >= INT8_GATES[mutant]


def test_one_lost_point_of_98_does_not_hide_among_the_others() -> None:
    from lmedge.runtimes.gates import Difference, GateLimits

    reference = np.full((200, 98, 2), 0.5)
    answer = reference.copy()
    answer[:, 97] = 0
    found = Difference.between(answer, reference, 112)
    assert found.p99_px > GateLimits().int8_p99_px


def test_rounding_of_fp16_fails_an_fp32_engine_only(tmp_path: Path) -> None:
    def rounded(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return (tiny_answer(crops) + np.float32(0.1 / SIZE_PX)).astype(np.float32)

    assert failed(compared(tmp_path, "fp32", rounded)) == {"max_px"}
    assert failed(compared(tmp_path, "fp16", rounded)) == set()


def test_answers_that_are_worse_on_average_fail_on_labels_only(tmp_path: Path) -> None:
    """Small errors in every direction: no shift, no far point, and yet a larger error."""
    noise = np.random.default_rng(0).choice([-0.6, 0.6], (*tiny_answer(CROPS).shape,)).astype(np.float32)
    noise[len(noise) // 2 :] = -noise[: len(noise) // 2]

    answers = iter(tiny_answer(CROPS) + noise / SIZE_PX)
    report = compared(tmp_path, "int8", lambda _: next(answers)[None], true_fractions=tiny_answer(CROPS))
    assert failed(report) == {"nme_loss", "eyes_loss", "mouth_loss"}


def test_an_answer_that_is_no_number_never_improves_the_error(tmp_path: Path) -> None:
    report = compared(tmp_path, "int8", MUTANTS["not a number"], true_fractions=tiny_answer(CROPS, seed=2))
    assert {"nme_loss", "eyes_loss"} <= failed(report)


def golden_report(bundle: Bundle, answer: Answer = tiny_answer) -> ParityReport:
    precision = bundle.manifest.artifacts[0].precision
    with AnyAnswer.open(bundle.select("numpy", precision)) as runtime:
        assert isinstance(runtime, AnyAnswer)
        runtime.answer = answer
        return check_golden(FaceLandmarker(bundle, runtime))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_right_engine_passes_the_self_test(tmp_path: Path, precision: str) -> None:
    assert golden_report(numpy_bundle(tmp_path, precision)).passed


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_self_test_catches_a_wrong_network(tmp_path: Path, mutant: str) -> None:
    assert failed(golden_report(numpy_bundle(tmp_path), MUTANTS[mutant])) == {"golden_network", "golden_frame"}


# Confidence


def of_precision(precision: str) -> str:
    return "confidence_mean" if "int8" in precision else "confidence_max"


def confident_report(folder: Path, precision: str, sureness: Sureness = tiny_confidence) -> ParityReport:
    with AnyAnswer.open(numpy_artifact(folder, precision, confidence=True)) as runtime:
        assert isinstance(runtime, AnyAnswer)
        runtime.sureness = sureness
        return compare(runtime, CROPS, confident_answers(CROPS), schema=SCHEMA)


def confident_self_test(folder: Path, precision: str, sureness: Sureness = tiny_confidence) -> ParityReport:
    bundle = numpy_bundle(folder, precision, confidence=True)
    with AnyAnswer.open(bundle.select("numpy", precision)) as runtime:
        assert isinstance(runtime, AnyAnswer)
        runtime.sureness = sureness
        return check_golden(FaceLandmarker(bundle, runtime))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_right_confidence_passes_and_is_reported(tmp_path: Path, precision: str) -> None:
    for report, gate in (
        (confident_report(tmp_path / "parity", precision), of_precision(precision)),
        (confident_self_test(tmp_path / "golden", precision), f"golden_{of_precision(precision)}"),
    ):
        assert report.passed
        [found] = [result for result in report.gates if result.gate == gate]
        assert found.value == 0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mutant", CONFIDENCE_MUTANTS)
def test_a_wrong_confidence_is_caught_by_its_gate_alone(tmp_path: Path, mutant: str, precision: str) -> None:
    wrong = CONFIDENCE_MUTANTS[mutant]
    assert failed(confident_report(tmp_path / "parity", precision, wrong)) == {of_precision(precision)}
    if mutant != "not a number":  # that one stops `predict`, as landmarks that are no numbers do
        assert failed(confident_self_test(tmp_path / "golden", precision, wrong)) == {f"golden_{of_precision(precision)}"}


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 0.005), ("fp16", 0.05), ("int8", 0.05), ("fp16-int8", 0.05)])
def test_confidence_may_differ_by_its_limit(tmp_path: Path, precision: str, limit: float) -> None:
    def off_by(part: float) -> Sureness:
        return lambda crops: tiny_confidence(crops) + np.float32(part * limit)

    assert confident_report(tmp_path, precision, off_by(0.95)).passed
    assert failed(confident_report(tmp_path, precision, off_by(1.05))) == {of_precision(precision)}


def test_one_point_of_an_int8_engine_may_be_less_sure_but_not_of_a_float_one(tmp_path: Path) -> None:
    def one_less_sure(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        sure = tiny_confidence(crops)
        sure[(crops == CROPS[0]).all(axis=(1, 2, 3)), 0] -= 0.4
        return sure

    assert confident_report(tmp_path, "int8", one_less_sure).passed
    assert not confident_report(tmp_path, "fp16", one_less_sure).passed


def test_an_engine_without_the_reference_s_confidence_fails(tmp_path: Path) -> None:
    with AnyAnswer.open(numpy_artifact(tmp_path)) as runtime:
        assert failed(compare(runtime, CROPS, confident_answers(CROPS), schema=SCHEMA)) == {"confidence_max"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_confidence_there_is_no_such_gate(tmp_path: Path, precision: str) -> None:
    reports = (compared(tmp_path / "parity", precision, tiny_answer), golden_report(numpy_bundle(tmp_path / "b", precision)))
    assert not [gate.gate for report in reports for gate in report.gates if "confidence" in gate.gate]


# Crops


def half_a_pixel(image: npt.NDArray[np.uint8], transform: CropTransform, border: int) -> npt.NDArray[np.uint8]:
    """The crop as `cv2.resize` would cut it: its pixel centres lie half a crop pixel elsewhere."""
    moved = transform.matrix.copy()
    moved[:, 2] += 0.5
    return WARP(image, CropTransform(moved, transform.size_px), border)


def nearest(image: npt.NDArray[np.uint8], transform: CropTransform, border: int) -> npt.NDArray[np.uint8]:
    size = (transform.size_px, transform.size_px)
    return np.asarray(cv2.warpAffine(image, transform.matrix, size, flags=cv2.INTER_NEAREST), np.uint8)


WARP = preprocess.warp
CROP_MUTANTS = {
    "R and B swapped": lambda image, transform, border: np.ascontiguousarray(WARP(image, transform, border)[..., ::-1]),
    "half-pixel shift": half_a_pixel,
    "mirrored": lambda image, transform, border: np.ascontiguousarray(WARP(image, transform, border)[:, ::-1]),
    "transposed": lambda image, transform, border: np.ascontiguousarray(WARP(image, transform, border).transpose(1, 0, 2)),
    "another interpolation": nearest,
    "brighter by two levels": lambda image, transform, border: cv2.add(WARP(image, transform, border), (2, 2, 2, 0)),
}


@pytest.mark.parametrize("mutant", CROP_MUTANTS)
def test_the_self_test_catches_a_wrong_crop(tmp_path: Path, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = numpy_bundle(tmp_path)
    monkeypatch.setattr(preprocess, "warp", CROP_MUTANTS[mutant])

    def into_given_memory(
        image: Any, transform: CropTransform, border: int, *, out: npt.NDArray[np.uint8], memory: Any
    ) -> None:
        out[...] = CROP_MUTANTS[mutant](image, transform, border)

    monkeypatch.setattr(crops_module, "warp", into_given_memory)
    report = golden_report(bundle)
    assert "golden_crop" in failed(report)
    assert "golden_network" not in failed(report)


def test_the_self_test_catches_a_way_back_that_is_half_a_pixel_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = numpy_bundle(tmp_path)
    monkeypatch.setattr(
        CropTransform, "from_fractions", lambda self, fractions: self.to_image(np.asarray(fractions, np.float64) * self.size_px)
    )
    assert failed(golden_report(bundle)) == {"golden_frame"}


def chain(folder: Path, parent: str) -> Bundle:
    """A bundle's manifest with an fp32 file and an engine that says it was made from `parent`."""
    bundle = numpy_bundle(folder)
    first, second = folder / "a.onnx", folder / "b.engine"
    first.write_text("network")
    second.write_text("engine")
    network = artifact_of(first, made_from="0" * 64)
    engine = artifact_of(second, format="tensorrt", made_from=parent or network.sha256)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, artifacts=(network, engine)))


def test_a_stale_engine_is_named(tmp_path: Path) -> None:
    check_lineage(chain(tmp_path / "fresh", parent=""))
    with pytest.raises(ParityError, match=r"b\.engine is stale"):
        check_lineage(chain(tmp_path / "stale", parent="1" * 64))


def test_a_network_of_another_run_is_named(tmp_path: Path) -> None:
    bundle = chain(tmp_path, parent="")
    check_lineage(bundle, program_sha256="0" * 64)
    with pytest.raises(ParityError, match=r"a\.onnx is stale.*not the program of this run"):
        check_lineage(bundle, program_sha256="2" * 64)
