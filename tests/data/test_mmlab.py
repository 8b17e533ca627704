"""The five-point lists: `path left right top bottom`, five points, CRLF and backslashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.mmlab import files_mmlab5, read_mmlab5
from lmedge.errors import DataError
from tests.data.faces import FIVE_POINTS, textured_image, write_image

NUMBERS = "27 52 30 54 " + " ".join(f"{x:f} {y:f}" for x, y in FIVE_POINTS)
LINE = rf"lfw_5590\Aaron_Eckhart_0001.jpg {NUMBERS}"


def write_list(root: Path, lines: list[str], name: str = "trainImageList.txt") -> Path:
    (root / name).write_bytes("".join(line + "\r\n" for line in lines).encode())
    write_image(root / "lfw_5590" / "Aaron_Eckhart_0001.jpg", textured_image(0, 80, 80))
    return root / name


def test_the_box_is_left_right_top_bottom(tmp_path: Path) -> None:
    write_list(tmp_path, [LINE])
    (face,) = read_mmlab5(tmp_path)
    assert list(face.box("mmlab5").xyxy) == [27, 30, 52, 54]
    np.testing.assert_array_equal(face.points_px, FIVE_POINTS)
    assert face.image == tmp_path / "lfw_5590" / "Aaron_Eckhart_0001.jpg"
    assert (face.subset, face.photo_key) == (("train", "lfw"), "aaron_eckhart_0001")
    assert files_mmlab5(tmp_path) == [tmp_path / "lfw_5590" / "Aaron_Eckhart_0001.jpg", tmp_path / "trainImageList.txt"]


def test_the_test_list_is_tagged_and_can_be_read_alone(tmp_path: Path) -> None:
    write_list(tmp_path, [LINE])
    test_list = write_list(tmp_path, [LINE], "testImageList.txt")
    assert [face.subset[0] for face in read_mmlab5(tmp_path)] == ["train", "test"]
    assert [face.subset[0] for face in read_mmlab5(test_list)] == ["test"]


def test_a_list_in_the_usual_box_order_is_caught(tmp_path: Path) -> None:
    write_list(tmp_path, [LINE.replace(" 27 52 30 54 ", " 27 30 52 54 ")])
    with pytest.raises(DataError, match=r"trainImageList\.txt:1: the points do not lie in the box .* has to be rewritten"):
        read_mmlab5(tmp_path)


@given(field=st.integers(2, 15), text=st.sampled_from(["nan", "inf", "x", "1_2", "3;"]))
def test_the_error_names_file_line_and_field(tmp_path_factory: pytest.TempPathFactory, field: int, text: str) -> None:
    root = tmp_path_factory.getbasetemp()
    fields = LINE.split()
    fields[field - 1] = text
    write_list(root, [LINE, "", " ".join(fields)])
    with pytest.raises(DataError) as caught:
        read_mmlab5(root)
    assert f"trainImageList.txt:3, field {field}: expected a finite number, got {text!r}" in str(caught.value)


@pytest.mark.parametrize("fields", [1, 14, 16])
def test_another_number_of_fields_is_refused(tmp_path: Path, fields: int) -> None:
    write_list(tmp_path, [" ".join([*LINE.split(), "1"][:fields])])
    with pytest.raises(DataError, match=rf"trainImageList\.txt:1: expected 15 fields .* got {fields}"):
        read_mmlab5(tmp_path)


def test_a_missing_image_names_the_line(tmp_path: Path) -> None:
    write_list(tmp_path, [rf"net_7876\gone.jpg {NUMBERS}"])
    with pytest.raises(DataError, match=r"trainImageList\.txt:1, field 1: the image .*gone\.jpg does not exist"):
        read_mmlab5(tmp_path)


def test_a_folder_without_lists_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no trainImageList\.txt or testImageList\.txt"):
        read_mmlab5(tmp_path)


@pytest.mark.data
def test_the_photographs_at_hand(data_folder: Path) -> None:
    faces = read_mmlab5(data_folder / "mmlab5")
    assert len(faces) == 10_000
    assert {tag: sum(tag in face.subset for face in faces) for tag in ("lfw", "net")} == {"lfw": 4151, "net": 5849}
    np.testing.assert_allclose(faces[0].points_px[0], [34.32, 34.80], atol=1e-5)
    points = np.array([face.points_px for face in faces])
    # Right eye and mouth corner of the subject are on the left of the image, except for a few heads turned right round.
    assert np.mean(points[:, 0, 0] < points[:, 1, 0]) > 0.999
    assert np.mean(points[:, 3, 0] < points[:, 4, 0]) > 0.999


@pytest.mark.data
def test_most_lines_at_hand_would_be_refused_in_the_usual_box_order(data_folder: Path, tmp_path: Path) -> None:
    lines = (data_folder / "mmlab5" / "trainImageList.txt").read_text().splitlines()[:300]
    file = write_list(tmp_path, [LINE])
    refused = 0
    for line in lines:
        _, left, right, top, bottom, *points = line.split()
        file.write_text(" ".join(["lfw_5590/Aaron_Eckhart_0001.jpg", left, top, right, bottom, *points]))
        try:
            read_mmlab5(file)
        except DataError:
            refused += 1
    assert refused >= 0.99 * len(lines)
