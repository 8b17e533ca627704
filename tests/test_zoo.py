"""The trained bundles that come with lmedge: found by name, small enough, verified, and honest about where they come from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lmedge import FaceLandmarker
from lmedge.bundle import ADDED_BOX_FITS, Bundle, zoo, zoo_bundles
from lmedge.errors import BundleError
from lmedge.runtimes.detector import YUNET
from tests.bundles import tiny_bundle
from tests.requirements import require

MEGABYTE = 1e6
BUNDLES = zoo_bundles()


@pytest.fixture
def drawn_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of two tiny bundles."""
    require("onnxruntime", "openvino", "onnx")
    made, folder = tiny_bundle(tmp_path / "made").root, tmp_path / "zoo"
    for name in ("ibug68-small", "wflw98-small"):
        shutil.copytree(made, folder / name)
    monkeypatch.setattr(zoo, "zoo_folder", lambda: folder)
    return folder


# By name


def test_the_start_of_a_name_is_enough(drawn_zoo: Path) -> None:
    assert Bundle.open("zoo:wflw98").root == drawn_zoo / "wflw98-small"
    assert Bundle.open("zoo:ibug68-small").root == drawn_zoo / "ibug68-small"


def test_a_whole_name_is_not_the_start_of_another(drawn_zoo: Path) -> None:
    (drawn_zoo / "wflw98-small").rename(drawn_zoo / "ibug68+fast-small")
    assert sorted(folder.name for folder in drawn_zoo.iterdir())[0] == "ibug68+fast-small"
    assert Bundle.open("zoo:ibug68").root == drawn_zoo / "ibug68-small"
    assert Bundle.open("zoo:ibug68+").root == drawn_zoo / "ibug68+fast-small"


@pytest.mark.parametrize("name", ["zoo:cofw29", "zoo:", "zoo:bug68"])
def test_an_unknown_name_lists_what_there_is(drawn_zoo: Path, name: str) -> None:
    with pytest.raises(
        BundleError, match=f"{name}: no trained bundle is called so; there is zoo:ibug68-small, zoo:wflw98-small"
    ):
        Bundle.open(name)


def test_an_empty_zoo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "zoo_folder", lambda: tmp_path)
    with pytest.raises(BundleError, match="this installation has no trained bundles"):
        Bundle.open("zoo:ibug68")


def test_a_path_is_no_name(drawn_zoo: Path) -> None:
    assert zoo.resolve_bundle(drawn_zoo / "ibug68-small") == drawn_zoo / "ibug68-small"


# What is in the zoo


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_trained_bundle_is_small(folder: Path) -> None:
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 10 * MEGABYTE
    assert max(size for path, size in sizes.items() if "int8" in path.name) <= 2 * MEGABYTE


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_trained_bundle_says_where_it_comes_from(folder: Path) -> None:
    provenance = Bundle.open(folder).manifest.provenance
    research = [source for source in provenance["sources"] if "research" in source["terms"]]
    assert bool(research) != folder.name.startswith("synthetic")
    assert provenance["faces"]["training"] > 100
    assert provenance["options"]["train"]["epochs"] > 0


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_trained_bundle_knows_the_boxes_of_the_detector(folder: Path) -> None:
    """A fit that training did not make says from what it was made."""
    manifest = Bundle.open(folder).manifest
    assert YUNET in manifest.preprocess.box_fits
    made = manifest.provenance.get(ADDED_BOX_FITS, {}).get(YUNET)
    assert (made is None) == folder.name.startswith("ibug68")
    if made is not None:
        assert made["faces"] >= made["found"] >= 0.9 * made["faces"] > 500
        assert made["sources"] == [manifest.provenance["sources"][0]["kind"]]
        assert len(made["detector_sha256"]) == 64


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_trained_bundle_answers_its_golden_vectors(folder: Path, precision: str) -> None:
    require("onnxruntime")
    from lmedge.runtimes.parity import self_test

    bundle = Bundle.open(folder)
    bundle.verify_digests()
    assert self_test(bundle, "onnxruntime", precision).passed


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_trained_bundle_finds_a_rendered_face(folder: Path) -> None:
    require("onnxruntime")
    from lmedge.data.synthetic import render_faces

    with FaceLandmarker.open(folder, precision="fp32") as landmarker:
        faces = list(render_faces(8, landmarker.schema, seed=77))
        errors = []
        for face in faces:
            found = landmarker.predict(face.read_image(), [face.box()])[0]
            errors.append(np.linalg.norm(found.points_px - face.points_px, axis=1).mean() / face.box().width)
    # Rendered faces are not those that most of these networks know: a tenth of the face's width tells a face from none.
    assert np.median(errors) < 0.1
