"""A bundle of four precisions for races of engines, and what to look at after one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lmedge.bundle import Bundle
from lmedge.export import race_tensorrt
from lmedge.export.race_outcome import RaceOutcome
from lmedge.reports import LatencyReport
from tests import requirements
from tests.tensorrt.fake_plan import Plan

LEGACY = "8.6.0"
P50_MS = {"fp32": 0.9, "fp16": 0.3, "int8": 0.4, "fp16-int8": 0.35}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Tests do not change it."""
    requirements.require("onnx", "onnxruntime")
    from tests.tensorrt.four_precisions import four_precisions

    return four_precisions(tmp_path_factory.mktemp("four"))


@pytest.fixture
def bundle(built: Bundle, tmp_path: Path) -> Bundle:
    """The bundle in a folder of its own."""
    return Bundle.open(shutil.copytree(built.root, tmp_path / "bundle"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies that do not depend on this machine."""

    def measured(bundle: Bundle, backends: list[str], precisions: list[str], **options: Any) -> list[LatencyReport]:
        times = [P50_MS[precision] for precision in precisions]
        return [LatencyReport("tensorrt", p, None, 1, t, t, t, 9, t, t, t) for p, t in zip(precisions, times, strict=True)]

    monkeypatch.setattr(race_tensorrt, "bench", measured)


def compiled(bundle: Bundle, precisions: list[str] | None = None, **options: Any) -> RaceOutcome:
    return race_tensorrt.compile_bundle(Bundle.open(bundle.root), precisions, **options)


def engines_in(bundle: Bundle) -> dict[str, str]:
    """Precision → path of every engine that the manifest names."""
    return {a.precision: a.path for a in Bundle.open(bundle.root).manifest.artifacts if a.format == "tensorrt"}


def tactics(bundle: Bundle, precision: str) -> dict[str, int]:
    return Plan.from_bytes((bundle.root / engines_in(bundle)[precision]).read_bytes()).tactics


def raced(version: str) -> list[str]:
    """The precisions that a version takes."""
    return ["fp32", "fp16", "int8"] + (["fp16-int8"] if version != LEGACY else [])
