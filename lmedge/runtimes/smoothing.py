"""Steady points from trembling ones: a One-Euro filter whose speeds are measured in faces, with its lag stated.

The filter (Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems", CHI 2012) is an exponential mean whose cut-off frequency rises with speed: a point at rest is held still, one that
moves is followed. Two things differ from the original, because points of a face are no single pointers:

- speeds are in faces per second (the longer side of the points' extent is one face), so that one setting suits a face that
  fills the picture and one at its far end. Positions stay in pixels: dividing them too would add the tremble of the size.
- the speed has two parts: that of the whole face, the mean over all points, in which noise averages out, and that of a point
  beside it, as of a lid in a blink. Each has its own weight.

At a steady speed the answer lies 1 / (2π · cut-off) seconds behind, at any frame rate: `OneEuro.lag_s`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError

Floats = npt.NDArray[np.float64]

# Points that all lie in one place have no size; speeds are then in this many pixels per second.
_SMALLEST_FACE_PX = 1.0


@dataclass(frozen=True)
class OneEuro:
    """Settings of the filter. `benchmarks/tracking.py` compares the defaults with others on videos.

    Attributes:
        min_cutoff_hz: the cut-off frequency at rest; lower is steadier.
        face_beta: how much it rises, in Hz, for each face per second at which the whole face moves.
        point_beta: the same for the speed of a point beside the whole face.
        speed_cutoff_hz: cut-off frequency of the speeds themselves.
    """

    min_cutoff_hz: float = 0.5
    face_beta: float = 20.0
    point_beta: float = 10.0
    speed_cutoff_hz: float = 2.0

    def __post_init__(self) -> None:
        positive = {"min_cutoff_hz": self.min_cutoff_hz, "speed_cutoff_hz": self.speed_cutoff_hz}
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"OneEuro.{name} must be a finite number above 0, in Hz; got {value}.")
        for name, value in {"face_beta": self.face_beta, "point_beta": self.point_beta}.items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"OneEuro.{name} must be a finite number of at least 0; got {value}.")

    def lag_s(self, face_speed: float, point_speed: float = 0.0) -> float:
        """How many seconds the answer lies behind at a steady speed, both in faces per second. Times the frame rate: frames."""
        return _time_constant_s(self.min_cutoff_hz + self.face_beta * face_speed + self.point_beta * point_speed)


class PointSmoother:
    """The points of one face, smoothed from frame to frame. The first frame passes unchanged."""

    def __init__(self, settings: OneEuro | None = None) -> None:
        self.settings = settings or OneEuro()
        self._time_s = -math.inf
        self._raw_px: Floats | None = None
        self._smooth_px = np.zeros((0, 2))
        self._speeds = np.zeros((0, 2))
        self._face_speed = math.inf

    @property
    def lag_s(self) -> float:
        """How far behind the points lie, at most, at the speed that the face has now; points that move by themselves lie less
        far behind. 0 before the second frame."""
        return 0.0 if math.isinf(self._face_speed) else self.settings.lag_s(self._face_speed)

    def update(self, points_px: npt.NDArray[np.floating], time_s: float) -> Floats:
        """The smoothed points of a frame, float64 (K, 2) px.

        Args:
            points_px: (K, 2), finite; the same K in each call.
            time_s: when the frame was taken; later than that of the call before.

        Raises:
            InputError: points of another shape or not finite, or a time that does not go on. The filter stays as it was.
        """
        points = np.array(points_px, np.float64)
        self._check(points, time_s)
        if self._raw_px is None:
            self._smooth_px, self._speeds = points, np.zeros_like(points)
        else:
            self._follow(points, self._raw_px, time_s - self._time_s)
        self._raw_px, self._time_s = points, time_s
        return self._smooth_px.copy()

    def _follow(self, points: Floats, before: Floats, step_s: float) -> None:
        settings = self.settings
        side_px = max(float((points.max(axis=0) - points.min(axis=0)).max()), _SMALLEST_FACE_PX)
        now = (points - before) / (step_s * side_px)
        self._speeds = self._speeds + _weight(settings.speed_cutoff_hz, step_s) * (now - self._speeds)
        of_face = self._speeds.mean(axis=0)
        beside = np.linalg.norm(self._speeds - of_face, axis=1)
        self._face_speed = math.hypot(*of_face.tolist())
        cutoff_hz = settings.min_cutoff_hz + settings.face_beta * self._face_speed + settings.point_beta * beside
        self._smooth_px = self._smooth_px + _weight(cutoff_hz, step_s)[:, None] * (points - self._smooth_px)

    def _check(self, points: Floats, time_s: float) -> None:
        expected = (len(points), 2) if self._raw_px is None else self._raw_px.shape
        if points.ndim != 2 or points.shape != expected or not len(points) or not np.isfinite(points).all():
            wanted = "(K, 2)" if self._raw_px is None else expected
            raise InputError(f"Points to smooth must be finite and {wanted}; got shape {points.shape}.")
        if not (math.isfinite(time_s) and time_s > self._time_s):
            raise InputError(
                f"Times must rise from frame to frame; got {time_s} s after {self._time_s} s. Give the time at which the frame "
                "was taken, or the number of the frame over the frame rate."
            )


def _time_constant_s(cutoff_hz: float) -> float:
    return 1 / (2 * math.pi * cutoff_hz)


def _weight(cutoff_hz: float | Floats, step_s: float) -> Floats:
    """Of the newest value, in an exponential mean with this cut-off frequency."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * cutoff_hz * step_s)))
