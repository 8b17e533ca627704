"""Session options: sessions are timed in turns, spinning is seen, and options that change the answers end the run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.runtimes.benchmarking.timing import WALL_CLOCK
from tests.requirements import REPOSITORY, require

require("onnxruntime", "openvino")

ANSWER = np.full((1, 5, 2), 0.5, np.float32)


@pytest.fixture(scope="module")
def options() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        yield importlib.import_module("session_options")


def spin(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def quick() -> npt.NDArray[np.float32]:
    return ANSWER


def slow() -> npt.NDArray[np.float32]:
    spin(0.002)
    return ANSWER


def test_a_slower_session_is_slower_and_busier(options: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "PACE_S", 0.004)
    monkeypatch.setattr(options, "PACED_CALLS", 10)
    own, other = options.measured({options.OWN: slow, "quick": quick}, 50, WALL_CLOCK)
    assert own["to lmedge's"] == 1
    assert other["to lmedge's"] < 0.5
    assert own["call"] > 1900
    assert own["busy"] > 1900
    assert own["busy"] > 2 * other["busy"]


def test_options_that_change_the_answers_end_the_run(options: ModuleType) -> None:
    options.check_answers({options.OWN: quick, "same": lambda: ANSWER + 0.004})
    with pytest.raises(SystemExit, match=r"wrong: points move by 0\.0100"):
        options.check_answers({options.OWN: quick, "wrong": lambda: ANSWER + 0.01})
    with pytest.raises(SystemExit, match="no number"):
        options.check_answers({options.OWN: quick, "no number": lambda: ANSWER * np.nan})
