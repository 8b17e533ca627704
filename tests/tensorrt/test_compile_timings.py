"""The timing cache of one build: what it pins, what is measured all the same, and when that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

from lmedge.bundle import file_digest  # noqa: E402
from lmedge.errors import ExportError  # noqa: E402
from tests.tensorrt.compiling import Compile, has_flag, plan_of  # noqa: E402
from tests.tensorrt.fake_gpu import Device, FakeGpu  # noqa: E402

ERROR_ON_MISS = "ERROR_ON_TIMING_CACHE_MISS"


def test_a_timing_cache_gives_the_same_kernels_again(compile_one: Compile, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    first = plan_of(compile_one("fp32", timing_cache=cache))
    again = compile_one("fp32", timing_cache=cache)
    assert plan_of(again).tactics == first.tactics
    assert again.record.timing_cache_sha256 == file_digest(cache)
    assert plan_of(compile_one("fp32")).tactics != first.tactics, "the fake measures other times in each build"


def test_timings_of_several_precisions_gather_in_one_file(compile_one: Compile, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    made = {precision: plan_of(compile_one(precision, timing_cache=cache)) for precision in ("fp32", "int8")}
    for precision, plan in made.items():
        assert plan_of(compile_one(precision, timing_cache=cache)).tactics == plan.tactics


def test_a_pinned_build_may_measure_nothing(compile_one: Compile, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    first = plan_of(compile_one("fp32", timing_cache=cache, pinned=True))
    assert ERROR_ON_MISS not in first.flags, "there was nothing to pin to"
    pinned = plan_of(compile_one("fp32", timing_cache=cache, pinned=True))
    assert pinned.tactics == first.tactics
    assert (ERROR_ON_MISS in pinned.flags) == has_flag(ERROR_ON_MISS)
    editable = "EDITABLE_TIMING_CACHE"
    assert (editable in first.flags) == (editable in pinned.flags) == has_flag(editable)


def test_a_pinned_build_that_misses_a_kernel_measures_it_and_says_so(compile_one: Compile, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    first = plan_of(compile_one("fp32", timing_cache=cache))
    made = compile_one("int8", timing_cache=cache, pinned=True)
    assert ERROR_ON_MISS not in plan_of(made).flags
    if has_flag(ERROR_ON_MISS):
        (note,) = made.notes
        assert "from the timing cache alone failed, so what was not in it was measured" in note
        assert "Timing cache miss" in note
    assert plan_of(compile_one("fp32", timing_cache=cache, pinned=True)).tactics == first.tactics, "what was known stays"
    again = compile_one("int8", timing_cache=cache, pinned=True)
    assert again.notes == ()
    assert plan_of(again).tactics == plan_of(made).tactics


def test_a_pinned_build_that_fails_for_another_reason_fails(compile_one: Compile, fake_gpu: FakeGpu, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    compile_one("fp32", timing_cache=cache)
    fake_gpu.fail("Builder.build_serialized_network", message="no kernel", times=2)
    with pytest.raises(ExportError, match=r"builds no engine for model\.fp32\.onnx.*no kernel"):
        compile_one("fp32", timing_cache=cache, pinned=True)


@pytest.mark.parametrize("damage", ["another GPU", "cut off"])
def test_timings_that_do_not_fit_are_measured_anew_and_that_is_said(
    damage: str, compile_one: Compile, fake_gpu: FakeGpu, tmp_path: Path
) -> None:
    cache = tmp_path / "timing.cache"
    fake_gpu.devices = (Device("Xavier", "7.2"),)
    compile_one("fp32", timing_cache=cache)
    if damage == "another GPU":
        fake_gpu.devices = (Device(),)
    else:
        cache.write_bytes(cache.read_bytes()[:-1])
    made = compile_one("fp32", timing_cache=cache, pinned=True)
    assert made.notes == ("timing.cache is of another TensorRT or GPU, or damaged: all kernels were measured anew.",)
    assert ERROR_ON_MISS not in plan_of(made).flags
    assert compile_one("fp32", timing_cache=cache).notes == ()
