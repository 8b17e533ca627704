"""The index of a run's faces: it comes back as it was, its photos lie anywhere, and rendered faces do not judge photos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmedge.data.samples import FaceSample, is_validation
from lmedge.data.sources import Source
from lmedge.errors import DataError
from lmedge.landmarks import FaceBox
from lmedge.pipeline.runs.faces import (
    INDEX,
    PICTURES,
    FaceIndex,
    SourceFaces,
    read_index,
    read_source,
    with_detector_boxes,
    write_index,
)
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema
from tests.data.faces import FIVE_POINTS, points_of, sample_of, textured_image, write_image

VALIDATING = next(name for name in map(str, range(100)) if is_validation(name))
TRAINING = next(name for name in map(str, range(100)) if not is_validation(name))


def digest(path: Path) -> str:
    return str(len(path.read_bytes()))


def photos(folder: Path, count: int = 2, seed: int = 0) -> SourceFaces:
    """So many photos with a list beside them, as a source of kind csv."""
    samples = [
        sample_of(write_image(folder / f"face{number}.png", textured_image(seed + number)), np.array(FIVE_POINTS), MMLAB_5)
        for number in range(count)
    ]
    (folder / "faces.csv").touch()
    return SourceFaces(Source("csv", str(folder / "faces.csv"), MMLAB_5), samples)


def rendered(count: int = 2) -> SourceFaces:
    samples = [sample_of(textured_image(n), np.array(FIVE_POINTS), MMLAB_5, f"synthetic_0_{n}") for n in range(count)]
    return SourceFaces(Source("synthetic", str(count), MMLAB_5), samples)


def written(folder: Path, *parts: SourceFaces) -> FaceIndex:
    write_index(folder, parts, digest)
    return read_index(folder, [part.source for part in parts])


def test_an_index_comes_back_as_it_was(tmp_path: Path) -> None:
    part = photos(tmp_path / "photos")
    points = np.array(FIVE_POINTS, np.float32)
    points[3] = np.nan
    box = FaceBox(1.5, 2.25, 50.125, 60, kind="csv")
    face = replace(part.samples[0], points_px=points, boxes={"csv": box}, subset=("pose", "blur"), photo_key="shared")
    found = written(tmp_path / "run", replace(part, samples=[face])).samples[0]
    np.testing.assert_array_equal(found.points_px, points)
    assert found.boxes == {"csv": box}
    assert (found.image, found.subset, found.photo_key, found.schema) == (face.image, face.subset, "shared", MMLAB_5)


def test_rendering_tells_how_far_it_is() -> None:
    told: list[tuple[int, int, str]] = []
    faces = read_source(Source("synthetic", "3", MMLAB_5), lambda *step: told.append(step))
    assert len(faces) == 3
    assert told == [(done, 3, "rendering faces") for done in (1, 2, 3)]


def test_detection_tells_how_far_it_is_and_leaves_a_face_without_a_box_as_it_was() -> None:
    told: list[tuple[int, int, str]] = []
    face = rendered(1).samples[0]
    boxed = with_detector_boxes(
        [face, face], lambda image: np.zeros((0, 5), np.float32), "yunet", lambda *step: told.append(step)
    )
    assert [sample.boxes for sample in boxed] == [face.boxes] * 2
    assert told == [(1, 2, "detecting faces"), (2, 2, "detecting faces")]


def test_a_detection_that_fits_the_annotated_box_is_taken_where_the_points_fill_little_of_it() -> None:
    """Five points reach from the eyes to the mouth: their extent is a fifth of a detection."""
    face = replace(rendered(1).samples[0], boxes={})
    own = face.box()
    middle, half = np.array(own.center), max(own.width, own.height)
    whole = FaceBox.from_xyxy([*(middle - half), *(middle + half)], kind="mmlab5")

    def detect(image: object) -> np.ndarray:
        return np.array([[*whole.xyxy, 0.9]])

    [without] = with_detector_boxes([face], detect, "yunet")
    [with_box] = with_detector_boxes([replace(face, boxes={"mmlab5": whole})], detect, "yunet")
    assert "yunet" not in without.boxes
    np.testing.assert_array_equal(with_box.boxes["yunet"].xyxy, whole.xyxy)


def test_an_index_does_not_depend_on_where_the_photos_lie(tmp_path: Path) -> None:
    for name in ("here", "there/deeper"):
        write_index(tmp_path / name / "run", [photos(tmp_path / name / "photos")], digest)
    texts = [(tmp_path / name / "run" / INDEX).read_text() for name in ("here", "there/deeper")]
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    assert [entry["sha256"] for entry in json.loads(texts[0])["faces"]] == [
        digest(tmp_path / "here/photos" / f"face{number}.png") for number in range(2)
    ]


def test_photos_of_the_same_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    parts = [photos(tmp_path / name, seed=seed) for name, seed in (("first", 0), ("second", 50))]
    index = written(tmp_path / "run", *parts)
    assert [face.image for face in index.samples] == [face.image for part in parts for face in part.samples]
    with pytest.raises(DataError, match="faces of 2 sources of kind csv, but --data gave 1"):
        read_index(tmp_path / "run", [parts[0].source])


def test_photos_may_lie_beside_the_folder_of_their_list(tmp_path: Path) -> None:
    elsewhere = photos(tmp_path / "pictures")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "faces.csv").touch()
    part = replace(elsewhere, source=Source("csv", str(tmp_path / "lists" / "faces.csv"), MMLAB_5))
    found = written(tmp_path / "run", part).samples
    assert [Path(sample.image).resolve() for sample in found] == [sample.image for sample in elsewhere.samples]


def test_rendered_pictures_are_kept_without_loss(tmp_path: Path) -> None:
    part = rendered()
    index = written(tmp_path / "run", part)
    for number, (face, drawn) in enumerate(zip(index.samples, part.samples, strict=True)):
        assert face.image == tmp_path / "run" / PICTURES / f"{number:06d}.png"
        np.testing.assert_array_equal(face.read_image(), drawn.read_image())


def test_a_photo_that_is_gone_is_named(tmp_path: Path) -> None:
    part = photos(tmp_path / "photos")
    (tmp_path / "photos/face1.png").unlink()
    with pytest.raises(DataError, match=r"labels:face1: cannot read the image .*face1\.png: No such file"):
        write_index(tmp_path / "run", [part], digest)


# The split


def faces(*kinds_and_keys: tuple[str, str]) -> FaceIndex:
    samples: list[FaceSample] = [sample_of(textured_image(0), np.array(FIVE_POINTS), MMLAB_5, key) for _, key in kinds_and_keys]
    return FaceIndex(MMLAB_5, samples, [kind for kind, _ in kinds_and_keys])


def test_the_photo_key_decides_the_side() -> None:
    index = faces(("csv", VALIDATING), ("csv", TRAINING), ("300w", VALIDATING))
    assert [face.photo_key for face in index.validation] == [VALIDATING, VALIDATING]
    assert [face.photo_key for face in index.training] == [TRAINING]


def with_points(index: FaceIndex, *schemas: LandmarkSchema) -> FaceIndex:
    """The same faces, labelled with other point sets."""
    samples = [
        replace(face, schema=schema, points_px=points_of(schema).astype(np.float32))
        for face, schema in zip(index.samples, schemas, strict=True)
    ]
    return replace(index, samples=samples)


def test_faces_of_other_points_only_train_and_obey_the_split() -> None:
    """A photo that validates in one point set must not be learned from in another."""
    index = faces(("csv", TRAINING), ("csv", VALIDATING), ("300w", TRAINING), ("300w", VALIDATING), ("synthetic", VALIDATING))
    joint = with_points(index, MMLAB_5, MMLAB_5, IBUG_68, IBUG_68, IBUG_68)
    assert [joint.samples.index(face) for face in joint.training] == [0]
    assert [joint.samples.index(face) for face in joint.validation] == [1]
    assert [joint.samples.index(face) for face in joint.others] == [2, 4]


def test_photos_of_other_points_do_not_keep_rendered_faces_from_validating() -> None:
    """Where all faces of the exported points are rendered ones, only they can judge."""
    index = faces(("synthetic", VALIDATING), ("synthetic", TRAINING), ("300w", TRAINING))
    joint = with_points(index, MMLAB_5, MMLAB_5, IBUG_68)
    assert [face.photo_key for face in joint.validation] == [VALIDATING]
    assert joint.validation[0] not in joint.training
    assert [face.schema for face in joint.others] == [IBUG_68]


@pytest.mark.parametrize("exported", [None, MMLAB_5, IBUG_68])
def test_an_index_of_several_point_sets_comes_back(tmp_path: Path, exported: LandmarkSchema | None) -> None:
    five, other = photos(tmp_path / "five"), photos(tmp_path / "other", seed=9)
    samples = [replace(s, schema=IBUG_68, points_px=points_of(IBUG_68).astype(np.float32)) for s in other.samples]
    other = SourceFaces(Source("300w", str(tmp_path / "other"), IBUG_68), samples)
    write_index(tmp_path / "run", [five, other], digest, exported)
    index = read_index(tmp_path / "run", [five.source, other.source])
    assert index.schema == (exported or MMLAB_5)
    assert [face.schema for face in index.samples] == [MMLAB_5, MMLAB_5, IBUG_68, IBUG_68]
    for found, given in zip(index.samples, [*five.samples, *samples], strict=True):
        np.testing.assert_allclose(found.points_px, given.points_px, atol=1e-4)
    assert all(face.schema == index.schema for face in (*index.training, *index.validation))


def test_rendered_faces_only_validate_when_there_are_no_photos() -> None:
    mixed = faces(("csv", TRAINING), ("synthetic", VALIDATING), ("synthetic", TRAINING))
    assert mixed.validation == []
    assert len(mixed.training) == 3
    alone = faces(("synthetic", VALIDATING), ("synthetic", TRAINING))
    assert [face.photo_key for face in alone.validation] == [VALIDATING]
