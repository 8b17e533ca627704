"""The driver answers through its own library, and whatever it answers, asking raises nothing."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from lmedge.runtimes import cuda_driver
from lmedge.runtimes.cuda_driver import CudaDevice, CudaDriver, probe_driver, version_text
from tests.tensorrt.fake_gpu import Device, FakeGpu


def test_a_driver_and_its_devices_are_described(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("NVIDIA H100 80GB HBM3", "9.0"))
    devices = (CudaDevice(0, "Orin", "8.7"), CudaDevice(1, "NVIDIA H100 80GB HBM3", "9.0"))
    assert probe_driver() == CudaDriver(version_text(fake_gpu.driver_version or 0), devices, "")


def test_asking_allocates_nothing_and_touches_nothing_else(fake_gpu: FakeGpu) -> None:
    probe_driver()
    assert fake_gpu.allocations == []
    assert {name[:2] for name in fake_gpu.names()} == {"cu"}
    assert not any(name.startswith("cuda") for name in fake_gpu.names()), "the CUDA runtime makes a context"


def test_no_driver_is_an_answer(fake_gpu: FakeGpu) -> None:
    fake_gpu.driver_version = None
    found = probe_driver()
    assert (found.version, found.devices) == (None, ())
    assert found.reason.startswith("no NVIDIA driver: libcuda.so.1 cannot be loaded")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (34, "a stub for building"),
        (100, "no CUDA device"),
        (803, "of different versions"),
        (999, "without a restart"),
        (4242, "see CUresult"),
    ],
)
def test_a_driver_that_does_not_start_gives_its_code_and_cause(fake_gpu: FakeGpu, code: int, cause: str) -> None:
    fake_gpu.driver_error = code
    found = probe_driver()
    assert (found.version, found.devices) == (None, ())
    assert f"cuInit answers {code}" in found.reason
    assert cause in found.reason


def test_a_driver_without_devices_says_so(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = ()
    found = probe_driver()
    assert found.devices == ()
    assert "no" in found.reason
    assert "device" in found.reason


class Library:
    """A driver library whose calls answer a code; `lacking` names are not in it."""

    def __init__(self, lacking: str = "", failing: str = "") -> None:
        self._lacking, self._failing = lacking, failing

    def __getattr__(self, name: str) -> Any:
        if name == self._lacking:
            raise AttributeError(f"undefined symbol: {name}")

        def call(first: Any, *_: Any) -> int:
            if isinstance(getattr(first, "_obj", None), ctypes.c_int):
                first._obj.value = 1
            return 999 if name == self._failing else 0

        return call


@pytest.mark.parametrize(
    "function",
    ["cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"],
)
def test_a_call_that_fails_or_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    for library in (Library(failing=function), Library(lacking=function)):
        monkeypatch.setattr(cuda_driver, "_load_library", lambda library=library: library)
        found = probe_driver()
        assert found.devices == ()
        assert function in found.reason


@pytest.mark.parametrize(("number", "text"), [(12060, "12.6"), (13000, "13.0"), (11040, "11.4"), (12100, "12.10")])
def test_versions_are_written_as_people_do(number: int, text: str) -> None:
    assert version_text(number) == text


def test_this_machine_can_be_asked() -> None:
    """In a process of its own, with the real library or without it."""
    code = (
        "from lmedge.runtimes.cuda_driver import probe_driver; d = probe_driver(); assert bool(d.devices) != bool(d.reason), d"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
