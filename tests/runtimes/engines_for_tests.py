"""Engines that do what real ones do on bad days: they wait, stand still, answer nonsense, or do not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from lmedge import Bundle, FaceLandmarker
from lmedge.runtimes.base import Results
from lmedge.runtimes.fake import FakeRuntime

IMAGE = np.random.default_rng(3).integers(0, 256, (160, 200, 3), np.uint8)
BOX = [40.0, 30.0, 120.0, 110.0]


class Troubled(FakeRuntime):
    """Answers as the fake engine does, after `trouble` has seen the answer and changed it, waited, or raised."""

    trouble: Callable[[Results], Results] | None = None

    def _infer(self, feeds: Results) -> Results:
        results = super()._infer(feeds)
        return results if self.trouble is None else self.trouble(results)


class CachesItsLastAnswer(FakeRuntime):
    """Computes once, and gives that again for ever."""

    def _open(self) -> None:
        super()._open()
        self._answers: dict[int, Results] = {}

    def _infer(self, feeds: Results) -> Results:
        batch = len(feeds["image"])
        if batch not in self._answers:
            self._answers[batch] = super()._infer(feeds)
        return {name: array.copy() for name, array in self._answers[batch].items()}


class SkipsTheEngine(FakeRuntime):
    """Gives its output memory as it is."""

    def _infer(self, feeds: Results) -> Results:
        return {"landmarks": np.zeros((len(feeds["image"]), self._num_points, 2), np.float32)}


class SwapsColours(FakeRuntime):
    """Reads RGB where BGR is meant."""

    def _infer(self, feeds: Results) -> Results:
        return super()._infer({"image": np.ascontiguousarray(feeds["image"][..., ::-1])})


class MixesFacesUp(FakeRuntime):
    """Right for one face; for several, each gets the answer of the next."""

    def _infer(self, feeds: Results) -> Results:
        return {name: np.roll(array, 1, axis=0) for name, array in super()._infer(feeds).items()}


def open_troubled(bundle: Bundle, trouble: Callable[[Results], Results] | None = None) -> FaceLandmarker:
    """A landmarker on the engine `Troubled`."""
    runtime = Troubled.open(bundle.select("fake"), batch=1)
    assert isinstance(runtime, Troubled)
    runtime.trouble = trouble
    return FaceLandmarker(bundle, runtime)


class Gate:
    """A trouble that makes every call wait until it is let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, results: Results) -> Results:
        self.entered.set()
        assert self.open.wait(30)
        return results


def soon(condition: Callable[[], bool]) -> bool:
    """Whether something comes true within some seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False
