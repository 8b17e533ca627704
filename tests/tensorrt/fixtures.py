"""Fixtures that put the fakes in the place of TensorRT and CUDA; other folders of tests import them from here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests import requirements
from tests.tensorrt.api_names import VERSIONS
from tests.tensorrt.fake_cuda import cuda_modules
from tests.tensorrt.fake_driver import load_driver
from tests.tensorrt.fake_gpu import FakeGpu
from tests.tensorrt.fake_tensorrt import make_tensorrt

# TensorRT → the CUDA that its devices have: JetPack 6.0, 6.2, 7.0 and later.
CUDA_OF = {"8.6.0": 12020, "10.3.0": 12060, "10.13.3.9": 13000, "11.4.0": 13020}


@pytest.fixture(params=VERSIONS)
def tensorrt_version(request: pytest.FixtureRequest) -> str:
    """One of the versions that lmedge supports."""
    version: str = request.param
    return version


@pytest.fixture
def fake_gpu(tensorrt_version: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A machine with a GPU and TensorRT. After the test nothing may be left allocated, and no misuse may have happened."""
    requirements.require("onnx", "onnxruntime")
    cuda = CUDA_OF[tensorrt_version]
    gpu = FakeGpu(driver_version=cuda, runtime_version=cuda)
    install(gpu, tensorrt_version, monkeypatch)
    yield gpu
    check_clean(gpu)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A machine without a driver, where TensorRT is installed all the same: making a Runtime would end the process."""
    gpu = FakeGpu(devices=(), driver_version=None)
    install(gpu, VERSIONS[-1], monkeypatch)
    return gpu


def check_clean(gpu: FakeGpu) -> None:
    """Fails the test that left something allocated, or misused memory. A lost device has freed all by itself."""
    problems = [*gpu.faults, *(() if gpu.lost else gpu.allocations)]
    if problems:
        pytest.fail("Left behind, or misused: " + "; ".join(problems), pytrace=False)


def install(gpu: FakeGpu, version: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Puts the fakes for a machine where `import` and lmedge's driver probe find them; returns the fake tensorrt."""
    tensorrt = make_tensorrt(version, gpu)
    for name, module in {"tensorrt": tensorrt, **cuda_modules(gpu)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lmedge.runtimes.cuda_driver._load_library", lambda: load_driver(gpu))
    return tensorrt
