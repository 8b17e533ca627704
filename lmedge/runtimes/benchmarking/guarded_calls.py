"""Timed calls whose answers are looked at: `FaceLandmarker.predict`, and the bare engine call under it.

Each call gets another crop than the one before. What it answers to every crop is kept before the clock runs, and under the
clock it must answer the same again. An engine that repeats its last answer, or a call that never reaches the engine, ends the
measurement: its times would mean nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import LANDMARKS
from lmedge.errors import ParityError
from lmedge.landmarks import Landmarks
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.benchmarking.scene import Scene
from lmedge.runtimes.landmarker import FaceLandmarker

Fractions = npt.NDArray[np.floating]

# In pixels of the crop. Engines give the same bits for the same crops; a point that goes to the frame and back is rounded.
SAME_PX = 0.005
# Answers to successive crops must differ by more somewhere, or repeating could not be seen.
APART_PX = 4 * SAME_PX


class GuardedCall(ABC):
    """One of the two; an `Action`. A call gets `batch` crops of the scene.

    Attributes:
        what: its name in messages.
    """

    what: str

    def __init__(self, name: str, scene: Scene, batch: int) -> None:
        """Args: name: of the engine and file, for messages."""
        count = len(scene.boxes)
        self._name, self._scene = name, scene
        # Others than in the call before, in every place of the batch.
        self._inputs = [[(number + place) % count for place in range(batch)] for number in range(count)]
        self._kept: list[Fractions] = []

    def keep_answers(self, expected: Fractions, limit_px: float, *, must_differ: bool = True) -> None:
        """Calls once for each crop of the scene, and keeps the answers.

        Args:
            expected: (N, K, 2) fractions, what the engine answers to the N crops one by one.
            limit_px: how far from that an answer may be, in pixels of the crop.
            must_differ: False for a network that is known to answer the same to everything.

        Raises:
            ParityError: answers are further away, or the same for all crops.
        """
        kept: dict[int, Fractions] = {}
        # Backwards: an engine that is always one call late would otherwise be late in the same way under the clock.
        for number in reversed(range(len(self._inputs))):
            self.prepare(number)
            kept[number] = np.array(self._fractions(number, self.call()))
            self._compare(number, kept[number], expected[self._inputs[number]], limit_px, "that of the engine by itself")
        self._kept = [kept[number] for number in range(len(self._inputs))]
        successive = zip(self._kept, [*self._kept[1:], self._kept[0]], strict=True)
        if must_differ and not max(self._distance_px(one, next_one) for one, next_one in successive) > APART_PX:
            raise ParityError(
                f"{self._name}: {self.what} answers the same to different crops, so it cannot be told from an engine that "
                "computes nothing, and its times would mean nothing. Look for the cause: lmedge verify BUNDLE"
            )

    @abstractmethod
    def prepare(self, number: int) -> None:
        """Lays out the crops of call `number`."""

    @abstractmethod
    def call(self) -> Any:
        """What is timed."""

    def check(self, number: int, answer: Any) -> None:
        """Holds an answer to the one that was kept.

        Raises:
            ParityError: it is another.
        """
        place = number % len(self._inputs)
        self._compare(place, self._fractions(place, answer), self._kept[place], SAME_PX, "the one to the same crop before")

    @abstractmethod
    def _fractions(self, number: int, answer: Any) -> Fractions:
        """The answer as fractions (batch, K, 2) of the crops."""

    def _compare(self, number: int, found: Fractions, wanted: Fractions, limit_px: float, which: str) -> None:
        if found.shape != wanted.shape:
            raise ParityError(f"{self._name}: {self.what} answered {found.shape}, not {wanted.shape}; no figure is given.")
        distance_px = self._distance_px(found, wanted)
        if not distance_px <= limit_px:  # NaN compares false
            raise ParityError(
                f"{self._name}: {self.what} gave an answer {distance_px:.3g} px from {which} (allowed {limit_px:g} px). "
                "An engine that repeats answers or computes none is not timed; no figure is given."
            )

    def _distance_px(self, one: Fractions, other: Fractions) -> float:
        return float(np.max(np.abs(one - other)) * self._scene.crops.shape[2])


class PredictCall(GuardedCall):
    """`FaceLandmarker.predict` on a frame with `batch` boxes."""

    what = "predict"

    def __init__(self, name: str, scene: Scene, batch: int, landmarker: FaceLandmarker) -> None:
        super().__init__(name, scene, batch)
        self._landmarker = landmarker
        self._boxes = [[scene.boxes[index] for index in inputs] for inputs in self._inputs]
        self._next = self._boxes[0]

    def prepare(self, number: int) -> None:
        self._next = self._boxes[number % len(self._boxes)]

    def call(self) -> list[Landmarks]:
        return self._landmarker.predict(self._scene.frame_bgr, self._next)

    def _fractions(self, number: int, answer: list[Landmarks]) -> Fractions:
        transforms = [self._scene.transforms[index] for index in self._inputs[number]]
        if len(answer) != len(transforms):
            raise ParityError(
                f"{self._name}: predict gave {len(answer)} faces for {len(transforms)} boxes; no figure is given."
            )
        return np.stack([way.to_fractions(face.points_px) for way, face in zip(transforms, answer, strict=True)])


class EngineCall(GuardedCall):
    """The bare engine call on one buffer, into which the crops of each call are written before the clock starts."""

    what = "the bare engine call"

    def __init__(self, name: str, scene: Scene, batch: int, runtime: Runtime) -> None:
        super().__init__(name, scene, batch)
        self._buffer = np.zeros((batch, *scene.crops.shape[1:]), np.uint8)
        self._call = runtime.engine_call({runtime.inputs[0].name: self._buffer})

    def prepare(self, number: int) -> None:
        np.take(self._scene.crops, self._inputs[number % len(self._inputs)], axis=0, out=self._buffer)

    def call(self) -> Any:
        return self._call()

    def _fractions(self, number: int, answer: Any) -> Fractions:
        found = answer.get(LANDMARKS) if isinstance(answer, dict) else None
        if not isinstance(found, np.ndarray):
            raise ParityError(f"{self._name}: the bare engine call gave no {LANDMARKS!r}; no figure is given.")
        return found
