"""How a finished build ends when a gate on labelled faces does not hold: what is told, and what stays out of the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmedge.errors import AccuracyError, LmedgeError, ParityError
from lmedge.export.pack import keep_passing, photo_digest
from lmedge.pipeline import steps
from lmedge.pipeline.reporting.outcome import failure
from lmedge.pipeline.reporting.report import render_report
from lmedge.pipeline.reporting.summary import summary_rows
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.lock import Lock
from lmedge.pipeline.runs.stages import RunContext
from lmedge.reports import GateResult
from tests.pipeline import runs
from tests.requirements import require

require("onnx", "onnxruntime", "jinja2", "matplotlib", "pydantic")

X86 = "model.int8-x86.onnx"
# Within and above the limits, which are 0.0005 overall and 0.001 at the eyes and the mouth.
FINE = {"nme": 0.0001, "upper": 0.0002, "groups": {"eyes": [0.0001, 0.0009], "mouth": [0.0, 0.0001]}, "count": 26}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return runs.finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(finished: RunContext, tmp_path: Path) -> RunContext:
    """The finished run in a folder of its own, to change."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return replace(finished, folder=tmp_path / "run", lock=Lock(tmp_path / "run", dict(finished.lock.records)))


def change(run: RunContext, stage: str, name: str, edit: Callable[[Any], Any]) -> None:
    file = run.file(stage, name)
    document = json.loads(file.read_text())
    file.write_text(json.dumps(edit(document)))


def add_error(run: RunContext, loss: dict[str, Any]) -> None:
    """Makes the x86 file add this error from photo to image points."""

    def edit(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "added_error": loss} if row["artifact"] == X86 else row for row in rows]

    change(run, "evaluate", run_files.EVALUATION, edit)


def failure_of(run: RunContext) -> LmedgeError:
    found = failure(run)
    assert found is not None
    return found


def served(run: RunContext) -> set[str]:
    """What the bundle stage would keep."""
    return {a.path for a in keep_passing(run_files.candidate(run).manifest.artifacts, run_files.accuracy_reports(run))}


def test_a_run_whose_gates_hold_has_not_failed(run: RunContext) -> None:
    assert failure(run) is None
    add_error(run, FINE)
    assert failure(run) is None
    assert X86 in served(run)


@pytest.mark.parametrize(
    ("broken", "gate"),
    [
        ({"upper": 0.0007}, "nme_loss is 0.0007"),
        ({"groups": {**FINE["groups"], "eyes": [0.0001, 0.0012]}}, "eyes_loss is 0.0012"),
        ({"groups": {**FINE["groups"], "mouth": [0.0001, 0.0013]}}, "mouth_loss is 0.0013"),
    ],
    ids=["overall", "eyes", "mouth"],
)
def test_an_error_that_int8_adds_from_photo_to_points_keeps_the_file_out(
    run: RunContext, broken: dict[str, Any], gate: str
) -> None:
    """The means are within their limits; only the bounds are not."""
    add_error(run, {**FINE, **broken})
    found = failure_of(run)
    assert isinstance(found, AccuracyError)
    assert f"onnxruntime int8 ({X86}) against labels: {gate} of the normaliser (upper 95 % bound, 26 faces)" in str(found)
    assert "--set gates.int8_nme_loss=" in str(found)
    assert "max_nme" not in str(found)
    assert {row["artifact"] for row in summary_rows(run) if not row["passed"]} == {X86}
    assert X86 not in served(run)
    assert "model.int8.onnx" in served(run)


def test_calibration_photos_that_are_scored_fail_every_int8_file_and_are_named(run: RunContext) -> None:
    scored = run_files.read_faces(run).validation[3:5]
    digests = [photo_digest(sample.photo_key) for sample in scored]
    change(run, "quantize", run_files.CALIBRATION, lambda record: {**record, "photo_digests": digests})
    steps.evaluate_bundle(run, run.folder / "evaluate")
    found = failure_of(run)
    assert isinstance(found, AccuracyError)
    assert "calibration_photos is 2 photos, allowed 0" in str(found)
    assert f"2 of the photos that its error is measured on ({', '.join(sorted(s.photo_key for s in scored))})" in str(found)
    assert served(run) == {"model.fp32.onnx", "model.fp16.onnx"}
    assert "validation photos that int8 was calibrated on" in render_report(run)


def test_a_record_of_calibration_without_photos_is_told_not_passed(run: RunContext) -> None:
    change(run, "quantize", run_files.CALIBRATION, lambda record: {k: v for k, v in record.items() if k != "photo_digests"})
    steps.evaluate_bundle(run, run.folder / "evaluate")
    assert run_files.calibrated_on(run) is None
    assert failure(run) is None
    assert "the record of calibration does not name its photos" in render_report(run)


def test_an_engine_that_disagrees_with_the_golden_answers_stays_out(run: RunContext) -> None:
    lying = GateResult("golden_network", 1.5, 0.02, "px")
    golden = replace(runs.with_gate("fp32", lying), reference="golden")
    change(run, "parity", run_files.PARITY, lambda reports: [*reports, golden.to_json()])
    found = failure_of(run)
    assert isinstance(found, ParityError)
    assert "onnxruntime fp32 (model.fp32.onnx) against golden: golden_network is 1.5 px, allowed 0.02" in str(found)
    assert "disagrees with the golden answers" in str(found)
    assert "model.fp32.onnx" not in {artifact.path for artifact in run_files.candidate(run).manifest.artifacts}
    assert [row["passed"] for row in summary_rows(run)] == [False, True, True, True]


def test_all_that_failed_is_told_at_once(run: RunContext) -> None:
    runs.write_parity(run, [runs.with_gate("fp32", GateResult("max_px", 1.0, 0.01, "px")), runs.passing("int8", "x86")])
    add_error(run, {**FINE, "upper": 0.0007})
    text = str(failure_of(run))
    assert "max_px is 1 px" in text
    assert "nme_loss is 0.0007" in text
