"""One ONNX file compiled by itself, and what to look at after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmedge.bundle import Artifact, Bundle
from lmedge.export.compile_tensorrt import CompiledEngine, compile_engine
from lmedge.export.engine_options import EngineOptions
from lmedge.export.race_tensorrt import onnx_sources
from lmedge.runtimes.tensorrt_machine import probe_tensorrt
from tests.tensorrt.fake_gpu import FakeGpu
from tests.tensorrt.fake_plan import Plan

Compile = Callable[..., CompiledEngine]


@pytest.fixture
def compile_one(fake_gpu: FakeGpu, built: Bundle, tmp_path: Path) -> Compile:
    """Compiles a precision of the bundle, or `source=`, into a folder of its own."""

    def run(precision: str = "fp32", *, source: Artifact | None = None, device: int = 0, **options: Any) -> CompiledEngine:
        machine = probe_tensorrt(device).machine
        assert machine is not None
        keywords = {name: options.pop(name) for name in ("timing_cache", "pinned") if name in options}
        found = source or onnx_sources(built)[precision]
        return compile_engine(
            found, tmp_path / "tensorrt", machine=machine, device=device, options=EngineOptions(**options), **keywords
        )

    return run


def plan_of(made: CompiledEngine) -> Plan:
    return Plan.from_bytes(made.plan.read_bytes())


def has_flag(name: str) -> bool:
    import tensorrt

    return hasattr(tensorrt.BuilderFlag, name)
