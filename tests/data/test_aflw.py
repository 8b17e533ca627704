"""AFLW-19: the release's .mat file, and the lists made from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data import aflw
from lmedge.data.aflw import files_aflw19, read_aflw19
from lmedge.errors import BackendUnavailableError, DataError
from lmedge.schemas import AFLW_19
from tests.data.faces import points_of, textured_image, write_image
from tests.requirements import require

require("scipy")
from scipy.io import savemat  # noqa: E402

POINTS = points_of(AFLW_19)
PHOTOS = ["0/image00002.jpg", "2/image00004.jpg", "3/image00035.jpg"]
HIDDEN = [0, 7, 18]


def write_release(root: Path, photos: str = "data/flickr", **changes: Any) -> Path:
    """Three faces, of which the second hides three points; `ra` trains on all but the last 4,386, here on the first two."""
    mask = np.ones((3, 19))
    mask[1, HIDDEN] = 0
    names = np.empty((3, 1), object)
    names[:, 0] = PHOTOS
    content: dict[str, Any] = {
        "nameList": names,
        "data": np.array([POINTS.T.ravel()] * 3),
        "mask_new": mask,
        "bbox": np.array([[15.0, 85.0, 14.0, 90.0]] * 3),
        "ra": np.array([[2, 3, 1]]),
        **changes,
    }
    for name in PHOTOS:
        write_image(root / photos / name, textured_image(0))
    file = root / "AFLWinfo_release.mat"
    savemat(file, {name: value for name, value in content.items() if value is not None})
    return file


def write_lists(root: Path, lines: list[str], points: list[str], name: str = "train.GTB") -> Path:
    write_image(root / "images" / PHOTOS[0], textured_image(0))
    file = root / "lists" / name
    for path, text in ((file, lines), (root / "annotations/0/image00002-7.pts", points)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text) + "\n")
    return file


# Lists hold the absolute paths of the machine that made them.
LINE = f"/home/them/AFLW/images/{PHOTOS[0]} /home/them/AFLW/annotations/0/image00002-7.pts 15.00 14.00 85.00 90.00 72.9"
POINT_LINES = [f"{index + 1:02d} {x:.2f} {y:.2f} True" for index, (x, y) in enumerate(POINTS)]


class TestRelease:
    def test_points_box_and_split(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aflw, "TRAINING_FACES", 2)
        file = write_release(tmp_path)
        faces = read_aflw19(tmp_path)
        np.testing.assert_allclose(faces[0].points_px, POINTS, atol=1e-4)
        assert list(faces[0].box("aflw19").xyxy) == [15, 14, 85, 90]
        assert [face.image for face in faces] == [tmp_path / "data/flickr" / name for name in PHOTOS]
        # The order 2, 3, 1 trains on the second and third face.
        assert [face.subset for face in faces] == [("test", "frontal"), ("train",), ("train", "frontal")]
        assert faces[0].origin == f"{file}, face 1"
        assert files_aflw19(tmp_path) == sorted([file, *(tmp_path / "data/flickr" / name for name in PHOTOS)])

    def test_invisible_points_are_masked_although_the_file_has_positions(self, tmp_path: Path) -> None:
        write_release(tmp_path)
        face = read_aflw19(tmp_path)[1]
        assert np.flatnonzero(~face.known).tolist() == HIDDEN
        np.testing.assert_allclose(face.points_px[face.known], POINTS[face.known], atol=1e-4)

    @pytest.mark.parametrize("folder", ["flickr", "images", "data/flickr", "."])
    def test_photos_are_found_where_releases_put_them(self, tmp_path: Path, folder: str) -> None:
        file = write_release(tmp_path, photos=folder)
        assert [face.image for face in read_aflw19(file)] == [tmp_path / folder / name for name in PHOTOS]

    @given(face=st.integers(0, 2), field=st.integers(0, 37))
    def test_the_error_names_file_face_and_field(self, tmp_path_factory: pytest.TempPathFactory, face: int, field: int) -> None:
        root = tmp_path_factory.getbasetemp() / "aflw"
        data = np.array([POINTS.T.ravel()] * 3)
        data[face, field] = np.nan
        write_release(root, data=data, mask_new=np.ones((3, 19)))
        with pytest.raises(DataError) as caught:
            read_aflw19(root)
        assert f"release.mat, face {face + 1}, field {field + 1} of data: expected a finite number" in str(caught.value)

    def test_a_hidden_point_needs_no_number(self, tmp_path: Path) -> None:
        data = np.array([POINTS.T.ravel()] * 3)
        data[1, HIDDEN] = np.nan
        write_release(tmp_path, data=data)
        assert read_aflw19(tmp_path)[1].known.sum() == 16

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mask_new": None}, "no variable mask_new"),
            ({"data": np.zeros((3, 42))}, r"expected data of 3 × 38 numbers, got float64 of \(3, 42\)"),
            ({"ra": np.array([[1, 1, 2]])}, "expected ra to be an order of the faces 1 to 3"),
            ({"bbox": np.array([[85.0, 15.0, 14.0, 90.0]] * 3)}, "face 1: A face box needs"),
        ],
    )
    def test_another_content_says_what_was_expected(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        write_release(tmp_path, **changes)
        with pytest.raises(DataError, match=message):
            read_aflw19(tmp_path)

    def test_a_missing_photo_is_named(self, tmp_path: Path) -> None:
        write_release(tmp_path)
        (tmp_path / "data/flickr" / PHOTOS[2]).unlink()
        with pytest.raises(DataError, match=r"face 3: the image .*image00035\.jpg does not exist"):
            read_aflw19(tmp_path)

    @given(content=st.binary(max_size=300))
    def test_garbage_is_an_error_of_ours(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        file = tmp_path_factory.getbasetemp() / "AFLWinfo_release.mat"
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"AFLWinfo_release\.mat"):
            read_aflw19(file)

    def test_without_scipy_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_release(tmp_path)
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        with pytest.raises(BackendUnavailableError, match=r"pip install 'lmedge\[train\]'"):
            read_aflw19(tmp_path)


class TestLists:
    def test_a_line_names_photo_points_and_box(self, tmp_path: Path) -> None:
        file = write_lists(tmp_path, [LINE], POINT_LINES)
        (face,) = read_aflw19(tmp_path)
        np.testing.assert_allclose(face.points_px, POINTS, atol=0.006)
        assert face.image == tmp_path / "images" / PHOTOS[0]
        assert list(face.box("aflw19").xyxy) == [15, 14, 85, 90]
        assert (face.subset, face.origin) == (("train", "frontal"), f"{file}:1")
        assert len(files_aflw19(tmp_path)) == 3

    def test_the_list_itself_can_be_asked_for_and_its_name_tells_the_split(self, tmp_path: Path) -> None:
        file = write_lists(tmp_path, [LINE], POINT_LINES, "test.GTB")
        assert read_aflw19(file)[0].subset == ("test", "frontal")

    def test_points_without_a_line_or_marked_false_are_masked(self, tmp_path: Path) -> None:
        lines = [line for index, line in enumerate(POINT_LINES) if index not in HIDDEN]
        lines[0] = lines[0].replace("True", "False")
        write_lists(tmp_path, [LINE], lines)
        (face,) = read_aflw19(tmp_path)
        assert np.flatnonzero(~face.known).tolist() == sorted([*HIDDEN, 1])
        assert face.subset == ("train",)

    @given(field=st.integers(3, 7), text=st.sampled_from(["nan", "x", "1_2", "inf"]))
    def test_the_error_names_file_line_and_field(self, tmp_path_factory: pytest.TempPathFactory, field: int, text: str) -> None:
        root = tmp_path_factory.getbasetemp() / "aflw_lists"
        fields = LINE.split()
        fields[field - 1] = text
        write_lists(root, [LINE, " ".join(fields)], POINT_LINES)
        with pytest.raises(DataError) as caught:
            read_aflw19(root)
        assert f"train.GTB:2, field {field}: expected a finite number, got {text!r}" in str(caught.value)

    @given(line=st.integers(0, 18), field=st.integers(0, 3))
    def test_the_error_in_a_points_file_names_it_too(
        self, tmp_path_factory: pytest.TempPathFactory, line: int, field: int
    ) -> None:
        root = tmp_path_factory.getbasetemp() / "aflw_points"
        fields = POINT_LINES[line].split()
        fields[field] = "maybe"
        write_lists(root, [LINE], [*POINT_LINES[:line], " ".join(fields), *POINT_LINES[line + 1 :]])
        with pytest.raises(DataError, match=rf"image00002-7\.pts:{line + 1}, field {field + 1}: expected .* got 'maybe'"):
            read_aflw19(root)

    @pytest.mark.parametrize("number", ["0", "20", "-1", "02"])
    def test_a_point_has_a_number_of_its_own(self, tmp_path: Path, number: str) -> None:
        write_lists(tmp_path, [LINE], [*POINT_LINES[:3], f"{number} 1 2 True"])
        with pytest.raises(DataError, match=rf"7\.pts:4, field 1: expected a point's number, 1 to 19 and once, got '{number}'"):
            read_aflw19(tmp_path)

    def test_another_number_of_fields_is_refused(self, tmp_path: Path) -> None:
        write_lists(tmp_path, [LINE + " more"], POINT_LINES)
        with pytest.raises(DataError, match=r"train\.GTB:1: expected 7 fields .* got 8"):
            read_aflw19(tmp_path)
        write_lists(tmp_path, [LINE], ["01 3 4"])
        with pytest.raises(DataError, match=r"7\.pts:1: expected 4 fields .* got 3"):
            read_aflw19(tmp_path)

    def test_a_missing_photo_or_points_file_is_named(self, tmp_path: Path) -> None:
        write_lists(tmp_path, [LINE.replace("image00002.jpg", "gone.jpg")], POINT_LINES)
        with pytest.raises(DataError, match=r"train\.GTB:1: the image .*gone\.jpg does not exist"):
            read_aflw19(tmp_path)
        write_lists(tmp_path, [LINE.replace("image00002-7.pts", "gone.pts")], POINT_LINES)
        with pytest.raises(DataError, match=r"train\.GTB:1, field 2: .*gone\.pts does not exist"):
            read_aflw19(tmp_path)


def test_a_folder_without_either_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no AFLWinfo_release\.mat, train\.GTB or test\.GTB"):
        read_aflw19(tmp_path)
