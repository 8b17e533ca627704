"""The choice of calibration crops: training faces only, of every kind, by seed and not by order, framed as a detector would."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmedge.bundle import Manifest
from lmedge.calibration import images as module
from lmedge.calibration.crop_store import crops_digest
from lmedge.calibration.images import CalibrationImages, JitterSpec, calibration_images
from lmedge.data.samples import FaceSample, is_validation
from lmedge.errors import CalibrationError, DataError, InputError
from lmedge.export.pack import photo_digest
from lmedge.preprocess import PreprocessSpec, crop_face
from lmedge.reports import CalibrationRecord
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.calibration.pictures import picture, pictured_face, points_px
from tests.manifests import manifest_of

SPEC = PreprocessSpec(input_hw=(32, 32))
STILL = JitterSpec(scale=0, shift=0)

FACES = [pictured_face(seed, key=f"photo_{seed // 2}") for seed in range(80)]
TRAINING = [face for face in FACES if not is_validation(face.photo_key)]
VALIDATION = [face for face in FACES if is_validation(face.photo_key)]


def choose(
    samples: list[FaceSample], count: int = 20, seed: int = 0, jitter: JitterSpec | None = None, spec: PreprocessSpec = SPEC
) -> CalibrationImages:
    return calibration_images(samples, spec, count=count, seed=seed, jitter=jitter or JitterSpec())


def crops_of(samples: list[FaceSample]) -> set[bytes]:
    return {crop_face(sample.read_image(), sample.box(), SPEC)[0].tobytes() for sample in samples}


def test_the_split_of_these_faces_has_both_sides() -> None:
    assert len(VALIDATION) >= 4
    assert len(TRAINING) >= 60


@given(st.integers(0, 2**32), st.integers(1, 100))
@settings(max_examples=15)
def test_only_training_faces_and_none_twice(seed: int, count: int) -> None:
    with choose(FACES, count, seed, STILL) as images:
        chosen = {crop.tobytes() for crop in images.crops}
        assert chosen <= crops_of(TRAINING)
        assert len(chosen) == len(images.crops) == min(count, len(TRAINING))
        assert images.crops.shape[1:] == (32, 32, 3)


@given(st.permutations(FACES))
@settings(max_examples=15)
def test_the_result_does_not_depend_on_the_order(shuffled: list[FaceSample]) -> None:
    with choose(FACES, 30) as images, choose(shuffled, 30) as others:
        assert others.crops.digest() == images.crops.digest()
        np.testing.assert_array_equal(others.fractions, images.fractions)
        assert (others.coverage, others.photo_digests) == (images.coverage, images.photo_digests)


@pytest.mark.parametrize("count", [5, 200])
def test_the_result_depends_on_the_seed_alone(count: int) -> None:
    with choose(FACES, count, 0) as first, choose(FACES, count, 0) as again, choose(FACES, count, 1) as other:
        assert first.crops.digest() == again.crops.digest() == crops_digest(again.crops[:])
        assert first.crops.digest() != other.crops.digest()


def test_labels_move_with_the_boxes() -> None:
    """A bright spot on the tip of the nose is found where the fractions say."""
    faces = []
    for face in TRAINING:
        image = face.read_image().copy()
        x, y = np.rint(face.points_px[2]).astype(int).tolist()
        cv2.circle(image, (x, y), 2, (255, 255, 255), cv2.FILLED)
        faces.append(replace(face, image=image))
    with choose(faces, 200, spec=PreprocessSpec(input_hw=(64, 64))) as images:
        for crop, fractions in zip(images.crops, images.fractions, strict=True):
            found = np.argwhere(crop.min(axis=2) >= 240).mean(axis=0)[::-1]
            np.testing.assert_allclose((found + 0.5) / 64, fractions[2], atol=0.04)


def test_without_jitter_crops_and_labels_are_those_of_training() -> None:
    with choose(TRAINING, len(TRAINING), jitter=STILL) as images:
        assert {crop.tobytes() for crop in images.crops} == crops_of(TRAINING)
        centers = (np.nanmin(images.fractions, axis=1) + np.nanmax(images.fractions, axis=1)) / 2
    np.testing.assert_allclose(centers, 0.5, atol=1e-4)


def test_jitter_stays_within_its_limits_and_uses_them() -> None:
    jitter = JitterSpec(scale=0.2, shift=0.1)
    with choose(TRAINING, 4 * len(TRAINING), jitter=jitter) as images:
        low, high = images.fractions.min(axis=1), images.fractions.max(axis=1)
    scale = 1 / ((high - low).max(axis=1) * SPEC.crop_scale)
    shift = (0.5 - (low + high) / 2) * (scale * SPEC.crop_scale)[:, None]
    assert 1 / 1.2 <= scale.min() < 0.87
    assert 1.15 < scale.max() <= 1.2001
    assert 0.08 < np.abs(shift).max() <= 0.1001
    assert abs(shift.mean()) < 0.02


def test_unknown_points_are_nan() -> None:
    hidden = points_px(0)
    hidden[3] = np.nan
    with choose([replace(TRAINING[0], points_px=hidden)], 1) as images:
        assert np.isnan(images.fractions[0, 3]).all()
        assert np.isfinite(images.fractions[0, [0, 1, 2, 4]]).all()


@pytest.mark.parametrize("more", [5, 10_000])
def test_further_views_come_when_all_faces_are_taken(more: int) -> None:
    jitter, faces = JitterSpec(views=3), len(TRAINING)
    with choose(TRAINING, faces + more, jitter=jitter) as images, choose(TRAINING, faces, jitter=jitter) as once:
        assert len(images.crops) == min(faces + more, 3 * faces)
        assert len({crop.tobytes() for crop in images.crops}) == len(images.crops)
        np.testing.assert_array_equal(images.crops[:faces], once.crops[:])


def test_without_jitter_a_face_gives_one_crop() -> None:
    with choose(TRAINING, 10_000, jitter=STILL) as images:
        assert len(images.crops) == len(TRAINING)


def mixed_faces() -> list[FaceSample]:
    """600 frontal, upright, light faces, and 6 of each rare kind."""
    kinds = [{}] * 600 + [{"nose_beside": 0.5}, {"roll_deg": 25.0}, {"level": 25.0}, {"tags": ("occlusion",)}] * 6
    keys = [key for key in map("photo_{}".format, range(2000)) if not is_validation(key)]
    return [pictured_face(seed, key=key, **kind) for seed, (key, kind) in enumerate(zip(keys, kinds, strict=False))]  # type: ignore[arg-type]


def test_rare_kinds_of_faces_are_chosen_far_beyond_their_share() -> None:
    faces = mixed_faces()
    with choose(faces, 60) as images:
        attributes = images.coverage.attributes
    assert images.coverage.faces == images.coverage.examined == len(faces)
    rare = [("yaw", "far right"), ("roll", "clockwise"), ("brightness", "dark"), ("occlusion", "occluded")]
    for attribute, name in rare:
        count = attributes[attribute][name]
        assert count.available >= 6
        assert count.chosen >= 3, f"{attribute} {name}: in proportion it would be 0.6 of 60"
    for counts in attributes.values():
        assert sum(count.chosen for count in counts.values()) == 60
        assert sum(count.available for count in counts.values()) == len(faces)
    assert all(count.chosen for count in images.coverage.strata.values())


def test_of_many_faces_a_part_is_looked_at_with_every_kind_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_LOOKS", 50)
    faces = mixed_faces()
    with choose(faces, 40) as images:
        coverage = images.coverage
    assert (coverage.faces, coverage.examined) == (len(faces), 80)
    for attribute, name in [("yaw", "far right"), ("roll", "clockwise"), ("occlusion", "occluded")]:
        assert coverage.attributes[attribute][name].available == 6, "what labels tell is known of all faces"


def test_photos_are_read_once_and_named_by_their_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = []
    for face in TRAINING:
        file = tmp_path / f"{face.photo_key}.png"
        cv2.imwrite(str(file), face.read_image())
        faces.append(replace(face, image=file))
    read: list[Path] = []
    original = FaceSample.read_image
    monkeypatch.setattr(FaceSample, "read_image", lambda face: read.append(face.image) or original(face))  # type: ignore[func-returns-value]
    with choose(faces, 150) as images:
        assert images.photo_digests == tuple(sorted({photo_digest(face.photo_key) for face in faces}))
    assert len(read) == len(set(read)) == len({face.image for face in faces}), "two faces on each photo, two views of each face"


def test_the_record_says_what_was_chosen_and_fits_into_a_manifest(tmp_path: Path) -> None:
    with choose(FACES, 20) as images:
        record = images.complete(CalibrationRecord(20, "min-max", 0, images.crops.digest(), ("pictures",)))
    manifest = replace(manifest_of(tmp_path), calibration=record.to_json())
    document = Manifest.from_json(json.loads(json.dumps(manifest.to_json()))).calibration
    assert document is not None
    assert document["digest"] == record.digest
    assert document["photo_digests"] == list(images.photo_digests)
    assert document["jitter"] == {"scale": 0.1, "shift": 0.05, "views": 4}
    assert document["coverage"] == asdict(images.coverage)
    assert document["checks"] == ["shape", "empty", "constant", "repeated", "noise", "channel-order"]


@pytest.mark.parametrize("samples", [[], VALIDATION], ids=["no faces", "validation faces only"])
def test_without_training_faces_there_is_nothing_to_calibrate_on(samples: list[FaceSample]) -> None:
    with pytest.raises(CalibrationError, match=f"^empty: none of the {len(samples)} faces is in the training split"):
        choose(samples)


def swapped(face: FaceSample, _: int) -> FaceSample:
    return replace(face, image=face.read_image()[..., ::-1])


def of_one_colour(face: FaceSample, number: int) -> FaceSample:
    return replace(face, image=np.full((64, 64, 3), number, np.uint8))


def of_noise(face: FaceSample, number: int) -> FaceSample:
    return replace(face, image=np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8))


def on_one_picture(face: FaceSample, _: int) -> FaceSample:
    return replace(face, image=TRAINING[0].read_image())


def of_one_face(face: FaceSample, _: int) -> FaceSample:
    return replace(face, image=TRAINING[0].read_image(), points_px=TRAINING[0].points_px, photo_key="photo_1")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("channel-order", swapped),
        ("constant", of_one_colour),
        ("noise", of_noise),
        ("repeated", on_one_picture),
        ("repeated", of_one_face),
    ],
)
def test_spoilt_faces_are_caught_by_the_named_check(name: str, spoil: object) -> None:
    faces = [spoil(face, number) for number, face in enumerate(TRAINING)]  # type: ignore[operator]
    with pytest.raises(CalibrationError, match=f"^{name}: "):
        choose(faces, 40)


def test_a_face_in_two_lists_counts_once() -> None:
    with choose([*TRAINING, *TRAINING[:5]], 40) as images, choose(TRAINING, 40) as others:
        assert images.coverage == others.coverage
        assert images.crops.digest() == others.crops.digest()


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(count: int) -> None:
    with pytest.raises(CalibrationError, match=f"count is {count}"):
        choose(FACES, count)


@pytest.mark.parametrize("jitter", [{"scale": -0.1}, {"shift": 0.6}, {"scale": float("nan")}, {"views": 0}])
def test_jitter_that_no_detector_has_is_refused(jitter: dict[str, float]) -> None:
    with pytest.raises(CalibrationError, match=r"from 0 to 0\.5 and at least 1 view"):
        JitterSpec(**jitter)  # type: ignore[arg-type]


def test_faces_of_two_schemas_are_refused() -> None:
    points = np.random.default_rng(0).uniform(20, 40, (68, 2)).astype(np.float32)
    other = FaceSample(picture(0), points, IBUG_68, photo_key=TRAINING[0].photo_key)
    with pytest.raises(CalibrationError, match="faces of one schema; got IBUG_68, MMLAB_5"):
        choose([*TRAINING, other])


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    gone = FaceSample(tmp_path / "gone.jpg", points_px(0), MMLAB_5, photo_key=TRAINING[0].photo_key)
    with pytest.raises(DataError, match=r"gone\.jpg"):
        choose([gone], 1)


def test_labels_far_outside_their_photo_are_refused() -> None:
    outside = replace(TRAINING[0], points_px=TRAINING[0].points_px + 60, origin="list.txt:7")
    with pytest.raises(DataError, match=r"list\.txt:7: a label .* outside the image"):
        choose([outside], 1)


def test_a_photo_that_is_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="must be uint8"):
        choose([replace(TRAINING[0], image=np.zeros((64, 64, 3), np.float32))], 1)  # type: ignore[arg-type]


def test_memory_does_not_grow_with_the_number_of_crops(tmp_path: Path) -> None:
    """The crops of 5,000 faces alone are 59 MiB, most of what a process with 500 has at its peak."""
    peaks_kib = []
    for count in (500, 5000):
        folder = tmp_path / str(count)
        folder.mkdir()
        command = [sys.executable, "-m", "tests.calibration.peak_memory", str(count), str(folder)]
        peaks_kib.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks_kib[1] < 1.2 * peaks_kib[0]


@pytest.mark.data
def test_real_training_faces(data_folder: Path) -> None:
    from lmedge.data.ibug import read_300w

    samples = read_300w(data_folder / "300w" / "lfpw")
    with choose(samples, 100, spec=PreprocessSpec()) as images:
        assert images.crops.shape == (100, 112, 112, 3)
        assert images.fractions.shape == (100, 68, 2)
        assert all(count.chosen for count in images.coverage.strata.values())
        assert images.coverage.attributes["yaw"]["far left"].chosen >= 5
