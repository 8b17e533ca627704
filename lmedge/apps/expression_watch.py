"""What a face does over time, against its own rest: raised brows, a smile, blinks. Landmarks and angles → a state a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmedge.apps.blinks import Blink, BlinkFinder
from lmedge.apps.expression import Baseline, BaselineLearner, FaceChange, FaceMeter
from lmedge.apps.openings import HeadAngles
from lmedge.errors import InputError
from lmedge.landmarks import Landmarks
from lmedge.schemas import LandmarkSchema

# Own choice: exact points of rendered faces reach these when brows rise by 4 mm and when the corners of the mouth move by 4 mm;
# a head that turns and nods by 12 and 8 degrees moves the one by 0.07 and the other by 0.02. Networks show 0.6 of both.
BROWS_RAISED, SMILES = 0.1, 0.1


@dataclass(frozen=True)
class ExpressionState:
    """A face in one frame.

    Attributes:
        time_s: of the frame.
        change: against the face at rest; None without a face and in the first seconds. Its `closure` is that of the eyes.
        brows_raised, smiles: whether the change says so; False where it is None.
        blink: that ended with this frame.
    """

    time_s: float
    change: FaceChange | None
    brows_raised: bool
    smiles: bool
    blink: Blink | None


class ExpressionWatch:
    """Watches one face; one per face and thread.

    Attributes:
        baseline: the person's resting face, None until it is known: it is learnt from the first seconds.
    """

    def __init__(
        self,
        schema: LandmarkSchema,
        *,
        baseline: Baseline | None = None,
        shut_eye_part: float = 0.0,
        brows_raised: float = BROWS_RAISED,
        smiles: float = SMILES,
    ) -> None:
        """
        Args:
            schema: of the landmarks that will come: 68 or 98 points.
            baseline: of the same person, from earlier.
            shut_eye_part: as in `Baseline.change`.
            brows_raised, smiles: changes from which they are told.

        Raises:
            InputError: the schema does not say how far eyes and mouth are open.
        """
        self.baseline = baseline
        self._meter, self._learner, self._blinks = FaceMeter(schema), BaselineLearner(), BlinkFinder()
        self._shut_eye_part, self._brows_raised, self._smiles = shut_eye_part, brows_raised, smiles
        self._time_s = -math.inf

    def update(self, time_s: float, landmarks: Landmarks | None, angles: HeadAngles | None = None) -> ExpressionState:
        """Takes a frame in.

        Args:
            time_s: of the frame, from the camera. A time before the last one is a clock that was set back: a blink across it
                is not told.
            landmarks: of the face, unsmoothed; None where it is not seen.
            angles: of the head; without them good to about 20 degrees.

        Raises:
            InputError: a time that is not a finite number, or landmarks of another schema.
        """
        if not math.isfinite(time_s):
            raise InputError(f"time_s must be a finite number of seconds; got {time_s}.")
        if time_s < self._time_s:
            self._blinks.forget()
        self._time_s = time_s
        change = None if landmarks is None else self._change(time_s, landmarks, angles)
        return ExpressionState(
            time_s=time_s,
            change=change,
            brows_raised=change is not None and change.brow >= self._brows_raised,
            smiles=change is not None and change.smile >= self._smiles,
            blink=self._blinks.update(time_s, None if change is None else change.closure),
        )

    def _change(self, time_s: float, landmarks: Landmarks, angles: HeadAngles | None) -> FaceChange | None:
        ratios = self._meter.read(landmarks, angles)
        if self.baseline is None:
            self.baseline = self._learner.add(time_s, ratios, angles)
        return None if self.baseline is None else self.baseline.change(ratios, shut_eye_part=self._shut_eye_part)
