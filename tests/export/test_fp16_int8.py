"""The int8 network with fp16 between its quantisers: types, legality, and that damage is caught before anything is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lmedge.errors import ExportError, InputError  # noqa: E402
from lmedge.export.graph import to_fp16 as module  # noqa: E402
from lmedge.export.graph.compare import LITERAL, check_graph, run_onnx  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from lmedge.export.graph.qdq_graph import QUANTISERS  # noqa: E402
from lmedge.export.graph.to_fp16 import INT8_LIMIT_PX, INT8_LIMIT_RATIO, check_quantisers, to_fp16, write_fp16_int8  # noqa: E402
from tests.calibration.landmark_graph import landmark_graph, smooth_crops  # noqa: E402
from tests.export.quantised import quantised  # noqa: E402

CROPS = smooth_crops(16, seed=7)


@pytest.fixture(scope="module")
def int8_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    onnx.save(quantised(landmark_graph(), "portable", smooth_crops(32)), file)
    return file


@pytest.fixture(scope="module")
def converted(int8_onnx: Path) -> onnx.ModelProto:
    return to_fp16(onnx.load(int8_onnx))


def constants(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def set_constant(model: onnx.ModelProto, name: str, value: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


# What it is


def test_it_takes_uint8_gives_float32_and_computes_in_int8_and_fp16(converted: onnx.ModelProto) -> None:
    check_graph(converted, "to fp16")
    assert next(entry.version for entry in converted.opset_import if not entry.domain) >= 19
    assert converted.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert converted.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    stored = {tensor.data_type for tensor in converted.graph.initializer}
    assert stored == {TensorProto.INT8, TensorProto.FLOAT16, TensorProto.INT64}
    casts = [helper.get_attribute_value(node.attribute[0]) for node in converted.graph.node if node.op_type == "Cast"]
    assert casts == [TensorProto.FLOAT16, TensorProto.FLOAT]


def test_it_has_the_quantisers_of_the_int8_file(int8_onnx: Path, converted: onnx.ModelProto) -> None:
    model = onnx.load(int8_onnx)
    counts = [Counter(node.op_type for node in m.graph.node if node.op_type in QUANTISERS) for m in (model, converted)]
    assert counts[0] == counts[1]
    assert min(counts[0].values()) >= 10
    check_quantisers(model, converted)


def test_it_is_legal_on_tensorrt(converted: onnx.ModelProto) -> None:
    assert lint_qdq(converted) == []


def test_a_file_is_written_smaller_and_with_its_distance(int8_onnx: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.fp16-int8.onnx"
    record = write_fp16_int8(int8_onnx, target, CROPS)
    assert (record.name, record.crops) == ("int8 to fp16-int8", len(CROPS))
    assert target.stat().st_size < int8_onnx.stat().st_size
    written = run_onnx(int8_onnx, CROPS, settings=LITERAL)
    found_px, fused_px = (
        np.linalg.norm((answers - written) * CROPS.shape[1], axis=2).max()
        for answers in (run_onnx(target, CROPS, settings=LITERAL), run_onnx(int8_onnx, CROPS))
    )
    assert record.max_px == pytest.approx(found_px, rel=1e-3)
    assert 0 < record.max_px < max(INT8_LIMIT_PX, INT8_LIMIT_RATIO * fused_px)


def test_the_same_file_gives_the_same_bytes(int8_onnx: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_fp16_int8(int8_onnx, tmp_path / name, CROPS[:2])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# What it must not become


def corrupt_scale(model: onnx.ModelProto) -> None:
    """An activation scale 1 % off, too little to be seen in pixels."""
    name = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    set_constant(model, name, (constants(model)[name] * np.float16(1.01)).astype(np.float16))


def corrupt_one_channel(model: onnx.ModelProto) -> None:
    values = constants(model)
    name = next(name for name, value in values.items() if value.dtype == np.float16 and value.ndim == 1 and "scale" in name)
    changed = values[name].copy()
    changed[0] *= np.float16(2)
    set_constant(model, name, changed)


def corrupt_weight(model: onnx.ModelProto) -> None:
    name, value = next((name, value) for name, value in constants(model).items() if value.dtype == np.int8 and value.ndim == 4)
    changed = value.copy()
    changed.flat[0] ^= 1
    set_constant(model, name, changed)


def corrupt_zero_point(model: onnx.ModelProto) -> None:
    name = next(node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear")
    set_constant(model, name, np.int8(1).reshape(constants(model)[name].shape))


def drop_pair(model: onnx.ModelProto) -> None:
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    dequantize = next(node for node in model.graph.node if node.input[0] == quantize.output[0])
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            if name == dequantize.output[0]:
                node.input[slot] = quantize.input[0]
    for node in (quantize, dequantize):
        model.graph.node.remove(node)


def turn_head(model: onnx.ModelProto) -> None:
    """No quantiser changes, so only the points can tell."""
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    set_constant(model, head.input[2], constants(model)[head.input[2]][::-1].copy())


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (corrupt_scale, "has other numbers"),
        (corrupt_one_channel, "has other numbers"),
        (corrupt_weight, "has other numbers"),
        (corrupt_zero_point, "has other numbers"),
        (drop_pair, "quantisers .* are left"),
        (turn_head, "px off"),
    ],
)
def test_damage_is_caught_and_nothing_is_written(
    mutate: Any, message: str, int8_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(model: onnx.ModelProto) -> onnx.ModelProto:
        made = to_fp16(model)
        mutate(made)
        return made

    monkeypatch.setattr(module, "to_fp16", damaged)
    with pytest.raises(ExportError, match=message):
        write_fp16_int8(int8_onnx, tmp_path / "model.onnx", CROPS)
    assert not list(tmp_path.iterdir())


def test_crops_that_are_none_are_refused(int8_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Crops must be uint8"):
        write_fp16_int8(int8_onnx, tmp_path / "model.onnx", CROPS.astype(np.float32))


def test_an_opset_without_fp16_scales_is_refused(int8_onnx: Path) -> None:
    model = onnx.load(int8_onnx)
    model.opset_import[0].version = 18
    with pytest.raises(ExportError, match="opset 19 or newer"):
        to_fp16(model)
