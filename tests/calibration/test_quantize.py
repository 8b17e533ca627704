"""The two int8 dialects: their layout, their accuracy, and that calibration is repeatable."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402

from lmedge.calibration.crop_store import crops_digest  # noqa: E402
from lmedge.calibration.quantize import quantize_int8  # noqa: E402
from lmedge.errors import CalibrationError  # noqa: E402
from lmedge.export.graph.compare import run_onnx  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from tests.calibration.conftest import Quantized  # noqa: E402
from tests.export.networks import CROP_PX, picture_crops  # noqa: E402

TEST_CROPS = picture_crops(48, seed=9)


class Net:
    """An ONNX file with its constants, and makers and readers of each tensor."""

    def __init__(self, file: Path) -> None:
        graph = onnx.load(file).graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.outputs = {output.name for output in graph.output}

    def of(self, *op_types: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in op_types]

    def makes(self, tensor: str) -> str:
        return self.maker[tensor].op_type if tensor in self.maker else ""

    def readers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [reader for reader in self.nodes if node.output[0] in reader.input]

    def weight_dequantizers(self) -> Iterator[onnx.NodeProto]:
        return (node for node in self.of("DequantizeLinear") if node.input[0] in self.constants)


def relative_error(answers: Any, reference: Any) -> float:
    """Root mean square difference over the spread of the reference's answers: random weights have no meaningful pixels."""
    spread = reference - reference.mean(axis=0)
    return float(np.sqrt(np.square(answers - reference).mean() / np.square(spread).mean()))


# ---- the portable dialect ----


def test_portable_zero_points_are_int8_and_zero(quantized: Quantized) -> None:
    net = Net(quantized.portable)
    pairs = net.of("QuantizeLinear", "DequantizeLinear")
    assert len(pairs) > 30
    for node in pairs:
        assert net.constants[node.input[2]].dtype == np.int8
        assert not net.constants[node.input[2]].any()


def test_portable_weights_are_stored_as_int8_with_one_scale_per_output_channel(quantized: Quantized) -> None:
    net = Net(quantized.portable)
    weights = list(net.weight_dequantizers())
    assert len(weights) == len(net.of("Conv"))
    for node in weights:
        stored, scale = net.constants[node.input[0]], net.constants[node.input[1]]
        assert stored.dtype == np.int8
        assert stored.ndim == 4, "no bias is quantised"
        assert scale.shape == (stored.shape[0],)
        assert (np.abs(stored).reshape(len(stored), -1).max(axis=1) >= 126).all(), "each channel uses its range"


def test_portable_activations_have_one_scale_each(quantized: Quantized) -> None:
    net = Net(quantized.portable)
    for node in net.of("QuantizeLinear"):
        assert net.constants[node.input[1]].ndim == 0
        assert net.constants[node.input[1]] > 0


def test_portable_biases_and_head_are_float(quantized: Quantized) -> None:
    net = Net(quantized.portable)
    for node in net.of("Conv"):
        assert net.constants[node.input[2]].dtype == np.float32
    (head,) = net.of("Gemm")
    assert net.constants[head.input[1]].dtype == np.float32
    assert net.makes(head.input[0]) != "DequantizeLinear"
    assert head.name in quantized.record.excluded_nodes


def test_portable_residual_adds_are_quantised_on_the_skip_input_only(quantized: Quantized) -> None:
    net = Net(quantized.portable)
    adds = net.of("Add")
    assert len(adds) == 2
    for node in adds:
        assert sorted(net.makes(name) for name in node.input) == ["Conv", "DequantizeLinear"]


def test_portable_has_nothing_between_a_convolution_and_its_activation_or_on_outputs(quantized: Quantized) -> None:
    net = Net(quantized.portable)
    for node in net.of("Relu", "Clip"):
        assert net.makes(node.input[0]) == "Conv"
    for name in net.outputs:
        assert net.makes(name) not in ("QuantizeLinear", "DequantizeLinear")
    for node in net.of("Conv"):
        assert [net.makes(name) for name in node.input[:2]] == ["DequantizeLinear"] * 2


def test_portable_reads_every_level_of_the_image(quantized: Quantized) -> None:
    net = Net(quantized.portable)
    first = next(node for node in net.of("QuantizeLinear") if net.makes(node.input[0]) == "Transpose")
    assert net.constants[first.input[1]] == np.float32(1 / 64), "image − 128 is the int8 value itself"


def test_portable_is_legal(quantized: Quantized) -> None:
    assert lint_qdq(onnx.load(quantized.portable)) == []


# ---- the x86 dialect ----


def test_x86_activations_are_unsigned_with_zero_point_0_behind_relu(quantized: Quantized) -> None:
    reference, net = Net(quantized.fp32), Net(quantized.x86)
    behind_relu = {node.output[0] for node in reference.of("Relu", "Clip")}
    seen = 0
    for node in net.of("QuantizeLinear"):
        zero_point = net.constants[node.input[2]]
        assert zero_point.dtype == np.uint8
        if node.input[0] in behind_relu:
            seen += 1
            assert zero_point == 0
    assert seen == len(behind_relu)


def test_x86_leaves_the_clip_to_the_quantiser(quantized: Quantized) -> None:
    assert not Net(quantized.x86).of("Relu", "Clip")


def test_x86_reads_every_level_of_the_image_and_nothing_else(quantized: Quantized) -> None:
    net = Net(quantized.x86)
    (first,) = (node for node in net.nodes if "image" in node.input)
    assert first.op_type == "DequantizeLinear"
    assert net.constants[first.input[1]] == np.float32(1 / 64)
    assert net.constants[first.input[2]] == np.uint8(128), "the uint8 value is that of the image"
    assert not net.of("Cast", "Sub", "Div")


def test_x86_biases_are_int32_and_its_head_is_float(quantized: Quantized) -> None:
    net = Net(quantized.x86)
    kinds = [net.constants[node.input[0]].dtype for node in net.weight_dequantizers()]
    assert kinds.count(np.dtype(np.int32)) == kinds.count(np.dtype(np.int8)) == len(net.of("Conv"))
    (head,) = net.of("Gemm")
    assert net.constants[head.input[1]].dtype == np.float32


def test_x86_is_not_portable_and_the_linter_says_why(quantized: Quantized) -> None:
    rules = {finding.rule for finding in lint_qdq(onnx.load(quantized.x86))}
    assert {"zero-point", "activation-type", "bias-int32", "residual-both"} <= rules


# ---- both ----


@pytest.mark.parametrize("dialect", ["portable", "x86"])
def test_files_are_valid_small_and_keep_the_interface(quantized: Quantized, dialect: str) -> None:
    file = getattr(quantized, dialect)
    model, reference = onnx.load(file), onnx.load(quantized.fp32)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 20)}
    assert list(model.graph.input) == list(reference.graph.input)
    assert list(model.graph.output) == list(reference.graph.output)
    assert TensorProto.INT8 in {tensor.data_type for tensor in model.graph.initializer}
    weights = [
        sum(numpy_helper.to_array(t).nbytes for t in m.graph.initializer if len(t.dims) == 4) for m in (model, reference)
    ]
    assert weights[0] * 4 == weights[1]


# Seen: 0.24 and 0.33 portable, 0.15 and 0.21 x86, which has twice the levels behind ReLU. A broken graph is off by 1 and more.
@pytest.mark.parametrize(("dialect", "limit"), [("portable", 0.45), ("x86", 0.3)])
def test_answers_stay_near_the_float_network(quantized: Quantized, dialect: str, limit: float) -> None:
    error = relative_error(run_onnx(getattr(quantized, dialect), TEST_CROPS), run_onnx(quantized.fp32, TEST_CROPS))
    assert 0 < error < limit


@pytest.mark.parametrize("dialect", ["portable", "x86"])
def test_openvino_agrees_with_onnxruntime(quantized: Quantized, dialect: str) -> None:
    requirements.require("openvino")
    from lmedge.runtimes.openvino import import_openvino

    core = import_openvino().Core()
    model = core.read_model(str(getattr(quantized, dialect)))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ours = run_onnx(getattr(quantized, dialect), TEST_CROPS)
    # Engines round differently, but they read the same scales.
    assert relative_error(compiled(TEST_CROPS)["landmarks"], ours) < 0.2


def test_the_record_says_what_was_measured(quantized: Quantized) -> None:
    record = quantized.record
    assert (record.count, record.method, record.seed, record.split) == (64, "min-max, coverage 0.95", 5, "train")
    assert record.digest == crops_digest(picture_crops(64))
    assert record.sources == ("pictures:64",)
    assert set(record.tool_versions) == {"onnxruntime", "onnx"}


def test_order_and_folder_do_not_matter(quantized: Quantized, tmp_path: Path) -> None:
    copied = tmp_path / "far" / "away.onnx"
    copied.parent.mkdir()
    copied.write_bytes(quantized.fp32.read_bytes())
    files = tmp_path / "p.onnx", tmp_path / "x.onnx"
    quantize_int8(copied, picture_crops(64)[::-1], *files)
    assert files[0].read_bytes() == quantized.portable.read_bytes()
    assert files[1].read_bytes() == quantized.x86.read_bytes()


def test_an_exploding_crop_does_not_take_the_levels_from_the_others(quantized: Quantized, tmp_path: Path) -> None:
    dull = picture_crops(24) // 16 + 120
    loud = picture_crops(1, seed=4)
    scales = {}
    for name, crops, coverage in (("loud", [dull, loud], 0.95), ("dull", [dull], 0.95), ("min-max", [dull, loud], 1.0)):
        quantize_int8(quantized.fp32, np.concatenate(crops), tmp_path / "p.onnx", tmp_path / "x.onnx", coverage=coverage)
        net = Net(tmp_path / "p.onnx")
        scales[name] = math.fsum(float(net.constants[node.input[1]]) for node in net.of("QuantizeLinear"))
    assert scales["loud"] < 1.1 * scales["dull"]
    assert scales["min-max"] > 1.3 * scales["dull"]


@pytest.mark.parametrize("coverage", [0.5, 0.0, 1.01, float("nan")])
def test_a_coverage_out_of_range_is_refused(quantized: Quantized, coverage: float, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"coverage must be above 0\.5"):
        quantize_int8(quantized.fp32, picture_crops(4), tmp_path / "p.onnx", tmp_path / "x.onnx", coverage=coverage)


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (picture_crops(2)[:, :32, :32], "takes crops of 64 × 64 px; the calibration crops have 32 × 32 px"),
        (picture_crops(2).astype(np.float32), "takes crops as uint8"),
        (picture_crops(2)[:0], "at least one"),
        (np.full((3, CROP_PX, CROP_PX, 3), 7, np.uint8), "of one colour each"),
        (np.repeat(picture_crops(1), 3, axis=0), "repeated: 2 of 3 calibration crops are copies"),
    ],
)
def test_useless_crops_are_refused_and_nothing_is_written(
    quantized: Quantized, crops: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CalibrationError, match=message):
        quantize_int8(quantized.fp32, crops, tmp_path / "p.onnx", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
