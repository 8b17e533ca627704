"""Evaluation: which faces count, which boxes are used, and what a miss costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lmedge import Bundle, FaceBox, FaceLandmarker
from lmedge.data.samples import FaceSample, is_validation
from lmedge.errors import DataError, InputError, SchemaError
from lmedge.preprocess import BoxFit, crop_transform
from lmedge.runtimes.detector import Detector
from lmedge.runtimes.evaluate import evaluate, iou
from lmedge.runtimes.fake import FakeRuntime, fake_bundle
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema
from tests.bundles import SPEC

IMAGE = np.random.default_rng(8).integers(0, 256, (200, 240, 3), np.uint8)
# Eyes 40 px apart, so that an error of 4 px is an NME of 10 %.
FACE = np.array([[60, 60], [100, 60], [80, 80], [65, 100], [95, 100]], np.float32)


def face(key: str, points_px: npt.NDArray[np.float32] = FACE, **fields: object) -> FaceSample:
    values = {"image": IMAGE, "schema": MMLAB_5, "photo_key": key, "origin": key, **fields}
    return FaceSample(points_px=points_px, **values)


def answering(bundle: Bundle, truths: Sequence[FaceSample], errors_px: Sequence[float]) -> FaceLandmarker:
    """A landmarker that answers each face's labels, moved to the right by an error."""
    landmarker = FaceLandmarker.open(bundle, backend="fake")
    assert isinstance(landmarker.runtime, FakeRuntime)
    for sample, error in zip(truths, errors_px, strict=True):
        points = np.nan_to_num(sample.points_px) + [error, 0]
        landmarker.runtime.script(crop_transform(sample.box(), landmarker.spec).to_fractions(points))
    return landmarker


def test_the_figures_are_those_of_the_definition(fake_faces: Bundle) -> None:
    samples = [face("a", subset=("easy",)), face("b", subset=("hard",)), face("c", subset=("hard", "dark"))]
    done: list[tuple[int, int]] = []
    with answering(fake_faces, samples, [0, 2, 6]) as landmarker:
        report, records = evaluate(landmarker, samples, split="all", progress=lambda n, of: done.append((n, of)))
    np.testing.assert_allclose([record.nme for record in records], [0, 0.05, 0.15], atol=1e-5)
    assert report.nme == pytest.approx(0.2 / 3, abs=1e-5)
    assert report.fr10 == pytest.approx(1 / 3)
    assert report.auc10 == pytest.approx((1 + 0.5 + 0) / 3, abs=1e-4)
    assert (report.count, report.missed, report.excluded) == (3, 0, 0)
    assert report.nme_interval[0] <= report.nme <= report.nme_interval[1]
    assert report.groups == pytest.approx(dict.fromkeys(("eyes", "nose", "mouth"), 0.2 / 3), abs=1e-5)
    assert report.subsets["hard"] == pytest.approx({"nme": 0.1, "count": 2}, abs=1e-5)
    assert (report.normalizer, report.boxes, report.split) == ("inter-ocular (eye centres)", "annotated (reference)", "all")
    assert (report.backend, report.precision, report.schema, report.mapping) == ("fake", "fp32", "MMLAB_5", "")
    assert done == [(3, 3)]  # one photo
    assert [record.sample for record in records] == samples


def test_a_face_without_its_normaliser_is_excluded_and_counted(fake_faces: Bundle) -> None:
    hidden = FACE.copy()
    hidden[0] = np.nan
    samples = [face("a"), face("b", hidden)]
    with answering(fake_faces, samples, [4, 4]) as landmarker:
        report, records = evaluate(landmarker, samples, split="all")
    assert (report.count, report.excluded) == (2, 1)
    assert report.nme == pytest.approx(0.1, abs=1e-5)
    assert np.isnan(records[1].nme)
    assert records[1].points_px is not None


def test_unknown_points_do_not_count(fake_faces: Bundle) -> None:
    partial = FACE.copy()
    partial[3:] = np.nan
    with answering(fake_faces, [face("a", partial)], [2]) as landmarker:
        report, _ = evaluate(landmarker, [face("a", partial)], split="all")
    assert report.nme == pytest.approx(0.05, abs=1e-5)
    assert set(report.groups) == {"eyes", "nose"}


def test_the_split_is_that_of_the_photo(fake_faces: Bundle) -> None:
    samples = [face(f"photo{i}") for i in range(60)]
    held_out = [sample for sample in samples if is_validation(sample.photo_key)]
    assert 0 < len(held_out) < len(samples)
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        keys = frozenset(sample.photo_key for sample in samples[:20])
        report, records = evaluate(landmarker, samples, trained_keys=keys)
        assert [record.sample for record in records] == held_out
        assert report.trained_on == sum(sample.photo_key in keys for sample in held_out)
        assert evaluate(landmarker, samples, split="train")[0].count == len(samples) - len(held_out)
        with pytest.raises(DataError, match="--split all"):
            evaluate(landmarker, [s for s in samples if s not in held_out])


def with_fit(bundle: Bundle, kind: str, fit: BoxFit) -> Bundle:
    spec = dataclasses.replace(bundle.manifest.preprocess, box_fits={kind: fit})
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, preprocess=spec))


def test_annotated_boxes_go_through_the_fit_of_their_kind(fake_faces: Bundle) -> None:
    box = FaceSample.box(face("a"))
    twice = FaceBox(box.center[0] - 40, box.center[1] - 40, box.center[0] + 40, box.center[1] + 40, kind="mmlab5")
    sample = face("a", boxes={"mmlab5": twice})
    bundle = with_fit(fake_faces, "mmlab5", BoxFit(0.5))
    with answering(bundle, [sample], [0]) as landmarker:
        report, records = evaluate(landmarker, [sample], split="all")
    assert report.boxes == "annotated (mmlab5)"
    assert report.nme == pytest.approx(0, abs=1e-5)
    assert records[0].box == twice
    with answering(bundle, [sample], [0]) as landmarker:
        assert evaluate(landmarker, [sample], split="all", boxes="landmarks")[0].boxes == "landmarks (reference)"
    with answering(fake_faces, [sample], [0]) as landmarker, pytest.raises(InputError, match=r"No fit is known.*mmlab5"):
        evaluate(landmarker, [sample], split="all")


def detecting(*boxes: Sequence[float]) -> Detector:
    return lambda image: np.array([[*box, 0.9] for box in boxes], np.float64).reshape(-1, 5)


NEAR, FAR = FACE, FACE + np.float32([100, 60])
NEAR_BOX, FAR_BOX = (60, 60, 100, 100), (160, 120, 200, 160)


@pytest.fixture
def yunet_faces(fake_faces: Bundle) -> Bundle:
    return with_fit(fake_faces, "yunet", BoxFit())


def test_a_detection_belongs_to_the_face_it_overlaps_most(yunet_faces: Bundle) -> None:
    samples = [face("a", NEAR), face("a", FAR)]
    worse = (65, 65, 105, 105)
    with answering(yunet_faces, samples, [0, 0]) as landmarker:
        found = detecting(FAR_BOX, worse, NEAR_BOX, (5, 5, 25, 25))
        report, records = evaluate(landmarker, samples, split="all", boxes="detector", detector=found)
    assert report.boxes == "detector (yunet)"
    assert report.missed == 0
    assert report.nme == pytest.approx(0, abs=1e-5)
    assert [record.box and record.box.xyxy.tolist() for record in records] == [list(NEAR_BOX), list(FAR_BOX)]


def test_a_miss_is_a_failure_outside_the_mean(yunet_faces: Bundle) -> None:
    samples = [face("a", NEAR), face("a", FAR)]
    with answering(yunet_faces, samples[:1], [2]) as landmarker:
        report, records = evaluate(landmarker, samples, split="all", boxes="detector", detector=detecting(NEAR_BOX))
    assert (report.count, report.missed, report.excluded) == (2, 1, 0)
    assert report.nme == pytest.approx(0.05, abs=1e-5)
    assert report.fr10 == 0.5
    assert report.auc10 == pytest.approx(0.25, abs=1e-4)
    assert records[1].points_px is None
    assert np.isinf(records[1].nme)


def test_faces_that_are_all_missed_have_no_mean(yunet_faces: Bundle) -> None:
    with FaceLandmarker.open(yunet_faces, backend="fake") as landmarker, pytest.raises(DataError, match="was missed"):
        evaluate(landmarker, [face("a")], split="all", boxes="detector", detector=detecting())


def test_a_detector_needs_a_fit_of_its_kind(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker, pytest.raises(InputError, match="yunet"):
        evaluate(landmarker, [face("a")], split="all", boxes="detector", detector=detecting(NEAR_BOX))


def mean_face(schema: LandmarkSchema) -> npt.NDArray[np.float32]:
    return np.random.default_rng(4).uniform(60, 120, (schema.num_points, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def wflw_faces(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fake_bundle(tmp_path_factory.mktemp("wflw") / "bundle", WFLW_98, SPEC)


def test_a_published_mapping_is_used_and_named(wflw_faces: Bundle) -> None:
    sample = face("a", mean_face(IBUG_68), schema=IBUG_68)
    with FaceLandmarker.open(wflw_faces, backend="fake") as landmarker:
        report, records = evaluate(landmarker, [sample], split="all")
    assert (report.schema, report.mapping) == ("IBUG_68", "WFLW_98 → IBUG_68")
    assert records[0].points_px is not None
    assert records[0].points_px.shape == (68, 2)


def test_other_schemas_are_refused(fake_faces: Bundle, wflw_faces: Bundle) -> None:
    of_68 = face("a", mean_face(IBUG_68), schema=IBUG_68)
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        with pytest.raises(SchemaError, match="No published mapping from MMLAB_5 to IBUG_68"):
            evaluate(landmarker, [of_68], split="all")
        with pytest.raises(SchemaError, match="one schema"):
            evaluate(landmarker, [of_68, face("b")], split="all")


def test_the_extent_of_five_points_is_no_box_for_68(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path / "bundle", IBUG_68, SPEC)
    with FaceLandmarker.open(bundle, backend="fake") as landmarker, pytest.raises(InputError, match="Use a detector"):
        evaluate(landmarker, [face("a")], split="all")


@pytest.mark.parametrize(
    "options",
    [{"boxes": "drawn"}, {"split": "test"}, {"boxes": "detector"}, {"boxes": "landmarks", "detector": detecting()}],
)
def test_choices_that_do_not_exist_are_refused(fake_faces: Bundle, options: dict[str, object]) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker, pytest.raises(InputError):
        evaluate(landmarker, [face("a")], **options)  # type: ignore[arg-type]


def test_labels_outside_the_photo_are_counted_and_far_ones_refused(fake_faces: Bundle) -> None:
    near, far = FACE - np.float32([65, 0]), FACE - np.float32([110, 0])
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        assert evaluate(landmarker, [face("a", near)], split="all")[0].outside == 1
        with pytest.raises(DataError, match="half a face outside"):
            evaluate(landmarker, [face("a", far)], split="all")


def test_an_unreadable_photo_is_named(fake_faces: Bundle, tmp_path: Path) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker, pytest.raises(DataError, match=r"gone\.jpg"):
        evaluate(landmarker, [face("a", image=tmp_path / "gone.jpg")], split="all")


def test_a_photo_is_decoded_and_searched_once(yunet_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []

    def detector(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        searched.append(1)
        return detecting(NEAR_BOX, FAR_BOX)(image)

    reads: list[Path] = []
    monkeypatch.setattr("lmedge.data.samples.read_image", lambda path: reads.append(path) or IMAGE)
    samples = [face(key, points, image=Path(key)) for key in "ab" for points in (NEAR, FAR)]
    with FaceLandmarker.open(yunet_faces, backend="fake") as landmarker:
        evaluate(landmarker, samples, split="all", boxes="detector", detector=detector)
    assert (len(searched), reads) == (2, [Path("a"), Path("b")])


@pytest.mark.parametrize(
    ("other", "expected"),
    [((0, 0, 10, 10), 1), ((5, 0, 15, 10), 1 / 3), ((10, 0, 20, 10), 0), ((20, 20, 30, 30), 0), ((2, 2, 4, 4), 0.04)],
)
def test_iou(other: tuple[float, float, float, float], expected: float) -> None:
    assert iou(FaceBox(0, 0, 10, 10), FaceBox(*other)) == pytest.approx(expected)
    assert iou(FaceBox(*other), FaceBox(0, 0, 10, 10)) == pytest.approx(expected)


@pytest.fixture
def photos(data_folder: Path) -> list[FaceSample]:
    from lmedge.data.ibug import read_300w

    return read_300w(data_folder / "300w")[::100]


@pytest.mark.data
def test_real_photos_of_one_face_are_found_by_the_detector(tmp_path: Path, photos: list[FaceSample], data_folder: Path) -> None:
    from lmedge.runtimes.detector import yunet_detector

    model = data_folder.parent / "models" / "face_detection_yunet.onnx"
    if not model.is_file():
        pytest.skip(f"no detector at {model}")
    # The fit is about that of YuNet boxes to the extent of 68 points.
    bundle = with_fit(fake_bundle(tmp_path / "bundle", IBUG_68), "yunet", BoxFit(0.79, 0.0, 0.12))
    with FaceLandmarker.open(bundle, backend="fake") as landmarker:
        report, records = evaluate(landmarker, photos, split="all", boxes="detector", detector=yunet_detector(model))
    assert report.count == len(photos)
    assert report.missed <= 1
    assert all(record.box is None or record.box.kind == "yunet" for record in records)
