"""Bounds that int8 does not meet: the build ends with exit code 3, the best found and the front, and without that file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmedge.calibration.bound import path_sizes
from lmedge.errors import AccuracyError
from lmedge.export.pack import keep_passing
from lmedge.pipeline import build as build_module
from lmedge.pipeline.build import build
from lmedge.pipeline.reporting.outcome import failure, missed_bounds
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.lock import Lock
from lmedge.pipeline.runs.stages import PlannedStage, RunContext
from tests.cli.command import DONE, GATE_FAILED, lmedge
from tests.pipeline import runs
from tests.pipeline.small_run import write_config
from tests.requirements import require

require("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "pydantic")

from tests.calibration.layer_costs import part  # noqa: E402  (needs onnx)

MET, MISSED = {"max_nme_loss": 6e-5}, {"max_nme_loss": 6e-5, "min_speedup": 2.1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return runs.finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run_with(finished: RunContext, tmp_path: Path) -> Callable[[dict[str, Any]], RunContext]:
    """A copy of the finished run whose quantize stage wrote this."""

    def copy(document: dict[str, Any]) -> RunContext:
        folder = tmp_path / "copy"
        shutil.copytree(finished.folder, folder)
        context = replace(finished, folder=folder, lock=Lock(folder, dict(finished.lock.records)))
        runs.write_layers(context, document)
        return context

    return copy


@pytest.mark.parametrize("document", [{}, {"x86": part(sensitivity=True)}, {"portable": part(**MET), "x86": part(**MET)}])
def test_bounds_that_hold_or_were_not_given_fail_nothing(
    run_with: Callable[[dict[str, Any]], RunContext], document: dict[str, Any]
) -> None:
    context = run_with(document)
    assert missed_bounds(context) is None
    assert failure(context) is None


def test_a_build_names_the_missed_bound_the_best_found_and_the_file_with_all_of_it(
    run_with: Callable[[dict[str, Any]], RunContext],
) -> None:
    context = run_with({"portable": part(**MET), "x86": part(**MISSED)})
    found = failure(context)
    assert isinstance(found, AccuracyError)
    assert "model.int8-x86.onnx) against bound: bounded_time is 0.5 of the time of fp32, allowed 0.4762" in str(found)
    assert "x86: Asked for at most 0.006 points of NME added and 2.1 times the speed of fp32 or more" in str(found)
    assert "← best found" in str(found)
    assert "Each can be had, not both" in str(found)
    assert f"All that was measured is in {context.file('quantize', run_files.LAYERS)}." in str(found)
    assert "portable: " not in str(found)


def test_a_file_that_misses_its_bound_stays_out_of_the_bundle(run_with: Callable[[dict[str, Any]], RunContext]) -> None:
    context = run_with({"portable": part(**MET), "x86": part(**MISSED)})
    kept = keep_passing(run_files.candidate(context).manifest.artifacts, run_files.accuracy_reports(context))
    served = {artifact.path for artifact in kept if artifact.serves}
    assert "model.int8.onnx" in served
    assert "model.int8-x86.onnx" not in {artifact.path for artifact in kept}


@pytest.mark.parametrize(("limits", "missed"), [(MET, False), (MISSED, True)])
def test_the_quantize_stage_by_itself_ends_with_the_missed_bound(
    run_with: Callable[[dict[str, Any]], RunContext], limits: dict[str, float], missed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = run_with({"x86": part(**limits)})
    monkeypatch.setattr(build_module, "run_stages", lambda context, stages: iter([PlannedStage("quantize", None)]))
    assert isinstance(build(context, until="quantize").failure, AccuracyError) == missed
    assert build(context, until="export").failure is None


# A real run


@pytest.mark.slow
def test_a_run_that_cannot_be_so_fast_ends_with_exit_code_3_and_its_front_in_a_file(copy: Path) -> None:
    run = copy / "run"
    assert lmedge("build", write_config(copy), "--out", run).code == DONE
    outcome = lmedge("quantize", run, "--sensitivity", "--max-nme-loss", 0, "--min-speedup", 1000, "--json")
    assert outcome.code == GATE_FAILED, outcome
    assert "Asked for at most 0 points of NME added and 1000 times the speed of fp32 or more" in outcome.stderr
    layers = json.loads((run / "quantize" / run_files.LAYERS).read_text(encoding="utf-8"))
    assert outcome.json["layers"] == layers
    sizes = [len(point["float_layers"]) for point in layers["x86"]["bound"]["points"]]
    assert sizes == path_sizes(sizes[-1])
    assert sizes[-1] == len(layers["x86"]["sensitivity"]["layers"])
    assert layers["x86"]["bound"]["points"][-1]["loss"]["mean_px"] < layers["x86"]["bound"]["points"][0]["loss"]["mean_px"]
