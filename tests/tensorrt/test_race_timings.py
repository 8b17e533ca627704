"""A bundle compiled again: which kernels are measured, and which are taken from what it keeps."""

from __future__ import annotations

import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

from lmedge.bundle import Bundle  # noqa: E402
from lmedge.errors import ExportError  # noqa: E402
from lmedge.export.engine_options import EngineOptions  # noqa: E402
from lmedge.export.kept_timings import timings_path  # noqa: E402
from lmedge.export.race_tensorrt import find_machine  # noqa: E402
from lmedge.runtimes.engine_record import BatchProfile  # noqa: E402
from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.four_precisions import digests  # noqa: E402
from tests.tensorrt.raced_bundle import LEGACY, compiled, engines_in, raced, tactics  # noqa: E402

pytestmark = pytest.mark.usefixtures("clock")


def test_compiling_again_replaces_the_engines_and_takes_the_kernels_that_were_measured(
    bundle: Bundle, fake_gpu: FakeGpu, tensorrt_version: str
) -> None:
    compiled(bundle)
    first = {precision: tactics(bundle, precision) for precision in raced(tensorrt_version)}
    before = set(digests(bundle.root))
    compiled(bundle)
    assert set(digests(bundle.root)) == before
    assert {precision: tactics(bundle, precision) for precision in raced(tensorrt_version)} == first
    pinned = [name for name in fake_gpu.arguments("IBuilderConfig.set_flag") if name == ("ERROR_ON_TIMING_CACHE_MISS",)]
    assert len(pinned) == (0 if tensorrt_version == LEGACY else 4)
    Bundle.open(bundle.root).verify_digests()


def test_other_options_are_measured_where_they_need_it(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32"])
    wider = EngineOptions(batch=BatchProfile(1, 4, 8))
    assert compiled(bundle, ["fp32"], options=wider).passed


def test_retime_measures_anew(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32"])
    first = tactics(bundle, "fp32")
    compiled(bundle, ["fp32"], retime=True)
    assert tactics(bundle, "fp32") != first


def test_a_precision_compiled_later_shares_the_timings_of_the_others(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32"])
    first = tactics(bundle, "fp32")
    compiled(bundle, ["int8"])
    assert set(engines_in(bundle)) == {"fp32", "int8"}
    Bundle.open(bundle.root).verify_digests()
    compiled(bundle, ["fp32"])
    assert tactics(bundle, "fp32") == first


@pytest.mark.parametrize("damage", ["timings", "record"])
def test_damaged_files_of_an_earlier_compile_are_replaced(damage: str, bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32", "int8"])
    path = timings_path(find_machine()) if damage == "timings" else f"{engines_in(bundle)['fp32']}.json"
    (bundle.root / path).write_text("damaged")
    assert compiled(bundle, ["fp32", "int8"]).passed
    Bundle.open(bundle.root).verify_digests()


def test_a_kernel_that_the_timings_miss_is_measured_and_told(bundle: Bundle, fake_gpu: FakeGpu, tensorrt_version: str) -> None:
    """As real TensorRT may: the bundle has the engine and its timings, and they do not hold every kernel."""
    compiled(bundle, ["fp32"])
    fake_gpu.fail("Builder.build_serialized_network", message="Timing cache miss for node conv")
    if tensorrt_version == LEGACY:
        with pytest.raises(ExportError, match="Timing cache miss"):
            compiled(bundle, ["fp32"])  # it cannot be told to take what is in the cache alone
        return
    outcome = compiled(bundle, ["fp32"])
    assert outcome.passed
    (note,) = outcome.to_json()["engines"][0]["notes"]
    assert "what was not in it was measured" in note
    assert "Timing cache miss for node conv" in note
    assert compiled(bundle, ["fp32"]).engines[0].notes == ()


def test_timings_that_tensorrt_does_not_take_pin_nothing(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    """The bytes are those of the manifest; it is TensorRT that says no."""
    compiled(bundle, ["fp32", "int8"])
    fake_gpu.fail("IBuilderConfig.set_timing_cache")
    fp32, int8 = compiled(bundle, ["fp32", "int8"]).engines
    assert "all kernels were measured anew" in fp32.notes[0]
    assert int8.notes == ()
