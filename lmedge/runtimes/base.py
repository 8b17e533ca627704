"""What every engine implements, and the checks that none of them has to write.

The public methods check, the private ones work: an adapter gives `status`, `_open`, `_infer` and `_close`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact, TensorSpec, check_digest
from lmedge.errors import (
    BackendUnavailableError,
    BundleFormatError,
    DeviceUnavailableError,
    EngineError,
    InputError,
    LmedgeError,
)
from lmedge.runtimes.ownership import Owner, keep_in_forks

Feeds = Mapping[str, npt.NDArray[Any]]
Results = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RuntimeStatus:
    """Whether an engine can be used here.

    Attributes:
        installed: the engine imports.
        version: its version, or None.
        devices: names that `open(device=...)` takes here ("cpu", "cuda", "cuda:1", "gpu", "npu").
        reason: why not, when it is not installed; else what there is to know.
        extra: what to install, e.g. ``pip install 'lmedge[onnxruntime]'``.
    """

    installed: bool
    version: str | None
    devices: tuple[str, ...]
    reason: str
    extra: str

    @property
    def default_device(self) -> str:
        """The CPU for engines that have it, else their first device; "cpu" where there is none at all."""
        return "cpu" if "cpu" in self.devices or not self.devices else self.devices[0]


class Runtime(ABC):
    """One opened network on one device, for one thread. Made by `open`; a context manager.

    Attributes:
        name: the adapter's name.
        artifact: what it runs.
        device: the device it runs on, as asked for.
        precision_used: what the engine computes in where that is not the artifact's ("f32", "bf16"), for reports; else "".
        remark: what else is unlike what one would expect, for reports ("without a CUDA graph, ..."); else "".
    """

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]

    artifact: Artifact
    device: str
    threads: int | None
    batch: int | None
    precision_used: str = ""
    remark: str = ""

    def __init__(self, artifact: Artifact, device: str, threads: int | None, batch: int | None) -> None:
        self.artifact, self.device, self.threads, self.batch = artifact, device, threads, batch
        self._owner = Owner()
        self._closed = False
        keep_in_forks(self)
        # Made once: these checks run on every frame.
        self._declared = {spec.name: (np.dtype(spec.dtype), spec) for spec in (*artifact.inputs, *artifact.outputs)}
        self._input_names = {spec.name for spec in artifact.inputs}
        self._output_names = {spec.name for spec in artifact.outputs}
        self._fixed = {spec.name: fixed_shape(spec, batch) for _, spec in self._declared.values()}

    @classmethod
    @abstractmethod
    def status(cls) -> RuntimeStatus:
        """Whether and where this engine runs on this machine; never raises."""

    @classmethod
    def misfit(cls, artifact: Artifact, device: str | None = None) -> str:
        """Why a file was made for another machine than this one, in one line; "" where it was not, or where opening must tell.

        Only engines that are built for one machine need it. It starts nothing, and never raises.

        Args:
            device: the device it is to run on; None is the engine's default.
        """
        return ""

    @classmethod
    @final
    def open(
        cls, artifact: Artifact, *, device: str | None = None, threads: int | None = None, batch: int | None = 1
    ) -> Runtime:
        """Loads an artifact on exactly the device that was asked for.

        Args:
            artifact: as `Bundle.select` gives it; its digest is checked first.
            device: one of `status().devices`; None is the CPU, for an engine without it its first device.
            threads: for CPU engines; None leaves the engine's default.
            batch: number of crops per call that the engine is compiled for; None takes any.

        Raises:
            BackendUnavailableError: the engine is not installed.
            DeviceUnavailableError: the engine is here, the device is not.
            DigestMismatchError: the file is not the one the manifest promises.
            BundleFormatError: this engine does not read this format, or cannot load the file.
            InputError: threads or batch below 1.
        """
        status = cls.status()
        if not status.installed:
            raise BackendUnavailableError(f"{cls.name} cannot be used here: {status.reason} {status.extra}".strip())
        device = status.default_device if device is None else device
        if device not in status.devices:
            raise DeviceUnavailableError(
                f"{cls.name} {status.version or ''} has no device {device!r} here; it has {', '.join(status.devices)}. "
                f"{status.reason}".strip()
            )
        if any(count is not None and not is_count(count, 1) for count in (threads, batch)):
            raise InputError(
                f"threads and batch must be whole numbers of at least 1, or None; got threads={threads!r}, batch={batch!r}."
            )
        if artifact.format not in cls.formats:
            raise BundleFormatError(f"{cls.name} reads {', '.join(cls.formats)}; {artifact.path} is {artifact.format}.")
        check_digest(artifact)
        # Engines take Python's own integers only.
        runtime = cls(artifact, device, threads and int(threads), batch and int(batch))
        runtime._open()
        return runtime

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.artifact.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.artifact.outputs

    @final
    def infer(self, feeds: Feeds) -> Results:
        """Runs the network once; the caller owns the arrays that come back.

        Args:
            feeds: input name → array, of the dtype and shape that `inputs` says, all with the same batch.

        Raises:
            InputError: a name, dtype or shape is not the declared one; the runtime is closed.
            OwnershipError: another thread opened the runtime, or the process that this one was forked from.
            EngineError: the engine failed.
        """
        self.check_usable()
        checked = self._check_feeds(feeds)
        batch = next(iter(checked.values())).shape[0]
        try:
            results = self._infer(checked)
        except (LmedgeError, MemoryError):
            raise
        except Exception as error:  # engines' own exceptions share no base but Exception
            raise EngineError(
                f"{self.name} failed on {self.artifact.path}: {error or type(error).__name__}. "
                f"If this stays so, check the bundle on this machine: lmedge verify {self.artifact.root} --backend {self.name}"
            ) from error
        self._check_results(results, batch)
        return results

    @final
    def check_usable(self) -> None:
        """Whether `infer` may be called here and now.

        Raises:
            InputError: the runtime is closed; OwnershipError: another thread or process opened it.
        """
        if self._closed:
            raise InputError(f"This {self.name} runtime is closed. Open a new one.")
        self._owner.check(f"{self.name} runtime")

    @final
    def close(self) -> None:
        """Frees the engine; closing twice is fine. In a forked process nothing is freed: see `lmedge.runtimes.ownership`."""
        if not self._closed:
            self._closed = True
            if self._owner.is_of_this_process:
                self._close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _open(self) -> None:
        """Loads `self.artifact`; raises instead of falling back."""

    @abstractmethod
    def _infer(self, feeds: Results) -> Results:
        """Runs on checked, contiguous feeds; returns fresh arrays by output name."""

    def _close(self) -> None:  # noqa: B027  (most engines need nothing here)
        """Frees what garbage collection does not."""

    def engine_call(self, feeds: Feeds) -> Any:
        """A function without arguments that makes the bare engine call on these feeds, to measure the overhead of `infer`."""
        checked = self._check_feeds(feeds)
        return lambda: self._infer(checked)

    def _check_signature(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        """Compares the tensors that an engine found in its file with the declared ones; a size without a number fits any.

        Raises:
            BundleFormatError: naming the first tensor that differs.
        """
        if {spec.name for spec in inputs} != {spec.name for spec in self.inputs}:
            names = [sorted(spec.name for spec in specs) for specs in (inputs, self.inputs)]
            raise BundleFormatError(
                f"{self.artifact.path} has the inputs {names[0]}; the manifest declares {names[1]}. Build again."
            )
        found = {spec.name: spec for spec in (*inputs, *outputs)}
        for wanted in (*self.inputs, *self.outputs):
            there = found.get(wanted.name)
            if there is None or there.dtype != wanted.dtype or not _compatible(there.shape, wanted.shape):
                came = f"{there.dtype} {there.shape_text}" if there else "nothing of that name"
                raise BundleFormatError(
                    f"{self.artifact.path}: the manifest declares {wanted.name!r} as {wanted.dtype} {wanted.shape_text}, "
                    f"the file has {came}. Build again."
                )

    def _check_feeds(self, feeds: Feeds) -> Results:
        if self._are_right(feeds):
            # `dict(feeds)` would leave a dictionary in Python's free list with every frame.
            return {name: array for name, array in feeds.items()}  # noqa: C416
        if feeds.keys() != self._input_names:
            raise InputError(f"{self.name} expects the inputs {sorted(self._input_names)}; got {sorted(feeds)}.")
        checked: Results = {}
        batches = set()
        for name, array in feeds.items():
            dtype, spec = self._declared[name]
            if not isinstance(array, np.ndarray) or array.dtype != dtype or not spec.fits(array.shape):
                came = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise InputError(f"Input {name!r} must be {spec.dtype} {spec.shape_text}; got {came}.")
            batches.add(array.shape[0])
            checked[name] = np.ascontiguousarray(array)
        if len(batches) != 1 or (self.batch is not None and batches != {self.batch}):
            wanted = "one batch for all inputs" if self.batch is None else f"batch {self.batch}"
            raise InputError(f"This {self.name} runtime takes {wanted}; got batches {sorted(batches)}.")
        return checked

    def _are_right(self, feeds: Feeds) -> bool:
        """Whether all arrays can go to a fixed-batch engine as they are, the usual case; where not, a closer look tells."""
        for name, array in feeds.items():
            if (
                not isinstance(array, np.ndarray)
                or name not in self._input_names
                or array.shape != self._fixed[name]
                or array.dtype != self._declared[name][0]
                or not array.flags.c_contiguous
            ):
                return False
        return len(feeds) == len(self._input_names)

    def _check_results(self, results: Any, batch: int) -> None:
        if not isinstance(results, dict) or results.keys() != self._output_names:
            raise TypeError(f"{type(self).__name__}._infer must return a dict of {sorted(self._output_names)}.")
        for name, array in results.items():
            dtype, spec = self._declared[name]
            if array.dtype == dtype and array.shape == self._fixed[name]:
                continue
            if array.dtype != dtype or not spec.fits(array.shape) or array.shape[0] != batch:
                raise TypeError(f"{self.name} returned {spec.name!r} as {array.dtype} {array.shape}, not {spec.shape_text}.")


def is_count(value: object, least: int) -> bool:
    """Whether a value is a whole number, Python's or NumPy's, of at least `least`."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def fixed_shape(spec: TensorSpec, batch: int | None) -> tuple[int, ...] | None:
    """The one shape of a tensor in a runtime for one batch, or None where there is none."""
    if batch is None or not spec.shape:
        return None
    first, *others = spec.shape
    sizes = [size for size in others if isinstance(size, int)]
    return (batch, *sizes) if len(sizes) == len(others) and (isinstance(first, str) or first == batch) else None


def _compatible(found: tuple[int | str, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(found) == len(wanted) and all(
        isinstance(here, str) or isinstance(there, str) or here == there for here, there in zip(found, wanted, strict=True)
    )
