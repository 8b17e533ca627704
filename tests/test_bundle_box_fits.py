"""A fit for a further kind of box, added to a bundle after its training: it works, it is told, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmedge.bundle import ADDED_BOX_FITS, Bundle, add_box_fit, write_bundle
from lmedge.errors import BundleError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import BoxFit, reference_box
from tests.manifests import GOLDEN, SPEC, manifest_of

FIT = BoxFit(0.5, 0.0, 0.1)
MADE = {"faces": 120, "found": 119}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", manifest_of(tmp_path / "stages"), GOLDEN)


def document(bundle: Bundle) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((bundle.root / "manifest.json").read_text(encoding="utf-8"))
    return loaded


def test_boxes_of_the_added_kind_are_understood(bundle: Bundle) -> None:
    spec = add_box_fit(bundle, "mtcnn", FIT, MADE).manifest.preprocess
    box = reference_box(FaceBox(0, 0, 100, 100, kind="mtcnn"), spec)
    assert box.xyxy == pytest.approx((25, 35, 75, 85))
    assert spec.box_fits["yunet"] == SPEC.box_fits["yunet"]


def test_everything_else_stays_and_the_digests_hold(bundle: Bundle) -> None:
    before = document(bundle)
    changed = add_box_fit(bundle, "mtcnn", FIT, MADE)
    after = document(changed)
    assert changed.verify_digests() == bundle.verify_digests()
    for name in before.keys() - {"preprocess", "provenance"}:
        assert after[name] == before[name]
    assert after["provenance"] == {**bundle.manifest.provenance, ADDED_BOX_FITS: {"mtcnn": MADE}}


def test_an_added_fit_can_be_made_anew(bundle: Bundle) -> None:
    first = add_box_fit(bundle, "mtcnn", BoxFit(0.9), {"faces": 100})
    second = add_box_fit(first, "mtcnn", FIT, MADE)
    assert second.manifest.preprocess.box_fits["mtcnn"] == FIT
    assert second.manifest.provenance[ADDED_BOX_FITS] == {"mtcnn": MADE}


@pytest.mark.parametrize("kind", ["yunet", "reference"])
def test_what_training_made_is_not_replaced(bundle: Bundle, kind: str) -> None:
    before = document(bundle)
    with pytest.raises(BundleError, match=f"'{kind}' from its training"):
        add_box_fit(bundle, kind, FIT, MADE)
    assert document(bundle) == before
