"""What a build found, one row per engine and file: the table that the command line, `--json` and the report share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmedge.bundle import Artifact
from lmedge.pipeline.engines import STAGE, TARGET, read_engines
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.stages import RunContext
from lmedge.runtimes.gates import PYTORCH

_TIMES = ("p50_ms", "p99_ms", "engine_p50_ms", "engine_precision")


def summary_rows(context: RunContext) -> list[dict[str, Any]]:
    """One row per engine and file: precision, size, NME, latency, parity; None where a row was not measured. `passed` is of all
    its gates."""
    evaluations = {
        (row["artifact"], row["backend"]): row for row in run_files.read_json(context.file("evaluate", run_files.EVALUATION))
    }
    latency = run_files.read_json(context.file("bench", run_files.LATENCY))["rows"]
    latencies = {(row["artifact"], row["backend"]): row for row in latency}
    parity, accuracy = run_files.parity_reports(context), run_files.accuracy_reports(context)
    failed = {(report.artifact, report.backend) for report in (*parity, *accuracy) if not report.passed}
    rows = []
    files = {artifact.path: artifact for artifact in run_files.artifacts(context)}
    for report in parity:
        if report.reference != PYTORCH:
            continue
        artifact = files[report.artifact]
        paths = [artifact.file, *(artifact.root / name for name, _ in artifact.companions)]
        key = (report.artifact, report.backend)
        evaluated, timed = evaluations.get(key), latencies.get(key)
        rows.append(
            {
                "backend": report.backend,
                "precision": report.precision,
                "dialect": report.dialect,
                "artifact": report.artifact,
                "bytes": sum(path.stat().st_size for path in paths),
                "nme": evaluated["nme"] if evaluated else None,
                **{name: timed[name] if timed else None for name in _TIMES},
                "max_px": report.max_px,
                "p99_px": report.p99_px,
                "nme_loss": report.nme_loss,
                "nme_loss_upper": report.nme_loss_upper,
                "group_losses": report.group_losses,
                "loss_faces": report.loss_faces,
                "passed": evaluated is not None and key not in failed,
            }
        )
    return rows + [_engine_row(engine, context) for engine in read_engines(context).race.get("engines", ())]


def _engine_row(engine: Mapping[str, Any], context: RunContext) -> dict[str, Any]:
    """The row of a TensorRT engine: held to the golden answers, so it has no NME of its own."""
    artifact = Artifact.from_json(engine["artifact"], context.folder / STAGE)
    timed = engine["latency"]
    return {
        "backend": TARGET,
        "precision": artifact.precision,
        "dialect": artifact.dialect,
        "artifact": artifact.path,
        "bytes": artifact.file.stat().st_size,
        "nme": None,
        **{name: timed[name] if timed else None for name in _TIMES},
        "max_px": max(report["max_px"] for report in engine["parity"]),
        "p99_px": max(report["p99_px"] for report in engine["parity"]),
        "nme_loss": None,
        "nme_loss_upper": None,
        "group_losses": {},
        "loss_faces": 0,
        "passed": engine["passed"],
    }
