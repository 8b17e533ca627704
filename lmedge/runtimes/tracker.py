"""Faces through a video: from frames and times to points with stable identities, raw and smoothed.

    tracker = FaceTracker(landmarker, yunet_detector("yunet.onnx"), every=30)
    for face in tracker.update(image_bgr, time_s):
        face.identity, face.smoothed.points_px

Most frames need no detector: the extent of a face's points is where it is looked for in the next frame. The detector is called
to find faces at the beginning, when one is lost, and every so many frames for newcomers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.preprocess import check_image, reference_box
from lmedge.runtimes.detector import YUNET
from lmedge.runtimes.face_evidence import FaceLimits, is_new_face, is_same_face, mean_confidence
from lmedge.runtimes.face_matching import extent, is_on_one_of, missed_near, one_for_each_face, seen_at
from lmedge.runtimes.landmarker import FaceLandmarker, face_boxes
from lmedge.runtimes.smoothing import OneEuro, PointSmoother
from lmedge.runtimes.tracking_rules import TrackingRules

BoxFinder = Callable[[npt.NDArray[np.uint8]], npt.ArrayLike | Sequence[FaceBox]]

_EVERY = 30


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One face in one frame.

    Attributes:
        identity: from 1, the same as long as the face is followed; never used for another one.
        landmarks: as the network gave them.
        smoothed: the same, steadied; they lie up to `lag_s` behind. Judge the state of an eye by `landmarks`: a blink is over
            in 0.1 to 0.4 s.
        age: in how many frames it has been seen, this one included.
        since_s: time of the first of them.
        lag_s: how far `smoothed` lies behind at the speed of the face as a whole; points that move by themselves lag less.
        confidence: mean over the points, or None where the network gives none.
    """

    identity: int
    landmarks: Landmarks
    smoothed: Landmarks
    age: int
    since_s: float
    lag_s: float
    confidence: float | None


@dataclass(frozen=True)
class TrackerCounts:
    """What a tracker has done since it was made: frames, calls of the detector, crops that the network looked at, and faces
    that were found, lost, and back under their old identity."""

    frames: int = 0
    detector_calls: int = 0
    crops: int = 0
    found: int = 0
    lost: int = 0
    returned: int = 0

    def plus(self, more: TrackerCounts) -> TrackerCounts:
        return TrackerCounts(*(mine + other for mine, other in zip(astuple(self), astuple(more), strict=True)))


@dataclass(eq=False)
class _Track:
    """What is known of a face. Changed only when a frame has been worked through without an error."""

    identity: int
    landmarks: Landmarks
    box: FaceBox
    smoother: PointSmoother
    since_s: float
    seen_s: float
    age: int = 0
    visible: bool = True
    unconfirmed: int = 0


@dataclass
class _Frame:
    """The work on one frame: what was seen of known faces, which of them a detection confirms, and new ones."""

    image_bgr: npt.NDArray[np.uint8]
    seen: dict[int, Landmarks] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)
    new: list[Landmarks] = field(default_factory=list)
    detected: bool = False
    detector_calls: int = 0
    crops: int = 0

    @property
    def image_hw(self) -> tuple[int, int]:
        return (self.image_bgr.shape[0], self.image_bgr.shape[1])


class FaceTracker:
    """Follows the faces of one video. It uses the landmarker, and so belongs to its thread; it does not close it."""

    def __init__(
        self,
        landmarker: FaceLandmarker,
        detector: BoxFinder | None = None,
        every: int = _EVERY,
        *,
        box_kind: str = YUNET,
        smoothing: OneEuro | None = None,
        limits: FaceLimits | None = None,
        rules: TrackingRules | None = None,
    ) -> None:
        """
        Args:
            landmarker: finds the points.
            detector: image uint8 BGR (H, W, 3) → an array (M, 4) or (M, 5), x_min, y_min, x_max, y_max in pixels and perhaps a
                score, or a list of `FaceBox`; `yunet_detector` makes one. None: boxes come with `update`.
            every: the detector is called at least every so many frames.
            box_kind: who draws the boxes of an array; the landmarker's bundle has to know this kind.
            smoothing, limits, rules: how points are steadied, what counts as a face, when it is sought and how long remembered.

        Raises:
            InputError: `every` is below 1.
        """
        if every < 1:
            raise InputError(f"every must be at least 1: the detector is called every so many frames; got {every}.")
        self.landmarker = landmarker
        self.every = every
        self.box_kind = box_kind
        self.smoothing = smoothing or OneEuro()
        self.limits = limits or FaceLimits()
        self.rules = rules or TrackingRules()
        self._detector = detector
        self._tracks: list[_Track] = []
        self._counts = TrackerCounts()
        self._next_identity = 1
        self._image_hw: tuple[int, int] | None = None
        self._time_s = -math.inf
        self._since_detection = every

    @property
    def counts(self) -> TrackerCounts:
        """What has been done so far."""
        return self._counts

    def update(
        self, image_bgr: npt.NDArray[np.uint8], time_s: float, boxes: npt.ArrayLike | Sequence[FaceBox] | None = None
    ) -> list[TrackedFace]:
        """The faces of the next frame, by identity. After an error the tracker is as it was before, and the next frame works.

        After a frame of another size, or a pause longer than `rules.pause_s`, all faces get new identities.

        Args:
            image_bgr: uint8 (H, W, 3) BGR of any stride; gray (H, W) is replicated.
            time_s: when it was taken, in seconds; later than the frame before.
            boxes: faces that the caller has found in this frame, as from a detector, which is then not called.

        Raises:
            InputError: an image, boxes or an answer of the detector that cannot be used; a time that does not go on.
            LmedgeError: the engine answered something that is not a number.
        """
        if not (math.isfinite(time_s) and time_s > self._time_s):
            raise InputError(f"time_s must rise from frame to frame, in seconds; got {time_s} after {self._time_s}.")
        frame = _Frame(check_image(image_bgr))
        known = self._known(frame, time_s)
        given = None if boxes is None else self._reference_boxes(boxes, frame)
        self._follow(known, frame)
        if given is None and self._is_due(len(known), frame):
            given = self._detect(frame)
        if given is not None:
            self._place(given, known, frame)
        return self._commit(known, frame, time_s)

    def _known(self, frame: _Frame, time_s: float) -> list[_Track]:
        if frame.image_hw != self._image_hw or time_s - self._time_s > self.rules.pause_s:
            return []
        return [track for track in self._tracks if track.visible or time_s - track.seen_s <= self.rules.keep_s]

    def _follow(self, known: list[_Track], frame: _Frame) -> None:
        """Looks for every known face where it was."""
        tried = [track for track in known if track.visible or self._shows_itself(track)]
        answers = self._predict([track.box for track in tried], frame)
        seen = {
            track.identity: landmarks
            for track, landmarks in zip(tried, answers, strict=True)
            if self._is_there(track, landmarks, frame)
        }
        boxes_before = {track.identity: track.box for track in tried}
        frame.seen = one_for_each_face(seen, boxes_before, {track.identity for track in tried if not track.visible})

    def _is_there(self, track: _Track, landmarks: Landmarks, frame: _Frame) -> bool:
        if not track.visible and not is_new_face(landmarks, frame.image_hw, self.limits):
            return False
        return is_same_face(landmarks, track.landmarks, frame.image_hw, self.limits)

    def _shows_itself(self, track: _Track) -> bool:
        """Whether a lost face is looked for where it was; without confidence a detector is safer."""
        return self._detector is None or track.landmarks.confidence is not None

    def _is_due(self, known: int, frame: _Frame) -> bool:
        if self._detector is None:
            return False
        if any(track.visible and track.identity not in frame.seen for track in self._tracks):
            return True  # lost in this very frame
        searching = len(frame.seen) < max(known, 1)
        return self._since_detection + 1 >= (min(self.rules.seek_every, self.every) if searching else self.every)

    def _place(self, boxes: list[FaceBox], known: list[_Track], frame: _Frame) -> None:
        """Gives each detection, largest first, to a face that is seen, one that is missed, or to a new one."""
        frame.detected = True
        room = self.rules.max_faces - len(known)
        for box in sorted(boxes, key=lambda one: -one.width * one.height):
            identity = seen_at(box, frame.seen)
            if identity is not None:
                frame.confirmed.add(identity)
                continue
            missed = {track.identity: track.box for track in known if track.identity not in frame.seen}
            identity = missed_near(box, missed, self.rules.return_distance)
            if identity is None and len(frame.new) >= room:
                continue
            [landmarks] = self._predict([box], frame)
            others = [*frame.seen.values(), *frame.new]
            if not is_new_face(landmarks, frame.image_hw, self.limits) or is_on_one_of(landmarks, others):
                continue
            if identity is None:
                frame.new.append(landmarks)
            else:
                frame.seen[identity] = landmarks
                frame.confirmed.add(identity)

    def _commit(self, known: list[_Track], frame: _Frame, time_s: float) -> list[TrackedFace]:
        """Takes over what the frame has shown. Nothing here can fail."""
        were_visible = {track.identity for track in self._tracks if track.visible}
        faces = []
        for track in known:
            landmarks = frame.seen.get(track.identity)
            track.visible = landmarks is not None and self._is_believed(track, landmarks, frame)
            if landmarks is not None and track.visible:
                faces.append(self._seen(track, landmarks, time_s))
        returned = len({face.identity for face in faces} - were_visible)
        lost = len(were_visible - {face.identity for face in faces})
        for landmarks in frame.new:
            known.append(
                _Track(self._next_identity, landmarks, extent(landmarks), PointSmoother(self.smoothing), time_s, time_s)
            )
            self._next_identity += 1
            faces.append(self._seen(known[-1], landmarks, time_s))
        self._tracks, self._image_hw, self._time_s = known, frame.image_hw, time_s
        self._since_detection = 0 if frame.detected else self._since_detection + 1
        self._counts = self._counts.plus(TrackerCounts(1, frame.detector_calls, frame.crops, len(frame.new), lost, returned))
        return faces

    def _is_believed(self, track: _Track, landmarks: Landmarks, frame: _Frame) -> bool:
        """Whether a face that is seen is believed: without confidence, not if the detector keeps missing it."""
        if landmarks.confidence is not None:
            return True
        if frame.detected:
            track.unconfirmed = 0 if track.identity in frame.confirmed else track.unconfirmed + 1
        return track.unconfirmed < self.rules.unconfirmed

    @staticmethod
    def _seen(track: _Track, landmarks: Landmarks, time_s: float) -> TrackedFace:
        track.landmarks, track.box, track.seen_s, track.visible = landmarks, extent(landmarks), time_s, True
        track.age += 1
        smooth_px = track.smoother.update(landmarks.points_px, time_s).astype(np.float32)
        smoothed = replace(landmarks, points_px=smooth_px)
        confidence = mean_confidence(landmarks)
        return TrackedFace(track.identity, landmarks, smoothed, track.age, track.since_s, track.smoother.lag_s, confidence)

    def _predict(self, boxes: list[FaceBox], frame: _Frame) -> list[Landmarks]:
        frame.crops += len(boxes)
        return self.landmarker.predict(frame.image_bgr, boxes)

    def _detect(self, frame: _Frame) -> list[FaceBox]:
        assert self._detector is not None
        frame.detector_calls += 1
        answer = self._detector(frame.image_bgr)
        try:
            return self._reference_boxes(answer, frame)
        except InputError as error:
            raise InputError(f"The detector's answer cannot be used. {error}") from error

    def _reference_boxes(self, boxes: Any, frame: _Frame) -> list[FaceBox]:
        """Boxes of a detector or of the caller, of kind reference; those whose middle lies outside the image are left out."""
        if isinstance(boxes, np.ndarray) and boxes.ndim == 2 and boxes.shape[1] == 5:
            boxes = boxes[:, :4]
        references = [reference_box(box, self.landmarker.spec) for box in face_boxes(boxes, self.box_kind)]
        height, width = frame.image_hw
        return [box for box in references if 0 <= box.center[0] <= width - 1 and 0 <= box.center[1] <= height - 1]
