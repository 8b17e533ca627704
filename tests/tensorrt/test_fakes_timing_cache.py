"""The fake TensorRT's timing cache: what was measured once is not measured again, on the same machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.tensorrt.api_names import ONLY_8
from tests.tensorrt.by_hand import Build, build_plan
from tests.tensorrt.fake_gpu import Device, FakeGpu


@pytest.fixture
def trt(fake_gpu: FakeGpu) -> Any:
    return sys.modules["tensorrt"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return bundles.tiny_onnx(tmp_path)


def build_with(trt: Any, network: Path, cache: bytes, *flags: str) -> tuple[bytes | None, bytes, str]:
    """A plan, the timing cache after it and the log."""
    build = Build(trt, network)
    build.add_profile()
    for flag in flags:
        build.config.set_flag(getattr(trt.BuilderFlag, flag))
    assert build.config.set_timing_cache(build.config.create_timing_cache(cache), False)
    plan = build.plan()
    return plan, bytes(build.config.get_timing_cache().serialize()), build.logger.text


def test_builds_differ_unless_a_timing_cache_pins_them(trt: Any, network: Path) -> None:
    assert build_plan(trt, network) != build_plan(trt, network)
    first, cache, _ = build_with(trt, network, b"")
    again, same, _ = build_with(trt, network, cache)
    assert first == again
    assert cache == same != build_with(trt, network, b"")[1]


def test_a_build_that_may_not_measure_fails_on_what_the_cache_lacks(trt: Any, network: Path, tensorrt_version: str) -> None:
    if tensorrt_version in ONLY_8:
        assert not hasattr(trt.BuilderFlag, "ERROR_ON_TIMING_CACHE_MISS")
        return
    plan, cache, said = build_with(trt, network, b"", "ERROR_ON_TIMING_CACHE_MISS")
    assert plan is None
    assert "Timing cache miss" in said
    _, cache, _ = build_with(trt, network, b"")
    assert build_with(trt, network, cache, "ERROR_ON_TIMING_CACHE_MISS")[0] is not None


@pytest.mark.parametrize("damage", [lambda cache: cache[:-1], lambda cache: b"x" + cache[1:], lambda cache: b"nonsense"])
def test_a_damaged_timing_cache_is_an_empty_one_and_a_warning(damage: Any, trt: Any, network: Path) -> None:
    first, cache, _ = build_with(trt, network, b"")
    again, _, said = build_with(trt, network, damage(cache))
    assert first != again
    assert "Returning an empty timing cache" in said


def test_the_timing_cache_of_another_gpu_is_taken_only_by_looking_away(trt: Any, fake_gpu: FakeGpu, network: Path) -> None:
    cache = build_with(trt, network, b"")[1]
    fake_gpu.devices = (Device("Other", "9.0"),)
    build = Build(trt, network)
    read = build.config.create_timing_cache(cache)
    assert [build.config.set_timing_cache(read, ignore) for ignore in (False, True)] == [False, True]
    assert "another device" in build.logger.text
