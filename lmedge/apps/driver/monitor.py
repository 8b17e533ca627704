"""The driver monitor: landmarks and head pose of one face, frame by frame → state, events.

landmarks ▶ ratios ▶ against the driver's own rest ▶ eyes, mouth, head ▶ rules over time ▶ events

Not a certified safety function; see `thresholds.NOT_CERTIFIED`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from lmedge.apps.driver.attention import AttentionWatch
from lmedge.apps.driver.events import CLOCK, DEGRADED, DROWSY, NO_FACE, STOPPED, YAWN, DriverEvent
from lmedge.apps.driver.eyelids import EyelidWatch
from lmedge.apps.driver.sight import FaceSight
from lmedge.apps.driver.thresholds import DriverThresholds
from lmedge.apps.driver.timing import LastingCondition, StandingAlarm, TimeShare
from lmedge.apps.expression import Baseline, BaselineLearner, FaceMeter, FaceRatios
from lmedge.apps.openings import HeadAngles
from lmedge.errors import InputError
from lmedge.landmarks import Landmarks
from lmedge.schemas import LandmarkSchema

OPEN, HALF_SHUT, SHUT, UNSEEN = "open", "half-shut", "shut", "unseen"
# Why nothing is told of the eyes of a face that is there; the last one: they are seen, and were never open so far.
OUTSIDE, SUNGLASSES, TOO_DARK, TOO_BRIGHT, TURNED, UNSURE, NO_POSE, NEVER_OPEN = (
    "outside-picture", "sunglasses", "too-dark", "too-bright", "head-turned", "eyes-unsure", "no-head-pose", "never-open",
)  # fmt: skip
# The rest of head and mouth is learnt whatever the eyes do.
_ANY_EYE = 1e-3


@dataclass(frozen=True)
class FrameState:
    """What is known after a frame.

    Attributes:
        time_s: of the frame.
        face: whether there was one.
        ready: whether the driver's open eyes are known; nothing is told of the eyes before.
        eyes: "open", "half-shut", "shut", or "unseen".
        closure: of the eyes, 0 open as at rest, 1 shut; the more open eye counts. None where they are unseen.
        perclos: share of the seen time of the last minute in which the eyes were shut (P80); None where too little was seen.
        mouth_opening: of the inner lips above that at rest; None without a face, and in the first seconds.
        zone: where the head points: "road", "left", "right", "up", "down"; None where it is not known.
        yaw_deg, pitch_deg: of the head against its rest; None where not known.
        away_s: seconds away from the road that count toward many short glances.
        degraded: why nothing is told of the eyes of a face that is there; empty where they are seen, and in the first seconds.
        active: kinds of the events that are raised at present.
        events: raised or ended by this frame.
    """

    time_s: float
    face: bool
    ready: bool
    eyes: str
    closure: float | None
    perclos: float | None
    mouth_opening: float | None
    zone: str | None
    yaw_deg: float | None
    pitch_deg: float | None
    away_s: float
    degraded: tuple[str, ...]
    active: tuple[str, ...]
    events: tuple[DriverEvent, ...]


class DriverMonitor:
    """Watches one driver; one monitor per camera and thread.

    Attributes:
        schema: of the landmarks that it takes.
        thresholds: what it decides by.
        baseline: the driver's resting face, None until it is known. It is learnt once: from the first seconds in which the eyes
            are seen, so that a driver who grimaces then is misjudged, and a second driver needs a second monitor.
    """

    def __init__(
        self, schema: LandmarkSchema, thresholds: DriverThresholds | None = None, *, baseline: Baseline | None = None
    ) -> None:
        """
        Args:
            schema: of the landmarks that will come: 68 or 98 points, or any with outlines of the eyes and of the inner lips.
            thresholds: other than the default ones.
            baseline: of an earlier drive of the same person in the same seat; without it, it is learnt.

        Raises:
            InputError: the schema does not say how far eyes and mouth are open.
        """
        self.schema = schema
        self.thresholds = thresholds or DriverThresholds()
        self.baseline = baseline
        # Head and mouth are known behind sunglasses too.
        self._rest = baseline if baseline is not None and baseline.yaw_deg is not None else None
        self._meter = FaceMeter(schema)
        limits = self.thresholds
        gap_s = limits.longest_gap_s
        self._eye_learner = BaselineLearner(limits.learn_s, open_eye_least=limits.open_eye_least)
        self._rest_learner = BaselineLearner(limits.learn_s, open_eye_least=_ANY_EYE)
        self._eyelids = EyelidWatch(limits)
        self._perclos = TimeShare(limits.perclos_window_s, gap_s)
        self._drowsy = StandingAlarm(DROWSY, gap_s)
        self._yawn = LastingCondition(((limits.yawn_s, YAWN),), gap_s)
        self._attention = AttentionWatch(limits)
        self._no_face = LastingCondition(((limits.no_face_s, NO_FACE),), gap_s)
        self._degraded = LastingCondition(((limits.degraded_s, DEGRADED),), gap_s)
        self._state: FrameState | None = None

    def update(
        self,
        time_s: float,
        landmarks: Landmarks | None,
        pose: HeadAngles | None = None,
        sight: FaceSight | None = None,
    ) -> FrameState:
        """Takes a frame in.

        A time equal to the last one is the same frame again: nothing changes. A time before it is a clock that was set back:
        what is raised ends, the windows are emptied, and the monitor goes on from there. More than `longest_gap_s` between
        two frames is time of which nothing is known.

        Args:
            time_s: of the frame, in seconds from any origin; from the camera, not from when the frame was worked on.
            landmarks: of the driver's face, None where none was found.
            pose: of the head (`lmedge.pose.head_pose`); eyes count as unseen without it.
            sight: what the picture shows (`SightMeter.read`); without it sunglasses and darkness are told by the network's
                confidence alone.

        Raises:
            InputError: a time or an angle that is not a finite number, or landmarks of another schema.
        """
        if not math.isfinite(time_s):
            raise InputError(f"time_s must be a finite number of seconds; got {time_s}.")
        if pose is not None and not (math.isfinite(pose.yaw_deg) and math.isfinite(pose.pitch_deg)):
            raise InputError(f"A head pose needs finite angles; got yaw {pose.yaw_deg} and pitch {pose.pitch_deg}. Pass None.")
        before = self._state
        time_s = float(time_s)
        if before is not None and time_s == before.time_s:
            return replace(before, events=())
        events = [] if before is None or time_s > before.time_s else self._stop(before.time_s, CLOCK)
        self._state = self._take_in(time_s, landmarks, pose, sight, events)
        return self._state

    def finish(self) -> tuple[DriverEvent, ...]:
        """Ends what is raised, at the end of a drive; the monitor can be used again."""
        if self._state is None:
            return ()
        events, self._state = self._stop(self._state.time_s, STOPPED), None
        return tuple(events)

    def _take_in(
        self,
        time_s: float,
        landmarks: Landmarks | None,
        pose: HeadAngles | None,
        sight: FaceSight | None,
        events: list[DriverEvent],
    ) -> FrameState:
        reasons = () if landmarks is None else self._reasons(landmarks, pose, sight)
        closure, mouth, angles = None, None, None
        if landmarks is not None and pose is not None:
            ratios = self._meter.read(landmarks, pose)
            self._learn(time_s, ratios, pose, eyes_seen=not reasons)
            if self.baseline is None and self._eye_learner.refuses:
                reasons += (NEVER_OPEN,)
            closure = None if reasons else self._closure(ratios)
            if self._rest is not None and self._rest.yaw_deg is not None and self._rest.pitch_deg is not None:
                mouth = ratios.mouth - self._rest.ratios.mouth
                angles = pose.yaw_deg - self._rest.yaw_deg, pose.pitch_deg - self._rest.pitch_deg

        events += self._eyelids.update(time_s, closure)
        perclos, drowsy_events = self._follow_perclos(time_s, closure)
        events += drowsy_events
        events += self._yawn.update(time_s, None if mouth is None else mouth >= self.thresholds.yawn_opening)
        zone, attention_events = self._attention.update(time_s, angles)
        events += attention_events
        events += self._no_face.update(time_s, landmarks is None)
        events += self._degraded.update(time_s, None if landmarks is None else bool(reasons), ", ".join(reasons))
        return FrameState(
            time_s=time_s,
            face=landmarks is not None,
            ready=self.baseline is not None,
            eyes=self._eyes(closure),
            closure=closure,
            perclos=perclos,
            mouth_opening=mouth,
            zone=zone,
            yaw_deg=angles[0] if angles else None,
            pitch_deg=angles[1] if angles else None,
            away_s=self._attention.away_s,
            degraded=reasons,
            active=self._active(),
            events=tuple(events),
        )

    def _reasons(self, landmarks: Landmarks, pose: HeadAngles | None, sight: FaceSight | None) -> tuple[str, ...]:
        """Why the eyes cannot be seen."""
        limits, reasons = self.thresholds, []
        if sight is not None:
            if math.isnan(sight.cheeks):
                reasons.append(OUTSIDE)
            elif sight.cheeks < limits.dark_level:
                reasons.append(TOO_DARK)
            elif sight.cheeks > limits.bright_level:
                reasons.append(TOO_BRIGHT)
            elif sight.ratio < limits.sunglasses_ratio:
                reasons.append(SUNGLASSES)
        if pose is None:
            reasons.append(NO_POSE)
        elif abs(pose.yaw_deg) > limits.eyes_yaw_deg or abs(pose.pitch_deg) > limits.eyes_pitch_deg:
            reasons.append(TURNED)
        confidence = landmarks.confidence
        if confidence is not None and float(np.mean(confidence[list(self._meter.eye_points)])) < limits.eye_confidence:
            reasons.append(UNSURE)
        return tuple(reasons)

    def _learn(self, time_s: float, ratios: FaceRatios, pose: HeadAngles, *, eyes_seen: bool) -> None:
        if self._rest is None:
            self._rest = self._rest_learner.add(time_s, ratios, pose)
        if self.baseline is None and eyes_seen:
            self.baseline = self._eye_learner.add(time_s, ratios, pose)

    def _closure(self, ratios: FaceRatios) -> float | None:
        if self.baseline is None:
            return None
        return self.baseline.change(ratios, shut_eye_part=self.thresholds.shut_eye_part).closure

    def _follow_perclos(self, time_s: float, closure: float | None) -> tuple[float | None, list[DriverEvent]]:
        limits, share = self.thresholds, self._perclos
        share.update(time_s, None if closure is None else closure >= limits.shut)
        if share.known_s < limits.perclos_least_seen_s:
            return None, self._drowsy.update(time_s, None, None)
        perclos = min(max(share.held_s / share.known_s, 0.0), 1.0)
        border = limits.perclos_awake if self._drowsy.kind else limits.perclos_drowsy
        return perclos, self._drowsy.update(time_s, perclos >= border, perclos)

    def _eyes(self, closure: float | None) -> str:
        if closure is None:
            return UNSEEN
        if self._eyelids.shut:
            return SHUT
        return HALF_SHUT if closure >= self.thresholds.half_shut else OPEN

    def _active(self) -> tuple[str, ...]:
        kinds = (self._eyelids.kind, self._drowsy.kind, self._yawn.kind, *self._attention.kinds)
        return tuple(kind for kind in (*kinds, self._no_face.kind, self._degraded.kind) if kind)

    def _stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        watches = (self._eyelids, self._drowsy, self._yawn, self._attention, self._no_face, self._degraded)
        self._perclos.clear()
        return [event for watch in watches for event in watch.stop(time_s, reason)]
