"""What a network answers to a batch of crops, whatever batch its engine was opened for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.bundle import CONFIDENCE, LANDMARKS
from lmedge.runtimes.base import Runtime

_MOST_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Answers:
    """Points as fractions of their crops (N, K, 2), and from a confident network how sure it is of each (N, K), else None."""

    fractions: npt.NDArray[np.floating]
    confidence: npt.NDArray[np.floating] | None = None

    @classmethod
    def of(cls, answers: Answers | npt.NDArray[np.floating]) -> Answers:
        """Answers as they are, or those of a network that says nothing but its points."""
        return answers if isinstance(answers, cls) else cls(np.asarray(answers))


# Crops uint8 (N, h, w, 3) → what a network answers to them.
Answer = Callable[[npt.NDArray[np.uint8]], Answers | npt.NDArray[np.floating]]


def all_answers(runtime: Runtime, crops: npt.NDArray[np.uint8]) -> Answers:
    """Everything that a runtime answers to crops uint8 (N, h, w, 3)."""
    step = runtime.batch or min(len(crops), _MOST_AT_ONCE)
    padding = -len(crops) % step if runtime.batch else 0
    padded = np.concatenate([crops, crops[-1:].repeat(padding, axis=0)]) if padding else crops
    parts = [runtime.infer({runtime.inputs[0].name: padded[start : start + step]}) for start in range(0, len(padded), step)]
    joined = {name: np.concatenate([part[name] for part in parts])[: len(crops)] for name in parts[0]}
    return Answers(joined[LANDMARKS], joined.get(CONFIDENCE))
