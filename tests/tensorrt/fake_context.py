"""Execution in the fake TensorRT: shapes and addresses are set by name, and what is queued reads and writes device memory."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.tensorrt import fake_gpu as codes
from tests.tensorrt.api_names import ONLY_8
from tests.tensorrt.fake_gpu import Crash, CudaError, FakeGpu
from tests.tensorrt.fake_graph import run_graph
from tests.tensorrt.fake_pybind import Dims, Played
from tests.tensorrt.fake_streams import Stream

Shapes = dict[str, tuple[int, ...]]


class IExecutionContext(Played):
    """Runs an engine, which the caller keeps alive, in one thread at a time."""

    def _start(self, engine: Any) -> None:
        self._engine_ref = weakref.ref(engine)
        self._gpu, self._log = engine._gpu, engine._log
        self._addresses: dict[str, int] = {}
        self._profile = 0
        self._shapes: Shapes = {value.name: value.shape for value in engine._inputs if -1 not in value.shape}
        # What the last execution outside a capture ran with: only that may be captured.
        self._settled: Any = None

    @property
    def _alive(self) -> Any:
        """The engine.

        Raises:
            Crash: it was freed; the bindings would keep it, other languages do not, and lmedge does not rely on it.
        """
        if (engine := self._engine_ref()) is None:
            raise Crash("The engine was freed while its context is in use. Keep a reference to it.")
        return engine

    @property
    def engine(self) -> Any:
        return self._alive

    @property
    def name(self) -> str:
        return ""

    @property
    def active_optimization_profile(self) -> int:
        return int(self._profile)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._gpu.record("IExecutionContext.set_optimization_profile_async", profile_index)
        if profile_index not in range(self._alive.num_optimization_profiles):
            self._error(f"setOptimizationProfileAsync: profile {profile_index} is not one of the engine's")
            return False
        others = [i for context, i in self._alive._profiles_in_use.items() if context is not self]
        if self._version in ONLY_8 and profile_index in others:
            self._error(f"setOptimizationProfileAsync: profile {profile_index} is in use by another context")
            return False
        self._profile = self._alive._profiles_in_use[self] = profile_index
        self._shapes = {value.name: value.shape for value in self._alive._inputs if -1 not in value.shape}
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        shape = tuple(int(size) for size in shape)
        self._gpu.record("IExecutionContext.set_input_shape", name, shape)
        engine = self._alive
        value = engine._value(name)
        if self._gpu.failure("IExecutionContext.set_input_shape"):
            self._error("setInputShape: Error Code 7: Internal Error (injected)")
            return False
        if value is None or value not in engine._inputs:
            self._error(f"setInputShape: {name} is no input of the engine")
            return False
        if self._profile < 0:
            self._error("setInputShape: Error Code 3: API Usage Error (no optimization profile is set)")
            return False
        least, _, most = map(tuple, engine.get_tensor_profile_shape(name, self._profile))
        if len(shape) != len(least) or not all(a <= size <= b for a, size, b in zip(least, shape, most, strict=True)):
            self._error(
                "setInputShape: Error Code 3: API Usage Error (Set dimensions are not within the range of optimization profile "
                f"{self._profile} for {name}: set {list(shape)}, expected {list(least)} to {list(most)})"
            )
            return False
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        engine = self._alive
        value = engine._value(name)
        if value is None:
            return Dims(())
        if value in engine._inputs:
            return Dims(self._shapes.get(name, value.shape))
        return Dims(engine._graph.output_shape(name, self._shapes))

    def infer_shapes(self) -> list[str]:
        return [value.name for value in self._alive._inputs if value.name not in self._shapes]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        memory = int(memory)
        self._gpu.record("IExecutionContext.set_tensor_address", name, memory)
        if self._gpu.failure("IExecutionContext.set_tensor_address") or self._alive._value(name) is None:
            self._error(f"setTensorAddress: {name} is not taken")
            return False
        self._addresses[name] = memory
        return True

    def get_tensor_address(self, name: str) -> int:
        return int(self._addresses.get(name, 0))

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu, engine = self._gpu, self._alive
        with gpu.lock:
            gpu.record("IExecutionContext.execute_async_v3", int(stream_handle))
            if failure := gpu.failure("IExecutionContext.execute_async_v3"):
                self._error(failure.message or "enqueueV3: Error Code 1: Cuda Runtime (injected)")
                return False
            if gpu.lost:
                self._error(f"enqueueV3: Error Code 1: Cuda Runtime (error {gpu.lost})")
                return False
            if missing := self.infer_shapes():
                self._error(f"enqueueV3: Error Code 3: API Usage Error (input shapes are not set: {', '.join(missing)})")
                return False
            for name in engine._values:
                if not self._addresses.get(name):
                    self._error(
                        f"enqueueV3: Error Code 3: API Usage Error (Neither address or allocator is set for tensor {name})"
                    )
                    return False
            return self._enqueue(int(stream_handle))

    def _enqueue(self, handle: int) -> bool:
        gpu, engine = self._gpu, self._alive
        try:
            stream: Stream = gpu.streams.stream(handle)
        except CudaError:
            gpu.faults.append(f"execute_async_v3 was given {handle:#x}, which is no stream")
            self._error("enqueueV3: Error Code 1: Cuda Runtime (invalid resource handle)")
            return False
        if not engine._device == gpu.device_index() == stream.device:
            gpu.faults.append("execute_async_v3 ran in a thread, or on a stream, of another device than the engine's")
            self._error("enqueueV3: Error Code 1: Cuda Runtime (invalid resource handle)")
            return False
        if handle == 0:
            self._log.warning("Using default stream in enqueueV3() may lead to performance issues.")
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        state = (tuple(shapes.items()), self._profile)
        if stream.capture is None:
            self._settled = state
        elif self._settled != state:
            # The first execution with new shapes does work that no capture may hold; NVIDIA says to execute once before.
            stream.capture.broken = True
            self._error("enqueueV3: Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)")
            return False
        context = weakref.ref(self)
        gpu.streams.submit(stream, lambda: _execute(gpu, context, shapes, addresses))
        return True

    def _error(self, message: str) -> None:
        self._log.error(f"IExecutionContext::{message}")


def _execute(gpu: FakeGpu, reference: Any, shapes: Shapes, addresses: dict[str, int]) -> None:
    """The work on the device: reads the inputs where they lie, runs the graph, writes the outputs."""
    context = reference()
    if context is None:
        raise Crash("The execution context was freed while work was queued on it.")
    engine = context._alive
    plan = engine._plan
    feeds = {}
    for value in engine._inputs:
        size = math.prod(shapes[value.name]) * np.dtype(value.dtype).itemsize
        data = _checked(gpu, value.name, addresses[value.name], size).read(addresses[value.name], size)
        feeds[value.name] = np.frombuffer(data, value.dtype).reshape(shapes[value.name])
    results: dict[str, npt.NDArray[Any]] = run_graph(plan.onnx, feeds, tf32="TF32" in plan.flags, half="FP16" in plan.flags)
    for name, array in results.items():
        _checked(gpu, name, addresses[name], array.nbytes).write(addresses[name], np.ascontiguousarray(array).tobytes())


def _checked(gpu: FakeGpu, name: str, address: int, size: int) -> Any:
    """The memory, if these bytes of it may be touched from the device."""
    if not gpu.memory.holds(address, size, "device"):
        raise gpu.fault(f"{name}: {size} bytes at {address:#x} are not in device memory, or were freed", codes.ILLEGAL_ADDRESS)
    return gpu.memory
