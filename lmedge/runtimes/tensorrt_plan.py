"""From the bytes of a plan to an engine that is what its record and the manifest say."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lmedge.bundle import Artifact, TensorSpec
from lmedge.errors import BundleFormatError, DeviceUnavailableError, LmedgeError
from lmedge.runtimes.engine_record import EngineRecord, compile_command
from lmedge.runtimes.tensorrt_log import EngineLog
from lmedge.runtimes.tensorrt_machine import import_tensorrt

TRUST_VARIABLE = "LMEDGE_TRUST_ENGINE_CODE"

# trt.DataType by name: `trt.nptype` of 8.6 fails with some versions of NumPy.
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32", "INT64": "int64", "BOOL": "bool",
}  # fmt: skip
# "Cuda Runtime (out of memory)", "OutOfMemory (no further information)".
_OUT_OF_MEMORY = re.compile(r"\bout ?of ?memory", re.IGNORECASE)
_NO_REASON = "it gave no reason"

CheckSignature = Callable[[tuple[TensorSpec, ...], tuple[TensorSpec, ...]], None]

# The bundle whose engines this process builds at the moment, and therefore trusts.
_built_for: ContextVar[Path | None] = ContextVar("built_for", default=None)


class PlanLoader:
    """One `trt.Runtime` and the plan it reads. The record has been compared with the machine before one is made.

    Args:
        check_signature: raises when inputs and outputs are not the manifest's.
        check_device: raises when the device is lost, which TensorRT tells like any other failure.

    Raises:
        DeviceUnavailableError: TensorRT does not start, or the device is lost.
        BundleFormatError: the plan brings code of its own, and nobody said that its source is trusted.
    """

    def __init__(
        self, artifact: Artifact, record: EngineRecord, check_signature: CheckSignature, check_device: Callable[[], None]
    ) -> None:
        self._artifact, self._record = artifact, record
        self._check_signature, self._check_device = check_signature, check_device
        self._tensorrt = import_tensorrt()
        self._log = EngineLog(self._tensorrt)
        try:
            self._runtime = self._tensorrt.Runtime(self._log.logger)
        except TypeError as error:  # the library behind the bindings gave nothing
            check_device()
            raise DeviceUnavailableError(f"tensorrt.Runtime does not start: {self.said(str(error))}") from error
        if record.version_compatible:
            self._allow_code()
        self._plan = artifact.file.read_bytes()

    def load(self) -> Any:
        """An engine.

        Raises:
            BundleFormatError: TensorRT cannot read the plan, or it is not what record and manifest say.
            DeviceUnavailableError: not enough memory on the device, or it is lost.
        """
        self._log.forget()
        engine = self._runtime.deserialize_cuda_engine(self._plan)
        if engine is None:
            raise self._unusable("load")
        self._check_tensors(engine)
        return engine

    def make_context(self, engine: Any) -> Any:
        """An execution context of an engine, with memory of its own for what lies between the layers.

        Raises:
            DeviceUnavailableError: not enough memory on the device, or it is lost.
            BundleFormatError: TensorRT makes none for another reason.
        """
        self._log.forget()
        context = engine.create_execution_context()
        if context is None:
            raise self._unusable("make a context for")
        return context

    def said(self, otherwise: str = _NO_REASON) -> str:
        """TensorRT's last words, or these."""
        return f"{self._log.tail or otherwise}."

    def close(self) -> None:
        """Ends TensorRT's part; what was made with it must be gone by now."""
        self._runtime = None

    def _allow_code(self) -> None:
        """A version-compatible plan brings a library that TensorRT runs when it reads the plan: only from a trusted source."""
        if _built_for.get() is None and os.environ.get(TRUST_VARIABLE) != "1":
            raise BundleFormatError(
                f"{self._artifact.path} is version-compatible, so it brings program code that runs when it is opened. If you "
                f"trust whoever made this bundle, set {TRUST_VARIABLE}=1. Else build it here: {self._command}"
            )
        self._runtime.engine_host_code_allowed = True

    def _check_tensors(self, engine: Any) -> None:
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        specs = {name: _spec_of(engine, name) for name in names}
        given = {name for name in names if engine.get_tensor_mode(name) == self._tensorrt.TensorIOMode.INPUT}
        self._check_signature(
            tuple(spec for name, spec in specs.items() if name in given),
            tuple(spec for name, spec in specs.items() if name not in given),
        )
        profile = self._record.profile
        wanted = [profile.least, profile.usual, profile.most]
        for name in sorted(given):
            size = specs[name].shape[0]
            fixed = isinstance(size, int)
            found = [size] * len(wanted) if fixed else [shape[0] for shape in engine.get_tensor_profile_shape(name, 0)]
            if found != wanted:
                raise BundleFormatError(
                    f"{self._artifact.path} takes {name!r} in batches of {found} (least, usual, most); its record says "
                    f"{wanted}. Build it here: {self._command}"
                )

    def _unusable(self, what: str) -> LmedgeError:
        """TensorRT gave nothing: for want of a device or of memory, or because of the plan."""
        said = self.said()
        self._check_device()
        if _OUT_OF_MEMORY.search(said):
            return DeviceUnavailableError(
                f"The device has no memory left to {what} {self._artifact.path}: {said} End other programs that use the GPU."
            )
        return BundleFormatError(
            f"TensorRT {self._record.machine.tensorrt} cannot {what} {self._artifact.path}: {said} "
            f"Build it here: {self._command}"
        )

    @property
    def _command(self) -> str:
        return compile_command(_built_for.get() or self._artifact.root)


@contextmanager
def trusting_engine_code(bundle_root: Path) -> Iterator[None]:
    """Inside, version-compatible engines may be opened: for whoever has just built them.

    Args:
        bundle_root: the bundle that they were built for, which advice names instead of the folder where they lie meanwhile.
    """
    token = _built_for.set(bundle_root)
    try:
        yield
    finally:
        _built_for.reset(token)


def _spec_of(engine: Any, name: str) -> TensorSpec:
    shape = tuple("batch" if size < 0 else int(size) for size in engine.get_tensor_shape(name))
    dtype = engine.get_tensor_dtype(name).name
    return TensorSpec(name, _DTYPES.get(dtype, dtype.lower()), shape)
