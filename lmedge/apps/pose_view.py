"""Head pose and expression of the faces in a picture, written beside them, and the first face's shape in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from lmedge.apps.draw_pose import draw_pose
from lmedge.apps.expression_watch import ExpressionWatch
from lmedge.apps.reconstruct import reconstruct
from lmedge.apps.video import Frame
from lmedge.data.drawing import FONT, TEXT_BGR, Image, draw_outlines
from lmedge.errors import InputError
from lmedge.pose import Camera, HeadPose, head_pose
from lmedge.preprocess import check_image
from lmedge.runtimes.tracker import TrackedFace
from lmedge.schemas import LandmarkSchema

_POINT_BGR = (120, 220, 120)
_LINE_PX, _TEXT_SCALE = 16, 0.42
# Higher pictures get larger letters.
_TEXT_FOR_PX = 720


class PoseView:
    """Draws points, axes and, once a face at rest is known, its expression.

    Attributes:
        camera: given, or assumed for the size of the first frame; None before that.
        shape_file: where the first face that has a pose was written, None until then.
    """

    def __init__(
        self,
        schema: LandmarkSchema,
        *,
        shut_eye_part: float | None = None,
        camera: Camera | None = None,
        shape_file: str | Path | None = None,
    ) -> None:
        """
        Args:
            schema: of the faces.
            shut_eye_part: what the network's points show of a shut eye (`driver.shut_eye_part_of`); without it, no expression
                is told.
            shape_file: a .ply or .obj file to write the first face's points in three dimensions to.
        """
        self.schema = schema
        self.camera = camera
        self.shape_file: Path | None = None
        self._wanted_file = None if shape_file is None else Path(shape_file).expanduser()
        self._shut_eye_part = shut_eye_part
        self._watches: dict[int, ExpressionWatch] = {}

    def draw(self, frame: Frame, faces: Sequence[TrackedFace]) -> Image:
        """A copy of the frame with the state of each face.

        Raises:
            InputError: the shape's file is neither .ply nor .obj, or the schema has no places on a head.
            LmedgeError: it cannot be written.
        """
        height, width = frame.image_bgr.shape[:2]
        self.camera = self.camera or Camera.assumed_for(height, width)
        picture = check_image(frame.image_bgr).copy()
        for face in faces:
            pose = self._pose(face, self.camera)
            draw_outlines(picture, face.smoothed.points_px, _POINT_BGR, self.schema)
            if pose is not None:
                picture = draw_pose(picture, pose)
                self._write_shape(frame, face, self.camera)
            self._write_state(picture, face, [*_pose_lines(pose), *self._expression_lines(face, frame.time_s, pose)])
        return picture

    def _pose(self, face: TrackedFace, camera: Camera) -> HeadPose | None:
        try:
            return head_pose(face.smoothed.points_px, self.schema, camera)
        except InputError:
            # Points that fell together are no head; the picture then shows the points alone.
            return None

    def _write_shape(self, frame: Frame, face: TrackedFace, camera: Camera) -> None:
        if self._wanted_file is not None and self.shape_file is None:
            self.shape_file = reconstruct(face.smoothed, camera, frame.image_bgr).write(self._wanted_file)

    def _expression_lines(self, face: TrackedFace, time_s: float, pose: HeadPose | None) -> list[str]:
        if self._shut_eye_part is None:
            return []
        if face.identity not in self._watches:
            self._watches[face.identity] = ExpressionWatch(self.schema, shut_eye_part=self._shut_eye_part)
        # As the network gave them: smoothing would hide a blink.
        state = self._watches[face.identity].update(time_s, face.landmarks, pose)
        if state.change is None:
            return ["learning the face at rest"]
        told = [name for name, holds in (("brows raised", state.brows_raised), ("smiles", state.smiles)) if holds]
        change = state.change
        return [
            f"eyes {change.right_eye:.0%} {change.left_eye:.0%}  mouth {change.mouth:+.2f}",
            f"brows {change.brow:+.0%}  smile {change.smile:+.0%}  {', '.join(told)}",
        ]

    @staticmethod
    def _write_state(picture: Image, face: TrackedFace, lines: list[str]) -> None:
        """Below the face, or as near to that as the picture has room."""
        height, width = picture.shape[:2]
        scale = _TEXT_SCALE * max(1.0, height / _TEXT_FOR_PX)
        thickness, step_px = max(1, round(scale)), round(_LINE_PX * scale / _TEXT_SCALE)
        texts = [f"face {face.identity}", *lines]
        wide_px = max(cv2.getTextSize(text, FONT, scale, thickness)[0][0] for text in texts)
        left = max(0, min(round(float(face.smoothed.points_px[:, 0].min())), width - wide_px))
        top = max(0, min(round(float(face.smoothed.points_px[:, 1].max())), height - step_px * len(texts)))
        behind = picture[top : top + step_px * len(texts), left : left + wide_px]
        behind //= 3  # light letters on a darker ground
        for number, text in enumerate(texts, 1):
            place = (left, top + step_px * number - step_px // 4)
            cv2.putText(picture, text, place, FONT, scale, TEXT_BGR, thickness, cv2.LINE_AA)


def _pose_lines(pose: HeadPose | None) -> list[str]:
    if pose is None:
        return ["no head pose"]
    return [f"yaw {pose.yaw_deg:+.0f}  pitch {pose.pitch_deg:+.0f}  roll {pose.roll_deg:+.0f}  ({pose.reprojection_px:.1f} px)"]
