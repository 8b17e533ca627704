"""What a face does: landmarks → ratios of distances → changes against the person's own resting face.

opening of an eye   mean distance of the lids over the distance of the corners (the "eye aspect ratio" of Soukupová and Čech,
                    "Real-Time Eye Blink Detection using Facial Landmarks", CVWW 2016)
opening of a mouth  the same of the inner lips
brow                height of the brows over the line of the eyes, over the distance of the eyes
smile               width of the mouth over the distance of the eyes

With the head's angles each ratio is put back to what it is on the head itself (`openings.foreshortening`). Which points are
meant follows from the names of the schema.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.apps.blinks import LONGEST_GAP_S
from lmedge.apps.openings import ACROSS, HeadAngles, direction, find_ring, foreshortening
from lmedge.errors import InputError
from lmedge.landmarks import Landmarks
from lmedge.pose import generic_points
from lmedge.schemas import LandmarkSchema

# How long a resting face is watched: the median over 3 s is not moved by a blink.
LEARN_S = 3.0
# Eyes of 27 drivers were open at 0.257 ± 0.021; a median below this is a person who blinks, squints or sleeps.
OPEN_EYE_LEAST = 0.15

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FaceRatios:
    """Ratios of distances on one face, without a unit; right and left are the subject's.

    Attributes:
        right_eye, left_eye: opening, 0 is shut; an open eye has 0.2 to 0.4.
        mouth: opening of the inner lips, 0 is shut.
        brow: height of the brows over the eyes.
        smile: width of the mouth.
    """

    right_eye: float
    left_eye: float
    mouth: float
    brow: float
    smile: float


class FaceMeter:
    """Reads the ratios of faces of one schema; the indices are looked up once.

    Attributes:
        schema: of the faces.
        right_eye, left_eye, mouth: the rings that it reads.
        mouth_corners: indices of the right and the left one.
        eye_points: indices of both outlines.
    """

    def __init__(self, schema: LandmarkSchema) -> None:
        """
        Raises:
            InputError: the schema has no outline of the eyes or of the inner lips.
        """
        self.schema = schema
        self.right_eye = find_ring(schema, "right_eye", ("right_eye_outer", "right_eye_inner"))
        self.left_eye = find_ring(schema, "left_eye", ("left_eye_outer", "left_eye_inner"))
        inner = "inner_mouth_corner" if "right_inner_mouth_corner" in schema.point_names else "mouth_corner"
        self.mouth = find_ring(schema, "inner_lip", (f"right_{inner}", f"left_{inner}"))
        head = generic_points(schema)
        self._right_across, self._left_across, self._mouth_across = (
            direction(head[list(ring.corners)]) for ring in (self.right_eye, self.left_eye, self.mouth)
        )
        self.mouth_corners = self._pair("mouth_corner")
        self.eye_points = tuple(
            sorted(
                {index for ring in (self.right_eye, self.left_eye) for pair in (ring.corners, *ring.pairs) for index in pair}
            )
        )
        self._brows = list(schema.groups.get("brows", ()))
        if not self._brows:
            raise InputError(f"{schema.name} has no group 'brows'. Take a bundle with 68 or 98 points, e.g. zoo:ibug68.")

    def read(self, landmarks: Landmarks, angles: HeadAngles | None = None) -> FaceRatios:
        """The ratios of a face.

        Args:
            landmarks: of this schema.
            angles: of the head; without them the ratios are those of the picture, good to about 20 degrees.

        Raises:
            InputError: landmarks of another schema.
        """
        if landmarks.schema != self.schema:
            raise InputError(f"Expected landmarks of {self.schema.name}; got {landmarks.schema.name}. Make a FaceMeter for it.")
        points = landmarks.points_px.astype(np.float64)
        right, left = (points[list(ring.corners)].mean(axis=0) for ring in (self.right_eye, self.left_eye))
        across = left - right
        distance = max(float(np.linalg.norm(across)), np.finfo(float).tiny)
        up = np.array([across[1], -across[0]]) / distance
        height = float((points[self._brows].mean(axis=0) - (right + left) / 2) @ up)
        width = float(np.linalg.norm(points[self.mouth_corners[1]] - points[self.mouth_corners[0]]))
        return FaceRatios(
            right_eye=self.right_eye.opening(points) * foreshortening(angles, self._right_across),
            left_eye=self.left_eye.opening(points) * foreshortening(angles, self._left_across),
            mouth=self.mouth.opening(points) * foreshortening(angles, self._mouth_across),
            brow=height / distance * foreshortening(angles, ACROSS),
            smile=width / distance,
        )

    def _pair(self, name: str) -> tuple[int, int]:
        names = self.schema.point_names
        for side in ("right", "left"):
            if f"{side}_{name}" not in names:
                raise InputError(f"{self.schema.name} has no point {side}_{name}. Take a bundle with 68 or 98 points.")
        return names.index(f"right_{name}"), names.index(f"left_{name}")


@dataclass(frozen=True)
class FaceChange:
    """A face against the same person's resting face.

    Attributes:
        right_eye, left_eye: opening; 1 as at rest, 0 shut.
        mouth: opening of the inner lips, over that at rest; 0 is as at rest.
        brow: 0.1 is a tenth higher than at rest.
        smile: 0.1 is a mouth a tenth wider than at rest.
    """

    right_eye: float
    left_eye: float
    mouth: float
    brow: float
    smile: float

    @property
    def closure(self) -> float:
        """Of the more open eye, for a wink shuts no eyes: 0 open as at rest or wider, 1 shut."""
        return min(max(1 - max(self.right_eye, self.left_eye), 0.0), 1.0)


@dataclass(frozen=True)
class Baseline:
    """A person's resting face.

    Attributes:
        ratios: medians.
        yaw_deg, pitch_deg: medians of the head's angles as seen by the camera; None where none were given.

    Raises:
        InputError: ratios that no resting face has.
    """

    ratios: FaceRatios
    yaw_deg: float | None = None
    pitch_deg: float | None = None

    def __post_init__(self) -> None:
        if not (self.ratios.right_eye > 0 and self.ratios.left_eye > 0 and self.ratios.brow > 0 and self.ratios.smile > 0):
            raise InputError(f"A baseline needs open eyes, brows above them and a mouth with a width; got {self.ratios}.")

    def change(self, ratios: FaceRatios, *, shut_eye_part: float = 0.0) -> FaceChange:
        """The face against this one.

        Args:
            ratios: of the same person.
            shut_eye_part: what a shut eye shows of the opening at rest: little with exact points, more where a network does
                not draw the lids together.

        Raises:
            InputError: a part that is not from 0 to below 1.
        """
        if not 0 <= shut_eye_part < 1:
            raise InputError(f"shut_eye_part must be at least 0 and below 1; got {shut_eye_part}.")
        rest = self.ratios
        return FaceChange(
            right_eye=(ratios.right_eye / rest.right_eye - shut_eye_part) / (1 - shut_eye_part),
            left_eye=(ratios.left_eye / rest.left_eye - shut_eye_part) / (1 - shut_eye_part),
            mouth=ratios.mouth - rest.mouth,
            brow=ratios.brow / rest.brow - 1,
            smile=ratios.smile / rest.smile - 1,
        )


class BaselineLearner:
    """Learns a resting face from the first seconds in which it is seen, at any frame rate."""

    def __init__(self, seconds: float = LEARN_S, *, open_eye_least: float = OPEN_EYE_LEAST) -> None:
        """
        Args:
            seconds: of faces seen; time without a face does not count.
            open_eye_least: a median opening below it is no resting face, and learning goes on.
        """
        if not seconds > 0:
            raise InputError(f"seconds must be positive; got {seconds:g}.")
        self._seconds, self._open_eye_least = seconds, open_eye_least
        # Seconds that each frame adds, and what it showed.
        self._frames: deque[tuple[float, tuple[float, ...], tuple[float, float] | None]] = deque()
        self._seen_s = 0.0
        self._last_s = -math.inf
        self._refuses = False

    @property
    def seen_s(self) -> float:
        """Seconds of faces in hand."""
        return self._seen_s

    @property
    def refuses(self) -> bool:
        """Whether enough has been seen, and it was no resting face: eyes that are shut or squint, at least half of the time."""
        return self._refuses

    def add(self, time_s: float, ratios: FaceRatios, angles: HeadAngles | None = None) -> Baseline | None:
        """Takes a frame in; the baseline as soon as enough is known, before that None."""
        passed_s = time_s - self._last_s
        self._last_s = time_s
        added_s = passed_s if 0 < passed_s <= LONGEST_GAP_S else 0.0
        if added_s == 0:
            return None
        row = (ratios.right_eye, ratios.left_eye, ratios.mouth, ratios.brow, ratios.smile)
        self._frames.append((added_s, row, None if angles is None else (angles.yaw_deg, angles.pitch_deg)))
        self._seen_s += added_s
        # A sum of frame times may fall short of the seconds by a rounding.
        if self._seen_s < self._seconds - 1e-6:
            return None
        baseline = self._median()
        self._refuses = baseline is None
        while self._frames and self._seen_s - self._frames[0][0] >= self._seconds - 1e-6:
            self._seen_s -= self._frames.popleft()[0]
        return baseline

    def _median(self) -> Baseline | None:
        ratios = FaceRatios(*np.median([row for _, row, _ in self._frames], axis=0).tolist())
        if min(ratios.right_eye, ratios.left_eye) < self._open_eye_least or ratios.brow <= 0 or ratios.smile <= 0:
            return None
        angles = [pair for _, _, pair in self._frames if pair is not None]
        if not angles:
            return Baseline(ratios)
        yaw, pitch = np.median(angles, axis=0).tolist()
        return Baseline(ratios, yaw, pitch)
