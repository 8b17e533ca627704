"""What a build found, one row per engine and file: the table that the command line, `--json` and the report share."""

from __future__ import annotations

from typing import Any

from lmedge.pipeline import run_files
from lmedge.pipeline.stages import RunContext


def summary_rows(context: RunContext) -> list[dict[str, Any]]:
    """One row per engine and file: precision, size, NME, latency, parity; None where a row was not measured."""
    evaluations = {
        (row["artifact"], row["backend"]): row for row in run_files.read_json(context.file("evaluate", run_files.EVALUATION))
    }
    latency = run_files.read_json(context.file("bench", run_files.LATENCY))["rows"]
    latencies = {(row["artifact"], row["backend"]): row for row in latency}
    accurate = {(report.artifact, report.backend) for report in run_files.accuracy_reports(context) if report.passed}
    rows = []
    files = {artifact.path: artifact for artifact in run_files.artifacts(context)}
    for report in run_files.parity_reports(context):
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
                "p50_ms": timed["p50_ms"] if timed else None,
                "p99_ms": timed["p99_ms"] if timed else None,
                "max_px": report.max_px,
                "p99_px": report.p99_px,
                "nme_loss": report.nme_loss,
                "passed": report.passed and key in accurate,
            }
        )
    return rows
