"""How an opened engine runs: graphs, memory, threads, devices, and what happens when one of them fails."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.bundle import Artifact
from lmedge.errors import BackendUnavailableError, DeviceUnavailableError, InputError, LmedgeError
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.cuda_memory import DeviceLostError
from lmedge.runtimes.tensorrt import TensorRtRuntime
from tests.bundles import random_crops, tiny_answer
from tests.tensorrt.engines import PROFILE, answers, tiny_engine, two_outputs
from tests.tensorrt.fake_gpu import Device, FakeGpu

ENQUEUE, LAUNCH = "IExecutionContext.execute_async_v3", "cudaGraphLaunch"
CLOSE = 1e-5
FRAMES = 200
LEAST_OBJECT_BYTES = 16


@pytest.fixture
def engine(fake_gpu: FakeGpu, tmp_path: Path) -> Artifact:
    return tiny_engine(tmp_path)


@pytest.fixture
def runtime(engine: Artifact) -> Iterator[Runtime]:
    """Opened for any batch."""
    with TensorRtRuntime.open(engine, batch=None) as opened:
        yield opened


def ask(runtime: Runtime, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return runtime.infer({"image": crops})["landmarks"]


@pytest.mark.parametrize("batch", [1, 3, PROFILE.most])
def test_it_answers_what_numpy_computes(engine: Artifact, batch: int) -> None:
    crops = random_crops(batch)
    with TensorRtRuntime.open(engine, batch=batch) as runtime:
        np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)
        assert runtime.remark == ""
        assert runtime.precision_used == ""


def test_outputs_are_told_apart_by_name(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    crops = random_crops(2)
    with TensorRtRuntime.open(two_outputs(tmp_path), batch=2) as runtime:
        found = runtime.infer({"image": crops})
    for name, expected in answers(crops).items():
        np.testing.assert_allclose(found[name], expected, atol=CLOSE)


def test_a_frame_is_one_graph(runtime: Runtime, fake_gpu: FakeGpu) -> None:
    ask(runtime, random_crops(2))
    before = len(fake_gpu.calls)
    ask(runtime, random_crops(2, seed=1))
    assert fake_gpu.names()[before:] == ["cudaSetDevice", LAUNCH, "cudaStreamSynchronize"]


def test_each_batch_size_has_its_own_graph(runtime: Runtime, fake_gpu: FakeGpu) -> None:
    for batch in (1, 4, 2, 1, 4):
        crops = random_crops(batch, seed=batch)
        np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)
    assert fake_gpu.count("cudaGraphInstantiate") == 3
    executable = [handle for (handle,) in ((call[0],) for call in fake_gpu.arguments(LAUNCH)[-2:])]
    assert executable[0] != executable[1]


def test_a_batch_size_seen_again_prepares_nothing(runtime: Runtime, fake_gpu: FakeGpu) -> None:
    ask(runtime, random_crops(3))
    ask(runtime, random_crops(1))
    before = len(fake_gpu.calls)
    ask(runtime, random_crops(3))
    assert set(fake_gpu.names()[before:]) == {"cudaSetDevice", LAUNCH, "cudaStreamSynchronize"}


def test_memory_is_allocated_once_for_the_largest_batch(runtime: Runtime, fake_gpu: FakeGpu) -> None:
    sizes = sorted(size for (size,) in fake_gpu.arguments("cudaMalloc"))
    assert sizes == [PROFILE.most * 5 * 2 * 4, PROFILE.most * 32 * 32 * 3]
    for batch in (1, PROFILE.most, 2):
        ask(runtime, random_crops(batch))
    assert fake_gpu.count("cudaMalloc") == fake_gpu.count("cudaHostAlloc") == 2


def test_few_batch_sizes_are_kept_ready(engine: Artifact, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmedge.runtimes.tensorrt._MOST_LANES", 2)
    with TensorRtRuntime.open(engine, batch=None) as runtime:
        for batch in (1, 2, 3, 4, 1, 2):
            crops = random_crops(batch)
            np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)
            assert sum("executable graph" in held for held in fake_gpu.allocations) <= 2


def test_the_batch_size_that_was_not_used_for_longest_makes_room(
    engine: Artifact, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmedge.runtimes.tensorrt._MOST_LANES", 2)
    with TensorRtRuntime.open(engine, batch=None) as runtime:
        for batch in (PROFILE.usual, 1, PROFILE.usual, 3):  # 1 is the one to go, although the usual one came first
            ask(runtime, random_crops(batch))
        made = fake_gpu.count("cudaGraphInstantiate")
        ask(runtime, random_crops(PROFILE.usual))
        assert fake_gpu.count("cudaGraphInstantiate") == made


def test_a_frame_allocates_nothing_but_its_answer(engine: Artifact, fake_gpu: FakeGpu) -> None:
    crops = random_crops(1)
    with TensorRtRuntime.open(engine) as runtime:
        held, made = fake_gpu.allocations, fake_gpu.count("cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags")
        for _ in range(50):
            ask(runtime, crops)
        assert fake_gpu.allocations == held
        assert fake_gpu.count("cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags") == made


def test_python_keeps_nothing_of_a_frame(engine: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """With calls into CUDA that do nothing, all that a frame leaves in memory is its answer."""
    crops = random_crops(PROFILE.most)
    with TensorRtRuntime.open(engine, batch=len(crops)) as runtime:
        session = runtime._session  # type: ignore[attr-defined]
        for name in ("select", "launch", "synchronize"):
            monkeypatch.setattr(session, name, lambda *_: None)
        tracemalloc.start()
        try:
            for _ in range(20):
                ask(runtime, crops)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(FRAMES):
                ask(runtime, crops)
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < FRAMES * LEAST_OBJECT_BYTES, "something grows with every frame"
    assert peak - before < crops.nbytes, "a frame is copied on the way"


def test_the_caller_owns_the_answer(runtime: Runtime) -> None:
    first = ask(runtime, random_crops(1))
    kept = first.copy()
    second = ask(runtime, random_crops(1, seed=1))
    np.testing.assert_array_equal(first, kept)
    assert not np.shares_memory(first, second)


def test_the_bare_engine_call_includes_both_copies(engine: Artifact, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("cudaStreamBeginCapture", code=900)  # calls show in the log when they are not inside a graph
    crops = random_crops(1)
    with TensorRtRuntime.open(engine) as runtime:
        call = runtime.engine_call({"image": crops})
        before = len(fake_gpu.calls)
        found = call()
        assert fake_gpu.names()[before:] == [
            "cudaSetDevice", "cudaMemcpyAsync", ENQUEUE, "cudaMemcpyAsync", "cudaStreamSynchronize",
        ]  # fmt: skip
        np.testing.assert_allclose(found["landmarks"], tiny_answer(crops), atol=CLOSE)


@pytest.mark.parametrize(
    ("function", "code"),
    [("cudaStreamBeginCapture", 900), ("cudaGraphInstantiate", 801)],
)
def test_without_a_graph_it_runs_and_says_so(engine: Artifact, fake_gpu: FakeGpu, function: str, code: int) -> None:
    fake_gpu.fail(function, code=code)
    crops = random_crops(1)
    with TensorRtRuntime.open(engine) as runtime:
        assert runtime.remark.startswith("without a CUDA graph")
        assert f"{function}" in runtime.remark
        np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)


def test_an_engine_that_refuses_to_be_captured_runs_too(engine: Artifact, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail(ENQUEUE, message="operation not permitted when stream is capturing", skip=1)
    crops = random_crops(1)
    with TensorRtRuntime.open(engine) as runtime:
        assert "not permitted when stream is capturing" in runtime.remark
        np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)


def test_a_device_that_was_lost_during_capture_is_no_missing_graph(engine: Artifact, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("cudaGraphInstantiate", code=700)
    with pytest.raises(DeviceLostError):
        TensorRtRuntime.open(engine)


def test_a_frame_that_tensorrt_does_not_run_is_an_error_with_its_words(engine: Artifact, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("cudaStreamBeginCapture", code=900)
    crops = random_crops(1)
    with TensorRtRuntime.open(engine) as runtime:
        fake_gpu.fail(ENQUEUE, message="Error Code 1: Myelin (no more)")
        with pytest.raises(LmedgeError, match=r"did not run tensorrt/model.*Myelin \(no more\)"):
            ask(runtime, crops)
        np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)


def test_a_device_that_is_lost_between_frames_closes_the_runtime(engine: Artifact, fake_gpu: FakeGpu) -> None:
    crops = random_crops(1)
    runtime = TensorRtRuntime.open(engine)
    ask(runtime, crops)
    fake_gpu.fail("device", code=719)
    with pytest.raises(DeviceUnavailableError, match=r"cuda was lost.*719.*Open the bundle again"):
        ask(runtime, crops)
    with pytest.raises(InputError, match="closed"):
        ask(runtime, crops)
    runtime.close()
    with pytest.raises(BackendUnavailableError, match="719"):
        TensorRtRuntime.open(engine)  # as in CUDA: the fault stays for the life of the process


def test_memory_that_runs_out_for_a_new_batch_size_leaves_the_others(runtime: Runtime, fake_gpu: FakeGpu) -> None:
    crops = random_crops(2)
    ask(runtime, crops)
    fake_gpu.fail("ICudaEngine.create_execution_context", message="Error Code 1: Cuda Runtime (out of memory)")
    with pytest.raises(DeviceUnavailableError, match="no memory left"):
        ask(runtime, random_crops(4))
    np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)
    np.testing.assert_allclose(ask(runtime, random_crops(4)), tiny_answer(random_crops(4)), atol=CLOSE)


@pytest.mark.parametrize("batch", [PROFILE.most + 1, 40])
def test_a_batch_outside_the_profile_is_refused_with_what_to_type(runtime: Runtime, batch: int) -> None:
    with pytest.raises(InputError, match=rf"from 1 to {PROFILE.most}, not {batch}.*--batch 1:{batch}:{batch}"):
        ask(runtime, random_crops(batch))
    assert ask(runtime, random_crops(1)).shape[0] == 1


def test_threads_have_a_runtime_each(engine: Artifact) -> None:
    found: dict[int, float] = {}
    barrier = threading.Barrier(4)

    def work(seed: int) -> None:
        crops = random_crops(1 + seed % 2, seed)
        with TensorRtRuntime.open(engine, batch=None) as runtime:
            barrier.wait(timeout=60)
            found[seed] = max(float(np.abs(ask(runtime, crops) - tiny_answer(crops)).max()) for _ in range(20))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    assert max(found.values()) < CLOSE


def test_devices_take_turns_in_one_thread(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    fake_gpu.devices = (Device(), Device())
    engine = tiny_engine(tmp_path)
    crops = random_crops(1)
    with TensorRtRuntime.open(engine, device="cuda") as first, TensorRtRuntime.open(engine, device="cuda:1") as second:
        for runtime, index in ((first, 0), (second, 1), (first, 0)):
            np.testing.assert_allclose(ask(runtime, crops), tiny_answer(crops), atol=CLOSE)
            assert fake_gpu.arguments("cudaSetDevice")[-1] == (index,)


def test_closing_frees_everything_and_twice_is_fine(engine: Artifact, fake_gpu: FakeGpu) -> None:
    runtime = TensorRtRuntime.open(engine, batch=None)
    ask(runtime, random_crops(3))
    assert fake_gpu.allocations
    runtime.close()
    runtime.close()
    assert fake_gpu.allocations == []


def test_a_runtime_that_is_forgotten_frees_everything(engine: Artifact, fake_gpu: FakeGpu) -> None:
    runtime = TensorRtRuntime.open(engine)
    ask(runtime, random_crops(1))
    del runtime
    gc.collect()
    assert fake_gpu.allocations == []
