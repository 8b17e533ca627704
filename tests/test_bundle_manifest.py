"""Manifests that are unsafe, too new, damaged or made up: each is refused, and none can lead out of the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmedge.bundle import FORMAT_VERSION, Bundle, Manifest, write_bundle
from lmedge.errors import BundleError, BundleFormatError
from tests.manifests import FILES, GOLDEN, manifest_of


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", manifest_of(tmp_path / "stages"), GOLDEN)


def edit_manifest(bundle: Bundle, **changes: Any) -> None:
    file = bundle.root / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class TestUnsafeManifests:
    @pytest.mark.parametrize(
        "path", ["../outside", "/etc/passwd", "a/../../outside", "..", ".", "", "a\\..\\b", "C:\\x", "a\0b"]
    )
    @pytest.mark.parametrize("where", ["artifact", "companion"])
    def test_a_path_that_leaves_the_bundle_is_refused(self, bundle: Bundle, path: str, where: str) -> None:
        entries = json.loads((bundle.root / "manifest.json").read_text())["artifacts"]
        if where == "artifact":
            entries[0]["path"] = path
        else:
            entries[0]["companions"] = {path: "0" * 64}
        edit_manifest(bundle, artifacts=entries)
        with pytest.raises(BundleFormatError):
            Bundle.open(bundle.root)

    @pytest.mark.parametrize("link", ["model.fp32.onnx", "openvino"], ids=["file", "folder"])
    def test_a_link_that_leaves_the_bundle_is_refused(self, bundle: Bundle, tmp_path: Path, link: str) -> None:
        target = tmp_path / "outside"
        shutil.move(bundle.root / link, target)
        (bundle.root / link).symlink_to(target)
        with pytest.raises(BundleFormatError, match=r"which leaves the bundle .* not safe to open"):
            Bundle.open(bundle.root)

    def test_a_link_to_the_bundle_itself_is_fine(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to(bundle.root)
        assert Bundle.open(tmp_path / "current").verify_digests() == len(FILES)

    def test_a_newer_format_asks_for_a_newer_lmedge(self, bundle: Bundle) -> None:
        edit_manifest(bundle, format_version=FORMAT_VERSION + 1)
        with pytest.raises(
            BundleFormatError, match=rf"format version {FORMAT_VERSION + 1}; .* up to {FORMAT_VERSION}\. Upgrade"
        ):
            Bundle.open(bundle.root)

    def test_a_newer_format_may_look_any_way(self, bundle: Bundle) -> None:
        (bundle.root / "manifest.json").write_text(json.dumps({"format_version": 99}))
        with pytest.raises(BundleFormatError, match="Upgrade: pip install -U lmedge"):
            Bundle.open(bundle.root)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "3", '"x"', "{}", '{"format_version": "1"}', '{"format_version": null}']
    )
    def test_what_is_no_manifest_is_refused(self, bundle: Bundle, text: str) -> None:
        (bundle.root / "manifest.json").write_text(text)
        with pytest.raises(BundleFormatError, match=r"manifest\.json"):
            Bundle.open(bundle.root)

    def test_bytes_that_are_no_text_are_refused(self, bundle: Bundle) -> None:
        (bundle.root / "manifest.json").write_bytes(b"\xff\xfe\x00{")
        with pytest.raises(BundleFormatError, match="cannot be read as JSON"):
            Bundle.open(bundle.root)

    @pytest.mark.parametrize(
        "key", ["name", "schema", "preprocess", "artifacts", "golden", "calibration", "evaluation", "parity", "provenance"]
    )
    def test_a_missing_field_is_named(self, bundle: Bundle, key: str) -> None:
        document = json.loads((bundle.root / "manifest.json").read_text())
        del document[key]
        (bundle.root / "manifest.json").write_text(json.dumps(document))
        with pytest.raises(BundleFormatError, match=key):
            Bundle.open(bundle.root)

    def test_a_folder_without_a_manifest_is_no_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"is no bundle: it has no manifest\.json\. Make one: lmedge build"):
            Bundle.open(tmp_path)

    def test_a_run_folder_is_answered_with_its_bundle(self, bundle: Bundle) -> None:
        with pytest.raises(BundleError, match=r"Did you mean .*/bundle"):
            Bundle.open(bundle.root.parent)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a JSON document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths_in(child, (*path, key))


AWKWARD = [float("inf"), float("nan"), 10**400, -1, "", "\0", "\ud800", "..", [], {}]
JSON_VALUES = st.sampled_from(AWKWARD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    written: dict[str, Any] = manifest_of(tmp_path_factory.mktemp("stages")).to_json()
    return written


@settings(max_examples=300)
@given(data=st.data())
def test_a_manifest_with_any_value_in_any_place_is_read_or_refused(document: dict[str, Any], data: st.DataObject) -> None:
    """Never another error: a device must be able to tell a bad bundle from a fault of its own."""
    changed = json.loads(json.dumps(document))
    path = data.draw(st.sampled_from([way for way in paths_in(document) if way and "point_names" not in way]))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = data.draw(JSON_VALUES)
    try:
        manifest = Manifest.from_json(changed, Path("/bundle"))
    except BundleFormatError:
        return
    assert isinstance(manifest, Manifest)
