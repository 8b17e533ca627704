"""A folder that mixes published layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lmedge.data.csv import write_csv
from lmedge.data.mixed import find_sources
from lmedge.data.pack import write_pack
from lmedge.data.sources import expand_sources, parse_source, read_sources, source_files, source_terms
from lmedge.errors import DataError, SchemaError
from lmedge.schemas import COFW_29, IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema
from tests.data.faces import points_of, sample_of, textured_image, write_image
from tests.requirements import require

require("h5py", "scipy")
from tests.data import test_aflw, test_cofw, test_ibug, test_mmlab, test_wflw  # noqa: E402

THREE = LandmarkSchema(
    "THREE", ("right_eye", "left_eye", "mouth"), {"eyes": (0, 1), "mouth": (2,)}, ((0,), (1,)), "inter-ocular (eye centres)"
)


def toml_of(schema: LandmarkSchema) -> str:
    fields = schema.to_json()
    groups = fields.pop("groups")
    fields.pop("curves")
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join([*lines, "[groups]", *(f"{name} = {value}" for name, value in groups.items())])


def write_own(folder: Path, schema: LandmarkSchema) -> None:
    image = write_image(folder / "a.png", textured_image(0))
    write_csv(folder / "faces.csv", [sample_of(image, points_of(schema), schema)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every layout once, two of them with 68 points, three with an own way to say which."""
    root = tmp_path / "faces"
    for subset in ("afw", "helen/trainset"):
        test_ibug.write_face(root / "300w" / subset / "face_1")
    test_wflw.write_list(root / "wflw", [test_wflw.line_of()])
    (root / "mmlab5").mkdir()
    test_mmlab.write_list(root / "mmlab5", [test_mmlab.LINE])
    (root / "cofw").mkdir()
    test_cofw.write_mat(root / "cofw" / "COFW_train.mat", [test_cofw.phis()])
    test_aflw.write_release(root / "aflw")
    write_own(root / "own" / "three", THREE)
    (root / "own" / "three" / "points.toml").write_text(toml_of(THREE))
    write_own(root / "own" / "five", MMLAB_5)
    write_pack(
        root / "cache" / "faces.lmpack", [sample_of(textured_image(0))], [{"kind": "own", "what": "drawn", "terms": "mine"}]
    )
    (root / "notes.csv").write_text("something,else\n")
    return root


def test_every_layout_is_found_with_its_points(folder: Path) -> None:
    assert [
        (source.kind, Path(source.path).relative_to(folder).as_posix(), source.schema.name) for source in find_sources(folder)
    ] == [
        ("300w", "300w", "IBUG_68"),
        ("aflw19", "aflw", "AFLW_19"),
        ("pack", "cache/faces.lmpack", "IBUG_68"),
        ("cofw", "cofw", "COFW_29"),
        ("mmlab5", "mmlab5", "MMLAB_5"),
        ("csv", "own/five/faces.csv", "MMLAB_5"),
        ("csv", "own/three/faces.csv", "THREE"),
        ("wflw", "wflw", "WFLW_98"),
    ]


@pytest.mark.parametrize(
    ("schema", "count"),
    [(IBUG_68, 3), (MMLAB_5, 2), (WFLW_98, 1), (COFW_29, 1), (THREE, 1)],
    ids=lambda v: getattr(v, "name", ""),
)
def test_a_schema_picks_the_faces_that_have_it(folder: Path, schema: LandmarkSchema, count: int) -> None:
    source = parse_source(f"mixed:{folder}", schema)
    faces = read_sources([source])
    assert len(faces) == count
    assert {face.schema.name for face in faces} == {schema.name}


def test_without_a_schema_the_error_lists_what_was_found(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"say which with --schema NAME\. Found 300w:.* \(IBUG_68\), aflw19:.*, wflw:.* \(WFLW_98\)"
    ):
        parse_source(f"mixed:{folder}")


def test_a_schema_that_nothing_has_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "wflw")
    with pytest.raises(SchemaError, match=r"has no faces of WFLW_98; found 300w:"):
        parse_source(f"mixed:{folder}", WFLW_98)


def test_one_schema_needs_no_name(folder: Path) -> None:
    assert parse_source(f"mixed:{folder / 'wflw'}").schema is WFLW_98


def test_a_mixed_folder_stands_for_its_parts(folder: Path) -> None:
    source = parse_source(f"mixed:{folder}", IBUG_68)
    assert [part.kind for part in expand_sources([source])] == ["300w", "pack"]
    terms = source_terms([source])
    assert [entry["kind"] for entry in terms] == ["300w", "own"]
    assert "research only" in terms[0]["terms"]
    files = source_files(source)
    assert files == sorted(set(files))
    assert {face.image for face in read_sources([source]) if isinstance(face.image, Path)} < set(files)


def test_faces_of_other_points_follow_where_they_help(folder: Path) -> None:
    source = parse_source(f"mixed:{folder}", MMLAB_5)
    own, everything = expand_sources([source]), expand_sources([source], other_points=True)
    assert everything[: len(own)] == own
    assert sorted(map(str, everything)) == sorted(map(str, find_sources(folder)))


def test_labels_and_images_in_two_folders_of_one_database_are_one_source(tmp_path: Path) -> None:
    test_ibug.write_pts(tmp_path / "xm2vts/landmarks/000_1_1.pts", test_ibug.LINES)
    write_image(tmp_path / "xm2vts/images/000_1_1.ppm", textured_image(0))
    assert len(read_sources([parse_source(f"mixed:{tmp_path}")])) == 1


def test_pts_files_beside_another_layout_are_told_apart_or_refused(folder: Path) -> None:
    test_ibug.write_face(folder / "face")
    with pytest.raises(DataError, match=r"\.pts files lie beside the folder of another layout, aflw19:"):
        find_sources(folder)


def test_a_csv_that_nobody_describes_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no layout that lmedge knows"):
        find_sources(tmp_path)
    write_own(tmp_path, THREE)
    with pytest.raises(
        DataError, match=r"faces\.csv:1: no point set has these 11 columns; describe the points in a \.toml file"
    ):
        find_sources(tmp_path)


@pytest.mark.data
def test_the_folder_at_hand(data_folder: Path) -> None:
    found = [source.kind for source in find_sources(data_folder)]
    assert [kind for kind in found if kind in ("300w", "wflw", "mmlab5")] == ["300w", "mmlab5", "wflw"]
