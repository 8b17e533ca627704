"""TensorRT and CUDA called directly, the way NVIDIA's documentation does it: what the fakes are tried with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def make_logger(trt: Any) -> Any:
    """A logger that keeps what it is told, as `(severity, message)` in `lines`."""

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append((severity.name, message))

        @property
        def text(self) -> str:
            return "\n".join(message for _, message in self.lines)

    return Collector()


def the_logger(trt: Any) -> Any:
    """The logger that everything here gives to TensorRT, emptied: TensorRT warns of a second one."""
    logger = vars(trt).get("_collector") or make_logger(trt)
    trt._collector = logger
    logger.lines.clear()
    return logger


class Build:
    """A build of an ONNX file; whatever is to be different is changed before `plan` is called."""

    def __init__(self, trt: Any, onnx_file: Path, *, network_flags: int | None = None, precision: tuple[str, ...] = ()) -> None:
        self.trt, self.logger = trt, the_logger(trt)
        self.builder = trt.Builder(self.logger)
        self.network = self.builder.create_network(usual_network_flags(trt) if network_flags is None else network_flags)
        self.parser = trt.OnnxParser(self.network, self.logger)
        self.parsed = self.parser.parse_from_file(str(onnx_file))
        self.config = self.builder.create_builder_config()
        self.config.clear_flag(trt.BuilderFlag.TF32)
        if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            for name in precision:
                self.config.set_flag(getattr(trt.BuilderFlag, name))

    def add_profile(self, batch: tuple[int, int, int] = (1, 2, 8)) -> int:
        profile = self.builder.create_optimization_profile()
        for index in range(self.network.num_inputs):
            value = self.network.get_input(index)
            profile.set_shape(value.name, *((size, *tuple(value.shape)[1:]) for size in batch))
        return int(self.config.add_optimization_profile(profile))

    def plan(self) -> bytes | None:
        made = self.builder.build_serialized_network(self.network, self.config)
        return None if made is None else bytes(made)

    @property
    def errors(self) -> list[str]:
        return [self.parser.get_error(index).desc() for index in range(self.parser.num_errors)]


def usual_network_flags(trt: Any) -> int:
    """Explicit batch for 8.6, strong typing for 10, nothing for 11."""
    flags = trt.NetworkDefinitionCreationFlag
    if hasattr(flags, "STRONGLY_TYPED"):
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH)


def build_plan(trt: Any, onnx_file: Path, *, precision: tuple[str, ...] = ()) -> bytes:
    """The plan of an ONNX file that nothing is wrong with."""
    build = Build(trt, onnx_file, precision=precision)
    assert build.parsed, build.errors
    assert build.add_profile() == 0
    plan = build.plan()
    assert plan is not None, build.logger.text
    return plan


class Run:
    """An engine with its context, stream and buffers; every step is a method, so that a test can leave one out."""

    def __init__(self, trt: Any, cuda: Any, plan: bytes, feeds: Arrays) -> None:
        self.trt, self.cuda, self.feeds = trt, cuda, feeds
        self.logger = the_logger(trt)
        self.runtime = trt.Runtime(self.logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        self.context = self.engine.create_execution_context()
        self.stream = self.do("cudaStreamCreate")
        self.device: dict[str, int] = {}
        self.results: Arrays = {}

    def do(self, function: str, *arguments: Any) -> Any:
        """Calls CUDA; the first result, or None."""
        error, *values = getattr(self.cuda, function)(*arguments)
        assert error == self.cuda.cudaError_t.cudaSuccess, (function, error)
        return values[0] if values else None

    def set_shapes(self) -> None:
        for name, array in self.feeds.items():
            assert self.context.set_input_shape(name, array.shape)

    def allocate(self) -> None:
        """Device memory for all tensors, and arrays for the results; only after the shapes are known."""
        for name in [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]:
            shape = tuple(self.context.get_tensor_shape(name))
            array = np.zeros(shape, self.trt.nptype(self.engine.get_tensor_dtype(name)))
            self.device[name] = self.do("cudaMalloc", array.nbytes)
            if self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.OUTPUT:
                self.results[name] = array

    def set_addresses(self) -> None:
        for name, address in self.device.items():
            assert self.context.set_tensor_address(name, address)

    def upload(self) -> None:
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        for name, array in self.feeds.items():
            self.do("cudaMemcpyAsync", self.device[name], array.ctypes.data, array.nbytes, kind, self.stream)

    def execute(self) -> bool:
        return bool(self.context.execute_async_v3(int(self.stream)))

    def download(self) -> Arrays:
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, array in self.results.items():
            self.do("cudaMemcpyAsync", array.ctypes.data, self.device[name], array.nbytes, kind, self.stream)
        self.do("cudaStreamSynchronize", self.stream)
        return self.results

    def prepare(self) -> None:
        self.set_shapes()
        self.allocate()
        self.set_addresses()

    def whole(self) -> Arrays:
        """All steps in order."""
        self.prepare()
        self.upload()
        assert self.execute(), self.logger.text
        return self.download()

    def close(self) -> None:
        for address in self.device.values():
            self.cuda.cudaFree(address)
        self.cuda.cudaStreamDestroy(self.stream)
