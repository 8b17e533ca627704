"""What this machine offers to TensorRT, found out step by step so that each failure has its reason.

The driver is asked first and by itself: without a CUDA device `tensorrt.Runtime` ends the process instead of raising. The
Builder is made before the Runtime for the same reason: where CUDA does not start, it is the one that raises.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lmedge.bundle import machine_arch
from lmedge.errors import BackendUnavailableError
from lmedge.runtimes.cuda_driver import CudaDevice, CudaDriver, probe_driver, version_text
from lmedge.runtimes.tensorrt_log import EngineLog

_LEAST_CUDA = 12  # older cuda-bindings take other arguments for graphs
_DRIVER_TOO_OLD = 35  # cudaErrorInsufficientDriver


@dataclass(frozen=True)
class EngineMachine:
    """What an engine is bound to.

    Attributes:
        tensorrt: version, as the module says it ("10.3.0").
        cuda: version of the CUDA runtime that cuda-bindings brings ("12.6").
        driver: the newest CUDA that the driver runs ("12.6").
        gpu: name of the device ("Orin").
        compute_capability: of the device ("8.7").
        os: "linux".
        arch: "x86_64" or "aarch64".
    """

    tensorrt: str
    cuda: str
    driver: str
    gpu: str
    compute_capability: str
    os: str
    arch: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EngineMachine:
        return cls(**{field.name: str(document[field.name]) for field in fields(cls)})


@dataclass(frozen=True)
class ProbeStep:
    """One thing that TensorRT needs.

    Attributes:
        step: "driver", "device", "tensorrt", "cuda-bindings", "Builder" or "Runtime".
        passed: whether it is here and starts.
        detail: what was found, or why not.
    """

    step: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class TensorRtProbe:
    """The steps in order, up to the first that failed.

    Attributes:
        steps: what was tried.
        machine: what an engine built here is bound to; None where a step failed.
    """

    steps: tuple[ProbeStep, ...]
    machine: EngineMachine | None

    @property
    def reason(self) -> str:
        """All steps in one line, the failed one last: "driver: runs CUDA 12.6; …; tensorrt: does not import (…)"."""
        return "; ".join(f"{step.step}: {step.detail}" for step in self.steps)


class _MissingError(Exception):
    """A step that failed; the message is the reason."""


def install_advice() -> str:
    """What to install for TensorRT on this machine: cuda-bindings must have the major version of the driver's CUDA."""
    return (
        "TensorRT comes with JetPack (make the environment with --system-site-packages) or from NVIDIA's package index; "
        f"what moves data to the GPU: {_install_bindings(probe_driver().version)}"
    )


def import_tensorrt() -> Any:
    """The tensorrt module. It is safe without a GPU as long as nothing of it is called.

    Raises:
        BackendUnavailableError: it is not installed, or a library it needs is not.
    """
    try:
        return importlib.import_module("tensorrt")
    except Exception as error:  # a missing library is an OSError, a broken package can raise anything
        raise BackendUnavailableError(f"tensorrt does not import ({error}). {install_advice()}") from error


def import_cuda() -> Any:
    """The module `cuda.bindings.runtime`.

    Raises:
        BackendUnavailableError: it is not installed, or does not import.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except Exception as error:
        raise BackendUnavailableError(f"cuda.bindings does not import ({error}). {install_advice()}") from error


def probe_tensorrt(device: int = 0, *, start: bool = True) -> TensorRtProbe:
    """Tries what TensorRT needs, one step after the other, and stops at the first that is missing; never raises.

    Args:
        device: index of the GPU.
        start: also make a Builder and a Runtime. That takes seconds and hundreds of megabytes on a small device, so engines are
            opened without it: the record beside each names the versions that are known to work together.
    """
    found: dict[str, Any] = {}

    def driver() -> str:
        found["driver"] = probe_driver()
        if found["driver"].reason:
            raise _MissingError(found["driver"].reason)
        return f"runs CUDA {found['driver'].version}"

    def gpu() -> str:
        found["gpu"] = _device(found["driver"], device)
        return f"{found['gpu'].name}, compute capability {found['gpu'].compute_capability}"

    def module() -> str:
        found["tensorrt"] = import_tensorrt()
        return f"version {found['tensorrt'].__version__}"

    def bindings() -> str:
        found["cuda"] = _cuda_version(import_cuda(), found["driver"])
        return f"CUDA {found['cuda']}"

    def builder() -> str:
        return _start(found["tensorrt"], "Builder", device)

    def runtime() -> str:
        return _start(found["tensorrt"], "Runtime", device)

    attempts: list[tuple[str, Callable[[], str]]] = [("driver", driver), ("device", gpu), ("tensorrt", module)]
    attempts += [("cuda-bindings", bindings), *((("Builder", builder), ("Runtime", runtime)) if start else ())]
    steps: list[ProbeStep] = []
    for name, attempt in attempts:
        try:
            steps.append(ProbeStep(name, True, attempt()))
        except Exception as error:
            steps.append(ProbeStep(name, False, str(error) or type(error).__name__))
            return TensorRtProbe(tuple(steps), None)
    return TensorRtProbe(tuple(steps), _machine(found["tensorrt"], found["cuda"], found["driver"], found["gpu"]))


def version_numbers(version: str) -> tuple[int, ...]:
    """ "10.13.3.9" → (10, 13, 3, 9); what is no number ends it."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _device(driver: CudaDriver, index: int) -> CudaDevice:
    if not 0 <= index < len(driver.devices):
        there = ", ".join(f"{device.index} ({device.name})" for device in driver.devices)
        raise _MissingError(f"there is no device {index}; there is {there}")
    return driver.devices[index]


def _cuda_version(cuda: Any, driver: CudaDriver) -> str:
    """The version of the CUDA runtime, which must also see a device: it is linked with a driver interface of its own."""
    code, count = cuda.cudaGetDeviceCount()
    version = version_text(int(cuda.cudaRuntimeGetVersion()[1]))
    if version_numbers(version) < (_LEAST_CUDA,):
        raise _MissingError(f"cuda-bindings is for CUDA {version}, too old for lmedge. {_install_bindings(driver.version)}")
    if int(code) == _DRIVER_TOO_OLD:
        raise _MissingError(
            f"cuda-bindings is for CUDA {version}, newer than the driver's {driver.version}. "
            f"Install the older: {_install_bindings(driver.version)}"
        )
    if int(code) or not count:
        raise _MissingError(f"cudaGetDeviceCount answers {int(code)} with {count} devices")
    return version


def _install_bindings(driver: str | None) -> str:
    """The command for cuda-bindings that fit a driver's CUDA."""
    major, *_ = version_numbers(driver or "") or (0,)
    if not driver:
        return f"pip install 'lmedge[tensorrt]' 'cuda-bindings>=N,<N+1', where N, at least {_LEAST_CUDA}, is the driver's CUDA"
    if major < _LEAST_CUDA:
        return f"lmedge needs a driver for CUDA {_LEAST_CUDA} or newer (JetPack 6); this one runs CUDA {driver}"
    return f"pip install 'lmedge[tensorrt]' 'cuda-bindings>={major},<{major + 1}'"


def _start(tensorrt: Any, name: str, device: int) -> str:
    """Makes one on the device, which is the thread's current one from then on: TensorRT starts there and nowhere else."""
    code, *_ = import_cuda().cudaSetDevice(device)
    if int(code):
        raise _MissingError(f"cudaSetDevice({device}) answers {int(code)}")
    log = EngineLog(tensorrt)
    try:
        getattr(tensorrt, name)(log.logger)
    except Exception as error:  # a TypeError from the bindings: the library behind them gave nothing
        raise _MissingError(f"tensorrt.{name} does not start ({log.tail or error})") from error
    return "starts"


def _machine(tensorrt: Any, cuda: str, driver: CudaDriver, gpu: CudaDevice) -> EngineMachine:
    return EngineMachine(
        tensorrt=str(tensorrt.__version__),
        cuda=cuda,
        driver=driver.version or "",
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        os=platform.system().lower(),
        arch=machine_arch(),
    )
