"""KIND:PATH, and faces of several sources together."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmedge.data.csv import write_csv
from lmedge.data.sources import KINDS, Source, parse_source, read_sources, source_files
from lmedge.errors import DataError, SchemaError
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98
from tests.data.faces import sample_of, textured_image, write_image


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    image = write_image(tmp_path / "a.png", textured_image(0))
    write_csv(tmp_path / "faces.csv", [sample_of(image)])
    return tmp_path / "faces.csv"


@pytest.mark.parametrize(
    ("text", "schema"),
    [("300w:faces", IBUG_68), ("wflw:a:b", WFLW_98), ("mmlab5:faces", MMLAB_5), ("synthetic:500", IBUG_68)],
)
def test_a_kind_has_its_points(text: str, schema: object) -> None:
    source = parse_source(text)
    assert source.schema is schema
    assert str(source) == text


def test_csv_and_synthetic_take_any_schema() -> None:
    assert parse_source("csv:faces.csv", WFLW_98) == Source("csv", "faces.csv", WFLW_98)
    assert parse_source("synthetic:3", MMLAB_5).schema is MMLAB_5


@pytest.mark.parametrize("text", ["", "300w", "300w:", ":faces", "faces", "/data/300w"])
def test_anything_else_names_the_known_kinds(text: str) -> None:
    with pytest.raises(DataError, match=f"Expected KIND:PATH, with KIND one of {', '.join(KINDS)}"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "near"), [("300W:x", "300w"), ("wlfw:x", "wflw"), ("mmlab:x", "mmlab5"), ("syntetic:3", "synthetic")]
)
def test_the_nearest_kind_is_named(text: str, near: str) -> None:
    with pytest.raises(DataError, match=rf"Did you mean {near}\?"):
        parse_source(text)


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5", "²"])
def test_synthetic_needs_a_count(count: str) -> None:
    with pytest.raises(DataError, match="expected how many faces to render"):
        parse_source(f"synthetic:{count}")


def test_csv_needs_a_schema_and_others_refuse_a_foreign_one() -> None:
    with pytest.raises(DataError, match=r"say which with --schema"):
        parse_source("csv:faces.csv")
    with pytest.raises(SchemaError, match="wflw has the points of WFLW_98, not IBUG_68"):
        parse_source("wflw:faces", IBUG_68)
    assert parse_source("wflw:faces", WFLW_98).schema is WFLW_98


def test_sources_of_one_schema_are_joined_in_order(csv_file: Path) -> None:
    source = parse_source(f"csv:{csv_file}", IBUG_68)
    assert len(read_sources([source, source])) == 2


def test_sources_of_two_schemas_are_refused_before_anything_is_read() -> None:
    with pytest.raises(SchemaError, match="300w:nowhere has IBUG_68, wflw:nowhere has WFLW_98"):
        read_sources([parse_source("300w:nowhere"), parse_source("wflw:nowhere")])


def test_no_source_and_a_source_without_faces_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No source of faces was given"):
        read_sources([])
    with pytest.raises(DataError, match=r"300w:.* has no labelled faces; expected a folder tree"):
        read_sources([parse_source(f"300w:{tmp_path}")])


def test_files_are_the_label_file_and_its_images(csv_file: Path) -> None:
    source = parse_source(f"csv:{csv_file}", IBUG_68)
    assert source_files(source) == [csv_file.parent / "a.png", csv_file]
    assert source_files(parse_source("synthetic:5")) == []


def test_rendered_faces_are_read_like_any_other() -> None:
    faces = read_sources([parse_source("synthetic:2")])
    assert len(faces) == 2
    assert {face.schema.name for face in faces} == {"IBUG_68"}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_says_what_it_is(name: str) -> None:
    kind = KINDS[name]
    assert kind.what
    assert kind.path
    assert kind.any_schema or kind.schema is not None or kind.schema_of is not None
    # Photographs have terms; rendered faces and the user's own files have none of ours.
    assert bool(kind.licence) == (kind.zoo_prefix != "")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "kind"), [("300w", 2009, "reference"), ("wflw", 752, "wflw"), ("mmlab5", 10_000, "mmlab5")]
)
def test_the_sets_at_hand_have_the_boxes_their_kind_promises(data_folder: Path, name: str, count: int, kind: str) -> None:
    source = parse_source(f"{name}:{data_folder / name}")
    faces = read_sources([source])
    assert len(faces) == count
    assert KINDS[name].box_kind == kind
    assert {face.annotated_box().kind for face in faces} == {kind}
    files = source_files(source)
    assert files == sorted(set(files))
    assert {face.image for face in faces} < set(files)
