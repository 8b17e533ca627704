"""The bundle: what is written is what is read, whatever was changed or lost is named, and the right file is found."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lmedge.bundle import Artifact, Bundle, TensorSpec, add_artifacts, file_digest, machine_arch, write_bundle
from lmedge.bundle import files as bundle_files
from lmedge.errors import BundleError, DigestMismatchError
from tests.manifests import FILES, GOLDEN, INPUTS, OUTPUTS, artifact_of, manifest_of


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", manifest_of(tmp_path / "stages"), GOLDEN)


class TestRoundTrip:
    def test_what_is_written_is_read(self, bundle: Bundle, tmp_path: Path) -> None:
        expected = replace(manifest_of(tmp_path / "again"), golden=hashlib.sha256(GOLDEN).hexdigest())
        assert Bundle.open(bundle.root).manifest == expected
        assert bundle.manifest == expected

    def test_the_folder_holds_what_the_manifest_names_and_nothing_else(self, bundle: Bundle) -> None:
        there = {file.relative_to(bundle.root).as_posix() for file in bundle.root.rglob("*") if file.is_file()}
        assert there == {*FILES, "manifest.json"}
        assert bundle.verify_digests() == len(FILES)
        assert bundle.golden_file().read_bytes() == GOLDEN

    def test_nothing_is_left_beside_it(self, bundle: Bundle, tmp_path: Path) -> None:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "stages"]

    def test_the_same_content_gives_the_same_bytes_in_another_folder(self, bundle: Bundle, tmp_path: Path) -> None:
        other = write_bundle(tmp_path / "elsewhere" / "b", manifest_of(tmp_path / "other"), GOLDEN)
        for name in [*FILES, "manifest.json"]:
            assert (other.root / name).read_bytes() == (bundle.root / name).read_bytes()

    def test_a_bundle_can_be_moved(self, bundle: Bundle, tmp_path: Path) -> None:
        moved = Bundle.open(shutil.move(bundle.root, tmp_path / "moved"))
        assert moved.verify_digests() == len(FILES)
        assert moved.select("onnxruntime").file == tmp_path / "moved" / "model.fp32.onnx"

    def test_a_bundle_without_golden_vectors_says_so(self, tmp_path: Path) -> None:
        plain = write_bundle(tmp_path / "plain", manifest_of(tmp_path / "stages"))
        assert plain.verify_digests() == len(FILES) - 1
        with pytest.raises(BundleError, match="has no golden vectors"):
            plain.golden_file()

    def test_artifacts_are_added_and_replaced_by_path(self, bundle: Bundle) -> None:
        engine = artifact_of(bundle.root, "tensorrt/a.engine", b"engine", format="tensorrt", serves={"tensorrt": ("any",)})
        again = artifact_of(bundle.root, "model.fp32.onnx", b"other fp32")
        grown = add_artifacts(bundle, [engine, again])
        assert [a.path for a in grown.manifest.artifacts] == [*FILES[1:4], "tensorrt/a.engine", "model.fp32.onnx"]
        assert grown.verify_digests() == len(FILES) + 1
        assert grown.manifest.provenance == bundle.manifest.provenance


class TestChangedBytes:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("place", [0, 1, -1])
    def test_one_flipped_bit_is_named(self, bundle: Bundle, name: str, place: int) -> None:
        content = bytearray((bundle.root / name).read_bytes())
        content[place] ^= 1
        (bundle.root / name).write_bytes(content)
        with pytest.raises(DigestMismatchError, match=rf"^{name} was changed: its sha256 is .*, the manifest promises"):
            Bundle.open(bundle.root).verify_digests()

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, bundle: Bundle, name: str) -> None:
        (bundle.root / name).unlink()
        with pytest.raises(DigestMismatchError, match=rf"{name} cannot be read \(No such file"):
            Bundle.open(bundle.root).verify_digests()

    def test_changed_golden_vectors_are_not_handed_out(self, bundle: Bundle) -> None:
        (bundle.root / "golden.npz").write_bytes(b"other vectors")
        with pytest.raises(DigestMismatchError):
            bundle.golden_file()

    def test_a_changed_source_file_is_not_packed(self, tmp_path: Path) -> None:
        manifest = manifest_of(tmp_path / "stages")
        (tmp_path / "stages/quantize/model.int8.onnx").write_bytes(b"stale")
        with pytest.raises(DigestMismatchError, match=r"model\.int8\.onnx was changed"):
            write_bundle(tmp_path / "bundle", manifest)
        assert [path.name for path in tmp_path.iterdir()] == ["stages"]

    def test_large_files_are_hashed_in_whole(self, tmp_path: Path) -> None:
        content = bytes(range(256)) * 10_000
        (tmp_path / "large").write_bytes(content)
        assert file_digest(tmp_path / "large") == hashlib.sha256(content).hexdigest()
        with (tmp_path / "large").open("rb") as stream:  # the way of Python 3.10
            assert bundle_files._digest_310(stream) == hashlib.sha256(content).hexdigest()


class TestSelect:
    @pytest.mark.parametrize(
        ("backend", "precision", "arch", "path"),
        [
            ("onnxruntime", "fp32", "x86_64", "model.fp32.onnx"),
            ("onnxruntime", "int8", "x86_64", "model.int8-x86.onnx"),
            ("onnxruntime", "int8", "aarch64", "model.int8.onnx"),
            ("openvino", "fp32", "x86_64", "openvino/model.fp32.xml"),
            ("openvino", "int8", "aarch64", "model.int8.onnx"),
        ],
    )
    def test_the_manifest_says_which_file_serves(
        self, bundle: Bundle, backend: str, precision: str, arch: str, path: str
    ) -> None:
        assert bundle.select(backend, precision, arch=arch).path == path

    def test_the_default_is_fp32_on_this_machine(self, bundle: Bundle) -> None:
        assert bundle.select("onnxruntime").path == "model.fp32.onnx"
        assert bundle.select("onnxruntime", "int8") == bundle.select("onnxruntime", "int8", arch=machine_arch())

    @pytest.mark.parametrize(("dialect", "path"), [("", "model.int8.onnx"), ("x86", "model.int8-x86.onnx")])
    @pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
    def test_a_dialect_overrides_the_choice(self, bundle: Bundle, dialect: str, path: str, arch: str) -> None:
        assert bundle.select("onnxruntime", "int8", dialect=dialect, arch=arch).path == path

    @pytest.mark.parametrize(
        ("backend", "precision", "dialect", "wanted"),
        [
            ("onnxruntime", "fp16", None, "no fp16 for onnxruntime on x86_64"),
            ("tensorrt", "fp32", None, "no fp32 for tensorrt on x86_64"),
            ("openvino", "int8", None, "no int8 for openvino on x86_64"),
            ("openvino", "int8", "x86", r"no int8 \(x86\) for openvino on x86_64"),
        ],
    )
    def test_what_is_not_there_is_answered_with_what_is(
        self, bundle: Bundle, backend: str, precision: str, dialect: str | None, wanted: str
    ) -> None:
        there = r"it has onnxruntime fp32, onnxruntime int8, onnxruntime int8 \(x86\), openvino fp32, openvino int8"
        with pytest.raises(BundleError, match=f"{wanted}; {there}"):
            bundle.select(backend, precision, dialect=dialect, arch="x86_64")

    def test_an_empty_bundle_has_nothing(self, tmp_path: Path) -> None:
        empty = write_bundle(tmp_path / "empty", replace(manifest_of(tmp_path / "stages"), artifacts=()))
        with pytest.raises(BundleError, match="it has nothing"):
            empty.select("onnxruntime")

    @pytest.mark.parametrize(
        ("machine", "arch"), [("AMD64", "x86_64"), ("arm64", "aarch64"), ("x86_64", "x86_64"), ("riscv64", "riscv64")]
    )
    def test_architectures_have_one_name(self, machine: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: machine)
        assert machine_arch() == arch


class TestTensorSpecs:
    @pytest.mark.parametrize(
        ("shape", "fits"),
        [
            ((1, 112, 112, 3), True),
            ((7, 112, 112, 3), True),
            ((1, 3, 112, 112), False),
            ((1, 112, 112), False),
            ((1, 112, 112, 4), False),
        ],
    )
    def test_a_named_dimension_takes_any_size(self, shape: tuple[int, ...], fits: bool) -> None:
        assert INPUTS[0].fits(shape) is fits

    def test_every_network_has_the_same_tensors(self) -> None:
        assert (TensorSpec("image", "uint8", ("batch", 112, 112, 3)),) == INPUTS
        assert (TensorSpec("landmarks", "float32", ("batch", 68, 2)),) == OUTPUTS
        assert INPUTS[0].shape_text == "(batch, 112, 112, 3)"
        assert TensorSpec.from_json(json.loads(json.dumps(INPUTS[0].to_json()))) == INPUTS[0]

    @pytest.mark.parametrize(
        ("precision", "dialect", "label"), [("int8", "x86", "int8 (x86)"), ("int8", "", "int8"), ("fp32", "", "fp32")]
    )
    def test_artifacts_are_labelled_by_precision_and_dialect(self, precision: str, dialect: str, label: str) -> None:
        assert Artifact("a", "onnx", precision, "", INPUTS, OUTPUTS, dialect=dialect).label == label
