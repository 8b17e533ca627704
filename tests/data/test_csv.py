"""Comma-separated text for any point set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.csv import files_csv, header, read_csv, write_csv
from lmedge.data.samples import FaceSample
from lmedge.errors import DataError
from lmedge.landmarks import FaceBox
from lmedge.schemas import IBUG_68, MMLAB_5, SCHEMAS, LandmarkSchema
from tests.data.faces import FIVE_POINTS, points_of, sample_of, textured_image, write_image

HEADER = "image,x_min,y_min,x_max,y_max,x0,y0,x1,y1,x2,y2,x3,y3,x4,y4"
LINE = "faces/a.png,20,21,60.5,61,34,35,47,36,40.5,46,34,51,45,52"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("csv")
    write_image(root / "faces" / "a.png", textured_image(0, 80, 80))
    return root


def read_lines(folder: Path, *lines: str, schema: LandmarkSchema = MMLAB_5) -> list[FaceSample]:
    (folder / "faces.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_csv(folder / "faces.csv", schema)


def test_a_line_is_image_box_and_points(folder: Path) -> None:
    (face,) = read_lines(folder, HEADER, LINE)
    assert face.image == folder / "faces" / "a.png"
    assert list(face.box("csv").xyxy) == [20, 21, 60.5, 61]
    np.testing.assert_array_equal(face.points_px, FIVE_POINTS)
    assert face.photo_key == "a"


def test_empty_fields_are_unknown_points_and_no_box(folder: Path) -> None:
    (face,) = read_lines(folder, HEADER, "faces/a.png,,,,,34,35,47,36,,,34,51,45,52")
    assert face.known.tolist() == [True, True, False, True, True]
    assert face.boxes == {}


def test_files_from_spreadsheets_are_read(folder: Path) -> None:
    (face,) = read_lines(folder, "\ufeff" + HEADER + "\r", '"faces/a.png"' + LINE[len("faces/a.png") :] + "\r", "")
    assert face.known.all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LINE + ",1", r"faces\.csv:2: expected 15 fields for MMLAB_5, got 16"),
        (LINE.rsplit(",", 1)[0], r"faces\.csv:2: expected 15 fields for MMLAB_5, got 14"),
        (LINE.replace("faces/a.png", ""), r"faces\.csv:2, field 1: expected the path of an image"),
        (LINE.replace("a.png", "b.png"), r"faces\.csv:2, field 1: the image .*b\.png does not exist"),
        (LINE.replace(",34,35,", ",34,,"), r"faces\.csv:2, field 7: expected a finite number, got ''"),
        (LINE.replace(",20,21,", ",,21,"), r"faces\.csv:2, field 2: expected a finite number, got ''"),
        (LINE.replace(",20,21,", ",70,21,"), r"faces\.csv:2: A face box needs"),
        ("faces/a.png,,,,,,,,,,,,,,", r"faces\.csv:2: the labelled points are infinite, missing"),
    ],
)
def test_a_malformed_line_is_named(folder: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_lines(folder, HEADER, line)


@given(field=st.integers(2, 15), text=st.sampled_from(["nan", "inf", "x", "1_2", "1;2"]))
def test_the_error_names_file_line_and_field(folder: Path, field: int, text: str) -> None:
    fields = LINE.split(",")
    fields[field - 1] = text
    with pytest.raises(DataError) as caught:
        read_lines(folder, HEADER, LINE, ",".join(fields))
    assert f"faces.csv:3, field {field}: expected a finite number, got {text!r}" in str(caught.value)


@pytest.mark.parametrize("first", ["", "image,x,y", HEADER + ",x5,y5", HEADER.replace("x_min,y_min", "y_min,x_min"), LINE])
def test_a_header_that_does_not_fit_the_schema_is_refused(folder: Path, first: str) -> None:
    with pytest.raises(DataError, match=r"faces\.csv:1: expected the 15 columns of MMLAB_5.*--schema"):
        read_lines(folder, first, LINE)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read the csv file .*none\.csv: No such file"):
        read_csv(tmp_path / "none.csv", IBUG_68)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_the_header_names_every_column(schema: LandmarkSchema) -> None:
    columns = header(schema)
    assert len(columns) == 5 + 2 * schema.num_points
    assert columns[-2:] == [f"x{schema.num_points - 1}", f"y{schema.num_points - 1}"]


@given(
    shift=st.tuples(st.floats(-200, 2000), st.floats(-200, 2000)),
    unknown=st.sets(st.integers(0, 67), max_size=60),
    box=st.none() | st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(101, 900), st.floats(101, 900)),
)
def test_what_is_written_is_read_again(
    folder: Path, shift: tuple[float, float], unknown: set[int], box: tuple[float, float, float, float] | None
) -> None:
    points = points_of(IBUG_68) + shift
    points[sorted(unknown)] = np.nan
    boxes = {"csv": FaceBox(*box, kind="csv")} if box else {}
    written = FaceSample(folder / "faces" / "a.png", points.astype(np.float32), IBUG_68, "a", boxes)
    write_csv(folder / "round.csv", [written])
    (face,) = read_csv(folder / "round.csv", IBUG_68)
    np.testing.assert_allclose(face.points_px, written.points_px, atol=2e-4)
    assert face.image == written.image
    assert sorted(face.boxes) == sorted(boxes)
    if box:
        np.testing.assert_allclose(face.box("csv").xyxy, box, atol=1e-4)
    before = (folder / "round.csv").read_bytes()
    write_csv(folder / "round.csv", [face])
    assert (folder / "round.csv").read_bytes() == before


def test_paths_below_the_file_are_relative_and_others_absolute(folder: Path, tmp_path: Path) -> None:
    elsewhere = write_image(tmp_path / "b.png", textured_image(1))
    write_csv(folder / "paths.csv", [sample_of(folder / "faces" / "a.png"), sample_of(elsewhere)])
    lines = (folder / "paths.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["faces/a.png", str(elsewhere)]
    assert files_csv(folder / "paths.csv", IBUG_68) == sorted([folder / "faces" / "a.png", elsewhere, folder / "paths.csv"])


def test_faces_of_two_schemas_or_without_a_file_are_refused(folder: Path) -> None:
    face = sample_of(folder / "faces" / "a.png")
    with pytest.raises(DataError, match="one schema"):
        write_csv(folder / "mixed.csv", [face, sample_of(folder / "faces" / "a.png", schema=MMLAB_5)])
    with pytest.raises(DataError, match="one schema; got none"):
        write_csv(folder / "mixed.csv", [])
    with pytest.raises(DataError, match="write the image to a file first"):
        write_csv(folder / "mixed.csv", [sample_of(textured_image(0))])
    assert not (folder / "mixed.csv").exists()


def test_a_file_that_cannot_be_written_says_why_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DataError, match=r"Cannot write the csv file .*full\.csv: No space left on device"):
        write_csv(folder / "full.csv", [sample_of(folder / "faces" / "a.png")])
    assert not list(folder.glob("full.csv*"))
