"""A landmarker and a detector for a scene that is known: where the faces are, and what a network would say of each crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.landmarks import FaceBox, Landmarks
from lmedge.preprocess import BoxFit, PreprocessSpec, check_box_in_image
from lmedge.runtimes.evaluate import iou
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.tracker import FaceTracker, TrackedFace
from tests.bundles import SCHEMA

IMAGE = np.zeros((240, 320, 3), np.uint8)
FPS = 30.0

# Five points that fill a box of side 1 with its corner at 0.
SHAPE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.45], [0.1, 1.0], [0.9, 1.0]])
# What a network says where no face is: a face-like shape, a little smaller than the box, as the zoo's networks do.
NOWHERE = np.array([[0.1, 0.1], [0.85, 0.15], [0.6, 0.4], [0.3, 0.9], [0.8, 0.75]])
SURE, UNSURE = 0.9, 0.1
# A network follows a face while the crop covers it by about this much.
_REACH = 0.15


@dataclass
class Scene:
    """Faces as (x, y, side) of their boxes, by name; the test moves them, and hides or uncovers them.

    `sure` is the network's confidence where a face is, `shift` the bundle's fit of detections.
    """

    faces: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    confident: bool = True
    sure: float = SURE
    shift: float = 0.0
    detector_calls: int = 0
    crops: int = 0

    def box(self, name: str) -> FaceBox:
        x, y, side = self.faces[name]
        return FaceBox(x, y, x + side, y + side)

    def detect(self, image_bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Every face, as a detector of kind "yunet" would: with a score."""
        self.detector_calls += 1
        rows = [[*self.box(name).xyxy, 0.9] for name in self.faces]
        return np.array(rows).reshape(-1, 5)


class PlayedLandmarker(FaceLandmarker):
    """Sees the scene instead of the image."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.error: Exception | None = None

    @property
    def spec(self) -> PreprocessSpec:
        return PreprocessSpec(input_hw=(32, 32), box_fits={"yunet": BoxFit(1.0, self.scene.shift, 0.0)})

    def predict(
        self, image_bgr: npt.NDArray[np.uint8], boxes_xyxy: npt.ArrayLike | Sequence[FaceBox], box_kind: str = "reference"
    ) -> list[Landmarks]:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        assert isinstance(boxes_xyxy, list)
        for box in boxes_xyxy:
            check_box_in_image(box, (image_bgr.shape[0], image_bgr.shape[1]))
        self.scene.crops += len(boxes_xyxy)
        return [self._answer(box) for box in boxes_xyxy]

    def _answer(self, box: FaceBox) -> Landmarks:
        boxes = [self.scene.box(name) for name in self.scene.faces]
        best = max(boxes, key=lambda one: iou(one, box), default=None)
        is_face = best is not None and iou(best, box) > _REACH
        shape, place = (SHAPE, best) if is_face and best is not None else (NOWHERE, box)
        points = shape * [place.width, place.height] + place.xyxy[:2]
        confidence = np.full(5, self.scene.sure if is_face else UNSURE, np.float32) if self.scene.confident else None
        return Landmarks(points.astype(np.float32), SCHEMA, box, confidence)


Moves = Callable[[int, Scene], None]


class Video:
    """A tracker and the frames that it has seen so far."""

    def __init__(self, scene: Scene, *, detects: bool = True, **options: Any) -> None:
        self.scene = scene
        self.landmarker = PlayedLandmarker(scene)
        self.tracker = FaceTracker(self.landmarker, scene.detect if detects else None, **options)
        self.frame = 0

    def next(self, boxes: Any = None, image: npt.NDArray[np.uint8] = IMAGE) -> list[TrackedFace]:
        self.frame += 1
        return self.tracker.update(image, self.frame / FPS, boxes)

    def play(self, frames: int, moves: Moves = lambda number, scene: None) -> list[list[int]]:
        """The identities in each of the frames."""
        seen = []
        for number in range(frames):
            moves(number, self.scene)
            seen.append([face.identity for face in self.next()])
        return seen


def one_face(**fields: Any) -> Scene:
    return Scene({"ann": (100.0, 80.0, 60.0)}, **fields)


def two_faces(**fields: Any) -> Scene:
    return Scene({"ann": (40.0, 80.0, 60.0), "bob": (200.0, 70.0, 70.0)}, **fields)
