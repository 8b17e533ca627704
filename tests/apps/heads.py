"""The points of a synthetic head at any expression and pose, without a picture: thousands of exact faces a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic.camera import HeadPose
from lmedge.data.synthetic.head_mesh import average_head
from lmedge.data.synthetic.modes import basis, draw_identity
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import IBUG_68, WFLW_98, LandmarkSchema, mapping_matrix

_POINTS = WFLW_98.num_points
_PX_PER_MM, _DISTANCE_MM, _MIDDLE_PX = 1.5, 900.0, np.array([320.0, 240.0])
REST = HeadPose()


@dataclass(frozen=True)
class Face:
    """What a head does in one frame."""

    closure: float = 0.0
    mouth_gap_mm: float = 0.0
    pose: HeadPose = REST
    wink: bool = False


class Sitter:
    """One person; seed 0 is the average head."""

    def __init__(self, seed: int = 0, schema: LandmarkSchema = IBUG_68) -> None:
        names, fields = basis()
        identity = draw_identity(np.random.default_rng(seed)) * (seed != 0)
        self._rest_mm = average_head().vertices_mm[:_POINTS] + np.tensordot(identity, fields[: len(identity), :_POINTS], 1)
        self._moves = {name: fields[index, :_POINTS] for index, name in enumerate(names) if index >= len(identity)}
        self._average_mm = average_head().vertices_mm[:_POINTS]
        self.schema = schema
        self._conversion = mapping_matrix(WFLW_98, schema)

    def points_px(self, face: Face) -> npt.NDArray[np.float64]:
        """(K, 2), as `lmedge.data.synthetic` labels them; the contour does not slide."""
        points = self._rest_mm + self._moves["jaw"] * (face.mouth_gap_mm - self._gap_mm(self._rest_mm, 90, 94))
        for side, upper, lower in (("right", 62, 66), ("left", 70, 74)):
            closure = 0.0 if face.wink and side == "left" else face.closure
            amount = closure * self._gap_mm(self._rest_mm, upper, lower) / self._gap_mm(self._average_mm, upper, lower)
            points = points + amount * self._moves[f"{side}_lids"]
        camera_mm = points @ face.pose.rotation.T
        seen = _PX_PER_MM * camera_mm[:, :2] * (_DISTANCE_MM / (_DISTANCE_MM + camera_mm[:, 2:])) + _MIDDLE_PX
        return np.asarray(self._conversion @ seen)

    def landmarks(self, face: Face, confidence: float | None = None) -> Landmarks:
        points = self.points_px(face)
        sureness = None if confidence is None else np.full(len(points), confidence, np.float32)
        return Landmarks(points.astype(np.float32), self.schema, FaceBox.around(points), sureness)

    @staticmethod
    def _gap_mm(points_mm: npt.NDArray[np.float64], upper: int, lower: int) -> float:
        return float(points_mm[lower, 1] - points_mm[upper, 1])
