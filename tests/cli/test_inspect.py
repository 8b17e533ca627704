"""`lmedge inspect` and `lmedge doctor`: what is in a bundle or a file, and what this machine can run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lmedge.runtimes import runtime_names
from tests import requirements
from tests.cli.command import DONE, ERROR, GATE_FAILED, lmedge


def test_a_bundle_lists_its_files(bundle: Path) -> None:
    outcome = lmedge("inspect", bundle)
    assert (outcome.code, outcome.stderr) == (DONE, "")
    for text in ("tiny", "5 (MMLAB_5)", "32 px", "reference", "model.fp32.onnx", "fp32", "onnxruntime (any), openvino (any)"):
        assert text in outcome.stdout


def test_a_missing_file_is_shown_as_missing(bundle: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    (own / "model.fp32.onnx").unlink()
    assert "missing" in lmedge("inspect", own).stdout


def test_nothing_there_is_told_as_such(tmp_path: Path) -> None:
    outcome = lmedge("inspect", tmp_path / "nowhere.onnx")
    outcome.assert_clear_error(ERROR, f"There is nothing at {tmp_path / 'nowhere.onnx'}", "bundle folder or an .onnx file")


def test_doctor_knows_every_engine() -> None:
    outcome = lmedge("doctor")
    assert (outcome.code, outcome.stderr) == (DONE, "")
    assert all(name in outcome.stdout for name in runtime_names())


class TestOnnxFiles:
    @pytest.fixture(autouse=True)
    def onnx_is_here(self) -> None:
        requirements.require("onnx")

    @pytest.fixture(autouse=True)
    def no_second_opinion(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As if TensorRT-RTX were not installed; tests that want it say what it answers."""
        monkeypatch.setattr("lmedge.export.check_tensorrt.find_spec", lambda name: None)

    @pytest.fixture
    def written(self, tmp_path: Path) -> Callable[[str], Path]:
        """Writes the graph of a body in ONNX text."""
        from onnx import save

        from tests.export.qdq_texts import graph, parse

        def write(body: str) -> Path:
            save(parse(graph(body)), tmp_path / "graph.onnx")
            return tmp_path / "graph.onnx"

        return write

    @pytest.fixture
    def asymmetric(self, written: Callable[[str], Path]) -> Path:
        """A convolution with zero point 3, which no TensorRT takes, and with float weights, which makes it slow."""
        from tests.export.qdq_texts import pair

        return written(f"{pair('x', 'xd', zero='z3')} [conv] y = Conv (xd, wf, b)")

    @pytest.fixture
    def slow(self, written: Callable[[str], Path]) -> Path:
        """Legal, but only the weights are quantised."""
        from tests.export.qdq_texts import WEIGHTS

        return written(f"{WEIGHTS} [conv] y = Conv (x, wd, b)")

    @pytest.fixture
    def sound(self, written: Callable[[str], Path]) -> Path:
        from tests.export.qdq_texts import CONV, WEIGHTS, pair

        return written(f"{WEIGHTS} {pair('x', 'xd')} {CONV}")

    def test_a_file_is_described_for_people(self, bundle: Path) -> None:
        outcome = lmedge("inspect", bundle / "model.fp32.onnx")
        assert outcome.code == DONE
        for text in ("image uint8 (batch, 32, 32, 3)", "landmarks float32 (batch, 5, 2)", "Conv 1"):
            assert text in outcome.stdout

    def test_a_graph_without_quantisers_passes_the_linter(self, bundle: Path) -> None:
        outcome = lmedge("inspect", bundle / "model.fp32.onnx", "--lint")
        assert outcome.code == DONE
        assert "lint: no quantisers, and nothing that TensorRT's rules refuse or slow." in outcome.stdout

    def test_a_sound_quantised_graph_passes_the_linter(self, sound: Path) -> None:
        outcome = lmedge("inspect", sound, "--lint")
        assert outcome.code == DONE
        assert "lint: nothing that TensorRT's rules refuse or slow." in outcome.stdout

    def test_a_fault_is_told_with_its_rule_node_reason_and_remedy(self, asymmetric: Path) -> None:
        outcome = lmedge("inspect", asymmetric, "--lint")
        assert outcome.code == GATE_FAILED
        text = " ".join(outcome.stdout.split())
        for part in ("zero-point refused", "half-quantised-layer slow", "conv", "not 0", "ActivationSymmetric", "its parser"):
            assert part in text
        for word in ("quantize_x,", "dequantize_x"):
            assert word in outcome.stdout

    def test_faults_are_in_the_document_one_by_one(self, asymmetric: Path) -> None:
        outcome = lmedge("inspect", asymmetric, "--lint", "--json")
        assert outcome.code == GATE_FAILED
        found = [(finding["rule"], finding["effect"], finding["node"]) for finding in outcome.json["lint"]]
        assert found == [
            ("zero-point", "refused", "quantize_x"),
            ("zero-point", "refused", "dequantize_x"),
            ("half-quantised-layer", "slow", "conv"),
        ]
        assert set(outcome.json["lint"][0]) == {"rule", "effect", "node", "what", "why", "cure"}
        assert outcome.json["quantize"] == {"int8": 1}

    def test_what_is_only_slow_fails_no_gate(self, slow: Path) -> None:
        outcome = lmedge("inspect", slow, "--lint")
        assert outcome.code == DONE
        assert "half-quantised-layer" in outcome.stdout
        assert "TensorRT takes this graph, but is slower or less accurate with it than need be." in outcome.stdout

    def test_of_many_nodes_the_first_are_named_and_the_rest_counted(self, written: Callable[[str], Path]) -> None:
        from tests.export.qdq_texts import WEIGHTS, pair

        file = written(
            f"{WEIGHTS} {pair('x', 'a', zero='u0')} [c] e = Conv (a, wd, b) {pair('e', 'd', zero='u0')} y = Add (d, a)"
        )
        assert "and 2 more" in " ".join(lmedge("inspect", file, "--lint").stdout.split())

    def test_the_dialect_for_cpus_is_told_as_such(self, written: Callable[[str], Path]) -> None:
        from tests.export.qdq_texts import WEIGHTS, pair

        biases = "bd = DequantizeLinear <axis = 0> (bi, ws, bz)"
        outcome = lmedge("inspect", written(f"{WEIGHTS} {biases} {pair('x', 'xd', zero='u0')} y = Conv (xd, wd, bd)"), "--lint")
        assert outcome.code == GATE_FAILED
        assert "what x86 CPU engines compute fastest" in outcome.stdout
        assert "model.int8.onnx" in outcome.stdout

    # ---- the second opinion ----

    def test_without_its_package_it_is_told_how_to_get_it(self, sound: Path) -> None:
        assert "not checked" in lmedge("inspect", sound, "--lint").stdout
        told = lmedge("inspect", sound, "--lint", "--json").json["tensorrt_rtx"]
        assert told["outcome"] == "not checked"
        assert "pip install 'lmedge[tensorrt-check]'" in told["reason"]

    @pytest.mark.parametrize(
        ("outcome", "built", "code", "text"),
        [
            ("accepted", True, DONE, "TensorRT-RTX 1.7, a second opinion without a GPU: parses and builds it."),
            ("accepted", False, DONE, "it has dynamic dimensions besides the batch, so it was not built"),
            ("refused", False, GATE_FAILED, "its parser refuses it."),
            ("crashed", False, GATE_FAILED, "its parser crashes."),
            ("timed out", False, DONE, "no answer within 120 s."),
        ],
    )
    def test_its_verdict_is_shown_and_a_no_fails_the_gate(
        self, outcome: str, built: bool, code: int, text: str, sound: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lmedge.export.check_tensorrt import Problem, Verdict

        problems = (Problem("node_7", "Conv", "is not supported"),) if outcome == "refused" else ()
        verdict = Verdict(outcome, "parser", problems, built, "1.7", 120.0)  # type: ignore[arg-type]
        monkeypatch.setattr("lmedge.export.check_tensorrt.parse_and_build", lambda file: verdict)
        shown = lmedge("inspect", sound, "--lint")
        assert shown.code == code
        assert text in shown.stdout
        assert ("node_7: is not supported" in shown.stdout) == bool(problems)
        told = lmedge("inspect", sound, "--lint", "--json")
        assert told.code == code
        assert told.json["tensorrt_rtx"]["outcome"] == outcome
        assert told.json["lint"] == []

    def test_without_the_linter_it_is_only_described(self, asymmetric: Path) -> None:
        assert lmedge("inspect", asymmetric).code == DONE

    @pytest.mark.parametrize("name", ["manifest.json", "golden.npz"])
    def test_another_file_is_refused_whatever_its_suffix(self, name: str, bundle: Path) -> None:
        lmedge("inspect", bundle / name).assert_clear_error(ERROR, f"{bundle / name} cannot be read as an ONNX file")
