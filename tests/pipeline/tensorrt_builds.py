"""A small build with TensorRT among its targets, and what to look at after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmedge.bundle import Bundle
from tests.cli.command import Outcome, lmedge
from tests.pipeline.small_run import write_config

TARGETS = ("--set", 'targets=["onnxruntime", "openvino", "tensorrt"]')
PRECISIONS = ["fp32", "fp16", "int8", "fp16-int8"]


def build(copy: Path, *arguments: object) -> Outcome:
    return lmedge("build", write_config(copy), "--out", copy / "run", *TARGETS, *arguments)


def planned(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in outcome.json}


def ran(outcome: Outcome) -> list[str]:
    return [row["stage"] for row in outcome.json["stages"] if row["action"] == "run"]


def engines_in(run: Path) -> dict[str, str]:
    artifacts = Bundle.open(run / "bundle").manifest.artifacts
    return {a.precision: a.path for a in artifacts if a.format == "tensorrt"}
