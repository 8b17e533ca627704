"""The boxes of a detector, fitted for a bundle that was trained without them: on its training faces and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.bundle import ADDED_BOX_FITS, Bundle, write_bundle
from lmedge.data.samples import FaceSample
from lmedge.data.sources import parse_source
from lmedge.errors import BundleError, DataError, SchemaError
from lmedge.export.pack import photo_digest
from lmedge.pipeline import detector_fit
from lmedge.pipeline.detector_fit import MIN_FACES, add_yunet_fit, fit_detector
from lmedge.preprocess import BoxFit
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.data.faces import sample_of
from tests.manifests import GOLDEN, manifest_of

IMAGE = np.zeros((200, 200, 3), np.uint8)
COUNT = 130


def face(number: int, side_px: float = 60.0) -> FaceSample:
    """Points that fill a box of this side, in a picture whose first pixel says which one it is."""
    image = IMAGE.copy()
    image[0, 0, 0] = number
    points = np.random.default_rng(number).uniform(0, 1, (68, 2))
    points = 70 + side_px * (points - points.min(axis=0)) / np.ptp(points, axis=0)
    return sample_of(image, points, IBUG_68, f"synthetic_5_{number}")


FACES = [face(number) for number in range(COUNT)]


def detect(image_bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Boxes of 1.25 times the side, higher by a tenth of their own; three faces are missed."""
    number = int(image_bgr[0, 0, 0])
    if number in {3, 30, 90}:
        return np.zeros((0, 5))
    center, half = np.array(FACES[number].box().center) - [0, 7.5], 37.5
    return np.array([[*(center - half), *(center + half), 0.9]])


def bundle_trained_on(folder: Path, faces: list[FaceSample], **preprocess: Any) -> Bundle:
    manifest = manifest_of(folder / "stages")
    manifest = replace(
        manifest,
        preprocess=replace(manifest.preprocess, **{"box_fits": {}, **preprocess}),
        provenance={"trained_photos": [photo_digest(sample.photo_key) for sample in faces]},
    )
    return write_bundle(folder / "bundle", manifest, GOLDEN)


def test_the_fit_leads_from_detections_to_the_extent_of_the_points(tmp_path: Path) -> None:
    fitted = fit_detector(bundle_trained_on(tmp_path, FACES), FACES, detect, "yunet")
    assert fitted.fit == BoxFit(0.8, 0.0, 0.1)
    assert (fitted.faces, fitted.found) == (COUNT, COUNT - 3)


def test_faces_that_the_bundle_was_not_trained_on_do_not_count(tmp_path: Path) -> None:
    """Most of the faces are others, twice as far out of their boxes."""
    trained = bundle_trained_on(tmp_path, FACES[:120])
    others = [replace(face(number, 30.0), photo_key=f"synthetic_6_{number}") for number in range(COUNT)]
    fitted = fit_detector(trained, [*others, *FACES], detect, "yunet")
    assert fitted.fit == BoxFit(0.8, 0.0, 0.1)
    assert (fitted.faces, fitted.found) == (120, 117)


def test_copies_of_a_training_photo_count_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of a run gives them one key."""

    def shared(samples: list[FaceSample]) -> list[FaceSample]:
        return [replace(sample, photo_key=sample.photo_key.replace("copy", "synthetic")) for sample in samples]

    monkeypatch.setattr(detector_fit, "share_keys_of_duplicates", shared)
    copies = [replace(sample, photo_key=sample.photo_key.replace("synthetic", "copy")) for sample in FACES]
    assert fit_detector(bundle_trained_on(tmp_path, FACES), copies, detect, "yunet").faces == COUNT


def test_too_few_faces_are_refused(tmp_path: Path) -> None:
    trained = bundle_trained_on(tmp_path, FACES[: MIN_FACES + 2])
    with pytest.raises(DataError, match=r"needs 100 faces .* of 130 faces, .* trained on 102, and 99 of these were found"):
        fit_detector(trained, FACES, detect, "yunet")


def test_faces_with_other_points_are_refused(tmp_path: Path) -> None:
    five = sample_of(IMAGE, np.random.default_rng(0).uniform(50, 100, (5, 2)), MMLAB_5, "a")
    with pytest.raises(SchemaError, match="own points, IBUG_68; got MMLAB_5"):
        fit_detector(bundle_trained_on(tmp_path, FACES), [five], detect, "yunet")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model file, for which `detect` answers; sources are `FACES`."""
    monkeypatch.setattr(detector_fit, "yunet_detector", lambda file: detect)
    monkeypatch.setattr(detector_fit, "read_sources", lambda sources: FACES)
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"detector")
    return file


def test_the_manifest_tells_how_the_fit_was_made(played: Path, tmp_path: Path) -> None:
    before = bundle_trained_on(tmp_path, FACES)
    after = add_yunet_fit(before.root, [parse_source("synthetic:130")], played)
    assert after.manifest.preprocess.box_fits == {"yunet": BoxFit(0.8, 0.0, 0.1)}
    made = after.manifest.provenance[ADDED_BOX_FITS]["yunet"]
    assert (made["faces"], made["found"], made["sources"], made["detector"]) == (COUNT, COUNT - 3, ["synthetic"], "yunet.onnx")
    assert made["detector_sha256"] == "f2b3cbe41413047352141e5b863d87e696ec4f52b503040dba3a5700acd529a0"
    assert after.verify_digests() == before.verify_digests()


def test_a_bundle_that_was_trained_with_the_detector_keeps_its_fit(played: Path, tmp_path: Path) -> None:
    trained = bundle_trained_on(tmp_path, FACES, box_fits={"yunet": BoxFit(0.9)})
    with pytest.raises(BundleError, match="from its training"):
        add_yunet_fit(trained.root, [parse_source("synthetic:130")], played)
    assert Bundle.open(trained.root).manifest.preprocess.box_fits == {"yunet": BoxFit(0.9)}
