"""COFW: MATLAB 7.3 files of pictures, boxes and 29 points with occlusion flags."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.cofw import VARIABLES, files_cofw, read_cofw
from lmedge.errors import BackendUnavailableError, DataError
from lmedge.schemas import COFW_29
from tests.data.faces import points_of, textured_image
from tests.requirements import require

require("h5py")
import h5py  # noqa: E402

POINTS = points_of(COFW_29)
BOX = (15.0, 14.0, 70.0, 80.0)


def phis(occluded: int = 0, points_px: np.ndarray = POINTS) -> np.ndarray:
    """The 87 numbers of a face as MATLAB has them, counted from 1."""
    return np.concatenate([points_px[:, 0] + 1, points_px[:, 1] + 1, [1] * occluded + [0] * (29 - occluded)])


def write_mat(
    file: Path,
    rows: list[np.ndarray],
    *,
    split: str = "train",
    picture: np.ndarray | None = None,
    boxes: list[tuple[float, ...]] | None = None,
) -> Path:
    """What MATLAB 7.3 writes of a cell array of pictures and two matrices: axes reversed, cells as references."""
    pictures, box_name, labels = VARIABLES[split]
    rgb = textured_image(0)[:, :, ::-1] if picture is None else picture
    with h5py.File(file, "w", userblock_size=512) as content:
        cells = content.create_dataset(pictures, (1, len(rows)), dtype=h5py.ref_dtype)
        for index in range(len(rows)):
            cells[0, index] = content.create_dataset(f"#refs#/{index}", data=rgb.transpose()).ref
        content[labels] = np.array(rows).T
        content[box_name] = np.array(boxes or [BOX] * len(rows)).T
    return file


def test_points_boxes_and_pictures_are_turned_round_and_count_from_zero(tmp_path: Path) -> None:
    file = write_mat(tmp_path / "COFW_train_color.mat", [phis()])
    (face,) = read_cofw(file)
    np.testing.assert_allclose(face.points_px, POINTS, atol=1e-4)
    assert face.schema is COFW_29
    assert list(face.box("cofw").xyxy) == [14, 13, 84, 93]
    np.testing.assert_array_equal(face.read_image(), textured_image(0))
    assert (face.photo_key, face.subset) == ("cofw_train_0001", ("train",))
    assert face.origin == f"{file}, face 1"


def test_gray_pictures_become_three_equal_channels(tmp_path: Path) -> None:
    gray = textured_image(3, 90, 120)[:, :, 0]
    (face,) = read_cofw(write_mat(tmp_path / "COFW_train.mat", [phis()], picture=gray))
    assert face.read_image().shape == (90, 120, 3)
    for channel in range(3):
        np.testing.assert_array_equal(face.read_image()[:, :, channel], gray)


@pytest.mark.parametrize(
    ("occluded", "tags"),
    [
        (0, ()),
        (2, ()),
        (3, ("occluded",)),
        (14, ("occluded",)),
        (15, ("occluded", "half-occluded")),
        (29, ("occluded", "half-occluded")),
    ],
)
def test_occluded_points_stay_known_and_their_share_is_a_tag(tmp_path: Path, occluded: int, tags: tuple[str, ...]) -> None:
    (face,) = read_cofw(write_mat(tmp_path / "COFW_test.mat", [phis(occluded)], split="test"))
    assert face.known.all()
    assert face.subset == ("test", *tags)


def test_a_folder_has_both_splits_and_colour_goes_before_gray(tmp_path: Path) -> None:
    write_mat(tmp_path / "COFW_train.mat", [phis()] * 3)
    write_mat(tmp_path / "COFW_train_color.mat", [phis()] * 2)
    write_mat(tmp_path / "COFW_test_color.mat", [phis()], split="test")
    faces = read_cofw(tmp_path)
    assert [face.photo_key for face in faces] == ["cofw_train_0001", "cofw_train_0002", "cofw_test_0001"]
    assert [file.name for file in files_cofw(tmp_path)] == ["COFW_train_color.mat", "COFW_test_color.mat"]


@given(face=st.integers(0, 2), field=st.integers(0, 86), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_the_error_names_file_variable_face_and_field(
    tmp_path_factory: pytest.TempPathFactory, face: int, field: int, value: float
) -> None:
    rows = [phis(), phis(), phis()]
    rows[face][field] = value
    file = write_mat(tmp_path_factory.getbasetemp() / "COFW_train.mat", rows)
    with pytest.raises(DataError) as caught:
        read_cofw(file)
    assert f"COFW_train.mat, phisTr, face {face + 1}, field {field + 1}: expected a finite number" in str(caught.value)


@given(field=st.integers(58, 86), flag=st.sampled_from([-1.0, 0.5, 2.0]))
def test_a_flag_is_zero_or_one(tmp_path_factory: pytest.TempPathFactory, field: int, flag: float) -> None:
    row = phis()
    row[field] = flag
    file = write_mat(tmp_path_factory.getbasetemp() / "COFW_test.mat", [row], split="test")
    with pytest.raises(DataError, match=rf"phisT, face 1, field {field + 1}: expected an occlusion flag 0 or 1, got {flag:g}"):
        read_cofw(file)


def test_an_empty_box_and_a_wrong_picture_are_refused(tmp_path: Path) -> None:
    file = write_mat(tmp_path / "a.mat", [phis()], boxes=[(15, 14, 0, 80)])
    with pytest.raises(DataError, match=r"a\.mat, bboxesTr, face 1: A face box needs"):
        read_cofw(file)
    file = write_mat(tmp_path / "b.mat", [phis()], picture=textured_image(0).astype(np.float32))
    with pytest.raises(
        DataError, match=r"b\.mat, IsTr, face 1: expected a picture, uint8 .*; got float32 of shape \(100, 100, 3\)"
    ):
        read_cofw(file)


def test_a_matrix_of_another_size_says_both_sizes(tmp_path: Path) -> None:
    file = write_mat(tmp_path / "a.mat", [phis()[:58]])
    with pytest.raises(DataError, match=r"phisTr: expected numbers of shape 1 × 87 .* of shape \(58, 1\) in HDF5"):
        read_cofw(file)


def test_other_files_and_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no COFW_train\.mat, COFW_train_color\.mat"):
        read_cofw(tmp_path)
    (tmp_path / "text.mat").write_text("not HDF5")
    with pytest.raises(DataError, match=r"text\.mat is not a MATLAB 7\.3 file"):
        read_cofw(tmp_path / "text.mat")
    with h5py.File(tmp_path / "other.mat", "w") as content:
        content["x"] = 1
    with pytest.raises(DataError, match=r"expected the variables IsTr, bboxesTr, phisTr or IsT, .*; the file has x"):
        read_cofw(tmp_path / "other.mat")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_mat(tmp_path / "COFW_train.mat", [phis()])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'lmedge\[train\]'"):
        read_cofw(file)
