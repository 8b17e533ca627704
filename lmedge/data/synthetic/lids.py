"""How lids move over time: blinks and eyes that stay shut, with a truth at every moment. For sequences of rendered faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError

# Eyes stay shut for one of these, every so many movements.
_SHUT_S, _EVERY = (0.5, 0.6, 0.9, 1.3, 2.0, 3.4), 4
_CLOSING_S, _OPENING_S = 0.12, 0.2
# Between two movements; blinks vary in length by this factor.
_PAUSE_S, _BLINK_SPREAD = (0.6, 3.5), 1.6
_FIRST_S, _LAST_S = 1.0, 5.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LidMove:
    """One closing and opening of both eyes; `shut_s` is 0 for a blink. Seconds."""

    start_s: float
    closing_s: float
    shut_s: float
    opening_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.closing_s + self.shut_s + self.opening_s


def draw_lid_moves(
    rng: np.random.Generator, seconds: float, *, blink_s: float = 0.1, rested_s: float = 4.0
) -> tuple[LidMove, ...]:
    """Blinks, and every fourth time eyes that stay shut for 0.5 to 3.4 s.

    Args:
        rng: chance.
        seconds: of the whole; the eyes are open in the first second and in the last.
        blink_s: from first to last movement of the shortest blink; the longest has 1.6 times that.
        rested_s: until here there are blinks alone, so that a resting face can be learnt.

    Raises:
        InputError: seconds or blink_s that are not positive.
    """
    if not (seconds > 0 and blink_s > 0):
        raise InputError(f"seconds and blink_s must be positive; got {seconds:g} and {blink_s:g}.")
    moves: list[LidMove] = []
    now_s = _FIRST_S
    while now_s < seconds - _LAST_S:
        if now_s > rested_s and len(moves) % _EVERY == _EVERY - 1:
            moves.append(LidMove(now_s, _CLOSING_S, float(rng.choice(_SHUT_S)), _OPENING_S))
        else:
            whole_s = blink_s * float(rng.uniform(1.0, _BLINK_SPREAD))
            moves.append(LidMove(now_s, whole_s / 2, 0.0, whole_s / 2))
        now_s = moves[-1].end_s + float(rng.uniform(*_PAUSE_S))
    return tuple(moves)


def closure_at(times_s: npt.NDArray[np.floating], moves: Sequence[LidMove]) -> Floats:
    """How far the eyes are closed at times (T,), 0 to 1 as `Expression.eye_closure`; lids move as half a cosine."""
    times = np.asarray(times_s, np.float64)
    closure = np.zeros(times.shape)
    for move in moves:
        knots = np.cumsum([move.start_s, move.closing_s, move.shut_s, move.opening_s])
        part = np.interp(times, knots, [0.0, 1.0, 1.0, 0.0])
        closure = np.maximum(closure, (1 - np.cos(np.pi * part)) / 2)
    return closure
