"""TensorRT (https://docs.nvidia.com/deeplearning/tensorrt): engines on the NVIDIA GPU they were built on, versions 8.6 to 11.

The order matters: manifest and record are compared with the machine first, then CUDA starts, then TensorRT reads the plan.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact, TensorSpec
from lmedge.errors import BackendUnavailableError, BundleFormatError, DeviceUnavailableError, InputError, LmedgeError
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus
from lmedge.runtimes.cuda_driver import DEVICE, device_name, device_number, probe_driver
from lmedge.runtimes.cuda_memory import CudaSession, DeviceLostError
from lmedge.runtimes.engine_record import (
    EngineRecord,
    check_machine,
    check_record,
    compile_command,
    machine_differences,
    record_path,
)
from lmedge.runtimes.tensorrt_machine import install_advice, probe_tensorrt
from lmedge.runtimes.tensorrt_plan import PlanLoader

# Runs before the first answer: they bring the clocks up and load what is loaded lazily.
_WARM_UP = 3
# Batch sizes that are kept ready at once; each holds an engine and its memory.
_MOST_LANES = 8


class _RefusedError(LmedgeError):
    """TensorRT would not run; nobody has asked the device why."""


@dataclass(eq=False)
class _Lane:
    """Everything that one batch size needs; the arrays are views of pinned memory.

    A captured graph fixes the shapes of its context, so no two batch sizes share one.
    """

    engine: Any
    context: Any
    inputs: dict[str, npt.NDArray[Any]]
    outputs: dict[str, npt.NDArray[Any]]
    graph: Any = None


class TensorRtRuntime(Runtime):
    """An engine, its memory and its stream. With `batch=None` each batch size is prepared when it is first seen.

    Engines are compiled without TF32. `precision_used` says where one was not, or where no layer of an int8 engine is int8.
    """

    name = "tensorrt"
    formats = ("tensorrt",)

    @classmethod
    def status(cls) -> RuntimeStatus:
        probe = probe_tensorrt(start=False)
        if probe.machine is None:
            return RuntimeStatus(False, None, (), f"{probe.reason}.", install_advice())
        devices = probe_driver().devices
        named = ", ".join(f"{device_name(device.index)} is {device.name}" for device in devices)
        names = tuple(device_name(device.index) for device in devices)
        return RuntimeStatus(True, probe.machine.tensorrt, names, f"Engines run on GPUs: {named}.", install_advice())

    @classmethod
    def misfit(cls, artifact: Artifact, device: str | None = None) -> str:
        try:
            record = EngineRecord.read(artifact.root / record_path(artifact.path))
        except BundleFormatError:
            return ""  # it is damaged, not another machine's
        machine = probe_tensorrt(device_number(device or DEVICE), start=False).machine
        differences = machine_differences(record, machine) if machine is not None else []
        if not differences:
            return ""
        return (
            f"{artifact.path} was built for another machine ({'; '.join(differences)}). For one of this machine: "
            f"{compile_command(artifact.root)}"
        )

    def _open(self) -> None:
        self._record = self._read_record()
        index = device_number(self.device)
        probe = probe_tensorrt(index, start=False)
        if probe.machine is None:
            raise BackendUnavailableError(f"tensorrt cannot be used here: {probe.reason}.")
        check_machine(self._record, probe.machine, self.artifact.root)
        self._check_batch(self.batch or self._record.profile.usual)
        self.precision_used = _precision_used(self._record)
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()  # by their last use
        with ExitStack() as frees:
            self._start(index, frees)
            self._frees = frees.pop_all()

    def _read_record(self) -> EngineRecord:
        path = record_path(self.artifact.path)
        if path not in dict(self.artifact.companions):
            raise BundleFormatError(
                f"The manifest has no record of {self.artifact.path}: {path} must be among its files. "
                f"Build it here: {compile_command(self.artifact.root)}"
            )
        record = EngineRecord.read(self.artifact.root / path)
        check_record(record, self.artifact)
        return record

    def _check_batch(self, batch: int) -> None:
        profile = self._record.profile
        if not profile.takes(batch):
            raise InputError(
                f"{self.artifact.path} takes batches from {profile.least} to {profile.most}, not {batch}. Compile it for more: "
                f"{compile_command(self.artifact.root)} --batch 1:{batch}:{max(profile.most, batch)}"
            )

    def _start(self, index: int, frees: ExitStack) -> None:
        """CUDA, memory, TensorRT, the engine. What was made is freed in reverse: contexts and engines before their memory."""
        self._session = CudaSession(index)
        frees.callback(self._session.close)
        most = self.batch or self._record.profile.most
        specs = (*self.inputs, *self.outputs)
        self._buffers = {spec.name: self._session.buffer(_size(spec, most)) for spec in specs}
        self._loader = PlanLoader(self.artifact, self._record, self._check_signature, self._session.check_alive)
        frees.callback(self._loader.close)
        frees.callback(self._drop_lanes)
        self._add_lane(self.batch or self._record.profile.usual)

    def _add_lane(self, batch: int) -> _Lane:
        """Prepares a batch size: engine, context, addresses, graph, warm-up. The least recently used one makes room for it."""
        if len(self._lanes) == _MOST_LANES:
            self._drop_lane(next(iter(self._lanes)))
        # An engine for each: TensorRT 8 lends its one profile to one context only, and the weights are small.
        engine = self._loader.load()
        context = self._loader.make_context(engine)
        lane = _Lane(engine, context, self._arrays(self.inputs, batch), self._arrays(self.outputs, batch))
        self._bind(lane)
        # The first run after the shapes are set does work that cannot be captured.
        self._run(lane)
        self._capture(lane)
        for _ in range(_WARM_UP):
            self._run(lane)
        self._lanes[batch] = lane
        return lane

    def _arrays(self, specs: tuple[TensorSpec, ...], batch: int) -> dict[str, npt.NDArray[Any]]:
        return {spec.name: self._buffers[spec.name].host_array(_shape(spec, batch), spec.dtype) for spec in specs}

    def _bind(self, lane: _Lane) -> None:
        """Gives the context its shapes and addresses, by name."""
        for name, array in lane.inputs.items():
            if not lane.context.set_input_shape(name, array.shape):
                self._session.check_alive()
                raise InputError(f"{self.artifact.path} does not take {name!r} as {array.shape}: {self._loader.said()}")
        for name, array in lane.outputs.items():
            shape = tuple(lane.context.get_tensor_shape(name))
            if shape != array.shape:
                raise BundleFormatError(f"{self.artifact.path} gives {name!r} as {shape}; the manifest says {array.shape}.")
        for name, buffer in self._buffers.items():
            if not lane.context.set_tensor_address(name, buffer.device_address):
                self._session.check_alive()
                raise _RefusedError(
                    f"TensorRT does not take the memory of {name!r} in {self.artifact.path}: {self._loader.said()}"
                )

    def _capture(self, lane: _Lane) -> None:
        try:
            lane.graph = self._session.capture(lambda: self._enqueue(lane))
        except DeviceUnavailableError:
            raise
        except LmedgeError as error:
            self.remark = f"without a CUDA graph, which could not be captured: {error}"

    def _infer(self, feeds: Results) -> Results:
        batch = len(next(iter(feeds.values())))
        self._check_batch(batch)
        try:
            self._session.select()
            lane = self._lanes.get(batch) or self._add_lane(batch)
            self._lanes.move_to_end(batch)
            for name, array in feeds.items():
                lane.inputs[name][...] = array
            self._run(lane)
        except DeviceLostError:
            self.close()
            raise
        return {name: array.copy() for name, array in lane.outputs.items()}

    def _run(self, lane: _Lane) -> None:
        """One answer, waited for: pinned inputs to the device, the engine, pinned outputs back."""
        if lane.graph is None:
            try:
                self._enqueue(lane)
            except _RefusedError:
                self._session.check_alive()
                raise
        else:
            self._session.launch(lane.graph)
        self._session.synchronize()

    def _enqueue(self, lane: _Lane) -> None:
        for name, array in lane.inputs.items():
            self._session.upload(self._buffers[name], array.nbytes)
        if not lane.context.execute_async_v3(self._session.stream):
            raise _RefusedError(f"TensorRT did not run {self.artifact.path}: {self._loader.said()}")
        for name, array in lane.outputs.items():
            self._session.download(self._buffers[name], array.nbytes)

    def _close(self) -> None:
        self._frees.close()

    def _drop_lanes(self) -> None:
        while self._lanes:
            self._drop_lane(next(iter(self._lanes)))

    def _drop_lane(self, batch: int) -> None:
        lane = self._lanes.pop(batch)
        if lane.graph is not None:
            self._session.release(lane.graph)
        lane.context = None
        lane.engine = None


def _shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(sizes) != len(spec.shape) - 1:
        raise BundleFormatError(f"Only the batch may vary in an engine; {spec.name!r} is {spec.shape_text}. Build again.")
    return (batch, *sizes)


def _size(spec: TensorSpec, batch: int) -> int:
    return math.prod(_shape(spec, batch)) * np.dtype(spec.dtype).itemsize


def _precision_used(record: EngineRecord) -> str:
    if record.options.get("tf32"):
        return "tf32"
    wanted = "int8" if "int8" in record.precision else record.precision
    return "" if not record.layers or wanted in record.layers else ", ".join(sorted(record.layers))
