"""Scales on a grid where no engine can round differently: what they become, what that costs, and that engines then agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from lmedge.calibration import place_qdq as placing  # noqa: E402
from lmedge.calibration.finish_qdq import finish_qdq  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect, head_nodes  # noqa: E402
from lmedge.export.graph.compare import check_graph, run_onnx  # noqa: E402
from lmedge.export.graph.qdq_graph import QdqGraph  # noqa: E402
from lmedge.export.graph.snap_scales import GRID, snap_scales  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, constants, landmark_graph, smooth_crops  # noqa: E402
from tests.export.quantised import quantised  # noqa: E402

CROPS = smooth_crops(200, seed=4)
FLOAT = landmark_graph()


@pytest.fixture(scope="module")
def loose() -> dict[Dialect, onnx.ModelProto]:
    """Graphs as the quantiser makes them, with scales from ranges alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(placing, "snap_scales", lambda model, float_model: model)
        return {dialect: quantised(FLOAT, dialect, smooth_crops(32)) for dialect in DIALECTS}


@pytest.fixture(scope="module")
def snapped(loose: dict[Dialect, onnx.ModelProto]) -> dict[Dialect, onnx.ModelProto]:
    return {dialect: snap_scales(model, FLOAT) for dialect, model in loose.items()}


def scale_of(view: QdqGraph, quantiser: onnx.NodeProto) -> Any:
    return np.asarray(view.array(quantiser.input[1]), np.float64)


def next_quantiser(view: QdqGraph, tensor: str) -> onnx.NodeProto | None:
    (reader,) = view.readers[tensor]
    if reader.op_type == "QuantizeLinear":
        return reader
    return next_quantiser(view, reader.output[0]) if reader.op_type in ("Clip", "Add") else None


def ratios(model: onnx.ModelProto) -> dict[str, Any]:
    """What each sum is multiplied with to become levels, by layer."""
    view, found = QdqGraph(model.graph), {}
    for node in model.graph.node:
        inputs = [view.maker[name] for name in node.input[:2] if view.op_type(name) == "DequantizeLinear"]
        if len(inputs) < {"Conv": 2, "Add": 1}.get(node.op_type, 3):
            continue
        quantize = next_quantiser(view, node.output[0])
        if quantize is not None:
            scales = [scale_of(view, maker) for maker in inputs]
            product = scales[0] * scales[1] if node.op_type == "Conv" else np.array(scales)
            found[node.name] = product / scale_of(view, quantize)
    return found


# What scales become


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_ratio_is_a_whole_number_of_parts(dialect: Dialect, snapped: dict[Dialect, onnx.ModelProto]) -> None:
    assert GRID % 2 == 1, "an even grid has middles between two levels on it"
    found = ratios(snapped[dialect])
    assert {"stem", "depthwise_2", "project_3", "add"} <= found.keys()
    for layer, ratio in found.items():
        parts = ratio * GRID
        assert (parts > 0.99).all(), layer
        np.testing.assert_allclose(parts, np.rint(parts), rtol=1e-6, err_msg=layer)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_before_they_are_none(dialect: Dialect, loose: dict[Dialect, onnx.ModelProto]) -> None:
    parts = np.concatenate([np.ravel(ratio) * GRID for ratio in ratios(loose[dialect]).values()])
    assert np.abs(parts - np.rint(parts)).max() > 0.4


@pytest.mark.parametrize("dialect", DIALECTS)
def test_scales_only_grow_and_those_of_activations_hardly(
    dialect: Dialect, loose: dict[Dialect, onnx.ModelProto], snapped: dict[Dialect, onnx.ModelProto]
) -> None:
    before, after = constants(loose[dialect]), constants(snapped[dialect])
    assert before.keys() == after.keys()
    for name in before:
        if before[name].dtype == np.float32 and "scale" in name and "bias" not in name:
            assert (after[name] >= before[name] * (1 - 1e-6)).all(), name
            if before[name].ndim == 0:
                assert after[name] <= before[name] * 1.001, name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nodes_and_names_stay_and_so_does_the_head(
    dialect: Dialect, loose: dict[Dialect, onnx.ModelProto], snapped: dict[Dialect, onnx.ModelProto]
) -> None:
    check_graph(snapped[dialect], "snap scales")
    assert snapped[dialect].graph.node == loose[dialect].graph.node
    before, after = constants(loose[dialect]), constants(snapped[dialect])
    head = set(head_nodes(FLOAT))
    names = {name for node in loose[dialect].graph.node if node.name in head for name in node.input if name in before}
    assert names
    assert all(np.array_equal(before[name], after[name]) for name in names)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_weights_are_the_nearest_to_the_float_ones(dialect: Dialect, snapped: dict[Dialect, onnx.ModelProto]) -> None:
    view, weights = QdqGraph(snapped[dialect].graph), constants(FLOAT)
    seen = 0
    for node in snapped[dialect].graph.node:
        if node.op_type == "Conv" and view.op_type(node.input[1]) == "DequantizeLinear":
            stored, scales = (np.asarray(view.array(name), np.float64) for name in view.maker[node.input[1]].input[:2])
            distance = weights[f"{node.name}.weight"] / scales.reshape(-1, 1, 1, 1) - stored
            assert np.abs(distance).max() < 0.501
            seen += 1
    assert seen > 6


def test_int32_biases_keep_their_values(loose: dict[Dialect, onnx.ModelProto], snapped: dict[Dialect, onnx.ModelProto]) -> None:
    view, biases = QdqGraph(snapped[X86].graph), constants(FLOAT)
    for node in snapped[X86].graph.node:
        if node.op_type == "Conv" and view.op_type(node.input[1]) == "DequantizeLinear":
            image, weight, bias = (view.maker[name] for name in node.input)
            number, step = (np.asarray(view.array(name), np.float64) for name in bias.input[:2])
            np.testing.assert_allclose(step, scale_of(view, image) * scale_of(view, weight), rtol=1e-6)
            # Rounded by the quantiser to the old step, and here to the new one.
            assert (np.abs(number * step - biases[f"{node.name}.bias"]) < 1.1 * step).all()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("float_model", [FLOAT, None])
def test_a_second_time_changes_nothing(
    dialect: Dialect, float_model: onnx.ModelProto | None, loose: dict[Dialect, onnx.ModelProto]
) -> None:
    once = snap_scales(loose[dialect], float_model)
    assert snap_scales(once, float_model) == once
    assert snap_scales(once) == once


def test_a_sum_whose_quantiser_stands_behind_another_function_is_left_alone(loose: dict[Dialect, onnx.ModelProto]) -> None:
    swish = onnx.ModelProto()
    swish.CopyFrom(loose[PORTABLE])
    for node in swish.graph.node:
        if node.op_type == "Clip":
            node.CopyFrom(helper.make_node("HardSwish", node.input[:1], node.output, node.name))
    before, after, view = constants(swish), constants(snap_scales(swish, FLOAT)), QdqGraph(swish.graph)
    weights = {node.name: view.maker[node.input[1]].input[0] for node in swish.graph.node if node.name in ("stem", "project_3")}
    changed = {layer: not np.array_equal(before[name], after[name]) for layer, name in weights.items()}
    assert changed == {"stem": False, "project_3": True}


def test_a_float_network_stays() -> None:
    assert snap_scales(FLOAT) == FLOAT


# What it is for


def engines_apart_px(model: onnx.ModelProto) -> Any:
    from lmedge.runtimes.openvino import import_openvino

    core = import_openvino().Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.linalg.norm((compiled(CROPS)["landmarks"] - run_onnx(model, CROPS)) * CROP_PX, axis=2)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_engines_give_the_same_points(
    dialect: Dialect, loose: dict[Dialect, onnx.ModelProto], snapped: dict[Dialect, onnx.ModelProto]
) -> None:
    """But for the order of sums in the float head."""
    requirements.require("openvino")
    assert engines_apart_px(finish_qdq(snapped[dialect], dialect)).max() < 1e-4
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lmedge.calibration.finish_qdq.snap_scales", lambda model: model)
        without = finish_qdq(loose[dialect], dialect)
    assert engines_apart_px(without).max() > 1e-2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_network_loses_nothing(
    dialect: Dialect, loose: dict[Dialect, onnx.ModelProto], snapped: dict[Dialect, onnx.ModelProto]
) -> None:
    expected = run_onnx(FLOAT, CROPS)
    error = [float(np.abs(run_onnx(model, CROPS) - expected).mean()) for model in (loose[dialect], snapped[dialect])]
    assert error[1] < 1.1 * error[0]


def test_a_trained_scale_is_put_back_when_the_file_is_finished(snapped: dict[Dialect, onnx.ModelProto]) -> None:
    trained = onnx.ModelProto()
    trained.CopyFrom(snapped[X86])
    pair = next(pair for pair in QdqGraph(trained.graph).pairs() if pair.source == "depthwise_2.out.clip")
    for tensor in trained.graph.initializer:
        if tensor.name == pair.quantize.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.0137), tensor.name))
    parts = ratios(finish_qdq(trained, X86))["depthwise_2"] * GRID
    np.testing.assert_allclose(parts, np.rint(parts), rtol=1e-6)
