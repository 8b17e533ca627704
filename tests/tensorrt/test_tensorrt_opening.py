"""What is refused when an engine is opened, in which order, and that nothing stays behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmedge.bundle import Artifact, TensorSpec
from lmedge.errors import (
    BackendUnavailableError,
    BundleFormatError,
    DeviceUnavailableError,
    EngineMismatchError,
    InputError,
    LmedgeError,
)
from lmedge.runtimes.engine_record import BatchProfile
from lmedge.runtimes.tensorrt import TensorRtRuntime
from tests.bundles import random_crops, tiny_answer, tiny_onnx
from tests.tensorrt.engines import PROFILE, tiny_engine, with_plan, with_record
from tests.tensorrt.fake_gpu import Device, FakeGpu
from tests.tensorrt.fake_plan import rewritten

REBUILD = r"lmedge compile .* --target tensorrt"


@pytest.fixture
def engine(fake_gpu: FakeGpu, tmp_path: Path) -> Artifact:
    made = tiny_engine(tmp_path)
    fake_gpu.calls.clear()
    return made


def touched(gpu: FakeGpu) -> list[str]:
    """The calls that need a CUDA context, and those into TensorRT."""
    return [name for name in gpu.names() if name[:1].isupper() or name in ("cudaMalloc", "cudaStreamCreateWithFlags")]


# ---- status ----


def test_status_names_the_version_and_the_devices(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("H100", "9.0"))
    status = TensorRtRuntime.status()
    assert status.installed
    assert status.version is not None
    assert status.devices == ("cuda", "cuda:1")
    assert status.default_device == "cuda"
    assert "cuda is Orin, cuda:1 is H100" in status.reason
    assert touched(fake_gpu) == [], "asking must not start anything"


def test_status_without_a_gpu_gives_the_reason(no_gpu: FakeGpu) -> None:
    status = TensorRtRuntime.status()
    assert (status.installed, status.version, status.devices) == (False, None, ())
    assert status.reason.startswith("driver: no NVIDIA driver")
    assert "pip install 'lmedge[tensorrt]'" in status.extra


def test_opening_without_a_gpu_is_unavailable(no_gpu: FakeGpu, tmp_path: Path) -> None:
    inputs = (TensorSpec("image", "uint8", ("batch", 32, 32, 3)),)
    artifact = Artifact("model.engine", "tensorrt", "fp32", "0" * 64, inputs, (), root=tmp_path)
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        TensorRtRuntime.open(artifact)
    assert touched(no_gpu) == []


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "cuda:0", "gpu"])
def test_a_device_it_does_not_have_is_refused_with_the_reason(engine: Artifact, device: str) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"has no device.*it has cuda\. Engines run on GPUs"):
        TensorRtRuntime.open(engine, device=device)


# ---- what is compared before TensorRT is touched ----


def machine(field: str, value: str) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["machine"].update({field: value})


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (machine("tensorrt", "10.9.0"), EngineMismatchError, "TensorRT: built on 10.9.0, here"),
        (machine("gpu", "Orin Nano"), EngineMismatchError, "GPU: built on Orin Nano, here Orin"),
        (machine("compute_capability", "9.0"), EngineMismatchError, "built on 9.0, here 8.7"),
        (machine("driver", "14.0"), EngineMismatchError, "CUDA of the driver: built on 14.0"),
        (machine("arch", "riscv"), EngineMismatchError, "architecture: built on riscv"),
        (lambda record: record.update(onnx_sha256="0" * 64), EngineMismatchError, "is stale"),
        (lambda record: record.update(precision="int8"), BundleFormatError, "record of another engine"),
        (lambda record: record.pop("profile"), BundleFormatError, "malformed at 'profile'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_before_tensorrt_is_touched(
    engine: Artifact, fake_gpu: FakeGpu, change: Callable[[dict[str, Any]], Any], error: type[LmedgeError], told: str
) -> None:
    changed = with_record(engine, change)
    with pytest.raises(error, match=REBUILD) as caught:
        TensorRtRuntime.open(changed)
    assert told in str(caught.value)
    assert touched(fake_gpu) == []


def test_an_engine_for_the_other_gpu_of_this_machine_is_refused(engine: Artifact, fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("H100", "9.0"))
    with pytest.raises(EngineMismatchError, match="GPU: built on Orin, here H100"):
        TensorRtRuntime.open(engine, device="cuda:1")


def test_an_engine_whose_onnx_file_was_exported_again_is_stale(engine: Artifact, fake_gpu: FakeGpu) -> None:
    tiny_onnx(engine.root, seed=1)
    with pytest.raises(EngineMismatchError, match=rf"is stale.*{REBUILD}"):
        TensorRtRuntime.open(engine)
    assert touched(fake_gpu) == []


def test_an_engine_without_a_record_is_refused(engine: Artifact, fake_gpu: FakeGpu) -> None:
    bare = dataclasses.replace(engine, companions=())
    with pytest.raises(BundleFormatError, match=rf"no record of.*{REBUILD}"):
        TensorRtRuntime.open(bare)
    assert touched(fake_gpu) == []


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_changed_byte_is_noticed_first(engine: Artifact, fake_gpu: FakeGpu, suffix: str) -> None:
    file = Path(f"{engine.file}{suffix}")
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LmedgeError, match="was changed"):
        TensorRtRuntime.open(engine)
    assert touched(fake_gpu) == []


@pytest.mark.parametrize("batch", [PROFILE.most + 1, 100])
def test_a_batch_outside_the_profile_is_refused(engine: Artifact, fake_gpu: FakeGpu, batch: int) -> None:
    with pytest.raises(InputError, match=rf"from 1 to {PROFILE.most}, not {batch}.*--batch 1:{batch}:{batch}"):
        TensorRtRuntime.open(engine, batch=batch)
    assert touched(fake_gpu) == []


def test_a_device_that_goes_away_after_it_was_asked_for_is_told(engine: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    status = TensorRtRuntime.status()
    monkeypatch.setattr(TensorRtRuntime, "status", classmethod(lambda cls: status))
    monkeypatch.setattr("lmedge.runtimes.cuda_driver._load_library", lambda: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(BackendUnavailableError, match="gone"):
        TensorRtRuntime.open(engine)


# ---- what TensorRT finds in the plan ----


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: b"no plan " * 20, "kEXPECTED_MAGIC_TAG"),
        (lambda plan: b"", "empty memory buffer"),
        (lambda plan: plan[: len(plan) // 2], "blobSize"),
        (lambda plan: plan[:-1] + bytes([plan[-1] ^ 1]), "corrupted"),
        (lambda plan: rewritten(plan, version="10.9.0"), "Version tag does not match"),
        (lambda plan: rewritten(plan, compute_capability="9.0"), "incompatible device"),
    ],
    ids=["text", "empty", "half", "a bit", "another version", "another GPU"],
)
def test_a_plan_that_tensorrt_refuses_is_told_in_its_words(
    engine: Artifact, fake_gpu: FakeGpu, change: Callable[[bytes], bytes], said: str
) -> None:
    """With record and digests made to match: only TensorRT itself can notice."""
    changed = with_plan(engine, change)
    with pytest.raises(BundleFormatError, match=rf"cannot load tensorrt/model.*{said}.*{REBUILD}"):
        TensorRtRuntime.open(changed)
    assert fake_gpu.allocations == []


def test_a_plan_that_takes_other_batches_than_its_record_says_is_refused(engine: Artifact, fake_gpu: FakeGpu) -> None:
    changed = with_record(engine, lambda record: record["profile"].update(most=16))
    with pytest.raises(BundleFormatError, match=rf"in batches of \[1, 2, 6\].*its record says \[1, 2, 16\].*{REBUILD}"):
        TensorRtRuntime.open(changed)
    assert fake_gpu.allocations == []


def test_a_plan_with_other_tensors_than_the_manifest_says_is_refused(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    engine = tiny_engine(tmp_path / "one", onnx_file=tiny_onnx(tmp_path / "one", input_name="picture"))
    with pytest.raises(BundleFormatError, match=r"has the inputs \['picture'\]; the manifest declares \['image'\]"):
        TensorRtRuntime.open(engine)


def test_a_plan_for_one_fixed_batch_is_opened(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    engine = tiny_engine(tmp_path, batch=BatchProfile(1, 1, 1))
    for batch in (1, None):
        with TensorRtRuntime.open(engine, batch=batch) as runtime:
            crops = random_crops(1)
            np.testing.assert_allclose(runtime.infer({"image": crops})["landmarks"], tiny_answer(crops), atol=1e-5)


def test_only_the_batch_may_vary(engine: Artifact, fake_gpu: FakeGpu) -> None:
    free = (TensorSpec("image", "uint8", ("batch", "height", 32, 3)),)
    changed = with_record(engine, lambda record: record.update(inputs=[spec.to_json() for spec in free]))
    with pytest.raises(BundleFormatError, match="Only the batch may vary"):
        TensorRtRuntime.open(dataclasses.replace(changed, inputs=free))
    assert fake_gpu.allocations == []
