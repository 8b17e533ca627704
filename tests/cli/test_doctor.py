"""`lmedge doctor`: what this machine can run, and for TensorRT each step with its reason. It always ends with 0."""

from __future__ import annotations

import sys

import pytest

from tests.cli.command import DONE, lmedge
from tests.requirements import require

require("onnx", "onnxruntime")

from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.fixtures import fake_gpu, install, no_gpu, tensorrt_version  # noqa: E402

__all__ = ["fake_gpu", "no_gpu", "tensorrt_version"]

STEPS = ["driver", "device", "tensorrt", "cuda-bindings", "Builder", "Runtime"]


def steps() -> dict[str, tuple[bool, str]]:
    outcome = lmedge("doctor", "--json")
    assert outcome.code == DONE
    return {row["step"]: (row["passed"], row["detail"]) for row in outcome.json["tensorrt"]["steps"]}


def test_every_engine_has_its_status_and_what_to_install() -> None:
    engines = lmedge("doctor", "--json").json["engines"]
    assert {"onnxruntime", "openvino", "tensorrt", "torch"} <= set(engines)
    assert engines["onnxruntime"]["installed"] is True
    for status in engines.values():
        assert status["installed"] or status["reason"]


@pytest.mark.usefixtures("fake_gpu")
def test_a_machine_with_everything_passes_every_step(tensorrt_version: str) -> None:
    found = steps()
    assert list(found) == STEPS
    assert all(passed for passed, _ in found.values())
    assert tensorrt_version in found["tensorrt"][1]
    document = lmedge("doctor", "--json").json["tensorrt"]
    assert document["usable"] is True
    assert document["machine"]["compute_capability"] == "8.7"


def test_without_a_driver_the_first_step_fails_and_nothing_after_it_is_tried(no_gpu: FakeGpu) -> None:
    found = steps()
    assert list(found) == ["driver"]
    assert found["driver"][0] is False
    assert no_gpu.count("Builder", "Runtime") == 0
    table = lmedge("doctor")
    assert table.code == DONE
    text = " ".join(table.stdout.split())
    assert "TensorRT, step by step" in text
    assert "starting TensorRT ends the process" in text


BROKEN = {
    "tensorrt": lambda gpu, monkeypatch: monkeypatch.setitem(sys.modules, "tensorrt", None),
    "cuda-bindings": lambda gpu, monkeypatch: monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None),
    "Builder": lambda gpu, monkeypatch: gpu.fail("Builder", times=None),
    "Runtime": lambda gpu, monkeypatch: gpu.fail("Runtime", times=None),
}


@pytest.mark.parametrize("step", BROKEN)
def test_the_step_that_fails_is_the_last_and_says_why(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    install(gpu, "10.3.0", monkeypatch)
    BROKEN[step](gpu, monkeypatch)
    found = steps()
    assert list(found) == STEPS[: STEPS.index(step) + 1]
    assert [passed for passed, _ in found.values()] == [True] * STEPS.index(step) + [False]
    assert found[step][1]
    assert lmedge("doctor", "--json").json["tensorrt"]["machine"] is None
    text = " ".join(lmedge("doctor").stdout.split())
    assert found[step][1].split("(")[0].strip() in text


def test_the_second_opinion_is_listed_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmedge.cli import look

    monkeypatch.setattr(look, "_second_opinion_version", lambda: None)
    assert "TensorRT-RTX, for a second opinion on ONNX files without a GPU: not installed" in lmedge("doctor").stdout
    monkeypatch.setattr(look, "_second_opinion_version", lambda: "1.7.1.116")
    assert lmedge("doctor", "--json").json["tensorrt"]["tensorrt_rtx"] == "1.7.1.116"
