"""TensorRT-RTX as a second opinion: its verdicts equal the linter's, and whatever it does, it does in a process of its own."""

from __future__ import annotations

import importlib
import sys
import tempfile
import textwrap
from functools import cache
from pathlib import Path

import pytest

from lmedge.errors import BackendUnavailableError, ExportError
from lmedge.export.check_tensorrt import PACKAGE, Problem, Verdict, is_installed, parse_and_build
from tests import requirements

# ---- a stand-in for the package, which does what the file's first word says ----

ENGINE = """
    import os, time
    __version__ = "9.9"
    word = "accept"

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class Error:
        def node_name(self): return "conv"
        def node_operator(self): return "Conv"
        def desc(self): return "In catchCudaError: no GPU\\nis not\\n  supported"

    class Input:
        name = "image"
        @property
        def shape(self): return (-1, -1, 8) if word == "parse" else (-1, 8, 8)

    class Network:
        num_inputs = 1
        def get_input(self, index): return Input()

    class Builder:
        def __init__(self, logger): self.logger = logger
        def create_network(self, flags): return Network()
        def create_builder_config(self): return self
        def create_optimization_profile(self): return self
        def set_shape(self, *shapes): self.shapes = shapes
        def add_optimization_profile(self, profile):
            assert self.shapes == ("image", (1, 8, 8), (1, 8, 8), (8, 8, 8)), self.shapes
        def build_serialized_network(self, network, config):
            if word == "crash": os.kill(os.getpid(), 11)
            if word == "hang": time.sleep(60)
            if word == "unbuildable": self.logger.log(ILogger.ERROR, "no kernel"); return None
            return b"a plan"

    class OnnxParser:
        num_errors = 1
        def __init__(self, network, logger): self.logger = logger
        def parse_from_file(self, file):
            global word
            word = open(file).read()
            if word == "misread": self.logger.log(ILogger.WARNING, "UINT8: Defaulting to INT8 instead.")
            if word == "warn": self.logger.log(ILogger.WARNING, "something harmless")
            return word != "refuse"
        def get_error(self, index): return Error()
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stand-in in front of everything that is installed, here and in processes started from here."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / f"{PACKAGE}.py").write_text(textwrap.dedent(ENGINE))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    importlib.invalidate_caches()
    return folder


def verdict_on(word: str, folder: Path, timeout_s: float = 60) -> Verdict:
    (folder / "graph.onnx").write_text(word)
    return parse_and_build(folder / "graph.onnx", timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("word", "outcome", "stage", "problems", "built"),
    [
        ("accept", "accepted", "builder", (), True),
        ("warn", "accepted", "builder", (), True),
        ("parse", "accepted", "parser", (), False),
        ("refuse", "refused", "parser", (Problem("conv", "Conv", "is not supported"),), False),
        ("misread", "refused", "parser", (Problem("", "", "UINT8: Defaulting to INT8 instead."),), False),
        ("unbuildable", "refused", "builder", (Problem("", "", "no kernel"),), False),
        ("crash", "crashed", "builder", (Problem("", "", "ended by SIGSEGV"),), False),
    ],
)
def test_whatever_the_engine_does_is_a_verdict(
    word: str, outcome: str, stage: str, problems: tuple[Problem, ...], built: bool, engine: Path
) -> None:
    verdict = verdict_on(word, engine)
    assert (verdict.outcome, verdict.stage, verdict.problems, verdict.built) == (outcome, stage, problems, built)
    assert verdict.version == "9.9"
    assert verdict.seconds > 0
    assert verdict.to_json()["problems"] == [vars(problem) for problem in problems]


def test_an_engine_that_hangs_is_ended(engine: Path) -> None:
    assert verdict_on("hang", engine, timeout_s=2).outcome == "timed out"


def test_it_is_never_imported_here(engine: Path) -> None:
    verdict_on("accept", engine)
    assert PACKAGE not in sys.modules


def test_it_writes_nothing(engine: Path) -> None:
    verdict_on("accept", engine)
    assert {file.name for file in engine.iterdir()} - {"__pycache__"} == {f"{PACKAGE}.py", "graph.onnx"}


def test_an_engine_that_does_not_start_is_unavailable(engine: Path) -> None:
    (engine / f"{PACKAGE}.py").write_text("raise ImportError('libcudart is missing')")
    with pytest.raises(BackendUnavailableError, match="does not start: ImportError: libcudart is missing"):
        verdict_on("accept", engine)


def test_a_missing_file_is_an_error(engine: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="There is no file"):
        parse_and_build(tmp_path / "nowhere.onnx")


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmedge.export.check_tensorrt.find_spec", lambda name: None)
    assert not is_installed()
    with pytest.raises(BackendUnavailableError, match=r"pip install 'lmedge\[tensorrt-check\]'"):
        parse_and_build(tmp_path / "graph.onnx")


# ---- the real one, where it is installed ----

NOT_HERE = requirements.missing(PACKAGE) or requirements.missing("onnx")
# Where TensorRT-RTX 1.7 says yes to what the linter calls refused, and why the linter stays with it.
KNOWN_DISAGREEMENTS = {
    "activation-type-unsaid": "no zero point means uint8 in ONNX; it takes int8 without a word and cuts half the range off",
    "domain-quantisers": "it goes by the operator's name; its list of operators has those of ONNX only",
    "opset-fp16": "it does not check versions; ONNX, ONNX Runtime and TensorRT 8 want float32 scales before opset 19",
    "opset-axis": "it does not check versions; ONNX has no axis there before opset 13",
}


@cache
def real_verdict(text: str) -> str:
    import onnx

    from tests.export.qdq_texts import parse

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        onnx.save(parse(text), file)
        return parse_and_build(file).outcome


@pytest.mark.slow
@pytest.mark.skipif(bool(NOT_HERE), reason=NOT_HERE)
class TestTensorRtRtx:
    def test_its_verdicts_are_the_linters_on_every_rule(self) -> None:
        from lmedge.export.graph.lint_qdq import RULES
        from tests.export.qdq_texts import CASES

        ours = {str(case): RULES[case.rule].effect == "refused" for case in CASES}
        theirs = {str(case): real_verdict(case.broken) in ("refused", "crashed") for case in CASES}
        assert {name for name in ours if ours[name] != theirs[name]} == set(KNOWN_DISAGREEMENTS)

    def test_it_takes_every_sound_counterpart(self) -> None:
        from tests.export.qdq_texts import CASES

        assert {real_verdict(case.sound) for case in CASES} == {"accepted"}

    def test_it_takes_every_precision_that_lmedge_writes_for_it(self, fp32_onnx: Path, tmp_path: Path) -> None:
        import onnx

        from lmedge.export.graph.lint_qdq import lint_file
        from lmedge.export.graph.to_fp16 import to_fp16
        from tests.export.networks import picture_crops
        from tests.export.quantised import quantised

        fp32 = onnx.load(fp32_onnx)
        int8 = quantised(fp32, "portable", picture_crops(8))
        for name, model in (("fp32", fp32), ("fp16", to_fp16(fp32)), ("int8", int8), ("fp16-int8", to_fp16(int8))):
            file = tmp_path / f"model.{name}.onnx"
            onnx.save(model, file)
            verdict = parse_and_build(file)
            assert (name, verdict.outcome, verdict.built, verdict.problems) == (name, "accepted", True, ())
            assert lint_file(file) == []

    def test_it_refuses_the_dialect_for_cpus(self, fp32_onnx: Path, tmp_path: Path) -> None:
        import onnx

        from tests.export.networks import picture_crops
        from tests.export.quantised import quantised

        onnx.save(quantised(onnx.load(fp32_onnx), "x86", picture_crops(8)), tmp_path / "x86.onnx")
        verdict = parse_and_build(tmp_path / "x86.onnx")
        assert verdict.outcome == "refused"
        assert verdict.problems[0].node
