"""What a network's points still show of an eye that is shut: `DriverThresholds.shut_eye_part` of a bundle.

Networks learn from photos in which few eyes are shut, and draw one that is as a narrow eye: held against the opening of exact
points it would never count as shut. So closure is judged between the driver's own open eye and this level.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lmedge.apps.expression import FaceMeter
from lmedge.data.synthetic import Expression, HeadPose, Scene, SyntheticFace, render_face
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.runtimes.landmarker import FaceLandmarker

# Of the trained bundles, by the name in their manifest. 68 points: 0.66 and 0.7 are medians of rendered people, and a man in a
# video left 0.64 in six blinks. 98 points: 0.73 of the ones and 0.84 of the other, taken between them.
KNOWN_PARTS = {"ibug68-mobilenet_v4-1.0": 0.66, "ibug68_fast-mobilenet_v4_trimmed_more": 0.7, "wflw98-mobilenet_v4-1.0": 0.77}

PEOPLE = 24
_SEED, _SIZE_PX = 41, 160
# A driver before the camera of a dashboard: turned and nodding a little.
_YAW_DEG, _PITCH_DEG = 15.0, 8.0
_OPEN, _SHUT = Expression(), Expression(eye_closure=(1.0, 1.0))
# Eyes that look the same shut and open leave nothing to judge by.
_MOST = 0.95


def shut_eye_part_of(landmarker: FaceLandmarker) -> float:
    """Of the landmarker's network: known for the trained bundles, measured on rendered faces for others, which takes seconds.

    Raises:
        InputError: its points do not outline the eyes.
    """
    FaceMeter(landmarker.schema)
    known = KNOWN_PARTS.get(landmarker.bundle.manifest.name)
    if known is not None:
        return known

    def look(face: SyntheticFace) -> Landmarks:
        return landmarker.predict(face.image_bgr, [FaceBox.around(face.points(landmarker.schema))])[0]

    return float(np.clip(np.median(shut_eye_parts(look)), 0.0, _MOST))


def shut_eye_parts(look: Callable[[SyntheticFace], Landmarks], people: int = PEOPLE) -> npt.NDArray[np.float64]:
    """(people,) opening of rendered people's shut eyes over that of the same eyes open, as `look` sees them.

    Raises:
        InputError: the points do not outline the eyes, or no people are asked for.
    """
    if people < 1:
        raise InputError(f"people must be at least 1; got {people}.")
    rng, parts = np.random.default_rng(_SEED), []
    for person in range(people):
        pose = HeadPose(float(rng.uniform(-_YAW_DEG, _YAW_DEG)), float(rng.uniform(-_PITCH_DEG, _PITCH_DEG)))
        is_open, is_shut = (_opening(look, person, pose, expression) for expression in (_OPEN, _SHUT))
        parts.append(is_shut / is_open)
    return np.array(parts)


def _opening(look: Callable[[SyntheticFace], Landmarks], person: int, pose: HeadPose, expression: Expression) -> float:
    face = render_face((_SEED, person), _SIZE_PX, Scene(pose, expression, occluders=(), lighting="ordinary"))
    landmarks = look(face)
    ratios = FaceMeter(landmarks.schema).read(landmarks, pose)
    return ratios.right_eye + ratios.left_eye
