"""300-W: a .pts file of 68 points beside each image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.ibug import files_300w, read_300w, read_pts
from lmedge.errors import DataError
from lmedge.schemas import IBUG_68
from tests.data.faces import points_of, textured_image, write_image

POINTS = points_of(IBUG_68)
LINES = [f"{x + 1:.3f} {y + 1:.3f}" for x, y in POINTS]


def write_pts(path: Path, lines: list[str], *, header: bool = True, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ["version: 1", f"n_points: {len(lines)}", "{", *lines, "}"] if header else lines
    path.write_bytes((end.join(text) + end).encode())
    return path


def write_face(stem: Path, suffix: str = ".png") -> None:
    write_image(stem.with_name(stem.name + suffix), textured_image(0))
    write_pts(stem.with_name(stem.name + ".pts"), LINES)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_points_are_one_based_in_the_file_and_zero_based_here(tmp_path: Path, header: bool, end: str) -> None:
    points = read_pts(write_pts(tmp_path / "face.pts", LINES, header=header, end=end))
    np.testing.assert_allclose(points, POINTS, atol=6e-4)


def test_a_brace_may_share_a_line_with_a_point(tmp_path: Path) -> None:
    points = read_pts(write_pts(tmp_path / "face.pts", ["{ " + LINES[0], *LINES[1:-1], LINES[-1] + " }"], header=False))
    np.testing.assert_allclose(points, POINTS, atol=6e-4)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".jpeg", ".JPEG", ".Png"])
def test_any_spelling_of_an_image_suffix(tmp_path: Path, suffix: str) -> None:
    write_face(tmp_path / "face", suffix)
    (face,) = read_300w(tmp_path)
    assert face.image == tmp_path / f"face{suffix}"
    assert face.read_image().shape == (100, 100, 3)


@pytest.mark.parametrize(
    ("place", "subset", "photo_key"),
    [
        ("afw/1051618982_1", ("afw",), "1051618982"),
        ("AFW/1051618982_2", ("afw",), "1051618982"),
        ("helen/trainset/2205474871_2", ("helen",), "2205474871_2"),
        ("lfpw/testset/image_0001", ("lfpw",), "image_0001"),
        ("ibug/image_003_1", ("ibug",), "image_003_1"),
        ("300W/01_Indoor/indoor_001", ("indoor",), "indoor_001"),
        ("XM2VTS/000_1_1", ("xm2vts",), "000_1_1"),
        ("mine/Anna", (), "anna"),
    ],
)
def test_the_folder_names_the_subset_and_afw_numbers_faces_of_one_photo(
    tmp_path: Path, place: str, subset: tuple[str, ...], photo_key: str
) -> None:
    write_face(tmp_path / place)
    (face,) = read_300w(tmp_path)
    assert (face.subset, face.photo_key) == (subset, photo_key)


def test_a_subset_is_known_when_its_own_folder_is_read(tmp_path: Path) -> None:
    write_face(tmp_path / "helen" / "trainset" / "face")
    (face,) = read_300w(tmp_path / "helen" / "trainset")
    assert face.subset == ("helen",)


def test_an_image_without_labels_is_left_out_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    write_face(tmp_path / "face")
    write_image(tmp_path / "unlabelled.png", textured_image(1))
    (tmp_path / "._face.pts").write_bytes(b"\x00\x05\x16\x07")
    assert [face.photo_key for face in read_300w(tmp_path)] == ["face"]
    assert files_300w(tmp_path) == [tmp_path / "face.png", tmp_path / "face.pts"]


def test_labels_without_an_image_are_an_error(tmp_path: Path) -> None:
    write_pts(tmp_path / "face.pts", LINES)
    with pytest.raises(DataError, match=r"face\.pts: no image of its name \(\.jpg, .* beside it or elsewhere below"):
        read_300w(tmp_path)


def test_two_images_of_one_name_are_an_error(tmp_path: Path) -> None:
    write_face(tmp_path / "face")
    write_image(tmp_path / "face.jpg", textured_image(1))
    with pytest.raises(DataError, match=r"several images share its name: face\.jpg, face\.png"):
        read_300w(tmp_path)


def test_labels_that_came_without_images_find_them_in_the_nearest_folder(tmp_path: Path) -> None:
    """XM2VTS and Multi-PIE: iBUG's archives hold labels only, the images are their owners'."""
    for database in ("xm2vts", "multipie"):
        write_pts(tmp_path / database / "landmarks" / "000_1_1.pts", LINES)
        write_image(tmp_path / database / "images" / "000" / "000_1_1.ppm", textured_image(0))
    faces = read_300w(tmp_path)
    assert [face.subset for face in faces] == [("multipie",), ("xm2vts",)]
    assert [face.image for face in faces] == [tmp_path / name / "images/000/000_1_1.ppm" for name in ("multipie", "xm2vts")]


def test_an_image_with_a_label_of_its_own_is_nobody_elses(tmp_path: Path) -> None:
    """LFPW numbers its images from 1 in both of its folders."""
    write_face(tmp_path / "lfpw" / "trainset" / "image_0001")
    write_pts(tmp_path / "lfpw" / "testset" / "image_0001.pts", LINES)
    with pytest.raises(DataError, match=r"testset/image_0001\.pts: no image of its name"):
        read_300w(tmp_path)


def test_images_at_equal_distance_are_an_error(tmp_path: Path) -> None:
    write_pts(tmp_path / "labels" / "face.pts", LINES)
    for folder in ("light", "dark"):
        write_image(tmp_path / folder / "face.png", textured_image(0))
    with pytest.raises(DataError, match=r"several images share its name: dark/face\.png, light/face\.png"):
        read_300w(tmp_path)


def test_profile_views_are_told_to_be_another_point_set(tmp_path: Path) -> None:
    for header in (True, False):
        with pytest.raises(DataError, match="Profile views of Multi-PIE and Menpo have these 39 points"):
            read_pts(write_pts(tmp_path / "face.pts", LINES[:39], header=header))


@pytest.mark.parametrize("count", [0, 1, 67, 69])
def test_another_number_of_points_is_refused(tmp_path: Path, count: int) -> None:
    file = write_pts(tmp_path / "face.pts", (LINES * 2)[:count], header=False)
    with pytest.raises(DataError, match=rf"face\.pts: expected 68 points, one per line, got {count}"):
        read_pts(file)


def test_a_header_that_promises_another_number_is_refused(tmp_path: Path) -> None:
    file = write_pts(tmp_path / "face.pts", LINES[:5])
    with pytest.raises(DataError, match=r"face\.pts:2: expected n_points: 68, got '5'"):
        read_pts(file)


@given(
    line=st.integers(0, 67),
    field=st.integers(0, 1),
    text=st.sampled_from(["nan", "inf", "-Infinity", "abc", "1,5", "1_0", "0x1F"]),
)
def test_the_error_names_file_line_and_field(
    tmp_path_factory: pytest.TempPathFactory, line: int, field: int, text: str
) -> None:
    fields = LINES[line].split()
    fields[field] = text
    file = write_pts(tmp_path_factory.getbasetemp() / "broken.pts", [*LINES[:line], " ".join(fields), *LINES[line + 1 :]])
    with pytest.raises(DataError) as caught:
        read_pts(file)
    assert f"broken.pts:{line + 4}, field {field + 1}: expected a finite number, got {text!r}" in str(caught.value)


@given(content=st.binary(max_size=200))
def test_garbage_is_an_error_of_ours_and_never_points(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage.pts"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"garbage\.pts"):
        read_pts(file)


def test_a_missing_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; expected a folder tree"):
        read_300w(tmp_path / "nowhere")


def test_all_points_in_one_place_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "face.png", textured_image(0))
    write_pts(tmp_path / "face.pts", ["5.0 5.0"] * 68)
    with pytest.raises(DataError, match="all in one place"):
        read_300w(tmp_path)


@pytest.mark.data
def test_the_photographs_at_hand(data_folder: Path) -> None:
    faces = read_300w(data_folder / "300w")
    assert len(faces) == 2009
    assert {tag: sum(face.subset == (tag,) for face in faces) for tag in ("afw", "helen", "lfpw")} == {
        "afw": 337,
        "helen": 870,
        "lfpw": 802,
    }
    assert faces == sorted(faces, key=lambda face: face.origin)
    first = faces[0]
    assert (first.photo_key, first.image) == ("1051618982", data_folder / "300w/afw/1051618982_1.jpg")
    np.testing.assert_allclose(first.points_px[:2], [[134.596, 168.625], [135.762, 194.493]], atol=1e-3)
    # The README of the data: no landmark extent is above 192 px, plus rounding.
    extents = [max(face.box().width, face.box().height) for face in faces]
    assert min(extents) > 60
    assert max(extents) < 193
    assert all(face.known.all() for face in faces)
    assert len(files_300w(data_folder / "300w")) == 2 * 2009
