"""Whether a landmarker in a loop can be trusted now: from what each call gave, or failed to give, to one of four states.

    starting ──▶ ready ◀──▶ degraded ◀──▶ failed

starting: no good answer yet. ready: nothing is wrong. degraded: there are answers, but something is wrong: some come late, the
network is unsure, a call failed. failed: there are no answers, or they stand still: so many calls in a row failed, came late,
or repeated the answer before. From failed the first good answer leads to degraded, and so many good ones in a row to ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from lmedge.errors import ConfigError, InputError
from lmedge.landmarks import Landmarks
from lmedge.runtimes.frozen_answers import FrozenAnswers
from lmedge.runtimes.latencies import LatencyRing


class HealthState(str, Enum):
    """How far answers can be trusted."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"


class Symptom(str, Enum):
    """What is wrong."""

    LATE = "late"
    """answers come after their deadline"""
    ENGINE_ERROR = "engine error"
    """the engine failed on a call, or answered what is no number"""
    FROZEN = "frozen"
    """the answer does not change any more: the engine stands still, or the camera"""
    UNSURE = "unsure"
    """the network says that it is not sure of its points"""
    BAD_INPUT = "bad input"
    """images or boxes that cannot be used"""


@dataclass(frozen=True)
class HealthLimits:
    """When something is wrong.

    Attributes:
        window: calls that late answers and confidence are judged over.
        late_share: degraded when more than this share of a full window came late.
        least_confidence: degraded when the mean confidence over the window is below; None does not look. It is judged only
            for networks that say it, on calls with faces.
        frozen_calls: so many same answers in a row are one too many; None does not look, as for a camera that shows a still.
        failed_calls: so many calls in a row that failed or came late are a failure.
        recover_calls: so many good calls in a row make a degraded landmarker ready again.
    """

    window: int = 60
    late_share: float = 0.05
    least_confidence: float | None = 0.3
    frozen_calls: int | None = 15
    failed_calls: int = 5
    recover_calls: int = 30

    def __post_init__(self) -> None:
        counts = (self.window, self.failed_calls, self.recover_calls, 1 if self.frozen_calls is None else self.frozen_calls)
        if min(counts) < 1 or not 0 <= self.late_share <= 1 or not 0 <= (self.least_confidence or 0) <= 1:
            raise ConfigError(f"Health limits need counts of at least 1, and shares and confidence from 0 to 1; got {self}.")


@dataclass(frozen=True)
class HealthCounts:
    """Since the monitor was made: calls, those with a good answer in time, faces in them, and each kind of failure."""

    calls: int = 0
    good: int = 0
    faces: int = 0
    late: int = 0
    engine_errors: int = 0
    frozen: int = 0
    bad_inputs: int = 0


@dataclass(frozen=True)
class HealthChange:
    """A step from one state to another, and the symptoms that are there now."""

    before: HealthState
    after: HealthState
    symptoms: frozenset[Symptom]
    counts: HealthCounts

    @property
    def text(self) -> str:
        """For people: "ready → degraded after 1204 calls: late"."""
        why = ", ".join(sorted(symptom.value for symptom in self.symptoms)) or "nothing is wrong"
        return f"{self.before.value} → {self.after.value} after {self.counts.calls} calls: {why}"


class HealthMonitor:
    """Watches the calls of one landmarker. It belongs to one thread, as the landmarker does.

    Attributes:
        state: where it stands.
        counts: what it has seen.
        latencies: the last latencies, for the host to read.
    """

    def __init__(
        self,
        limits: HealthLimits | None = None,
        *,
        on_change: Callable[[HealthChange], None] | None = None,
        latencies: LatencyRing | None = None,
    ) -> None:
        """
        Args:
            on_change: called after each change of state, in the thread of the call; what it raises reaches the caller.
            latencies: where latencies are kept; None makes a ring for 256.
        """
        self.limits = limits or HealthLimits()
        self.state = HealthState.STARTING
        self.counts = HealthCounts()
        self.latencies = latencies or LatencyRing()
        self._on_change = on_change
        self._frozen = FrozenAnswers()
        self._late: deque[bool] = deque(maxlen=self.limits.window)
        self._confidence: deque[float] = deque(maxlen=self.limits.window)
        self._failed_in_a_row = 0
        self._clean_in_a_row = 0
        self._symptoms: frozenset[Symptom] = frozenset()

    @property
    def symptoms(self) -> frozenset[Symptom]:
        """What was wrong at the last call."""
        return self._symptoms

    def answered(self, faces: Sequence[Landmarks], latency_ms: float, *, late: bool = False) -> None:
        """A call gave an answer.

        Args:
            faces: what it gave; an image without a box says nothing of the engine, but counts as a call.
            late: whether the answer came after its deadline.

        Raises:
            InputError: a latency that is no number of at least 0.
        """
        if not latency_ms >= 0:
            raise InputError(f"A latency is at least 0 ms; got {latency_ms}.")
        self.latencies.add(latency_ms)
        repeated = bool(faces) and self._frozen.repeats(faces)
        if not faces and not late:
            self.counts = replace(self.counts, calls=self.counts.calls + 1)
            return
        sure = [float(face.confidence.mean()) for face in faces if face.confidence is not None]
        if sure:
            self._confidence.append(float(np.mean(sure)))
        self._late.append(late)
        now = {Symptom.LATE} if late and self._failed_in_a_row + 1 >= self.limits.failed_calls else set()
        if repeated and self.limits.frozen_calls is not None and self._frozen.in_a_row >= self.limits.frozen_calls:
            now.add(Symptom.FROZEN)
        counts = self.counts
        good = not late and Symptom.FROZEN not in now
        self.counts = replace(
            counts,
            calls=counts.calls + 1,
            good=counts.good + good,
            faces=counts.faces + len(faces),
            late=counts.late + late,
            frozen=counts.frozen + (Symptom.FROZEN in now),
        )
        self._failed_in_a_row = self._failed_in_a_row + 1 if late else 0
        self._judge(now)

    def missed(self) -> None:
        """A call ended at its deadline without an answer."""
        self._late.append(True)
        self.counts = replace(self.counts, calls=self.counts.calls + 1, late=self.counts.late + 1)
        self._failed_in_a_row += 1
        self._judge({Symptom.LATE} if self._failed_in_a_row >= self.limits.failed_calls else set())

    def failed(self, *, missed: bool = False) -> None:
        """The engine failed on a call, or answered what is no number.

        Args:
            missed: whether this call was told as `missed` before, and is no further one.
        """
        counts, more = self.counts, 0 if missed else 1
        self.counts = replace(counts, calls=counts.calls + more, engine_errors=counts.engine_errors + 1)
        self._failed_in_a_row += more
        self._judge({Symptom.ENGINE_ERROR})

    def refused(self) -> None:
        """An image or a box could not be used; the engine was not asked, so this degrades but is no failure of it."""
        self.counts = replace(self.counts, calls=self.counts.calls + 1, bad_inputs=self.counts.bad_inputs + 1)
        self._judge({Symptom.BAD_INPUT})

    def _judge(self, now: set[Symptom]) -> None:
        """The state that follows from this call's symptoms, and from those of the window."""
        limits = self.limits
        if sum(self._late) > limits.late_share * limits.window:
            now.add(Symptom.LATE)
        full = len(self._confidence) == limits.window
        if limits.least_confidence is not None and full and np.mean(self._confidence) < limits.least_confidence:
            now.add(Symptom.UNSURE)
        self._symptoms = frozenset(now)
        self._clean_in_a_row = 0 if now else self._clean_in_a_row + 1
        before = self.state
        self.state = self._next_state()
        if self.state != before and self._on_change is not None:
            self._on_change(HealthChange(before, self.state, self._symptoms, self.counts))

    def _next_state(self) -> HealthState:
        if self._failed_in_a_row >= self.limits.failed_calls or Symptom.FROZEN in self._symptoms:
            return HealthState.FAILED
        if self._symptoms:
            # Before the first good answer there is nothing to degrade.
            return HealthState.STARTING if self.state is HealthState.STARTING else HealthState.DEGRADED
        if self.state in (HealthState.STARTING, HealthState.READY) or self._clean_in_a_row >= self.limits.recover_calls:
            return HealthState.READY
        return HealthState.DEGRADED
