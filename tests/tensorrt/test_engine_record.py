"""The record of an engine: read with distrust, and compared with the manifest, the ONNX file and the machine."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.bundle import Artifact, TensorSpec
from lmedge.errors import BundleFormatError, EngineMismatchError
from lmedge.runtimes.engine_record import BatchProfile, EngineRecord, check_machine, check_record, record_path
from lmedge.runtimes.tensorrt_machine import EngineMachine

ORIN = EngineMachine("10.3.0", "12.6", "12.6", "Orin", "8.7", "linux", "aarch64")
ONNX = b"a network"
IMAGE = TensorSpec("image", "uint8", ("batch", 32, 32, 3))
LANDMARKS = TensorSpec("landmarks", "float32", ("batch", 5, 2))
RECORD = EngineRecord(
    onnx="model.int8.onnx",
    onnx_sha256=hashlib.sha256(ONNX).hexdigest(),
    precision="int8",
    machine=ORIN,
    profile=BatchProfile(1, 8, 32),
    inputs=(IMAGE,),
    outputs=(LANDMARKS,),
    options={"workspace_mib": 256, "tf32": False},
    timing_cache_sha256="c" * 64,
    layers={"int8": 20, "fp32": 3},
)


def changed(**fields: Any) -> EngineRecord:
    return dataclasses.replace(RECORD, **fields)


def here(**fields: str) -> EngineMachine:
    return dataclasses.replace(ORIN, **fields)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine.json"
    RECORD.write(path)
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """The engine in a bundle, beside the ONNX file it was built from."""
    (tmp_path / "model.int8.onnx").write_bytes(ONNX)
    return Artifact(
        "tensorrt/model.engine", "tensorrt", "int8", "e" * 64, (IMAGE,), (LANDMARKS,), RECORD.onnx_sha256, root=tmp_path
    )


def test_what_was_written_is_read(file: Path) -> None:
    assert EngineRecord.read(file) == RECORD


def test_the_same_record_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    changed(options=dict(reversed(RECORD.options.items()))).write(again)
    assert again.read_bytes() == file.read_bytes()


def test_a_record_lies_beside_its_engine() -> None:
    assert record_path("tensorrt/model.fp16.sm87-trt10.3.engine") == "tensorrt/model.fp16.sm87-trt10.3.engine.json"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("onnx", "../outside.onnx"),
        ("onnx", "/etc/passwd"),
        ("onnx", "a\\b"),
        ("onnx", ""),
        ("onnx", 7),
        ("onnx_sha256", "short"),
        ("onnx_sha256", None),
        ("precision", "int4"),
        ("precision", ["int8"]),
        ("machine", {"tensorrt": "10.3.0"}),
        ("machine", None),
        ("profile", {"least": 4, "usual": 1, "most": 1}),
        ("profile", {"least": 0, "usual": 1, "most": 1}),
        ("profile", {"least": 1.0, "usual": 1, "most": 1}),
        ("profile", [1, 1, 1]),
        ("inputs", [{"name": "image"}]),
        ("outputs", 3),
        ("version_compatible", "yes"),
        ("hardware_compatible", 1),
        ("options", {"tf32": None}),
        ("options", []),
        ("timing_cache_sha256", "x"),
        ("layers", {"int8": -1}),
        ("layers", {"int8": True}),
        ("record_version", 2),
        ("record_version", "1"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused(file: Path, field: str, value: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(BundleFormatError, match="lmedge compile BUNDLE --target tensorrt"):
        EngineRecord.read(file)


@pytest.mark.parametrize("field", sorted(RECORD.to_json()))
def test_a_missing_field_is_refused(file: Path, field: str) -> None:
    document = json.loads(file.read_text())
    del document[field]
    file.write_text(json.dumps(document))
    with pytest.raises(BundleFormatError, match=field if field != "record_version" else "None"):
        EngineRecord.read(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"null", b"{", b'{"record_version": 1}', b"[" * 100_000, b" " * ((1 << 20) + 1)],
    ids=["empty", "no text", "a list", "null", "half", "nothing in it", "deep", "large"],
)
def test_a_file_that_is_no_record_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(BundleFormatError, match=r"model\.engine\.json"):
        EngineRecord.read(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleFormatError, match=r"gone\.json cannot be read"):
        EngineRecord.read(tmp_path / "gone.json")


PLAIN = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "int8", "least", "image"])


@given(
    st.sampled_from(["machine", "profile", "inputs", "options", "layers", "onnx"]),
    st.recursive(
        PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(PLAIN.map(str), inner, max_size=2), max_leaves=4
    ),
)
def test_no_value_ends_in_another_error(tmp_path_factory: pytest.TempPathFactory, field: str, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps({**RECORD.to_json(), field: value}))
    with contextlib.suppress(BundleFormatError):
        EngineRecord.read(file)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 4), (1, 5, 4), (-1, -1, -1)])
def test_a_profile_rises_from_one_on(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        BatchProfile(*sizes)


def test_a_profile_takes_what_lies_within() -> None:
    profile = BatchProfile(2, 4, 8)
    assert [batch for batch in range(12) if profile.takes(batch)] == [2, 3, 4, 5, 6, 7, 8]
    assert str(profile) == "2:4:8"


def test_the_record_of_the_same_engine_is_accepted(artifact: Artifact) -> None:
    check_record(RECORD, artifact)


def test_a_bundle_without_its_onnx_file_still_names_it(artifact: Artifact) -> None:
    (artifact.root / RECORD.onnx).unlink()
    check_record(RECORD, artifact)


def test_an_engine_from_another_onnx_file_is_stale(artifact: Artifact) -> None:
    with pytest.raises(EngineMismatchError, match=r"stale.*model\.int8\.onnx.*lmedge compile .* --target tensorrt"):
        check_record(changed(onnx_sha256="0" * 64), artifact)


def test_an_engine_whose_onnx_file_was_replaced_is_stale(artifact: Artifact) -> None:
    (artifact.root / RECORD.onnx).write_bytes(b"trained again")
    with pytest.raises(EngineMismatchError, match="stale"):
        check_record(RECORD, artifact)


def test_an_engine_that_the_manifest_says_was_made_from_another_file_is_stale(artifact: Artifact) -> None:
    with pytest.raises(EngineMismatchError, match="stale"):
        check_record(RECORD, dataclasses.replace(artifact, made_from="0" * 64))


@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "fp16"},
        {"inputs": (LANDMARKS,)},
        {"outputs": ()},
        {"outputs": (TensorSpec("landmarks", "float16", (1,)),)},
    ],
    ids=["precision", "inputs", "outputs", "types"],
)
def test_the_record_of_another_engine_is_refused(artifact: Artifact, fields: dict[str, Any]) -> None:
    with pytest.raises(BundleFormatError, match="record of another engine"):
        check_record(changed(**fields), artifact)


def test_the_machine_it_was_built_on_is_accepted() -> None:
    check_machine(RECORD, ORIN, Path("bundle"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tensorrt": "10.7.0"}, "TensorRT: built on 10.3.0, here 10.7.0"),
        ({"tensorrt": "10.3.0.1"}, "TensorRT: built on 10.3.0, here 10.3.0.1"),
        ({"gpu": "Orin Nano"}, "GPU: built on Orin, here Orin Nano"),
        ({"compute_capability": "9.0"}, "compute capability: built on 8.7, here 9.0"),
        ({"driver": "12.2"}, "CUDA of the driver: built on 12.6, here 12.2"),
        ({"os": "windows"}, "system: built on linux, here windows"),
        ({"arch": "x86_64"}, "architecture: built on aarch64, here x86_64"),
    ],
)
def test_a_difference_is_named_with_the_command_that_rebuilds(fields: dict[str, str], told: str) -> None:
    with pytest.raises(EngineMismatchError) as caught:
        check_machine(RECORD, here(**fields), Path("my bundle"))
    assert told in str(caught.value)
    assert str(caught.value).endswith("lmedge compile 'my bundle' --target tensorrt")


def test_every_difference_is_listed() -> None:
    with pytest.raises(EngineMismatchError) as caught:
        check_machine(RECORD, EngineMachine("11.4.0", "13.0", "13.0", "Thor", "11.0", "linux", "aarch64"), Path("bundle"))
    assert [word in str(caught.value) for word in ("TensorRT:", "GPU:", "capability:", "driver:", "system:")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("fields", [{"driver": "12.10"}, {"driver": "13.0"}, {"cuda": "12.9"}])
def test_a_newer_driver_and_another_cuda_runtime_are_accepted(fields: dict[str, str]) -> None:
    check_machine(RECORD, here(**fields), Path("bundle"))


@pytest.mark.parametrize(
    ("built", "found", "fits"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.13.3.9", True),
        ("10.3.0", "11.4.0", True),
        ("8.6.0", "10.3.0", True),
        ("8.6.0", "11.4.0", False),
        ("10.13.3.9", "10.3.0", False),
        ("11.4.0", "10.16.1", False),
        ("10.3.0", "12.0.0", False),
        ("10.3.0", "", False),
    ],
)
def test_a_version_compatible_engine_runs_on_later_versions(built: str, found: str, fits: bool) -> None:
    record = changed(version_compatible=True, machine=here(tensorrt=built))
    if fits:
        check_machine(record, here(tensorrt=found), Path("bundle"))
    else:
        with pytest.raises(EngineMismatchError, match="TensorRT"):
            check_machine(record, here(tensorrt=found), Path("bundle"))


@pytest.mark.parametrize(("capability", "fits"), [("8.0", True), ("8.9", True), ("12.0", True), ("7.5", False)])
def test_a_hardware_compatible_engine_runs_from_ampere_on(capability: str, fits: bool) -> None:
    record, machine = changed(hardware_compatible=True), here(gpu="another", compute_capability=capability)
    if fits:
        check_machine(record, machine, Path("bundle"))
    else:
        with pytest.raises(EngineMismatchError, match="compute capability"):
            check_machine(record, machine, Path("bundle"))


def test_each_kind_of_compatibility_covers_only_itself() -> None:
    with pytest.raises(EngineMismatchError, match="GPU"):
        check_machine(changed(version_compatible=True), here(gpu="another"), Path("bundle"))
    with pytest.raises(EngineMismatchError, match="TensorRT"):
        check_machine(changed(hardware_compatible=True), here(tensorrt="10.7.0"), Path("bundle"))
