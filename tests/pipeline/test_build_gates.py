"""Gates of whole builds beside parity with PyTorch: golden answers and calibration faces; and what a build says in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.bundle import Bundle, file_digest
from lmedge.calibration import checks, images
from lmedge.export.pack import photo_digest
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.faces import FaceIndex
from lmedge.reports import LatencyReport
from lmedge.runtimes import bench, find_runtime
from lmedge.runtimes.answers import Answers
from lmedge.runtimes.base import Results, Runtime
from lmedge.runtimes.golden import Golden
from lmedge.runtimes.verify import verify_bundle
from tests.cli.command import DONE, GATE_FAILED, lmedge
from tests.pipeline import small_run
from tests.pipeline.small_run import Built, around_stages, outcomes_of, small_context, write_config
from tests.requirements import require

require("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "pydantic")


def build_command(folder: Path, *arguments: object) -> Any:
    return lmedge("build", write_config(folder), "--out", folder / "run", *arguments)


def artifacts_of(run: Path) -> list[str]:
    return [artifact.path for artifact in Bundle.open(run / "bundle").manifest.artifacts]


# Golden answers: a build is held to them as a device will be


def test_a_build_holds_every_file_to_the_golden_answers_on_every_engine_it_serves(built: Built) -> None:
    manifest = Bundle.open(built.run / "bundle").manifest
    golden = [report for report in manifest.parity if report["reference"] == "golden"]
    served = [(artifact.path, backend) for artifact in manifest.artifacts for backend in artifact.serves]
    assert sorted((report["artifact"], report["backend"]) for report in golden) == sorted(served)
    names = {"golden_crop", "golden_network", "golden_frame"}
    assert all(report["passed"] and {gate["gate"] for gate in report["gates"]} == names for report in golden)
    assert b"largest distance from the golden answers" in (built.run / "report.html").read_bytes()


def test_what_int8_adds_is_judged_on_validation_faces_though_engines_are_compared_on_more(built: Built) -> None:
    manifest = Bundle.open(built.run / "bundle").manifest
    reports = [r for r in manifest.parity if (r["reference"], r["precision"]) == ("pytorch", "int8")]
    validation = manifest.provenance["faces"]["validation"]
    assert {report["loss_faces"] for report in reports} == {validation}
    assert all(report["crops"] > validation for report in reports)


def shift_answers(adapter: type[Runtime], to: npt.NDArray[np.uint8], by_px: float) -> Any:
    """An engine that answers `by_px` to the right, to these crops only."""
    known = {crop.tobytes() for crop in to}
    honest = adapter._infer

    def infer(self: Runtime, feeds: Results) -> Results:
        results = honest(self, feeds)
        lied_to = [crop.tobytes() in known for crop in feeds["image"]]
        results["landmarks"][lied_to] += [np.float32(by_px / to.shape[2]), 0]
        return results

    return patch.object(adapter, "_infer", infer)


def test_an_engine_that_disagrees_with_the_golden_answers_stays_out_and_is_named(copy: Path) -> None:
    """It answers photos as PyTorch does, so only the self-test can tell."""
    golden = Golden.from_file(copy / "run/parity/golden.npz")
    with shift_answers(find_runtime("openvino"), golden.crops, by_px=1.0):
        outcome = build_command(copy, "--set", "parity.crops=7")
    assert outcome.code == GATE_FAILED, outcome
    assert "openvino fp32 (openvino/model.fp32.xml) against golden: golden_network is 1 px, allowed 0.02" in outcome.stderr
    assert "openvino fp16 (openvino/model.fp16.xml) against golden: golden_network is 1" in outcome.stderr
    assert "disagrees with the golden answers" in outcome.stderr
    assert "onnxruntime fp32" not in outcome.stderr
    run = copy / "run"
    assert outcomes_of(run, "pytorch") == {("fp32", True), ("fp16", True), ("int8", True)}
    assert outcomes_of(run, "golden", "openvino") == {("fp32", False), ("fp16", False), ("int8", True)}
    assert {path for path in artifacts_of(run) if "openvino" in path and "int8" not in path} == set()
    assert "model.fp32.onnx" in artifacts_of(run)
    assert b"Failed: " in (run / "report.html").read_bytes()
    assert verify_bundle(Bundle.open(run / "bundle"), limits=small_run.LIMITS).passed


def test_golden_answers_that_no_engine_gives_fail_the_build(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Golden.record

    def recorded(frames: Any, boxes: Any, spec: Any, answer: Any) -> Golden:
        def shifted(crops: npt.NDArray[np.uint8]) -> Answers:
            answers = answer(crops)
            return replace(answers, fractions=answers.fractions + np.float32(1 / crops.shape[2]))

        return honest(frames, boxes, spec, shifted)

    monkeypatch.setattr(Golden, "record", recorded)
    outcome = build_command(copy, "--target", "onnxruntime")
    assert outcome.code == GATE_FAILED, outcome
    for precision in ("fp32", "fp16"):
        file = f"onnxruntime {precision} (model.{precision}.onnx)"
        assert f"{file} against golden: golden_network is 1" in outcome.stderr
    assert all("int8" in path for path in artifacts_of(copy / "run"))


@pytest.mark.parametrize("place", ["parity", "bundle"])
def test_a_golden_file_that_was_changed_is_made_again(copy: Path, place: str) -> None:
    file = copy / "run" / place / "golden.npz"
    before = file_digest(file)
    content = bytearray(file.read_bytes())
    content[-200] ^= 1
    file.write_bytes(content)
    assert build_command(copy).code == DONE
    assert file_digest(file) == before


# What a build says of its figures


def test_a_bound_over_too_few_faces_is_told_where_people_look(copy: Path) -> None:
    faces = Bundle.open(copy / "run/bundle").manifest.provenance["faces"]["validation"]
    words = f"{faces} labelled faces are too few for one, so the mean was held to the limit."
    assert words in build_command(copy).stdout
    assert words in (copy / "run/report.html").read_text(encoding="utf-8")
    assert any(words in note for note in build_command(copy, "--json").json["notes"])


@pytest.mark.parametrize(
    ("int8_ms", "said"),
    [
        (1.0, "ONNX Runtime: int8 is fastest with 1.00 ms, 2.00 times as fast as fp32."),
        (5.0, "ONNX Runtime: fp32 is fastest with 2.00 ms. int8 is not: it takes 2.50 times as long on this machine."),
    ],
    ids=["int8 pays", "int8 does not pay"],
)
def test_which_precision_is_fastest_is_told_where_people_look(
    copy: Path, monkeypatch: pytest.MonkeyPatch, int8_ms: float, said: str
) -> None:
    def measured(bundle: Bundle, **_: Any) -> list[LatencyReport]:
        times = {"fp32": 2.0, "fp16": 2.5, "int8": int8_ms}
        files = {name: bundle.select("onnxruntime", name).path for name in times}
        return [
            LatencyReport("onnxruntime", name, 1, 1, *[p50] * 3, 3, *[p50 / 2] * 3, files[name]) for name, p50 in times.items()
        ]

    monkeypatch.setattr(bench, "bench", measured)
    outcome = build_command(copy, "--set", "bench.iterations=4")
    assert outcome.code == DONE, outcome
    assert said in outcome.stdout
    assert said in (copy / "run/report.html").read_text(encoding="utf-8")


# Calibration


def test_validation_faces_among_the_calibration_faces_fail_the_build_and_are_named(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split is ignored while calibration faces are chosen, and nothing there notices."""
    for module in (images, checks):
        monkeypatch.setattr(module, "is_validation", lambda photo_key: False)

    def careless(stage: str, work: Any) -> None:
        everyone = property(lambda index: list(index.samples))
        with patch.object(FaceIndex, "training", everyone if stage == "quantize" else FaceIndex.training):
            work()

    with around_stages(careless):
        outcome = build_command(copy, "--target", "onnxruntime", "--set", "quantize.images=30")
    assert outcome.code == GATE_FAILED, outcome
    seen = Bundle.open(copy / "run/bundle").manifest.calibration["photo_digests"]
    scored = [sample.photo_key for sample in run_files.read_faces(small_context(copy)).validation]
    shared = [name for name in scored if photo_digest(name) in seen]
    assert shared
    assert f"calibration_photos is {len(shared)} photos, allowed 0" in outcome.stderr
    assert ", ".join(sorted(shared)) in outcome.stderr
    assert not [path for path in artifacts_of(copy / "run") if "int8" in path]
    assert "model.fp32.onnx" in artifacts_of(copy / "run")
