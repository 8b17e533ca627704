"""`lmedge evaluate`: the figures, the pictures, and what they were measured on."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from lmedge import FaceLandmarker
from lmedge.data.csv import read_csv, write_csv
from lmedge.data.ibug import read_300w
from lmedge.data.samples import read_image
from lmedge.runtimes.evaluate import evaluate
from lmedge.schemas import IBUG_68, mapping_matrix
from tests.bundles import SCHEMA, SPEC
from tests.cli.command import DONE, ERROR, lmedge
from tests.cli.conftest import FACES, change_manifest
from tests.data.faces import FIVE_POINTS, sample_of, textured_image, write_image

KEYS = {"nme", "auc10", "fr10", "count", "missed", "groups", "normalizer", "boxes"}
MMLAB = ["--schema", "MMLAB_5"]
ALL = [*MMLAB, "--split", "all"]


def test_the_figures_are_those_of_the_python_interface(bundle: Path, faces: str) -> None:
    outcome = lmedge("evaluate", bundle, "--data", faces, *ALL, "--json")
    assert (outcome.code, outcome.stderr) == (DONE, "")
    document = outcome.json
    assert set(document) >= KEYS
    with FaceLandmarker.open(bundle) as landmarker:
        expected, _ = evaluate(landmarker, read_csv(faces.removeprefix("csv:"), SCHEMA), split="all")
    assert document["nme"] == pytest.approx(expected.nme, rel=1e-9)
    assert (document["count"], document["missed"]) == (FACES, 0)
    assert document["boxes"] == "annotated (reference)"


def test_people_see_the_figure_and_where_it_is_from(bundle: Path, faces: str) -> None:
    outcome = lmedge("evaluate", bundle, "--data", faces, *ALL)
    for text in ("NME", "AUC at 0.10", "normaliser", "annotated (reference)", "onnxruntime fp32", f"{FACES} (0 missed"):
        assert text in outcome.stdout


def test_sources_are_joined(bundle: Path, faces: str) -> None:
    assert lmedge("evaluate", bundle, "--data", faces, "--data", faces, *ALL, "--json").json["count"] == 2 * FACES


def test_sheets_are_written(bundle: Path, faces: str, tmp_path: Path) -> None:
    outcome = lmedge("evaluate", bundle, "--data", faces, *ALL, "--json", "--show", tmp_path / "sheets")
    assert outcome.json["count"] == FACES
    assert outcome.stderr.count("wrote ") == 2
    for name in ("worst.png", "spread.png"):
        sheet = read_image(tmp_path / "sheets" / name).astype(int)
        blue, green, red = sheet[:, :, 0], sheet[:, :, 1], sheet[:, :, 2]
        assert ((red > 200) & (green < 100) & (blue < 100)).any(), "labels are red"
        assert ((green > 180) & (red < 120) & (blue < 120)).any(), "predictions are green"


def test_faces_that_the_bundle_was_trained_on_are_counted_and_warned_of(bundle: Path, faces: str, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    seen = [hashlib.sha256(key.encode()).hexdigest()[:16] for key in ("face_0", "face_2", "another")]
    change_manifest(own, provenance={"trained_photos": seen})
    outcome = lmedge("evaluate", own, "--data", faces, *ALL, "--json")
    assert outcome.json["trained_on"] == 2
    assert "trained on the photos of 2 of these 4 faces" in outcome.stderr


def test_an_empty_split_says_which_one_is_not(bundle: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png", textured_image(0))  # "a" is a training photo
    write_csv(tmp_path / "one.csv", [sample_of(image, np.array(FIVE_POINTS), SCHEMA)])
    source = f"csv:{tmp_path / 'one.csv'}"
    outcome = lmedge("evaluate", bundle, "--data", source, *MMLAB)
    outcome.assert_clear_error(ERROR, "None of the 1 faces is in the split 'validation'", "--split all")


def test_boxes_that_the_bundle_does_not_know_are_refused(bundle: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "boxed.png", textured_image(0))
    line = f"{image.name},10,10,80,80," + ",".join(f"{value}" for point in FIVE_POINTS for value in point)
    header = "image,x_min,y_min,x_max,y_max," + ",".join(f"x{index},y{index}" for index in range(5))
    (tmp_path / "boxed.csv").write_text(f"{header}\n{line}\n")
    arguments = ["evaluate", bundle, "--data", f"csv:{tmp_path / 'boxed.csv'}", *ALL]
    lmedge(*arguments).assert_clear_error(ERROR, "No fit is known for boxes of kind 'csv'")
    assert lmedge(*arguments, "--boxes", "landmarks", "--json").json["boxes"] == "landmarks (reference)"


def test_faces_of_another_schema_are_refused(bundle: Path) -> None:
    outcome = lmedge("evaluate", bundle, "--data", "synthetic:2", "--split", "all")
    outcome.assert_clear_error(ERROR, "MMLAB_5", "IBUG_68")


def test_the_bundle_is_looked_at_before_the_faces(tmp_path: Path) -> None:
    outcome = lmedge("evaluate", tmp_path, "--data", "300w:/nowhere")
    outcome.assert_clear_error(ERROR, f"{tmp_path} is no bundle")


@pytest.mark.data
def test_a_detector_finds_the_boxes(bundle: Path, data_folder: Path, tmp_path: Path) -> None:
    model = data_folder.parent / "models" / "face_detection_yunet.onnx"
    if not model.is_file():
        pytest.skip(f"no detector at {model}")
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    change_manifest(own, preprocess={**SPEC.to_json(), "box_fits": {"yunet": [0.5, 0.0, 0.05]}})
    photos = read_300w(data_folder / "300w")[5:8]
    to_five = mapping_matrix(IBUG_68, SCHEMA)
    blank = write_image(tmp_path / "blank.png", np.full((100, 100, 3), 127, np.uint8))
    samples = [sample_of(face.image, to_five @ face.points_px, SCHEMA) for face in photos]
    write_csv(tmp_path / "faces.csv", [*samples, sample_of(blank, np.array(FIVE_POINTS), SCHEMA)])
    outcome = lmedge("evaluate", own, "--data", f"csv:{tmp_path / 'faces.csv'}", *ALL, "--detector", model, "--json")
    assert outcome.json["boxes"] == "detector (yunet)"
    assert outcome.json["count"] == len(samples) + 1
    assert outcome.json["missed"] == 1
