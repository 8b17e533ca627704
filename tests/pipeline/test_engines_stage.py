"""What the engines stage left: how it decides the end of a build, what the report tells of it, and TensorRT-RTX's opinion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmedge.errors import BackendUnavailableError, ExportError, ParityError
from lmedge.export.check_tensorrt import Problem, Verdict
from lmedge.pipeline import engines
from lmedge.pipeline.reporting.outcome import failure
from lmedge.pipeline.reporting.report import render_report
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.stages import RunContext
from tests.cli.command import UNAVAILABLE
from tests.pipeline import runs
from tests.pipeline.tensorrt_builds import PRECISIONS, build
from tests.requirements import require

require("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "pydantic")

from tests.tensorrt.fixtures import no_gpu  # noqa: E402

__all__ = ["no_gpu"]


@pytest.fixture(autouse=True)
def _no_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where TensorRT-RTX is not installed."""
    monkeypatch.setattr(engines, "is_installed", lambda: False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return runs.finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(finished: RunContext) -> RunContext:
    """A finished run whose targets are ONNX Runtime and TensorRT; each test writes what became of the latter."""
    return replace(finished, config=replace(finished.config, targets=("onnxruntime", "tensorrt")))


ENDS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no GPU": (
        {"state": "unavailable", "reason": "driver: none"},
        BackendUnavailableError,
        "Engines are built on the GPU that runs them.*Here: driver: none",
    ),
    "a file that is refused": ({"state": "refused", "reason": "bad_node: no"}, ExportError, "everything else. bad_node: no"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_became_of_tensorrt_decides_how_a_build_ends(name: str, run: RunContext) -> None:
    found, kind, message = ENDS[name]
    runs.write_engines(run, **found)
    ended = failure(run)
    assert type(ended) is kind
    with pytest.raises(kind, match=message):
        raise ended


def test_a_failed_gate_outweighs_a_missing_gpu(run: RunContext) -> None:
    runs.write_engines(run, state="unavailable", reason="driver: none")
    reports = run_files.parity_reports(run)
    broken = replace(reports[0], gates=(replace(reports[0].gates[0], value=9.0),))
    try:
        runs.write_parity(run, [broken, *reports[1:]])
        assert isinstance(failure(run), ParityError)
    finally:
        runs.write_parity(run, reports)


def test_a_failed_gate_outweighs_a_precision_that_cannot_be_built(run: RunContext) -> None:
    runs.write_engines(run, state="raced", race={"failed": [{"precision": "int8", "reason": "bad_node: no"}]})
    ended = failure(run)
    assert type(ended) is ExportError
    reports = run_files.parity_reports(run)
    broken = replace(reports[0], gates=(replace(reports[0].gates[0], value=9.0),))
    try:
        runs.write_parity(run, [broken, *reports[1:]])
        ended = failure(run)
        assert isinstance(ended, ParityError)
        assert "bad_node: no" in str(ended)
    finally:
        runs.write_parity(run, reports)


def text_of_section(run: RunContext) -> str:
    page = render_report(run)
    start = page.find('<section id="tensorrt">')
    return "" if start < 0 else " ".join(page[start : page.index('<section id="training">')].split())


def test_the_report_without_a_gpu_says_what_to_run_there(run: RunContext) -> None:
    runs.write_engines(run, state="unavailable", reason="driver: none")
    section = text_of_section(run)
    assert "lmedge compile BUNDLE --target tensorrt" in section
    assert "On this machine: driver: none" in section
    assert "Not asked: it is not installed" in section
    assert "TensorRT was not verified" in render_report(run)


def test_a_report_has_no_such_section_where_nobody_asked(finished: RunContext) -> None:
    runs.write_engines(finished)
    assert text_of_section(finished) == ""


# TensorRT-RTX, under its own name


def verdict_of(file: Path) -> Verdict:
    if "fp16-int8" in file.name:
        return Verdict("refused", "parser", (Problem("node_3", "Conv", "no"),), False, "1.7.1", 0.4)
    return Verdict("accepted", "builder", (), True, "1.7.1", 0.4)


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "is_installed", lambda: True)
    monkeypatch.setattr(engines, "parse_and_build", verdict_of)


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_its_verdict_on_every_precision_is_kept_in_the_run_and_told_in_the_report(copy: Path) -> None:
    assert build(copy).code == UNAVAILABLE
    opinions = json.loads((copy / "run/engines/tensorrt_rtx.json").read_text())
    assert set(opinions) == {f"model.{precision}.onnx" for precision in PRECISIONS}
    assert opinions["model.int8.onnx"] == {
        "outcome": "accepted",
        "stage": "builder",
        "problems": [],
        "built": True,
        "version": "1.7.1",
    }
    page = " ".join((copy / "run/report.html").read_text().split())
    assert "TensorRT-RTX, a second opinion" in page
    assert "accepted</span>, parsed and built" in page
    assert "refused</span>" in page
    assert "node_3: no" in page


@pytest.mark.usefixtures("rtx")
def test_it_is_asked_also_where_tensorrt_is_no_target(run: RunContext, tmp_path: Path) -> None:
    context = replace(run, config=replace(run.config, targets=("onnxruntime",)))
    engines.build_engines(context, tmp_path)
    assert set(json.loads((tmp_path / engines.OPINION).read_text())) == {f"model.{precision}.onnx" for precision in PRECISIONS}
    assert json.loads((tmp_path / engines.ENGINES).read_text())["state"] == "no target"


def test_one_that_does_not_start_is_told_as_such(run: RunContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(file: Path) -> Verdict:
        raise BackendUnavailableError("TensorRT-RTX does not start: no library.")

    monkeypatch.setattr(engines, "is_installed", lambda: True)
    monkeypatch.setattr(engines, "parse_and_build", broken)
    context = replace(run, config=replace(run.config, targets=("onnxruntime",)))
    engines.build_engines(context, tmp_path)
    (opinion,) = json.loads((tmp_path / engines.OPINION).read_text()).values()
    assert opinion == {"outcome": "not checked", "reason": "TensorRT-RTX does not start: no library."}
