"""Whoever names no device gets the engine's own: the CPU where it has one, the GPU for TensorRT."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lmedge import FaceLandmarker, assert_parity
from lmedge.bundle import Bundle
from lmedge.cli import app
from lmedge.errors import DeviceUnavailableError
from lmedge.runtimes.base import RuntimeStatus
from lmedge.runtimes.bench import Conditions, bench, describe_machine
from lmedge.runtimes.parity import self_test
from lmedge.runtimes.verify import verify_bundle
from tests.bundles import tiny_golden
from tests.tensorrt.engines import engine_bundle
from tests.tensorrt.fake_gpu import Device, FakeGpu

BOTH = ["onnxruntime", "tensorrt"]
DEVICES = {"onnxruntime": "cpu", "tensorrt": "cuda"}


@pytest.fixture
def bundle(fake_gpu: FakeGpu, tmp_path: Path) -> Bundle:
    return engine_bundle(tmp_path)


@pytest.mark.parametrize(
    ("devices", "default"),
    [
        (("cpu",), "cpu"),
        (("cpu", "cuda"), "cpu"),
        (("gpu", "cpu"), "cpu"),
        (("cuda", "cuda:1"), "cuda"),
        (("npu",), "npu"),
        ((), "cpu"),
    ],
)
def test_the_cpu_is_the_default_wherever_there_is_one(devices: tuple[str, ...], default: str) -> None:
    assert RuntimeStatus(True, "1", devices, "", "").default_device == default


@pytest.mark.parametrize("backend", BOTH)
def test_a_landmarker_opens_on_the_default(bundle: Bundle, backend: str) -> None:
    golden = tiny_golden()
    with FaceLandmarker.open(bundle, backend=backend) as landmarker:
        assert landmarker.runtime.device == DEVICES[backend]
        found = landmarker.predict(golden.frames[0], golden.boxes_xyxy[:1])[0].points_px
    np.testing.assert_allclose(found, golden.points_px[0], atol=0.01)


def test_a_device_that_is_named_is_taken_at_its_word(bundle: Bundle) -> None:
    with FaceLandmarker.open(bundle, backend="tensorrt", device="cuda") as landmarker:
        assert landmarker.runtime.device == "cuda"
    with pytest.raises(DeviceUnavailableError, match="has no device 'cpu'"):
        FaceLandmarker.open(bundle, backend="tensorrt", device="cpu")


@pytest.mark.parametrize("backend", BOTH)
def test_the_self_test_runs_on_the_default(bundle: Bundle, backend: str) -> None:
    assert self_test(bundle, backend).passed


def test_everything_is_verified_at_once(bundle: Bundle) -> None:
    outcome = verify_bundle(bundle)
    assert outcome.passed
    assert sorted(report.backend for report in outcome.parity) == BOTH
    assert outcome.skipped == ()
    assert len(assert_parity(bundle)) == len(BOTH)


def test_without_a_gpu_the_rest_is_verified_and_the_engine_named(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = ()
    outcome = verify_bundle(bundle)
    assert outcome.passed
    assert [report.backend for report in outcome.parity] == ["onnxruntime"]
    assert [(skip.backend, skip.reason.partition(":")[0]) for skip in outcome.skipped] == [("tensorrt", "driver")]


def test_each_engine_is_measured_where_it_runs(bundle: Bundle) -> None:
    rows = bench(bundle, conditions=Conditions(iterations=3))
    assert sorted(row.backend for row in rows) == BOTH
    assert {row.remark for row in rows} == {""}


def test_what_is_unlike_expected_is_in_the_row(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("cudaStreamBeginCapture", code=900, times=None)
    (row,) = bench(bundle, ["tensorrt"], conditions=Conditions(iterations=3))
    assert row.remark.startswith("without a CUDA graph")
    shown = CliRunner().invoke(app, ["bench", str(bundle.root), "--backend", "tensorrt", "--iterations", "3"])
    assert shown.exit_code == 0, shown.output
    assert "tensorrt fp32: without a CUDA graph" in " ".join(shown.output.split())


def test_the_machine_is_described_with_its_gpus(fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device("Orin", "8.7"), Device("H100", "9.0"))
    assert describe_machine()["gpus"] == ["Orin", "H100"]
    assert describe_machine()["cuda_driver"]


def test_a_machine_without_a_gpu_names_none(no_gpu: FakeGpu) -> None:
    assert {"gpus", "cuda_driver"} & set(describe_machine()) == set()


def test_the_commands_need_no_device(bundle: Bundle, tmp_path: Path) -> None:
    picture = tmp_path / "face.png"
    assert cv2.imwrite(str(picture), tiny_golden().frames[0])
    options = ["--backend", "tensorrt", "--json"]
    found = CliRunner().invoke(app, ["predict", str(bundle.root), str(picture), "--box", "30,20,60,60", *options])
    assert found.exit_code == 0, found.output
    points = json.loads(found.stdout)[0]["faces"][0]["points_px"]
    np.testing.assert_allclose(points, tiny_golden().points_px[0], atol=0.05)
    timed = CliRunner().invoke(app, ["bench", str(bundle.root), "--iterations", "3", "--json"])
    assert timed.exit_code == 0, timed.output
    assert sorted(row["backend"] for row in json.loads(timed.stdout)) == BOTH
    assert json.loads(timed.stdout)[0]["machine"]["gpus"] == ["Orin"]


def test_a_device_of_another_engine_is_an_error(bundle: Bundle) -> None:
    refused = CliRunner().invoke(app, ["bench", str(bundle.root), "--backend", "tensorrt", "--device", "cpu"])
    assert refused.exit_code != 0
    assert isinstance(refused.exception, DeviceUnavailableError)
