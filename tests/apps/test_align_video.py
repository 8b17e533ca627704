"""Aligned faces in a folder: every face of every frame, each with the way back to its frame."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge.apps.align import Alignment
from lmedge.apps.align_video import INDEX_FILE, AlignedFaces
from lmedge.apps.video import Frame
from lmedge.data.synthetic import Scene, render_face
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.runtimes.tracker import TrackedFace
from lmedge.schemas import IBUG_68

SIZE_HW = (64, 64)
FACE = render_face((4, 3), 160, Scene(occluders=()))


def tracked(identity: int, *, part: float = 1.0) -> TrackedFace:
    """The rendered face; a smaller part of it has its points nearer together."""
    points = FACE.points(IBUG_68)
    points = points.mean(axis=0) + part * (points - points.mean(axis=0))
    landmarks = Landmarks(points.astype(np.float32), IBUG_68, FaceBox.around(points))
    return TrackedFace(identity, landmarks, landmarks, 1, 0.0, 0.0, None)


def frame(index: int) -> Frame:
    return Frame(FACE.image_bgr, index / 10, index)


def test_every_face_of_every_frame_is_a_file_with_its_transforms(tmp_path: Path) -> None:
    aligned = AlignedFaces(Alignment.standard(SIZE_HW), tmp_path / "faces")
    for index in range(2):
        aligned.add(frame(index), [tracked(1), tracked(2, part=0.5)])
    rows = [json.loads(line) for line in (tmp_path / "faces" / INDEX_FILE).read_text(encoding="utf-8").splitlines()]
    assert sorted((row["frame"], row["face"]) for row in rows) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert aligned.written == len(rows)
    for row in rows:
        picture = cv2.imread(str(tmp_path / "faces" / row["file"]))
        again = cv2.warpAffine(FACE.image_bgr, np.array(row["transform"]), SIZE_HW[::-1])
        assert np.abs(picture.astype(int) - again).mean() < 3


def test_what_is_shown_is_the_largest_face_or_black() -> None:
    aligned = AlignedFaces(Alignment.standard(SIZE_HW))
    large, small = tracked(1), tracked(2, part=0.5)
    np.testing.assert_array_equal(aligned.add(frame(0), [large, small]), aligned.add(frame(1), [large]))
    assert not aligned.add(frame(2), []).any()
    assert aligned.written == 0


def test_a_face_whose_eyes_coincide_is_counted_and_left_out(tmp_path: Path) -> None:
    aligned = AlignedFaces(Alignment.standard(SIZE_HW), tmp_path)
    aligned.add(frame(0), [tracked(1, part=0.001)])
    assert (aligned.written, aligned.skipped) == (0, 1)


def test_a_folder_with_faces_and_a_file_are_refused(tmp_path: Path) -> None:
    AlignedFaces(Alignment.standard(SIZE_HW), tmp_path / "faces").add(frame(0), [tracked(1)])
    with pytest.raises(InputError, match="holds aligned faces already"):
        AlignedFaces(Alignment.standard(SIZE_HW), tmp_path / "faces")
    for file in (tmp_path / "faces").glob("*.png"):
        file.unlink()
    with pytest.raises(InputError, match="holds aligned faces already"):
        AlignedFaces(Alignment.standard(SIZE_HW), tmp_path / "faces")  # a list of faces would get rows of two runs
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        AlignedFaces(Alignment.standard(SIZE_HW), tmp_path / "file")
