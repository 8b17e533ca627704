"""One logger for the whole process, and each log hears what its own thread brings about."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmedge.errors import BundleFormatError, DeviceUnavailableError
from lmedge.runtimes.tensorrt import TensorRtRuntime
from lmedge.runtimes.tensorrt_log import EngineLog
from lmedge.runtimes.tensorrt_machine import import_tensorrt
from tests.bundles import random_crops
from tests.tensorrt.by_hand import make_logger
from tests.tensorrt.engines import tiny_engine
from tests.tensorrt.fake_gpu import FakeGpu

DESERIALISE = "Runtime.deserialize_cuda_engine"


@pytest.fixture
def trt(fake_gpu: FakeGpu) -> Any:
    return import_tensorrt()


def say(trt: Any, log: EngineLog, text: str, severity: str = "ERROR") -> None:
    log.logger.log(getattr(trt.ILogger.Severity, severity), text)


def test_it_keeps_warnings_and_errors(trt: Any) -> None:
    log = EngineLog(trt)
    assert log.tail == ""
    for severity, text in (("INFO", "chatter"), ("WARNING", "slow\n layer"), ("ERROR", "bad"), ("ERROR", "bad")):
        say(trt, log, text, severity)
    assert log.lines == ("slow layer", "bad", "bad")
    assert log.tail == "slow layer | bad"
    log.forget()
    assert log.tail == ""


def test_all_logs_share_one_logger_that_outlives_them(trt: Any) -> None:
    first, second = EngineLog(trt), EngineLog(trt)
    assert first.logger is second.logger
    kept = id(first.logger)
    del first, second
    gc.collect()
    assert id(EngineLog(trt).logger) == kept


def test_a_log_hears_nothing_from_before_it_was_made_and_is_forgotten_with_its_owner(trt: Any) -> None:
    first = EngineLog(trt)
    say(trt, first, "early")
    second = EngineLog(trt)
    say(trt, second, "late")
    assert (first.lines, second.lines) == (("early", "late"), ("late",))
    del first
    gc.collect()
    assert len(second.logger.listening) == 1


def test_each_thread_hears_its_own_and_all_hear_the_threads_of_tensorrt(trt: Any) -> None:
    here = EngineLog(trt)
    elsewhere: list[EngineLog] = []

    def other() -> None:
        elsewhere.append(EngineLog(trt))
        say(trt, elsewhere[0], "from there")

    def of_tensorrt() -> None:
        say(trt, here, "from a worker")

    run_beside(other, of_tensorrt)
    say(trt, here, "from here")
    assert here.lines == ("from a worker", "from here")
    assert elsewhere[0].lines == ("from there", "from a worker")


def run_beside(*works: Callable[[], None]) -> None:
    """Runs each in a thread of its own, one after the other. All end together: the system gives numbers of threads again."""
    done, end = threading.Semaphore(0), threading.Event()

    def run(work: Callable[[], None]) -> None:
        work()
        done.release()
        end.wait(10)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
        assert done.acquire(timeout=10)
    end.set()
    for thread in threads:
        thread.join()


def test_one_runtime_may_be_closed_while_another_lives(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    """The first logger must not go with the first runtime; `fake_gpu` fails this test where it does."""
    engine = tiny_engine(tmp_path)
    first = TensorRtRuntime.open(engine)
    second = TensorRtRuntime.open(engine, batch=None)
    first.close()
    del first
    gc.collect()
    assert second.infer({"image": random_crops(4)})["landmarks"].shape == (4, 5, 2)
    second.close()


def test_the_last_words_are_not_about_loggers(fake_gpu: FakeGpu, trt: Any, tmp_path: Path) -> None:
    """Also not where another program of this process gave TensorRT a logger first."""
    engine = tiny_engine(tmp_path)
    others = make_logger(trt)
    builder = trt.Builder(others)
    fake_gpu.fail("Runtime")
    with pytest.raises(DeviceUnavailableError, match=r"does not start: .*nullptr") as caught:
        TensorRtRuntime.open(engine)
    assert "logger" not in str(caught.value)
    del builder


def test_what_went_wrong_with_one_engine_is_not_said_of_the_next(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    engine = tiny_engine(tmp_path)
    with TensorRtRuntime.open(engine, batch=None) as runtime:
        fake_gpu.fail(DESERIALISE, message="out of memory")
        with pytest.raises(Exception, match="out of memory"):
            TensorRtRuntime.open(engine)
        fake_gpu.fail(DESERIALISE, message="no such plan")
        with pytest.raises(BundleFormatError, match="no such plan"):
            runtime.infer({"image": random_crops(4)})
