"""What TensorRT needs is tried in an order that is safe, and each failure has its reason."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmedge.bundle import machine_arch
from lmedge.errors import BackendUnavailableError
from lmedge.runtimes import tensorrt_machine
from lmedge.runtimes.cuda_driver import version_text
from lmedge.runtimes.tensorrt import TensorRtRuntime
from lmedge.runtimes.tensorrt_machine import (
    EngineMachine,
    import_cuda,
    import_tensorrt,
    probe_tensorrt,
    version_numbers,
)
from tests.tensorrt.api_names import FULL_VERSION
from tests.tensorrt.engines import tiny_engine
from tests.tensorrt.fake_gpu import Device, FakeGpu

BINDINGS_12 = "pip install 'lmedge[tensorrt]' 'cuda-bindings>=12,<13'"
STEPS = ["driver", "device", "tensorrt", "cuda-bindings", "Builder", "Runtime"]


def block(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes a module impossible to import, as if it were not installed."""
    monkeypatch.setitem(sys.modules, name, None)


def test_every_step_passes_where_all_is_well(fake_gpu: FakeGpu, tensorrt_version: str) -> None:
    probe = probe_tensorrt()
    assert [(step.step, step.passed) for step in probe.steps] == [(step, True) for step in STEPS]
    assert probe.machine == EngineMachine(
        FULL_VERSION[tensorrt_version],
        *version_texts(fake_gpu),
        gpu="Orin",
        compute_capability="8.7",
        os=sys.platform,
        arch=machine_arch(),
    )
    assert f"tensorrt: version {FULL_VERSION[tensorrt_version]}" in probe.reason
    assert fake_gpu.allocations == []


def version_texts(gpu: FakeGpu) -> tuple[str, str]:
    return version_text(gpu.runtime_version), version_text(gpu.driver_version or 0)


def test_a_quick_probe_starts_nothing_of_tensorrt(fake_gpu: FakeGpu) -> None:
    probe = probe_tensorrt(start=False)
    assert [step.step for step in probe.steps] == STEPS[:4]
    assert probe.machine == probe_tensorrt().machine
    quick = fake_gpu.names()[: fake_gpu.names().index("Builder")] if "Builder" in fake_gpu.names() else fake_gpu.names()
    assert not any(name.startswith("Runtime") for name in quick)


def test_the_driver_is_asked_before_anything_of_tensorrt(fake_gpu: FakeGpu) -> None:
    """Without a device `tensorrt.Runtime` ends the process, and the fake does too."""
    fake_gpu.devices = ()
    probe = probe_tensorrt()
    assert [(step.step, step.passed) for step in probe.steps] == [("driver", False)]
    assert probe.machine is None
    assert not any(name[:1].isupper() for name in fake_gpu.names()), "TensorRT was called"


def test_a_machine_without_a_driver_stops_at_the_first_step(fake_gpu: FakeGpu) -> None:
    fake_gpu.driver_version = None
    assert probe_tensorrt().reason.startswith("driver: no NVIDIA driver")


def test_a_device_that_is_not_there_is_named_with_those_that_are(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("H100", "9.0"))
    second = probe_tensorrt(1).machine
    assert second is not None
    assert (second.gpu, second.compute_capability) == ("H100", "9.0")
    missing = probe_tensorrt(2)
    assert missing.steps[-1].step == "device"
    assert "no device 2; there is 0 (Orin), 1 (H100)" in missing.reason


@pytest.mark.parametrize(("module", "step"), [("tensorrt", "tensorrt"), ("cuda.bindings.runtime", "cuda-bindings")])
def test_a_missing_package_is_named_with_what_to_install(
    fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, module: str, step: str
) -> None:
    block(monkeypatch, module)
    probe = probe_tensorrt()
    assert (probe.steps[-1].step, probe.steps[-1].passed, probe.machine) == (step, False, None)
    assert "does not import" in probe.reason
    with pytest.raises(BackendUnavailableError, match="pip install"):
        import_tensorrt() if module == "tensorrt" else import_cuda()


def test_a_library_that_is_missing_is_a_reason_too(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(tensorrt_machine.importlib, "import_module", broken)
    assert "libnvinfer.so.10" in probe_tensorrt().reason


def test_bindings_for_a_newer_cuda_than_the_drivers_are_told_apart(fake_gpu: FakeGpu) -> None:
    fake_gpu.driver_version, fake_gpu.runtime_version = 12060, 13000
    probe = probe_tensorrt()
    assert probe.steps[-1].step == "cuda-bindings"
    assert "newer than the driver's 12.6. Install the older: " + BINDINGS_12 in probe.reason


def test_bindings_from_before_cuda_12_are_refused_before_anything_is_opened(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    """The driver runs them, but they take other arguments for graphs."""
    engine = tiny_engine(tmp_path)
    fake_gpu.driver_version, fake_gpu.runtime_version = 12060, 11080
    probe = probe_tensorrt()
    assert (probe.steps[-1].step, probe.machine) == ("cuda-bindings", None)
    assert f"is for CUDA 11.8, too old for lmedge. {BINDINGS_12}" in probe.reason
    with pytest.raises(BackendUnavailableError, match="too old for lmedge"):
        TensorRtRuntime.open(engine)


@pytest.mark.parametrize(
    ("driver_version", "advice"),
    [
        (12060, BINDINGS_12),
        (13020, "pip install 'lmedge[tensorrt]' 'cuda-bindings>=13,<14'"),
        (11040, r"lmedge needs a driver for CUDA 12 or newer (JetPack 6); this one runs CUDA 11.4"),
        (None, "'cuda-bindings>=N,<N+1', where N, at least 12, is the driver's CUDA"),
    ],
)
def test_advice_to_install_is_for_the_driver_that_is_here(
    fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, driver_version: int | None, advice: str
) -> None:
    fake_gpu.driver_version = driver_version
    block(monkeypatch, "cuda.bindings.runtime")
    with pytest.raises(BackendUnavailableError, match=re.escape(advice)):
        import_cuda()
    assert advice in TensorRtRuntime.status().extra


@pytest.mark.parametrize(("step", "said"), [("Builder", "CUDA initialization failure"), ("Runtime", "returned nullptr")])
def test_a_part_that_does_not_start_says_what_tensorrt_said(fake_gpu: FakeGpu, step: str, said: str) -> None:
    fake_gpu.fail(step)
    probe = probe_tensorrt()
    assert (probe.steps[-1].step, probe.machine) == (step, None)
    assert f"tensorrt.{step} does not start" in probe.reason
    assert said in probe.reason


@pytest.mark.parametrize("device", [0, 1])
def test_each_part_starts_on_the_device_that_was_asked_for(fake_gpu: FakeGpu, device: int) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("H100", "9.0"))
    fake_gpu.select_device(1 - device)
    assert probe_tensorrt(device).machine is not None
    for part in ("Builder", "Runtime"):
        before = fake_gpu.calls[: fake_gpu.names().index(part)]
        assert [call.arguments for call in before if call.name == "cudaSetDevice"][-1:] == [(device,)]


def test_a_device_that_cannot_be_chosen_is_told(fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("cudaSetDevice", code=46)
    probe = probe_tensorrt()
    assert (probe.steps[-1].step, probe.steps[-1].detail) == ("Builder", "cudaSetDevice(0) answers 46")


def test_nothing_that_happens_makes_the_probe_raise(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def wild(*_: Any) -> Any:
        raise RuntimeError

    for name in ("import_cuda", "import_tensorrt", "_start", "_device"):
        with monkeypatch.context() as patched:
            patched.setattr(tensorrt_machine, name, wild)
            assert probe_tensorrt().reason.endswith("RuntimeError")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("10.13.3.9", (10, 13, 3, 9)), ("8.6.0.post1", (8, 6, 0)), ("11.4.0rc1", (11, 4)), ("", ()), ("dev", ())],
)
def test_versions_are_compared_as_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers


def test_a_machine_goes_through_json() -> None:
    machine = EngineMachine("10.3.0", "12.6", "12.6", "Orin", "8.7", "linux", "aarch64")
    assert EngineMachine.from_json(machine.to_json()) == machine
