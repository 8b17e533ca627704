"""`lmedge predict`: pictures in, points out, and what was taken for a face."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge import FaceLandmarker
from lmedge.data.ibug import read_300w
from lmedge.data.samples import read_image
from tests import requirements
from tests.bundles import SPEC
from tests.cli.command import DONE, ERROR, lmedge
from tests.cli.conftest import change_manifest
from tests.data.faces import textured_image, write_image

BOX = "20,10,40,50"
BOX_XYXY = [20.0, 10.0, 60.0, 60.0]
TERMS = "Example faces: research only."


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def knowing_yunet(bundle: Path) -> Path:
    """The bundle with a fit for boxes of kind `yunet`."""
    return change_manifest(bundle, preprocess={**SPEC.to_json(), "box_fits": {"yunet": [0.8, 0.0, 0.1]}})


def test_points_are_those_of_the_python_interface(bundle: Path, photo: Path) -> None:
    outcome = lmedge("predict", bundle, photo, "--box", BOX, "--json")
    assert (outcome.code, outcome.stderr) == (DONE, "")
    (document,) = outcome.json
    (face,) = document["faces"]
    with FaceLandmarker.open(bundle) as landmarker:
        (expected,) = landmarker.predict(read_image(photo), [BOX_XYXY])
    assert document["image"] == str(photo)
    assert face["schema"] == "MMLAB_5"
    assert face["box_xyxy"] == BOX_XYXY
    assert face["box_kind"] == "reference"
    np.testing.assert_allclose(face["points_px"], expected.points_px, atol=1e-3)


def test_each_box_is_a_face_in_the_given_order(bundle: Path, photo: Path) -> None:
    (document,) = lmedge("predict", bundle, photo, "--box", BOX, "--box", "0,0,30,30", "--json").json
    assert [face["box_xyxy"] for face in document["faces"]] == [BOX_XYXY, [0, 0, 30, 30]]


def test_without_a_box_the_whole_picture_is_a_face_and_that_is_said(bundle: Path, photo: Path) -> None:
    outcome = lmedge("predict", bundle, photo, "--json")
    assert outcome.stderr == f"{photo}: no --box or --detector given, so the whole picture is taken as one face.\n"
    whole = lmedge("predict", bundle, photo, "--box", "0,0,99,79", "--json")
    assert outcome.json == whole.json
    assert whole.stderr == ""


def test_several_pictures_come_in_turn(bundle: Path, photo: Path, tmp_path: Path) -> None:
    other = write_image(tmp_path / "other.jpg", textured_image(5))
    outcome = lmedge("predict", bundle, other, photo, "--json")
    assert [document["image"] for document in outcome.json] == [str(other), str(photo)]
    assert outcome.stderr.count("the whole picture is taken") == 2


def test_people_get_a_table_of_named_points(bundle: Path, photo: Path) -> None:
    outcome = lmedge("predict", bundle, photo, "--box", BOX)
    assert f"{photo}, face 1" in outcome.stdout
    with FaceLandmarker.open(bundle) as landmarker:
        assert all(name in outcome.stdout for name in landmarker.schema.point_names)


def test_engines_agree(bundle: Path, photo: Path) -> None:
    requirements.require("openvino")
    first, second = (
        lmedge("predict", bundle, photo, "--box", BOX, "--backend", name, "--json").json[0]["faces"][0]["points_px"]
        for name in ("onnxruntime", "openvino")
    )
    np.testing.assert_allclose(first, second, atol=0.002)


class TestDrawing:
    def test_points_are_drawn_in_a_new_picture(self, bundle: Path, photo: Path, tmp_path: Path) -> None:
        before = photo.read_bytes()
        outcome = lmedge("predict", bundle, photo, "--box", BOX, "--draw", tmp_path / "out", "--json")
        assert outcome.code == DONE
        assert len(outcome.json) == 1
        assert outcome.stderr == f"{photo}: 1 face, drawn in {tmp_path / 'out' / 'driver.png'}\n"
        drawn = read_image(tmp_path / "out" / "driver.png")
        assert drawn.shape == read_image(photo).shape
        assert (drawn != read_image(photo)).any()
        assert photo.read_bytes() == before

    def test_pictures_of_one_name_do_not_overwrite_each_other(self, bundle: Path, tmp_path: Path) -> None:
        photos = [write_image(tmp_path / day / "face.png", textured_image(seed)) for seed, day in enumerate(("mon", "tue"))]
        lmedge("predict", bundle, *photos, "--draw", tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["face-2.png", "face.png"]

    def test_a_picture_is_never_drawn_over(self, bundle: Path, tmp_path: Path) -> None:
        photos = [write_image(tmp_path / f"{stem}.png", textured_image(3)) for stem in ("face", "face-2")]
        before = [path.read_bytes() for path in photos]
        lmedge("predict", bundle, *photos, "--draw", tmp_path)
        assert [path.read_bytes() for path in photos] == before
        assert {path.name for path in tmp_path.iterdir()} == {"face.png", "face-2.png", "face-3.png", "face-2-2.png"}


class TestFirstArgument:
    def test_pictures_alone_are_given_to_the_trained_bundle(self, photo: Path) -> None:
        outcome = lmedge("predict", photo, "--json")
        assert "No bundle is named; taking zoo:ibug68_fast." in outcome.stderr
        assert len(outcome.json[0]["faces"][0]["points_px"]) == 68

    def test_a_folder_that_is_no_bundle_is_told_apart_from_a_picture(self, photo: Path, tmp_path: Path) -> None:
        outcome = lmedge("predict", tmp_path, photo)
        outcome.assert_clear_error(ERROR, f"{tmp_path} is no bundle (no manifest.json)", "Give a bundle first, then pictures")

    def test_a_run_folder_leads_to_its_bundle(self, bundle: Path, photo: Path) -> None:
        outcome = lmedge("predict", bundle.parent, photo)
        outcome.assert_clear_error(ERROR, f"{bundle.parent} is no bundle", f"Did you mean {bundle}?")

    def test_a_missing_picture_is_named(self, bundle: Path) -> None:
        lmedge("predict", bundle, "nowhere.jpg").assert_clear_error(ERROR, "Cannot read the image nowhere.jpg: No such file")


def test_terms_of_the_training_data_are_said_once(own_bundle: Path, photo: Path) -> None:
    sources = [{"kind": "300w", "terms": TERMS}, {"kind": "synthetic", "terms": "made by lmedge, no terms"}]
    change_manifest(own_bundle, provenance={"sources": sources})
    outcome = lmedge("predict", own_bundle, photo, photo, "--box", BOX, "--json")
    assert outcome.stderr == f"This bundle was trained on data with terms of use. {TERMS}\n"
    assert len(outcome.json) == 2


def test_a_box_is_of_the_kind_that_is_named(own_bundle: Path, photo: Path) -> None:
    refused = lmedge("predict", own_bundle, photo, "--box", BOX, "--box-kind", "yunet")
    refused.assert_clear_error(ERROR, "No fit is known for boxes of kind 'yunet'; this bundle knows reference")
    outcome = lmedge("predict", knowing_yunet(own_bundle), photo, "--box", BOX, "--box-kind", "yunet", "--json")
    assert outcome.json[0]["faces"][0]["box_kind"] == "yunet"


@pytest.mark.data
class TestDetector:
    @pytest.fixture
    def yunet(self, data_folder: Path) -> Path:
        model = data_folder.parent / "models" / "face_detection_yunet.onnx"
        if not model.is_file():
            pytest.skip(f"no detector at {model}")
        return model

    def test_faces_are_found_where_they_are(self, own_bundle: Path, yunet: Path, data_folder: Path) -> None:
        sample = read_300w(data_folder / "300w")[5]
        outcome = lmedge("predict", knowing_yunet(own_bundle), sample.image, "--detector", yunet, "--json")
        assert (outcome.code, outcome.stderr) == (DONE, "")
        face = outcome.json[0]["faces"][0]
        x_min, y_min, x_max, y_max = face["box_xyxy"]
        center_x, center_y = sample.box().center
        assert face["box_kind"] == "yunet"
        assert x_min < center_x < x_max
        assert y_min < center_y < y_max

    def test_a_picture_without_a_face_is_no_error(self, own_bundle: Path, yunet: Path, tmp_path: Path) -> None:
        empty = write_image(tmp_path / "empty.png", np.full((120, 160, 3), 127, np.uint8))
        arguments = ["predict", knowing_yunet(own_bundle), empty, "--detector", yunet]
        assert lmedge(*arguments, "--json").json == [{"image": str(empty), "faces": []}]
        assert lmedge(*arguments).stdout == f"{empty}: no face found\n"

    def test_a_bundle_that_does_not_know_its_boxes_says_so(
        self, own_bundle: Path, yunet: Path, data_folder: Path, tmp_path: Path
    ) -> None:
        image = read_300w(data_folder / "300w")[5].image
        outcome = lmedge("predict", own_bundle, image, "--detector", yunet)
        outcome.assert_clear_error(ERROR, "No fit is known for boxes of kind 'yunet'", "build the bundle with faces")


def test_a_detector_that_is_not_there_is_named(bundle: Path, photo: Path) -> None:
    outcome = lmedge("predict", bundle, photo, "--detector", "yunet.onnx")
    outcome.assert_clear_error(ERROR, "No detector at yunet.onnx", "OpenCV Zoo")


def test_pictures_of_other_depth_are_read_as_eight_bits_of_three_colors(bundle: Path, tmp_path: Path) -> None:
    """Files are decoded to what the network takes; arrays of another kind are refused (see test_bad_input)."""
    image = textured_image(7)
    files = {
        "deep.png": image.astype(np.uint16) * 257,
        "alpha.png": np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
        "plain.png": image,
    }
    for name, pixels in files.items():
        assert cv2.imwrite(str(tmp_path / name), pixels)
    documents = lmedge("predict", bundle, *(tmp_path / name for name in files), "--box", BOX, "--json").json
    deep, alpha, plain = (document["faces"][0]["points_px"] for document in documents)
    assert deep == alpha == plain
