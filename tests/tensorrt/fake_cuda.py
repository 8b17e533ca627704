"""Plays `cuda.bindings.runtime` (cuda-bindings 12.9 and 13.0, which agree here), as far as lmedge uses it or might. Of 11.8 it
plays the one function that lmedge would call wrongly.

Names, argument lists and the tuples that come back were compared with the wheels cuda-bindings 12.9.4 and 13.0.3: a function
gives `(error,)`, or `(error, value)` with None for the value after an error; kinds and modes must be the enumerations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tests.tensorrt import fake_gpu as codes
from tests.tensorrt.cuda_errors import ERRORS
from tests.tensorrt.fake_cuda_calls import NOTHING, CudaCalls
from tests.tensorrt.fake_gpu import CudaError, FakeGpu, NotPlayed

cudaError_t: Any = IntEnum("cudaError_t", {name: code for code, (name, _) in ERRORS.items()})  # type: ignore[misc]  # noqa: N816
_SUCCESS = cudaError_t(0)
cudaMemcpyKind = IntEnum(  # noqa: N816
    "cudaMemcpyKind",
    [
        "cudaMemcpyHostToHost",
        "cudaMemcpyHostToDevice",
        "cudaMemcpyDeviceToHost",
        "cudaMemcpyDeviceToDevice",
        "cudaMemcpyDefault",
    ],
    start=0,
)
cudaStreamCaptureMode = IntEnum(  # noqa: N816
    "cudaStreamCaptureMode",
    ["cudaStreamCaptureModeGlobal", "cudaStreamCaptureModeThreadLocal", "cudaStreamCaptureModeRelaxed"],
    start=0,
)
cudaStreamCaptureStatus = IntEnum(  # noqa: N816
    "cudaStreamCaptureStatus",
    ["cudaStreamCaptureStatusNone", "cudaStreamCaptureStatusActive", "cudaStreamCaptureStatusInvalidated"],
    start=0,
)
_CONSTANTS = {
    "cudaStreamDefault": 0,
    "cudaStreamNonBlocking": 1,
    "cudaEventDefault": 0,
    "cudaEventBlockingSync": 1,
    "cudaEventDisableTiming": 2,
    "cudaHostAllocDefault": 0,
    "cudaHostAllocPortable": 1,
    "cudaHostAllocMapped": 2,
}


class Handle:
    """What a stream, event or graph is to the caller: a number in a wrapper."""

    def __init__(self, init_value: int = 0) -> None:
        self._value = int(init_value)

    def __int__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and int(self) == int(other)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._value:#x}>"


_HANDLES = {name: type(name, (Handle,), {}) for name in ("cudaStream_t", "cudaEvent_t", "cudaGraph_t", "cudaGraphExec_t")}
_RETURNED_HANDLES = {
    "cudaStreamCreate": "cudaStream_t",
    "cudaStreamCreateWithFlags": "cudaStream_t",
    "cudaEventCreate": "cudaEvent_t",
    "cudaEventCreateWithFlags": "cudaEvent_t",
    "cudaStreamEndCapture": "cudaGraph_t",
    "cudaGraphInstantiate": "cudaGraphExec_t",
    "cudaGraphInstantiateWithFlags": "cudaGraphExec_t",
}
# These answer whatever state the device is in.
_ALWAYS = ("cudaGetErrorString", "cudaGetErrorName", "cudaRuntimeGetVersion", "cudaDriverGetVersion")


def make_cuda_runtime(gpu: FakeGpu) -> ModuleType:
    """A module that plays `cuda.bindings.runtime` on a machine."""
    calls = CudaCalls(gpu)
    module = _module("cuda.bindings.runtime")
    vars(module).update(_CONSTANTS, **_HANDLES)
    for enumeration in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode, cudaStreamCaptureStatus):
        setattr(module, enumeration.__name__, enumeration)
    for name, function in inspect.getmembers(calls, inspect.ismethod):
        if name.startswith("cuda"):
            setattr(module, name, _binding(gpu, name, function))

    def get_text(error: Any, column: int) -> tuple[Any, bytes]:
        return _SUCCESS, ERRORS[error.value][column].encode()

    module.cudaGetErrorName = lambda error: get_text(error, 0)  # type: ignore[attr-defined]
    module.cudaGetErrorString = lambda error: get_text(error, 1)  # type: ignore[attr-defined]
    return module


def cuda_modules(gpu: FakeGpu) -> dict[str, ModuleType]:
    """What `sys.modules` needs for `from cuda.bindings import runtime` to find the fake."""
    cuda, bindings, runtime = _module("cuda"), _module("cuda.bindings"), make_cuda_runtime(gpu)
    for package in (cuda, bindings):
        package.__path__ = []
    of_major = {11: "11.8.7", 12: "12.9.4", 13: "13.0.3"}
    bindings.__version__ = of_major[gpu.runtime_version // 1000]  # type: ignore[attr-defined]
    cuda.bindings, bindings.runtime = bindings, runtime  # type: ignore[attr-defined]
    return {"cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}


def _module(name: str) -> ModuleType:
    """A module that says of a CUDA function which it lacks that the fake lacks it."""
    module = ModuleType(name, "A fake for tests.")
    module.__spec__ = ModuleSpec(name, None, is_package=name != "cuda.bindings.runtime")

    def missing(attribute: str) -> Any:
        if attribute.startswith("cuda") and name.endswith("runtime"):
            raise NotPlayed(f"{name}.{attribute}")
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    module.__getattr__ = missing  # type: ignore[method-assign]
    return module


def _binding(gpu: FakeGpu, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the bindings give it: arguments are converted, errors are returned."""
    returns = inspect.signature(function, eval_str=True).return_annotation is not None
    handle = _HANDLES.get(_RETURNED_HANDLES.get(name, ""))

    def call(*arguments: Any) -> tuple[Any, ...]:
        with gpu.lock:
            try:
                gpu.record(name, *arguments)
                if name not in _ALWAYS and (problem := gpu.problem()):
                    raise CudaError(problem)
                if failure := gpu.failure(name):
                    raise CudaError(failure.code or codes.INVALID_VALUE)
                value = function(*arguments)
            except CudaError as error:
                return (cudaError_t(error.code), None) if returns else (cudaError_t(error.code),)
        if not returns or value is NOTHING:
            return (_SUCCESS,)
        if isinstance(value, tuple):
            return (_SUCCESS, *value)
        return _SUCCESS, handle(value) if handle else value

    call.__name__ = name
    return call
