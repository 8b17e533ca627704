"""`lmedge build --target tensorrt`: the bundle complete everywhere, engines in it where there is a GPU, exit 4 where not."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lmedge.bundle import Bundle, file_digest
from lmedge.export import race_tensorrt
from lmedge.pipeline import engines
from lmedge.reports import ParityReport
from lmedge.runtimes.gates import GateLimits
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.verify import verify_bundle
from tests.cli.command import DONE, ERROR, GATE_FAILED, UNAVAILABLE, Outcome, lmedge
from tests.pipeline import small_run
from tests.pipeline.small_run import STAGES, Built, write_config
from tests.pipeline.tensorrt_builds import PRECISIONS, build, engines_in, planned, ran
from tests.requirements import require

require("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "pydantic")

from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.fixtures import install, no_gpu  # noqa: E402

__all__ = ["no_gpu"]

VERSION = "10.3.0"


@pytest.fixture(autouse=True)
def _no_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where TensorRT-RTX is not installed."""
    monkeypatch.setattr(engines, "is_installed", lambda: False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A machine with a GPU and TensorRT."""
    machine = FakeGpu()
    install(machine, VERSION, monkeypatch)
    return machine


@dataclass(frozen=True)
class Done:
    """A finished build, for tests that only look at it, and what its command said."""

    folder: Path
    outcome: Outcome

    @property
    def run(self) -> Path:
        return self.folder / "run"


def built_on(machine: FakeGpu, built: Built, folder: Path) -> Done:
    shutil.copytree(built.run, folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "is_installed", lambda: False)
        install(machine, VERSION, patch)
        return Done(folder, build(folder, "--json"))


@pytest.fixture(scope="module")
def without_gpu(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return built_on(FakeGpu(devices=(), driver_version=None), built, tmp_path_factory.mktemp("without"))


@pytest.fixture(scope="module")
def with_gpu(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return built_on(FakeGpu(), built, tmp_path_factory.mktemp("with"))


# On a machine without a GPU


def test_without_a_gpu_the_bundle_is_complete_and_the_message_says_what_to_run_where(without_gpu: Done) -> None:
    outcome, run = without_gpu.outcome, without_gpu.run
    assert outcome.code == UNAVAILABLE
    (message,) = [line for line in outcome.stderr.splitlines() if line.startswith("lmedge: error")]
    assert "Engines are built on the GPU that runs them. The Q/DQ ONNX is at " in message
    assert str(run / "quantize/model.int8.onnx") in message
    assert "run `lmedge compile BUNDLE --target tensorrt` there" in message
    assert f"on a copy of {run / 'bundle'}, which is complete otherwise" in message
    assert "driver: " in message
    bundle = Bundle.open(run / "bundle")
    assert {a.precision for a in bundle.manifest.artifacts if a.format == "onnx"} == set(PRECISIONS)
    assert verify_bundle(bundle, run=run, limits=small_run.LIMITS).passed
    assert "TensorRT" in (run / "report.html").read_text()


def test_only_what_tensorrt_touches_runs_when_it_becomes_a_target(without_gpu: Done) -> None:
    assert ran(without_gpu.outcome) == ["engines", "bundle", "report"]


@pytest.mark.usefixtures("no_gpu")
def test_a_second_run_skips_everything_and_ends_the_same(without_gpu: Done) -> None:
    again = build(without_gpu.folder, "--json")
    assert again.code == UNAVAILABLE
    assert ran(again) == []
    assert "Engines are built on the GPU that runs them" in again.json["failure"]


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_appears_is_a_reason_to_run(without_gpu: Done) -> None:
    plan = planned(build(without_gpu.folder, "--plan", "--json"))
    assert plan["bench"]["action"] == "skip"
    assert "option machine was" in plan["engines"]["reason"]


@pytest.mark.usefixtures("no_gpu")
def test_a_plan_without_a_gpu_says_that_none_is_built_and_why(tmp_path: Path) -> None:
    outcome = build(tmp_path, "--plan", "--json")
    assert outcome.code == DONE
    plan = planned(outcome)
    assert list(plan) == list(STAGES)
    note = plan["engines"]["note"]
    assert "none is built here" in note
    assert "exit code 4" in note
    assert "driver: " in note
    assert "none is built here" in " ".join(build(tmp_path, "--plan").stdout.split())
    assert not (tmp_path / "run").exists()


def test_a_plan_without_the_target_says_nothing_of_it(tmp_path: Path) -> None:
    outcome = lmedge("build", write_config(tmp_path), "--out", tmp_path / "run", "--plan", "--json")
    assert "note" not in planned(outcome)["engines"]


# On a machine with a GPU


def test_with_a_gpu_engines_go_into_the_bundle(with_gpu: Done, gpu: FakeGpu) -> None:
    outcome, run = with_gpu.outcome, with_gpu.run
    assert outcome.code == DONE, outcome
    assert list(engines_in(run)) == PRECISIONS
    bundle = Bundle.open(run / "bundle")
    verified = verify_bundle(bundle, limits=small_run.LIMITS)
    assert verified.passed
    assert {report.backend for report in verified.parity} == {"onnxruntime", "openvino", "tensorrt"}
    rows = [row for row in outcome.json["rows"] if row["backend"] == "tensorrt"]
    assert [(row["precision"], row["passed"]) for row in rows] == [(precision, True) for precision in PRECISIONS]
    assert all(row["p50_ms"] > 0 and row["bytes"] > 0 for row in rows)
    assert any(text.startswith("TensorRT: ") for text in outcome.json["notes"])
    assert gpu.allocations == []


@pytest.mark.usefixtures("gpu")
def test_a_second_run_with_a_gpu_builds_no_engine_again(with_gpu: Done) -> None:
    again = build(with_gpu.folder, "--json")
    assert (again.code, ran(again)) == (DONE, [])


@pytest.mark.usefixtures("gpu")
def test_engines_that_are_built_again_take_the_kernels_that_were_measured(with_gpu: Done, tmp_path: Path) -> None:
    shutil.copytree(with_gpu.run, tmp_path / "run")
    cache = next((tmp_path / "run/engines/tensorrt").glob("*.cache"))
    before = file_digest(cache)
    lmedge("compile", tmp_path / "run", "--target", "tensorrt", "--set", "bench.iterations=4")
    assert file_digest(tmp_path / "run/engines/engines.json") != file_digest(with_gpu.run / "engines/engines.json")
    assert file_digest(cache) == before


def test_the_report_tells_which_layers_run_in_int8(with_gpu: Done) -> None:
    page = (with_gpu.run / "report.html").read_text()
    section = page[page.index('<section id="tensorrt">') : page.index('<section id="training">')]
    assert "Built and timed on Orin (compute capability 8.7), TensorRT 10.3.0" in section
    race = json.loads((with_gpu.run / "engines/engines.json").read_text())["race"]
    int8 = next(engine for engine in race["engines"] if engine["precision"] == "int8")
    found = int8["layers"]
    assert found["int8_convolutions"]
    count = len(found["int8_convolutions"])
    assert f"{count} of {count + len(found['float_convolutions'])}" in section
    assert "TF32 is off" in section
    assert "fastest" in section


@pytest.mark.usefixtures("gpu")
def test_an_engine_that_fails_its_gate_stays_out_and_decides_the_exit_code(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = race_tensorrt.check_golden

    def strict(landmarker: FaceLandmarker, limits: GateLimits) -> ParityReport:
        half = landmarker.runtime.artifact.precision == "fp16"
        return check(landmarker, replace(limits, golden_fp16_px=0.0) if half else limits)

    monkeypatch.setattr(race_tensorrt, "check_golden", strict)
    outcome = build(copy)
    assert outcome.code == GATE_FAILED
    assert "tensorrt fp16 (tensorrt/model.fp16.sm87-trt10.3.engine) against golden: golden_network is" in outcome.stderr
    kept = engines_in(copy / "run")
    assert "fp16" not in kept
    assert "int8" in kept


def test_a_file_that_tensorrt_does_not_take_leaves_the_rest_complete(copy: Path, gpu: FakeGpu) -> None:
    gpu.fail("OnnxParser.parse", message="No importer registered for op: Levitate", times=None)
    outcome = build(copy)
    assert outcome.code == ERROR
    assert "No TensorRT engine was built; the bundle has everything else." in outcome.stderr
    assert "Levitate" in outcome.stderr
    assert engines_in(copy / "run") == {}
    assert not list((copy / "run/engines").rglob("*.engine"))
    assert verify_bundle(Bundle.open(copy / "run/bundle"), limits=small_run.LIMITS).passed
    assert "No engine was built" in (copy / "run/report.html").read_text()


def test_a_precision_that_cannot_be_built_decides_the_exit_code_and_the_others_are_in_the_bundle(
    copy: Path, gpu: FakeGpu
) -> None:
    gpu.fail("OnnxParser.parse", message="No importer registered for op: Levitate", skip=2)
    outcome = build(copy)
    assert outcome.code == ERROR
    assert "No TensorRT engine for int8; the others were built." in outcome.stderr
    assert "Levitate" in outcome.stderr
    assert list(engines_in(copy / "run")) == ["fp32", "fp16", "fp16-int8"]
    assert verify_bundle(Bundle.open(copy / "run/bundle"), limits=small_run.LIMITS).passed
    page = (copy / "run/report.html").read_text()
    assert "No engine for int8." in page
    assert "Levitate" in page


PASSING_FAILURES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "no memory for a network": (
        "Builder.build_serialized_network",
        {"message": "OutOfMemory", "times": 4},
        ERROR,
        "OutOfMemory",
    ),
    "no memory for one network": ("Builder.build_serialized_network", {"message": "OutOfMemory"}, ERROR, "OutOfMemory"),
    "a Builder that does not start": ("Builder", {}, UNAVAILABLE, "Builder"),
    "no memory for a buffer": ("cudaMalloc", {"code": 2}, UNAVAILABLE, "no memory left"),
    "a call that fails": ("cudaMalloc", {"code": 1}, ERROR, "A CUDA call failed on cuda"),
}


@pytest.mark.parametrize("name", PASSING_FAILURES)
def test_a_failure_that_may_pass_leaves_the_bundle_complete_and_is_tried_again(name: str, copy: Path, gpu: FakeGpu) -> None:
    call, how, code, said = PASSING_FAILURES[name]
    gpu.fail(call, **how)
    outcome = build(copy)
    assert outcome.code == code, outcome
    assert said in outcome.stderr
    bundle = Bundle.open(copy / "run/bundle")
    assert {a.precision for a in bundle.manifest.artifacts if a.format == "onnx"} == set(PRECISIONS)
    assert verify_bundle(bundle, limits=small_run.LIMITS).passed
    why = planned(build(copy, "--plan", "--json"))["engines"]["reason"]
    assert why.startswith(("no TensorRT engine was built", "TensorRT built no engine for fp32"))
    again = build(copy, "--json")
    assert again.code == DONE, again
    assert ran(again) == ["engines", "bundle", "report"]
    assert list(engines_in(copy / "run")) == PRECISIONS
    third = build(copy, "--json")
    assert (third.code, ran(third)) == (DONE, [])


@pytest.mark.usefixtures("gpu")
def test_a_plan_with_a_gpu_says_what_is_compiled_on_it(tmp_path: Path) -> None:
    note = planned(build(tmp_path, "--plan", "--json"))["engines"]["note"]
    assert "TensorRT 10.3.0 compiles every precision on Orin (compute capability 8.7)" in note


# One stage by itself


@pytest.mark.usefixtures("no_gpu")
def test_compiling_a_run_folder_without_a_gpu_ends_like_a_build(without_gpu: Done) -> None:
    outcome = lmedge("compile", without_gpu.run, "--target", "tensorrt")
    assert outcome.code == UNAVAILABLE
    assert "Engines are built on the GPU that runs them. The Q/DQ ONNX is at " in outcome.stderr
    assert "lmedge compile BUNDLE --target tensorrt" in outcome.stderr


@pytest.mark.usefixtures("gpu")
def test_compiling_a_run_folder_with_a_gpu_makes_its_engines(without_gpu: Done, tmp_path: Path) -> None:
    shutil.copytree(without_gpu.run, tmp_path / "run")
    outcome = lmedge("compile", tmp_path / "run", "--target", "tensorrt")
    assert outcome.code == DONE, outcome
    assert len(list((tmp_path / "run/engines/tensorrt").glob("*.engine"))) == len(PRECISIONS)
