"""Drives made of stretches: for so many seconds the driver does this."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from lmedge.apps.driver import DriverEvent, DriverMonitor, DriverThresholds, FaceSight, FrameState
from lmedge.apps.expression import Baseline, FaceMeter
from lmedge.data.synthetic.camera import HeadPose
from lmedge.schemas import IBUG_68, LandmarkSchema
from tests.apps.heads import Face, Sitter

BARE = FaceSight(under_eyes=150, cheeks=150)
SUNGLASSES = FaceSight(under_eyes=45, cheeks=150)
AWAY = Face(pose=HeadPose(30, 0, 0))
YAWN = Face(mouth_gap_mm=60)
# Frames per second; from the slowest that the rules promise.
RATES = (10, 15, 30, 60)


@dataclass(frozen=True)
class Stretch:
    """For so many seconds the face does this; None is no face."""

    seconds: float
    face: Face | None = field(default_factory=Face)
    sight: FaceSight = BARE
    confidence: float | None = None


def rest(seconds: float) -> Stretch:
    return Stretch(seconds)


def shut(seconds: float) -> Stretch:
    return Stretch(seconds, Face(closure=1.0))


def lost(seconds: float) -> Stretch:
    return Stretch(seconds, None)


@lru_cache(maxsize=8)
def _sitter(schema_name: str) -> Sitter:
    from lmedge.schemas import get_schema

    return Sitter(schema=get_schema(schema_name))


def rested_monitor(thresholds: DriverThresholds | None = None, schema: LandmarkSchema = IBUG_68) -> DriverMonitor:
    """A monitor that knows the driver already."""
    ratios = FaceMeter(schema).read(_sitter(schema.name).landmarks(Face()), Face().pose)
    return DriverMonitor(schema, thresholds, baseline=Baseline(ratios, 0.0, 0.0))


@lru_cache(maxsize=64)
def lids_at(closure: float) -> Face:
    """The face whose eyes are measured to be closed so far; rendered lids that are shut keep a little of their opening."""
    low, high = -0.2, 1.1
    for _ in range(40):
        middle = (low + high) / 2
        measured = watch([Stretch(0.01, Face(closure=middle))])[0].closure
        low, high = (low, middle) if measured is not None and measured > closure else (middle, high)
    return Face(closure=(low + high) / 2)


def watch(
    stretches: Iterable[Stretch],
    *,
    rate: float = 30,
    monitor: DriverMonitor | None = None,
    start_s: float = 0.0,
    keep: Callable[[int], bool] = lambda index: True,
    schema: LandmarkSchema = IBUG_68,
) -> list[FrameState]:
    """The states of a drive; `keep` says which frames the camera delivers."""
    monitor = monitor or rested_monitor(schema=schema)
    sitter, states, index, until_s = _sitter(schema.name), [], 0, 0.0
    for stretch in stretches:
        until_s += stretch.seconds
        landmarks = None if stretch.face is None else sitter.landmarks(stretch.face, stretch.confidence)
        pose = None if stretch.face is None else stretch.face.pose
        while index / rate < until_s - 1e-9:
            if keep(index):
                states.append(monitor.update(start_s + index / rate, landmarks, pose, stretch.sight))
            index += 1
    return states


def events_of(states: Iterable[FrameState], *kinds: str) -> list[DriverEvent]:
    return [event for state in states for event in state.events if not kinds or event.kind in kinds]


def told(states: Iterable[FrameState], *kinds: str) -> list[tuple[str, str]]:
    return [(event.kind, event.phase) for event in events_of(states, *kinds)]


def frames_below(seconds: float, rate: float) -> float:
    """The longest stretch of whole frames that is shorter."""
    return (math.ceil(seconds * rate - 1e-9) - 1) / rate


def frames_above(seconds: float, rate: float) -> float:
    """The shortest stretch of whole frames that is as long or longer."""
    return math.ceil(seconds * rate - 1e-9) / rate
