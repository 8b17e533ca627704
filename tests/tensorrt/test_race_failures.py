"""A race that fails: a precision without an engine is told and the others are kept; all else leaves every byte as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.bundle import Bundle, add_artifacts, file_digest  # noqa: E402
from lmedge.bundle import install as install_module  # noqa: E402
from lmedge.errors import DeviceUnavailableError, ExportError, LmedgeError  # noqa: E402
from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.four_precisions import digests  # noqa: E402
from tests.tensorrt.raced_bundle import compiled, engines_in, raced  # noqa: E402

pytestmark = pytest.mark.usefixtures("clock")


def bad_onnx(bundle: Bundle) -> None:
    """The int8 file gets a node that TensorRT has no importer for; the manifest knows the new bytes."""
    path = bundle.root / "model.int8.onnx"
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Unique", ["landmarks"], ["values"], name="bad_node"))
    onnx.save(model, path)
    artifacts = [
        replace(a, sha256=file_digest(path)) if a.path == path.name else a for a in Bundle.open(bundle.root).manifest.artifacts
    ]
    add_artifacts(Bundle(bundle.root, replace(bundle.manifest, artifacts=())), artifacts)


def test_a_file_that_tensorrt_does_not_take_is_told_and_the_others_are_kept(
    bundle: Bundle, fake_gpu: FakeGpu, tensorrt_version: str
) -> None:
    bad_onnx(bundle)
    outcome = compiled(bundle)
    assert not outcome.passed
    (failed,) = outcome.failed
    assert failed.precision == "int8"
    assert "does not take model.int8.onnx" in failed.reason
    assert "bad_node" in failed.reason
    assert list(engines_in(bundle)) == [precision for precision in raced(tensorrt_version) if precision != "int8"]
    assert outcome.to_json()["failed"] == [{"precision": "int8", "reason": failed.reason}]
    Bundle.open(bundle.root).verify_digests()


CALLS_PER_OPENING = {
    "not built": ("Builder.build_serialized_network", "builds no engine for model.fp32.onnx"),
    "not opened": ("Runtime.deserialize_cuda_engine", "does not open the engine that it built for model.fp32.onnx"),
}


@pytest.mark.parametrize("name", CALLS_PER_OPENING)
def test_a_precision_that_cannot_be_built_leaves_the_others(name: str, bundle: Bundle, fake_gpu: FakeGpu) -> None:
    call, what = CALLS_PER_OPENING[name]
    fake_gpu.fail(call, message="no kernel")
    outcome = compiled(bundle, ["fp32", "fp16"])
    assert [(failed.precision, what in failed.reason, "no kernel" in failed.reason) for failed in outcome.failed] == [
        ("fp32", True, True)
    ]
    assert list(engines_in(bundle)) == ["fp16"]
    assert not list(bundle.root.rglob("*fp32.sm*"))


def test_an_engine_that_does_not_open_again_to_be_checked_is_not_kept(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("Runtime.deserialize_cuda_engine", message="Magic tag does not match", skip=2)
    outcome = compiled(bundle, ["fp32", "fp16"])
    (failed,) = outcome.failed
    assert failed.precision == "fp32"
    assert "Magic tag does not match" in failed.reason
    assert list(engines_in(bundle)) == ["fp16"]


def test_an_engine_of_an_earlier_compile_stays_where_its_precision_fails(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32", "fp16"])
    before = (bundle.root / engines_in(bundle)["fp32"]).read_bytes()
    fake_gpu.fail("OnnxParser.parse", message="no importer")
    assert [failed.precision for failed in compiled(bundle, ["fp32", "fp16"], retime=True).failed] == ["fp32"]
    assert (bundle.root / engines_in(bundle)["fp32"]).read_bytes() == before
    Bundle.open(bundle.root).verify_digests()


def full_disk(bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = iter([None, None])

    def copy(source: Path, target: Path) -> None:
        if next(copies, "full") == "full":
            raise OSError(28, "No space left on device")
        shutil.copyfile(source, target)

    monkeypatch.setattr(
        install_module, "_copy", lambda source, target: (target.parent.mkdir(parents=True, exist_ok=True), copy(source, target))
    )


def no_manifest(bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LmedgeError("Cannot write manifest.json: No space left on device.")

    monkeypatch.setattr(install_module, "add_artifacts", fail)


def interrupted(bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    swap, swaps = install_module._swap, iter(range(3))

    def stop(*places: Path) -> None:
        if next(swaps, None) is None:
            raise KeyboardInterrupt
        swap(*places)

    monkeypatch.setattr(install_module, "_swap", stop)


FAILURES: dict[str, tuple[Callable[[Bundle, FakeGpu, pytest.MonkeyPatch], None], type[BaseException], str]] = {
    "no engine for any": (
        lambda b, g, m: g.fail("Builder.build_serialized_network", message="no kernel", times=None),
        ExportError,
        "no engine for model.fp32.onnx. It said: .*no kernel(.|\n)*no engine for model.int8.onnx. It said: .*no kernel",
    ),
    "no engine that opens": (
        lambda b, g, m: g.fail("Runtime.deserialize_cuda_engine", message="Magic tag does not match", times=None),
        ExportError,
        "model.fp32(.|\n)*Magic tag does not match(.|\n)*model.int8(.|\n)*Magic tag does not match",
    ),
    "a lost device": (lambda b, g, m: g.fail("device", code=719, times=None), DeviceUnavailableError, "719"),
    "a changed file": (
        lambda b, g, m: (b.root / "model.fp16.onnx").write_bytes(b"other") and None,
        LmedgeError,
        "model.fp16.onnx was changed",
    ),
    "changed golden vectors": (lambda b, g, m: (b.root / "golden.npz").write_bytes(b"") and None, LmedgeError, "golden.npz"),
    "a full disk": (full_disk, LmedgeError, "Cannot write into the bundle .*: No space left on device. It is as it was"),
    "a manifest that cannot be written": (no_manifest, LmedgeError, "manifest.json"),
    "an interrupt between two files": (interrupted, KeyboardInterrupt, "^$"),
}


@pytest.mark.parametrize("compiled_before", [False, True], ids=["new", "compiled before"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_every_byte_as_it_was(
    failure: str, compiled_before: bool, bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled_before:
        compiled(bundle, ["fp32", "fp16", "int8"])
    prepare, kind, message = FAILURES[failure]
    prepare(Bundle.open(bundle.root), fake_gpu, monkeypatch)
    before = digests(bundle.root)
    folders = {path for path in bundle.root.rglob("*") if path.is_dir()}
    with pytest.raises(kind, match=message):
        compiled(bundle)
    assert digests(bundle.root) == before
    assert {path for path in bundle.root.rglob("*") if path.is_dir()} == folders


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_compiled(
    bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without the right is played: tests may run as one who has every right."""
    system_open = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).startswith(str(bundle.root)) and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return system_open(path, flags, *rest, **more)

    before = digests(bundle.root)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LmedgeError, match=r"Cannot write into .*: Permission denied. The bundle is as it was"):
        compiled(bundle)
    monkeypatch.undo()
    assert digests(bundle.root) == before
    assert fake_gpu.count("Builder.build_serialized_network") == 0
