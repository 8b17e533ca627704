"""Answers by a deadline: the engine runs in a thread of its own, and a call ends in time whether or not it has answered.

    with RealTimeLandmarker("zoo:ibug68_fast", deadline_ms=15, policy="hold_last", precision="int8") as landmarker:
        answer = landmarker.predict(image_bgr, boxes_xyxy)
        answer.faces, answer.late, landmarker.health.state

An engine cannot be interrupted. What it is late with is finished meanwhile, and if it does not come back at all, calls still
end in time, and `health` says "failed". Faces are cut out before the engine is called: the image may change after every call.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Bundle
from lmedge.errors import DeadlineError, InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.preprocess import REFERENCE
from lmedge.runtimes.crops import CutFaces
from lmedge.runtimes.health import HealthMonitor
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.ownership import Owner

# A thread that is still in a call of the engine is not waited for longer when it is closed.
_CLOSE_S = 5.0


class DeadlinePolicy(str, Enum):
    """What a call gives that ends at its deadline without an answer."""

    HOLD_LAST = "hold_last"
    """the last answer, as long as it is not too old"""
    DROP = "drop"
    """no faces"""
    RAISE = "raise"
    """a `DeadlineError`"""


@dataclass(frozen=True, eq=False)
class TimedFaces:
    """What a call gave.

    Attributes:
        faces: in the order of the boxes; of an earlier image where `held`.
        late: whether the deadline passed without an answer.
        held: whether these are the faces of an earlier image.
        latency_ms: how long the call took.
        age_ms: time since the image of these faces was handed over; None where there are none because it is late.
    """

    faces: tuple[Landmarks, ...]
    late: bool
    held: bool
    latency_ms: float
    age_ms: float | None


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What came of a call of the engine."""

    faces: tuple[Landmarks, ...]
    error: BaseException | None
    finished_s: float


class RealTimeLandmarker:
    """A landmarker whose calls end by a deadline. It belongs to the thread that opened it; close it, or use ``with``.

    Attributes:
        landmarker: what answers, in a thread of its own; call nothing of it while this one is open.
        health: whether it can be trusted.
        policy: what a late call gives.
        deadline_ms: for calls that name no other.
        hold_ms: answers that are older are not held.
        abandoned: how many calls of the engine went on after the deadline of their call.
    """

    landmarker: FaceLandmarker

    def __init__(
        self,
        bundle: Bundle | str | Path | Callable[[], FaceLandmarker],
        *,
        deadline_ms: float,
        policy: DeadlinePolicy | str = DeadlinePolicy.HOLD_LAST,
        hold_ms: float = 250.0,
        health: HealthMonitor | None = None,
        **options: Any,
    ) -> None:
        """Returns when the landmarker is ready.

        Args:
            bundle: as for `FaceLandmarker.open`; or a function that opens a landmarker.
            deadline_ms: from the call on, for cutting out the faces, the engine, and the way back.
            policy: "hold_last", "drop" or "raise".
            hold_ms: how old an answer may get; a blink is over in 100 to 400 ms.
            health: what watches the calls; None makes a monitor with the usual limits.
            options: the others of `FaceLandmarker.open`.

        Raises:
            InputError: no such policy, a deadline that is not above 0, or a time to hold below 0.
            LmedgeError: as `FaceLandmarker.open`.
        """
        _check_deadline(deadline_ms)
        if not hold_ms >= 0:
            raise InputError(f"hold_ms must be at least 0; got {hold_ms}.")
        try:
            self.policy = DeadlinePolicy(policy)
        except ValueError as error:
            known = ", ".join(one.value for one in DeadlinePolicy)
            raise InputError(f"No policy for late answers is called {policy!r}; known: {known}.") from error
        self.deadline_ms, self.hold_ms = deadline_ms, hold_ms
        self.health = health or HealthMonitor()
        self.abandoned = 0
        self._owner = Owner()
        self._jobs: queue.SimpleQueue[CutFaces | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._in_work_since_s: float | None = None
        self._last: tuple[tuple[Landmarks, ...], float] | None = None
        self._closed = False
        open_landmarker = bundle if callable(bundle) else lambda: FaceLandmarker.open(bundle, **options)
        opened: Future[FaceLandmarker] = Future()
        self._thread = threading.Thread(target=self._work, args=(open_landmarker, opened), name="real-time", daemon=True)
        self._thread.start()
        self.landmarker = opened.result()

    def predict(
        self,
        image_bgr: npt.NDArray[np.uint8],
        boxes_xyxy: npt.ArrayLike | Sequence[FaceBox],
        box_kind: str = REFERENCE,
        *,
        deadline_ms: float | None = None,
    ) -> TimedFaces:
        """The faces of an image, or by the deadline what the policy says.

        Args:
            image_bgr, boxes_xyxy, box_kind: as for `FaceLandmarker.predict`.
            deadline_ms: for this call; None takes the usual one.

        Raises:
            DeadlineError: the answer was not there in time, with the policy "raise".
            InputError: an image or a box that cannot be used; a deadline that is not above 0; the landmarker is closed.
            OwnershipError: another thread or process opened it.
            EngineError: the engine failed, or answered something that is not a number.
        """
        began_s = time.perf_counter()
        self._owner.check("real-time landmarker")
        if self._closed:
            raise InputError("This real-time landmarker is closed. Open a new one.")
        deadline_ms = self.deadline_ms if deadline_ms is None else deadline_ms
        _check_deadline(deadline_ms)
        end_s = began_s + deadline_ms / 1000
        if self._in_work_since_s is not None and not self._finish_late(end_s):
            return self._missed(began_s, deadline_ms)
        try:
            faces = self.landmarker.cut(image_bgr, boxes_xyxy, box_kind)
        except InputError:
            self.health.refused()
            raise
        self._in_work_since_s = began_s
        self._jobs.put(faces)
        outcome = self._wait(end_s)
        if outcome is None:
            self.abandoned += 1
            return self._missed(began_s, deadline_ms)
        self._in_work_since_s = None
        if outcome.error is not None:
            self.health.failed()
            raise outcome.error
        latency_ms = (time.perf_counter() - began_s) * 1000
        self._last = (outcome.faces, began_s)
        self.health.answered(outcome.faces, latency_ms)
        return TimedFaces(outcome.faces, False, False, latency_ms, latency_ms)

    def close(self) -> None:
        """Frees the engine; closing twice is fine. An engine that does not come back is left to its thread."""
        if not self._closed:
            self._closed = True
            if self._owner.is_of_this_process:
                self._jobs.put(None)
                self._thread.join(_CLOSE_S)

    def __enter__(self) -> RealTimeLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _finish_late(self, end_s: float) -> bool:
        """Waits for what the engine was late with; whether it is free now."""
        outcome = self._wait(end_s)
        if outcome is None:
            return False
        since_s = self._in_work_since_s or outcome.finished_s
        self._in_work_since_s = None
        if outcome.error is not None:
            self.health.failed(missed=True)
        else:
            self._last = (outcome.faces, since_s)
            self.health.latencies.add((outcome.finished_s - since_s) * 1000)
        return True

    def _wait(self, end_s: float) -> _Outcome | None:
        try:
            return self._outcomes.get(timeout=max(0.0, end_s - time.perf_counter()))
        except queue.Empty:
            return None

    def _missed(self, began_s: float, deadline_ms: float) -> TimedFaces:
        now_s = time.perf_counter()
        latency_ms = (now_s - began_s) * 1000
        self.health.missed()
        if self.policy is DeadlinePolicy.RAISE:
            raise DeadlineError(
                f"{self.landmarker.runtime.name} had not answered {latency_ms:.1f} ms after the call; the deadline was "
                f"{deadline_ms:g} ms. Its usual time is what lmedge bench {self.landmarker.bundle.root} says."
            )
        if self.policy is DeadlinePolicy.HOLD_LAST and self._last is not None:
            faces, since_s = self._last
            age_ms = (now_s - since_s) * 1000
            if age_ms <= self.hold_ms:
                return TimedFaces(faces, True, True, latency_ms, age_ms)
        return TimedFaces((), True, False, latency_ms, None)

    def _work(self, open_landmarker: Callable[[], FaceLandmarker], opened: Future[FaceLandmarker]) -> None:
        """The engine's own thread, from opening to closing."""
        try:
            landmarker = open_landmarker()
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(landmarker)
        with landmarker:
            while (job := self._jobs.get()) is not None:
                faces: tuple[Landmarks, ...] = ()
                failure: BaseException | None = None
                try:
                    faces = tuple(landmarker.answer(job))
                except BaseException as error:
                    failure = error
                self._outcomes.put(_Outcome(faces, failure, time.perf_counter()))


def _check_deadline(deadline_ms: float) -> None:
    # Longer waits than a month are no deadlines, and locks cannot count them.
    if not 0 < deadline_ms < 1e9:
        raise InputError(f"deadline_ms must be above 0 and below a billion; got {deadline_ms}.")
