"""A second opinion on an ONNX file from TensorRT-RTX, which parses and builds on the CPU.

TensorRT proper needs an NVIDIA GPU even to be asked. TensorRT for RTX is built from the same parser and builder, and compiles
ahead of time without one, so it tells whether a graph is legal. It does not tell how fast or accurate it is on TensorRT: the
plan it makes is no TensorRT engine, and is thrown away.

It runs in a process of its own, because a graph can crash it (seen: a scale that is computed from the image).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lmedge.errors import BackendUnavailableError, ExportError

PACKAGE = "tensorrt_rtx"
EXTRA = "pip install 'lmedge[tensorrt-check]'"

# The profile of a dynamic batch. Other dynamic dimensions are not guessed: such a graph is parsed and not built.
_LEAST_BATCH, _USUAL_BATCH, _MOST_BATCH = 1, 1, 8
_TIMEOUT_S = 120.0
# The parser goes on after these and reads unsigned values as signed ones, which is another network than the file holds.
_MISREAD = "INT8 instead"
_SHOWN_CHARACTERS = 300

Outcome = Literal["accepted", "refused", "crashed", "timed out"]


@dataclass(frozen=True)
class Problem:
    """What TensorRT-RTX says against a graph; `node` and `operator` are "" where it names none."""

    node: str
    operator: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """What TensorRT-RTX did with an ONNX file.

    Attributes:
        outcome: "refused" also when it goes on with another network than the file holds.
        stage: "parser" or "builder", where it came to an end.
        problems: what it says, in its own words; empty when accepted.
        built: False for an accepted graph with a dynamic dimension other than the batch, which is parsed only.
        version: of TensorRT-RTX; "" when it crashed before saying so.
        seconds: the whole process took.
    """

    outcome: Outcome
    stage: str
    problems: tuple[Problem, ...]
    built: bool
    version: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "problems": [asdict(problem) for problem in self.problems]}


def is_installed() -> bool:
    """Whether TensorRT-RTX can be asked; it is not imported."""
    return find_spec(PACKAGE) is not None


def parse_and_build(onnx_file: Path, *, timeout_s: float = _TIMEOUT_S) -> Verdict:
    """Lets TensorRT-RTX parse and build a file, batch 1 to 8, without a GPU.

    Args:
        timeout_s: after so many seconds the process is ended, and the verdict is "timed out".

    Raises:
        BackendUnavailableError: TensorRT-RTX is not installed, or does not import.
        ExportError: there is no such file.
    """
    if not is_installed():
        raise BackendUnavailableError(f"Checking a graph with TensorRT-RTX needs its package: {EXTRA}")
    if not onnx_file.is_file():
        raise ExportError(f"There is no file {onnx_file}.")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lmedge-") as folder:
        answer_file = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "lmedge.export.check_tensorrt", str(onnx_file.resolve()), str(answer_file)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return Verdict("timed out", "builder", (), False, "", time.monotonic() - started)
        seconds = time.monotonic() - started
        answer = json.loads(answer_file.read_text()) if answer_file.is_file() else {}
    stage, version = answer.get("stage", "parser"), answer.get("version", "")
    if ended.returncode == 0:
        problems = tuple(Problem(**problem) for problem in answer["problems"])
        return Verdict("refused" if problems else "accepted", stage, problems, answer["built"], version, seconds)
    if not version:
        said = ended.stderr.strip().splitlines()
        raise BackendUnavailableError(f"TensorRT-RTX does not start: {said[-1] if said else _end(ended.returncode)}. {EXTRA}")
    return Verdict("crashed", stage, (Problem("", "", _end(ended.returncode)),), False, version, seconds)


def _end(code: int) -> str:
    """How a process ended: "SIGSEGV" for a signal, "exit code 1" else."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


# ---- the process that holds the library ----


def _answer(onnx_file: Path, answer_file: Path) -> None:
    """Parses and builds, and keeps the answer up to date on disk so that a crash leaves what was known."""
    engine: Any = import_module(PACKAGE)
    answer: dict[str, Any] = {"version": engine.__version__, "stage": "parser", "problems": [], "built": False}
    answer_file.write_text(json.dumps(answer))
    logger = _logger(engine)
    builder = engine.Builder(logger)
    # Builder, network and parser hold pointers to each other: all three must outlive the parsing.
    network = builder.create_network(0)
    parser = engine.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        answer["problems"] = [_problem(parser.get_error(index)) for index in range(parser.num_errors)]
    else:
        answer["problems"] = [_said(line) for line in dict.fromkeys(logger.warnings) if _MISREAD in line]
        if not answer["problems"] and _only_batch_varies(network):
            answer["stage"] = "builder"
            answer_file.write_text(json.dumps(answer))
            answer["built"] = _build(engine, builder, network)
            if not answer["built"]:
                answer["problems"] = [_said(line) for line in dict.fromkeys(logger.errors)] or [_said("It builds no plan.")]
    answer_file.write_text(json.dumps(answer))


def _logger(engine: Any) -> Any:
    """Keeps what the library says; by itself it would write to the terminal."""

    class Log(engine.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            engine.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (engine.ILogger.INTERNAL_ERROR, engine.ILogger.ERROR):
                self.errors.append(message)
            elif severity == engine.ILogger.WARNING:
                self.warnings.append(message)

    return Log()


def _only_batch_varies(network: Any) -> bool:
    shapes = [tuple(network.get_input(index).shape) for index in range(network.num_inputs)]
    return all(size >= 0 for shape in shapes for size in shape[1:])


def _build(engine: Any, builder: Any, network: Any) -> bool:
    """Whether a plan comes out; without a named GPU it is for all from Ampere on."""
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    varying = [value for index in range(network.num_inputs) if -1 in tuple((value := network.get_input(index)).shape)]
    for value in varying:
        rest = tuple(value.shape)[1:]
        profile.set_shape(value.name, (_LEAST_BATCH, *rest), (_USUAL_BATCH, *rest), (_MOST_BATCH, *rest))
    if varying:
        config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config) is not None


def _problem(error: Any) -> dict[str, str]:
    return {"node": error.node_name(), "operator": error.node_operator(), "message": _said(error.desc())["message"]}


def _said(text: str) -> dict[str, str]:
    """A message without line breaks and without the complaint that there is no GPU."""
    lines = [line.strip() for line in text.splitlines() if "catchCudaError" not in line]
    return {"node": "", "operator": "", "message": " ".join(" ".join(lines).split())[:_SHOWN_CHARACTERS]}


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]))
