"""What is written beside faces: head pose, and the face against its own rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmedge.apps.pose_view import PoseView
from lmedge.apps.video import Frame
from lmedge.data.synthetic import HeadPose, Scene, render_face
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.runtimes.tracker import TrackedFace
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema

FACE = render_face((4, 2), 240, Scene(pose=HeadPose(15.0, 0.0, 0.0), occluders=()))


def tracked(schema: LandmarkSchema, points_px: np.ndarray | None = None) -> TrackedFace:
    points = FACE.points(schema) if points_px is None else points_px
    landmarks = Landmarks(points, schema, FaceBox(0, 0, 239, 239))
    return TrackedFace(1, landmarks, landmarks, 1, 0.0, 0.0, None)


def at(time_s: float) -> Frame:
    return Frame(FACE.image_bgr, time_s, round(time_s * 10))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All lines of text that were drawn."""
    lines: list[str] = []
    monkeypatch.setattr("lmedge.apps.pose_view.write_text", lambda picture, text, *_: lines.append(text))
    return lines


@pytest.mark.parametrize("schema", [IBUG_68, MMLAB_5], ids=lambda schema: schema.name)
def test_a_face_gets_its_angles_and_axes_and_the_frame_stays_untouched(schema: LandmarkSchema, written: list[str]) -> None:
    before = FACE.image_bgr.copy()
    picture = PoseView(schema).draw(at(0), [tracked(schema)])
    yaw = float(written[1].split()[1])
    assert abs(yaw - 15) < 6
    assert (picture != before).any(axis=2).sum() > 500
    np.testing.assert_array_equal(FACE.image_bgr, before)


def test_the_expression_is_told_once_the_face_at_rest_is_known(written: list[str]) -> None:
    view = PoseView(IBUG_68, shut_eye_part=0.1)
    for number in range(60):
        written.clear()
        view.draw(at(number / 10), [tracked(IBUG_68)])
        if number == 0:
            assert "learning the face at rest" in written
    assert any(line.startswith("eyes 100% 100%") for line in written), written


def test_without_a_shut_eye_part_there_is_no_expression(written: list[str]) -> None:
    PoseView(IBUG_68).draw(at(0), [tracked(IBUG_68)])
    assert len(written) == 2


def test_points_that_fell_together_have_no_pose(written: list[str]) -> None:
    PoseView(IBUG_68).draw(at(0), [tracked(IBUG_68, np.full((68, 2), 100, np.float32))])
    assert "no head pose" in written


def test_the_shape_is_that_of_the_first_face_that_has_a_pose(tmp_path: Path) -> None:
    view = PoseView(IBUG_68, shape_file=tmp_path / "face.obj")
    view.draw(at(0), [])
    assert view.shape_file is None
    view.draw(at(0.1), [tracked(IBUG_68)])
    before = (tmp_path / "face.obj").read_bytes()
    view.draw(at(0.2), [tracked(IBUG_68, FACE.points(IBUG_68) + 3)])
    assert (tmp_path / "face.obj").read_bytes() == before


def test_another_kind_of_shape_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.ply or \.obj"):
        PoseView(IBUG_68, shape_file=tmp_path / "face.stl").draw(at(0), [tracked(IBUG_68)])
