"""Mistakes that an adapter for TensorRT can make, each made on purpose: the check that is named beside it must catch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmedge.bundle import Artifact
from lmedge.errors import LmedgeError
from lmedge.runtimes.cuda_memory import CudaSession, PairedBuffer
from lmedge.runtimes.tensorrt import TensorRtRuntime
from tests.requirements import require
from tests.tensorrt import test_cuda_memory as memory
from tests.tensorrt import test_tensorrt_opening as opening
from tests.tensorrt import test_tensorrt_runtime as running
from tests.tensorrt.engines import tiny_engine
from tests.tensorrt.fake_gpu import FakeGpu
from tests.tensorrt.fixtures import install

Patch = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[Artifact, FakeGpu, Path], None]


def addresses_in_the_order_of_the_manifest(patch: pytest.MonkeyPatch) -> None:
    """Buffers go to the engine's tensors by position."""

    def bind(self: Any, lane: Any) -> None:
        for name, array in lane.inputs.items():
            lane.context.set_input_shape(name, array.shape)
        names = [lane.engine.get_tensor_name(index) for index in range(lane.engine.num_io_tensors)]
        for name, buffer in zip(names, self._buffers.values(), strict=True):
            lane.context.set_tensor_address(name, buffer.device_address)

    patch.setattr(TensorRtRuntime, "_bind", bind)


def outputs_swapped(patch: pytest.MonkeyPatch) -> None:
    """The arrays of the answer carry each other's names."""
    exact = TensorRtRuntime._arrays

    def swapped(self: Any, specs: Any, batch: int) -> Any:
        arrays = exact(self, specs, batch)
        return dict(zip(arrays, reversed(arrays.values()), strict=True))

    patch.setattr(TensorRtRuntime, "_arrays", swapped)


def no_synchronise(patch: pytest.MonkeyPatch) -> None:
    """The answer is read while the device still works on it."""
    patch.setattr(CudaSession, "synchronize", lambda self: None)


def host_memory_as_device_memory(patch: pytest.MonkeyPatch) -> None:
    """The engine gets the address of the pinned memory."""
    exact = CudaSession.buffer

    def buffer(self: Any, size: int) -> PairedBuffer:
        made = exact(self, size)
        return PairedBuffer(made.host_address, made.host_address, made.host)

    patch.setattr(CudaSession, "buffer", buffer)


def first_graph_for_every_batch(patch: pytest.MonkeyPatch) -> None:
    """A graph is replayed for another batch size than it was captured with."""
    exact = TensorRtRuntime._capture

    def capture(self: Any, lane: Any) -> None:
        first = next(iter(self._lanes.values()), None)
        if first is None:
            exact(self, lane)
        else:
            lane.graph = first.graph

    patch.setattr(TensorRtRuntime, "_capture", capture)


def one_context_for_every_batch(patch: pytest.MonkeyPatch) -> None:
    """The plan is read again for each frame instead of being kept ready."""
    exact = TensorRtRuntime._infer

    def infer(self: Any, feeds: Any) -> Any:
        self._drop_lanes()
        return exact(self, feeds)

    patch.setattr(TensorRtRuntime, "_infer", infer)


def stale_engines_accepted(patch: pytest.MonkeyPatch) -> None:
    """The record is not compared with the ONNX file."""
    patch.setattr("lmedge.runtimes.tensorrt.check_record", lambda record, artifact: None)


def other_machines_accepted(patch: pytest.MonkeyPatch) -> None:
    """The record is not compared with the machine."""
    patch.setattr("lmedge.runtimes.tensorrt.check_machine", lambda record, machine, root: None)


def views_given_away(patch: pytest.MonkeyPatch) -> None:
    """The caller gets the pinned memory itself."""

    def infer(self: Any, feeds: Any) -> Any:
        lane = self._lanes.get(len(feeds["image"])) or self._add_lane(len(feeds["image"]))
        lane.inputs["image"][...] = feeds["image"]
        self._run(lane)
        return dict(lane.outputs)

    patch.setattr(TensorRtRuntime, "_infer", infer)


def current_device_left_as_it_is(patch: pytest.MonkeyPatch) -> None:
    """The device of the thread is set when a runtime is opened, and another one opened after it."""
    exact = TensorRtRuntime._infer

    def infer(self: Any, feeds: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(CudaSession, "select", lambda session: None)
            return exact(self, feeds)

    patch.setattr(TensorRtRuntime, "_infer", infer)


def capture_that_stops_other_threads(patch: pytest.MonkeyPatch) -> None:
    """Streams are captured in the global mode."""
    exact = CudaSession._do

    def do(self: Any, function: str, *arguments: Any) -> Any:
        if function == "cudaStreamBeginCapture":
            arguments = (arguments[0], self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)
        return exact(self, function, *arguments)

    patch.setattr(CudaSession, "_do", do)


def graph_kept_at_closing(patch: pytest.MonkeyPatch) -> None:
    """What was captured is never freed."""
    exact = CudaSession._own

    def own(self: Any, made: Any, free: Any) -> Any:
        return made if "GraphExec" in getattr(free, "__name__", "") else exact(self, made, free)

    patch.setattr(CudaSession, "_own", own)
    patch.setattr(CudaSession, "release", lambda self, graph: None)


def lost_device_left_open(patch: pytest.MonkeyPatch) -> None:
    """A runtime whose device was lost goes on as if it were open."""
    patch.setattr(TensorRtRuntime, "close", lambda self: None)


@dataclass(frozen=True)
class Mutant:
    make: Patch
    caught_by: Check


def with_runtime(check: Callable[..., None]) -> Check:
    """A check of a runtime for any batch."""

    def run(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
        with TensorRtRuntime.open(engine, batch=None) as runtime:
            check(runtime, gpu) if check.__code__.co_argcount > 1 else check(runtime)

    return run


def two_names(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    running.test_outputs_are_told_apart_by_name(gpu, folder / "two")


def right_answers(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    running.test_it_answers_what_numpy_computes(engine, 3)


def each_its_graph(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    with_runtime(running.test_each_batch_size_has_its_own_graph)(engine, gpu, folder)


def nothing_prepared_twice(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    with_runtime(running.test_a_batch_size_seen_again_prepares_nothing)(engine, gpu, folder)


def stale_refused(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    gpu.calls.clear()
    opening.test_an_engine_whose_onnx_file_was_exported_again_is_stale(engine, gpu)


def others_refused(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    opening.test_an_engine_for_the_other_gpu_of_this_machine_is_refused(engine, gpu)


def answers_owned(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    with_runtime(running.test_the_caller_owns_the_answer)(engine, gpu, folder)


def devices_in_turn(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    running.test_devices_take_turns_in_one_thread(gpu, folder / "turn")


def all_freed(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    running.test_closing_frees_everything_and_twice_is_fine(engine, gpu)


def threads_apart(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    memory.test_other_threads_allocate_while_one_captures(gpu)


def loss_closes(engine: Artifact, gpu: FakeGpu, folder: Path) -> None:
    running.test_a_device_that_is_lost_between_frames_closes_the_runtime(engine, gpu)


MUTANTS = {
    "wrong address order": Mutant(addresses_in_the_order_of_the_manifest, two_names),
    "name swapped between tensors": Mutant(outputs_swapped, two_names),
    "missing synchronise": Mutant(no_synchronise, right_answers),
    "host address passed as device": Mutant(host_memory_as_device_memory, right_answers),
    "graph replayed for another batch size": Mutant(first_graph_for_every_batch, each_its_graph),
    "prepared again for every frame": Mutant(one_context_for_every_batch, nothing_prepared_twice),
    "stale engine": Mutant(stale_engines_accepted, stale_refused),
    "engine of another machine": Mutant(other_machines_accepted, others_refused),
    "pinned memory given away": Mutant(views_given_away, answers_owned),
    "device of the thread not set": Mutant(current_device_left_as_it_is, devices_in_turn),
    "graph never freed": Mutant(graph_kept_at_closing, all_freed),
    "capture that stops other threads": Mutant(capture_that_stops_other_threads, threads_apart),
    "lost device left open": Mutant(lost_device_left_open, loss_closes),
}
CHECKS = {check.__name__: check for check in (mutant.caught_by for mutant in MUTANTS.values())}


@pytest.fixture
def gpu(tensorrt_version: str, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A machine that nobody looks at afterwards: mistakes leave traces."""
    require("onnx", "onnxruntime")
    machine = FakeGpu()
    install(machine, tensorrt_version, monkeypatch)
    return machine


@pytest.fixture
def engine(gpu: FakeGpu, tmp_path: Path) -> Artifact:
    return tiny_engine(tmp_path / "engine")


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_the_adapter_as_it_is_passes(engine: Artifact, gpu: FakeGpu, tmp_path: Path, check: Check) -> None:
    check(engine, gpu, tmp_path)
    assert gpu.faults == []


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mistake_is_caught(engine: Artifact, gpu: FakeGpu, tmp_path: Path, mutant: Mutant) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mutant.make(patch)
        with pytest.raises((AssertionError, LmedgeError, pytest.fail.Exception)):
            mutant.caught_by(engine, gpu, tmp_path)
