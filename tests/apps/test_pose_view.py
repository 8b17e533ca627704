"""What is written beside faces: head pose, and the face against its own rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmedge.apps.draw_pose import FORWARD_BGR, LEFT_BGR, UP_BGR
from lmedge.apps.pose_view import PoseView
from lmedge.apps.video import Frame
from lmedge.data.drawing import TEXT_BGR
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
    monkeypatch.setattr("lmedge.apps.pose_view.cv2.putText", lambda picture, text, *_: lines.append(text))
    return lines


@pytest.mark.parametrize("schema", [IBUG_68, MMLAB_5], ids=lambda schema: schema.name)
def test_a_face_gets_its_angles_and_axes_and_the_frame_stays_untouched(schema: LandmarkSchema, written: list[str]) -> None:
    before = FACE.image_bgr.copy()
    picture = PoseView(schema).draw(at(0), [tracked(schema)])
    yaw = float(written[1].split()[1])
    assert abs(yaw - 15) < 6
    for color in (FORWARD_BGR, LEFT_BGR, UP_BGR):
        assert (picture == color).all(axis=2).sum() > 20, color
    np.testing.assert_array_equal(FACE.image_bgr, before)


def test_the_expression_is_told_once_the_face_at_rest_is_known(written: list[str]) -> None:
    view = PoseView(IBUG_68, shut_eye_part=0.1)
    for number in range(60):
        written.clear()
        view.draw(at(number / 10), [tracked(IBUG_68)])
        if number == 0:
            assert "learning the face at rest" in written
    assert any(line.startswith("eyes 100% 100%") for line in written), written


def test_a_wink_is_told_by_the_points_of_the_network_not_by_the_smoothed_ones(written: list[str]) -> None:
    view = PoseView(IBUG_68, shut_eye_part=0.1)
    for number in range(60):
        view.draw(at(number / 10), [tracked(IBUG_68)])
    shut = FACE.points(IBUG_68)
    shut[[37, 38]] = shut[[41, 40]]
    blinking = replace(tracked(IBUG_68, shut), smoothed=tracked(IBUG_68).landmarks)
    written.clear()
    view.draw(at(6), [blinking])
    (eyes,) = [line for line in written if line.startswith("eyes")]
    right, left = (int(word.rstrip("%")) for word in eyes.split()[1:3])
    assert right < 20
    assert left > 80


@pytest.mark.parametrize("size_hw", [(60, 60), (1600, 1200)])
def test_letters_stay_in_pictures_of_any_size_and_grow_with_them(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    points = (FACE.points(IBUG_68) / 240 * min(size_hw)).astype(np.float32)
    gray = np.full((height, width, 3), 128, np.uint8)
    picture = PoseView(IBUG_68).draw(Frame(gray, 0.0, 0), [tracked(IBUG_68, points)])
    white_rows = np.flatnonzero((picture == TEXT_BGR).all(axis=2).any(axis=1))
    assert picture.shape == gray.shape
    assert len(white_rows) > height / 60


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
