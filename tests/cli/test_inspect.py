"""`lmedge inspect` and `lmedge doctor`: what is in a bundle or a file, and what this machine can run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
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

    @pytest.fixture
    def asymmetric(self, tmp_path: Path) -> Path:
        """One quantised convolution with zero point 3, which no TensorRT takes."""
        from onnx import TensorProto, helper, numpy_helper, save

        constants = {"scale": np.array(0.5, np.float32), "zero": np.array(3, np.int8), "w": np.ones((1, 1, 1, 1), np.float32)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"], "x_quantize"),
            helper.make_node("DequantizeLinear", ["x_q", "scale", "zero"], ["x_dq"], "x_dequantize"),
            helper.make_node("Conv", ["x_dq", "w"], ["y"], "conv"),
        ]
        graph = helper.make_graph(
            nodes,
            "asymmetric",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 1, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, 1, 1])],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
        )
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "asymmetric.onnx")
        return tmp_path / "asymmetric.onnx"

    def test_a_file_is_described_for_people(self, bundle: Path) -> None:
        outcome = lmedge("inspect", bundle / "model.fp32.onnx")
        assert outcome.code == DONE
        for text in ("image uint8 (batch, 32, 32, 3)", "landmarks float32 (batch, 5, 2)", "Conv 1"):
            assert text in outcome.stdout

    def test_a_graph_without_faults_passes_the_linter(self, bundle: Path) -> None:
        outcome = lmedge("inspect", bundle / "model.fp32.onnx", "--lint")
        assert outcome.code == DONE
        assert "lint: nothing" in outcome.stdout

    def test_a_fault_is_named_by_its_node(self, asymmetric: Path) -> None:
        outcome = lmedge("inspect", asymmetric, "--lint")
        assert outcome.code == GATE_FAILED
        for text in ("x_quantize: the zero point is int8 [3]; expected int8 zeros", "conv: only the input is quantised"):
            assert text in outcome.stdout

    def test_faults_are_in_the_document(self, asymmetric: Path) -> None:
        outcome = lmedge("inspect", asymmetric, "--lint", "--json")
        assert outcome.code == GATE_FAILED
        assert len(outcome.json["lint"]) == 3
        assert outcome.json["quantize"] == {"int8": 1}

    def test_without_the_linter_it_is_only_described(self, asymmetric: Path) -> None:
        assert lmedge("inspect", asymmetric).code == DONE

    @pytest.mark.parametrize("name", ["manifest.json", "golden.npz"])
    def test_another_file_is_refused_whatever_its_suffix(self, name: str, bundle: Path) -> None:
        lmedge("inspect", bundle / name).assert_clear_error(ERROR, f"{bundle / name} cannot be read as an ONNX file")
