"""0 done, 1 error, 2 usage, 3 a gate failed (which wins over 4), 4 backend or device unavailable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmedge import errors
from lmedge.cli.console import exit_code
from lmedge.runtimes import bench, find_runtime
from tests.cli.command import DONE, ERROR, GATE_FAILED, UNAVAILABLE, USAGE, lmedge, lmedge_process

INTERRUPTED = 130
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LmedgeError)]
CODES = {
    "GateError": GATE_FAILED,
    "ParityError": GATE_FAILED,
    "AccuracyError": GATE_FAILED,
    "BackendUnavailableError": UNAVAILABLE,
    "DeviceUnavailableError": UNAVAILABLE,
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_error_has_its_code(kind: type[errors.LmedgeError]) -> None:
    assert exit_code(kind("")) == CODES.get(kind.__name__, ERROR)


def test_done() -> None:
    assert lmedge("doctor").code == DONE


def test_an_error_is_one_message(tmp_path: Path) -> None:
    outcome = lmedge("inspect", tmp_path)
    outcome.assert_clear_error(ERROR, f"{tmp_path} is no bundle: it has no manifest.json", "Make one: lmedge build")
    assert outcome.stderr.startswith("lmedge: error: ")
    assert outcome.stderr.count("\n") == 1


USAGE_ERRORS = {
    "an unknown command": (["levitate"], "No such command 'levitate'"),
    "an unknown option": (["doctor", "--yaml"], "--yaml"),
    "a missing argument": (["predict"], "Missing argument"),
    "a missing option": (["evaluate", "BUNDLE"], "Missing option '--data'"),
    "no picture": (["predict", "BUNDLE"], "give at least one picture: lmedge predict "),
    "a box that is no box": (["predict", "BUNDLE", "a.png", "--box", "1,2,x"], "e.g. --box 210,120,180,200; got '1,2,x'"),
    "a box of three": (["predict", "BUNDLE", "a.png", "--box", "1,2,3"], "expected x,y,width,height in pixels"),
    "box and detector": (["predict", "BUNDLE", "a.png", "--box", "1,2,3,4", "--detector", "y.onnx"], "not both"),
    "a precision that does not exist": (["predict", "BUNDLE", "a.png", "--precision", "int4"], "fp32, fp16, int8, fp16-int8"),
    "one of several precisions": (["bench", "BUNDLE", "--precision", "fp32", "--precision", "fp64"], "got 'fp64'"),
    "a split that does not exist": (["evaluate", "BUNDLE", "--data", "csv:x", "--split", "test"], "validation, train, all"),
    "boxes that do not exist": (
        ["evaluate", "BUNDLE", "--data", "csv:x", "--boxes", "drawn"],
        "annotated, landmarks, detector",
    ),
    "boxes without their detector": (["evaluate", "BUNDLE", "--data", "csv:x", "--boxes", "detector"], "go together"),
    "no thread": (["bench", "BUNDLE", "--threads", "0"], "--threads"),
    "no call": (["bench", "BUNDLE", "--iterations", "0"], "--iterations"),
    "a bundle to lint": (["inspect", "BUNDLE", "--lint"], "--lint takes an ONNX file"),
}


@pytest.mark.parametrize(("arguments", "message"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_usage(arguments: list[str], message: str, bundle: Path) -> None:
    outcome = lmedge(*(bundle if word == "BUNDLE" else word for word in arguments))
    outcome.assert_clear_error(USAGE)
    assert message in " ".join(outcome.stderr.split())


ON_CUDA: dict[str, Callable[[Path, Path, str], list[object]]] = {
    "predict": lambda bundle, photo, faces: ["predict", bundle, photo],
    "bench": lambda bundle, photo, faces: ["bench", bundle, "--backend", "onnxruntime", "--iterations", "1"],
    "evaluate": lambda bundle, photo, faces: ["evaluate", bundle, "--data", faces, "--schema", "MMLAB_5", "--split", "all"],
}


@pytest.mark.parametrize("command", ON_CUDA)
def test_cuda_on_a_machine_without_it_is_never_the_cpu(command: str, bundle: Path, photo: Path, faces: str) -> None:
    if "cuda" in find_runtime("onnxruntime").status().devices:
        pytest.skip("this machine has cuda")
    arguments = ON_CUDA[command](bundle, photo, faces)
    outcome = lmedge(*arguments, "--device", "cuda")
    outcome.assert_clear_error(UNAVAILABLE, "has no device 'cuda' here; it has cpu", "onnxruntime-gpu")
    assert lmedge(*arguments, "--device", "cpu").code == DONE


@pytest.mark.parametrize("command", ["predict", "bench", "verify"])
def test_an_engine_that_does_not_exist_is_told_with_the_nearest_name(command: str, bundle: Path, photo: Path) -> None:
    pictures = [photo] if command == "predict" else []
    outcome = lmedge(command, bundle, *pictures, "--backend", "openvno")
    outcome.assert_clear_error(UNAVAILABLE, "No runtime is called 'openvno'", "Did you mean openvino?")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "describe_machine", interrupt)
    lmedge("doctor").assert_clear_error(INTERRUPTED, "Interrupted", "the same command is run again")


@pytest.mark.parametrize("error", [RuntimeError("a defect"), OSError(9, "Bad file descriptor")], ids=repr)
def test_an_error_that_nobody_expected_keeps_its_trace(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(bench, "describe_machine", fail)
    with pytest.raises(type(error), match=r"a defect|Bad file"):
        lmedge("doctor")


class TestProcesses:
    """The same through the operating system."""

    def test_codes_arrive(self, bundle: Path, photo: Path, tmp_path: Path) -> None:
        assert lmedge_process("predict", bundle, photo, "--json").code == DONE
        lmedge_process("predict", tmp_path, photo).assert_clear_error(ERROR, "is no bundle")
        lmedge_process("predict").assert_clear_error(USAGE, "Missing argument")
        lmedge_process("predict", bundle, photo, "--device", "tpu").assert_clear_error(UNAVAILABLE, "no device 'tpu'")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    @pytest.mark.parametrize("options", [["--json"], []])
    def test_a_full_disk_behind_stdout_is_an_error(self, options: list[str]) -> None:
        with open("/dev/full", "wb") as full:
            outcome = lmedge_process("doctor", *options, stdout=full)
        outcome.assert_clear_error(ERROR, "Cannot write the output: No space left on device")

    def test_a_reader_that_stops_early_is_no_trace(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as closed:
            command = [sys.executable, "-m", "lmedge.cli", "doctor", "--json"]
            result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert result.returncode != DONE
        assert "Traceback" not in result.stderr
