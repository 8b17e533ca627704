"""How builds end: with a bundle, with a gate that failed, with an engine that is missing; stages by themselves; plans."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lmedge.bundle import MANIFEST, Bundle
from lmedge.errors import SchemaError
from lmedge.pipeline.build import make_context
from lmedge.pipeline.configuration.config import config_from
from lmedge.pipeline.runs.run_files import CALIBRATION
from lmedge.pipeline.runs.stages import RunContext
from lmedge.runtimes.verify import verify_bundle
from tests.cli.command import DONE, ERROR, GATE_FAILED, UNAVAILABLE, lmedge
from tests.pipeline import small_run
from tests.pipeline.small_run import STAGES, outcomes_of, write_config
from tests.requirements import require

require("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "pydantic")


# How a build ends


def build_command(folder: Path, *arguments: object) -> Any:
    return lmedge("build", write_config(folder), "--out", folder / "run", *arguments)


def artifacts_of(run: Path) -> list[str]:
    return [artifact.path for artifact in Bundle.open(run / "bundle").manifest.artifacts]


def test_a_file_that_fails_its_gate_stays_out_and_the_rest_is_written(copy: Path) -> None:
    """Also with a target that is missing here: the gate decides the exit code."""
    outcome = build_command(copy, "--set", "gates.fp32_max_px=0", "--set", 'targets=["onnxruntime", "openvino", "tensorrt"]')
    assert outcome.code == GATE_FAILED, outcome
    assert "onnxruntime fp32 (model.fp32.onnx) against pytorch: max_px is" in outcome.stderr
    assert "openvino fp32 (openvino/model.fp32.xml) against pytorch: max_px is" in outcome.stderr
    run = copy / "run"
    names = ["fp16", "int8", "int8-x86"]
    files = [f"model.{name}.onnx" for name in (*names, "fp16-int8")] + [f"openvino/model.{name}.xml" for name in names]
    assert artifacts_of(run) == files
    assert not list((run / "bundle").rglob("*fp32*"))
    assert (run / "export/model.fp32.onnx").is_file()
    assert b"model.fp32.onnx" in (run / "report.html").read_bytes()
    assert outcomes_of(run, "pytorch") == {("fp32", False), ("fp16", True), ("int8", True)}
    assert outcomes_of(run, "golden") == {("fp32", True), ("fp16", True), ("int8", True)}
    assert verify_bundle(Bundle.open(run / "bundle"), limits=small_run.LIMITS).passed


def test_a_build_without_any_file_that_passes_still_writes_everything_else(copy: Path) -> None:
    limits = ("gates.fp32_max_px=0", "gates.fp16_max_px=0", "gates.int8_p99_px=0")
    outcome = build_command(copy, "--target", "onnxruntime", *(word for limit in limits for word in ("--set", limit)))
    assert outcome.code == GATE_FAILED, outcome
    assert artifacts_of(copy / "run") == []
    assert (copy / "run/report.html").is_file()


def test_an_error_on_faces_above_its_limit_fails_the_build(copy: Path) -> None:
    outcome = build_command(copy, "--set", "gates.max_nme=0.001")
    assert outcome.code == GATE_FAILED
    assert "gates.max_nme" in outcome.stderr
    assert (copy / "run/bundle" / MANIFEST).is_file()
    assert artifacts_of(copy / "run") == []


def test_tensorrt_ends_with_the_reason_after_everything_else_is_written(copy: Path) -> None:
    outcome = build_command(copy, "--target", "tensorrt")
    assert outcome.code == UNAVAILABLE, outcome
    assert "Engines are built on the GPU that runs them" in outcome.stderr
    assert str(copy / "run/quantize/model.int8.onnx") in outcome.stderr
    assert (copy / "run/bundle/model.int8.onnx").is_file()
    assert (copy / "run/report.html").is_file()
    assert Bundle.open(copy / "run/bundle").verify_digests() > 4


def test_a_bundle_for_openvino_alone_verifies(copy: Path) -> None:
    assert build_command(copy, "--target", "openvino").code == DONE
    bundle = Bundle.open(copy / "run/bundle")
    assert {backend for artifact in bundle.manifest.artifacts for backend in artifact.serves} == {"openvino"}
    outcome = verify_bundle(bundle, run=copy / "run", limits=small_run.LIMITS)
    assert outcome.passed
    assert {report.backend for report in outcome.parity} == {"openvino"}


def test_an_engine_that_is_missing_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    outcome = build_command(tmp_path)
    assert outcome.code == UNAVAILABLE
    assert "openvino" in outcome.stderr
    assert not (tmp_path / "run/faces").exists()


# Stages by themselves


def test_a_stage_command_uses_its_settings(copy: Path) -> None:
    assert build_command(copy, "--set", "name='small'").code == DONE
    run = copy / "run"
    outcome = lmedge("quantize", run, "--set", "quantize.images=9")
    assert outcome.code == DONE, outcome
    assert "quantize  done (option quantize.images was 12, is 9)" in outcome.stderr
    assert json.loads((run / "quantize" / CALIBRATION).read_text())["count"] == 9
    again = lmedge("export", run, "--json")
    assert [stage["action"] for stage in again.json["stages"]] == ["skip"] * 3


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    lmedge("export", tmp_path).assert_clear_error(ERROR, f"{tmp_path} is no run folder", "lmedge train --out")


# Plans


def test_a_plan_says_what_will_run_and_why(copy: Path) -> None:
    outcome = build_command(copy, "--set", "quantize.images=9", "--plan", "--json")
    assert outcome.code == DONE
    plan = {row["stage"]: (row["action"], row["reason"]) for row in outcome.json}
    assert plan["export"] == ("skip", None)
    assert plan["quantize"] == ("run", "option quantize.images was 12, is 9")
    assert plan["compile"] == ("run", "it reads what quantize will make")
    table = build_command(copy, "--set", "quantize.images=9", "--plan").stdout
    assert "option quantize.images was 12, is 9" in " ".join(table.split())
    assert build_command(copy, "--plan", "--json").json == [{"stage": s, "action": "skip", "reason": None} for s in STAGES]


def test_a_plan_of_a_new_run_writes_nothing(tmp_path: Path) -> None:
    outcome = build_command(tmp_path, "--plan", "--json")
    assert [row["action"] for row in outcome.json] == ["run"] * len(STAGES)
    assert not (tmp_path / "run").exists()


# Sources of several point sets


def context_of(folder: Path, *kinds: str, schema: str = "") -> RunContext:
    sources = [f"{kind}:{folder}/{kind}" for kind in kinds]
    return make_context(config_from({"data": {"sources": sources, "schema": schema}}), folder / "run")


@pytest.mark.parametrize(("schema", "exported"), [("", "IBUG_68"), ("WFLW_98", "WFLW_98"), ("mmlab_5", "MMLAB_5")])
def test_of_several_point_sets_the_first_or_the_named_one_is_exported(tmp_path: Path, schema: str, exported: str) -> None:
    context = context_of(tmp_path, "300w", "wflw", "mmlab5", schema=schema)
    assert [source.schema.name for source in context.sources] == ["IBUG_68", "WFLW_98", "MMLAB_5"]
    assert context.schema.name == exported


def test_points_that_no_source_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"300w has the points of IBUG_68, not COFW_29"):
        context_of(tmp_path, "300w", "wflw", schema="COFW_29")


def test_rendered_faces_take_the_points_of_the_photos(tmp_path: Path) -> None:
    context = make_context(config_from({"data": {"sources": ["synthetic:9", f"wflw:{tmp_path}"]}}), tmp_path / "run")
    assert [source.schema.name for source in context.sources] == ["WFLW_98", "WFLW_98"]
