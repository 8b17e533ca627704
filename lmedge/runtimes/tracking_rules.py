"""When a tracker calls the detector, and how long it remembers a face."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmedge.errors import InputError


@dataclass(frozen=True)
class TrackingRules:
    """What a `FaceTracker` keeps to.

    Attributes:
        seek_every: while no face is known, or one has been lost and is not back, the detector is called every so many frames.
        keep_s: a face that comes back within so many seconds keeps its identity.
        return_distance: how far from where it was lost, in longer sides of its box.
        pause_s: after a longer pause between two frames, all faces are looked for anew and get new identities.
        unconfirmed: without confidence, a face that the detector does not see in so many calls in a row is lost.
        max_faces: more are not followed; the largest are taken first.
    """

    seek_every: int = 3
    keep_s: float = 1.0
    return_distance: float = 1.0
    pause_s: float = 2.0
    unconfirmed: int = 2
    max_faces: int = 8

    def __post_init__(self) -> None:
        for name in ("seek_every", "unconfirmed", "max_faces"):
            if getattr(self, name) < 1:
                raise InputError(f"TrackingRules.{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("keep_s", "return_distance", "pause_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"TrackingRules.{name} must be a finite number of at least 0; got {getattr(self, name)}.")
