"""What CPU engines read faster, or differently: each step by itself, that no bit of an answer changes, and what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lmedge.calibration.finish_qdq import finish_qdq  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect  # noqa: E402
from lmedge.export.graph.compare import check_graph, run_onnx  # noqa: E402
from lmedge.export.graph.depthwise_channels import fill_depthwise_channels  # noqa: E402
from lmedge.export.graph.qdq_graph import QdqGraph, attribute  # noqa: E402
from lmedge.export.graph.x86_layout import (  # noqa: E402
    STEPS,
    dequantise_image,
    drop_bias_zero_points,
    lay_out_for_x86,
    repeat_add_pairs,
)
from tests.calibration.landmark_graph import constants, landmark_graph, smooth_crops  # noqa: E402
from tests.export.quantised import quantised  # noqa: E402

CROPS = smooth_crops(24, seed=3)
FLOAT = landmark_graph()


@pytest.fixture(scope="module")
def x86() -> onnx.ModelProto:
    return quantised(FLOAT, X86, smooth_crops(32))


@pytest.fixture(scope="module")
def portable() -> onnx.ModelProto:
    return quantised(FLOAT, PORTABLE, smooth_crops(32))


def after(step: Any, model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    step(changed)
    check_graph(changed, step.__name__)
    return changed


def of(model: onnx.ModelProto, *op_types: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in op_types]


# All steps


@pytest.mark.parametrize("step", STEPS)
def test_no_step_changes_a_bit_of_an_answer(x86: onnx.ModelProto, step: Any) -> None:
    changed = after(step, x86)
    assert changed != x86
    np.testing.assert_array_equal(run_onnx(changed, CROPS), run_onnx(x86, CROPS))


def test_together_they_change_none_either(x86: onnx.ModelProto) -> None:
    laid_out = lay_out_for_x86(x86)
    check_graph(laid_out, "lay out")
    np.testing.assert_array_equal(run_onnx(laid_out, CROPS), run_onnx(x86, CROPS))
    assert list(laid_out.graph.input) == list(x86.graph.input)
    assert list(laid_out.graph.output) == list(x86.graph.output)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_finishing_twice_does_nothing_more(dialect: Dialect, x86: onnx.ModelProto, portable: onnx.ModelProto) -> None:
    given = x86 if dialect == X86 else portable
    before = given.SerializeToString(deterministic=True)
    once = finish_qdq(given, dialect)
    assert once != given
    assert finish_qdq(once, dialect) == once
    assert given.SerializeToString(deterministic=True) == before, "the given graph is left alone"


def test_a_float_network_is_left_alone_but_for_its_channels() -> None:
    filled = lay_out_for_x86(FLOAT)
    assert [node.op_type for node in filled.graph.node] == [node.op_type for node in FLOAT.graph.node]
    np.testing.assert_allclose(run_onnx(filled, CROPS), run_onnx(FLOAT, CROPS), atol=1e-6)


# The image


def test_the_image_is_dequantised_where_it_comes_in(x86: onnx.ModelProto) -> None:
    changed = after(dequantise_image, x86)
    assert not of(changed, "Cast", "Sub", "Div")
    first = changed.graph.node[0]
    assert (first.op_type, first.input[0]) == ("DequantizeLinear", "image")
    values = constants(changed)
    assert values[first.input[1]] == np.float32(1 / 64)
    assert values[first.input[2]] == np.uint8(128)
    assert len(of(changed, "Transpose")) == 1


@pytest.mark.parametrize("cast_first", [True, False])
def test_in_whatever_order_it_is_cast_and_transposed(cast_first: bool) -> None:
    from lmedge.export.graph.cast_first import cast_first as move

    given = quantised(move(FLOAT) if cast_first else FLOAT, X86, CROPS)
    changed = after(dequantise_image, given)
    assert changed.graph.node[0].op_type == "DequantizeLinear"
    np.testing.assert_array_equal(run_onnx(changed, CROPS), run_onnx(given, CROPS))


@pytest.mark.parametrize(("slot", "value"), [(1, np.float32(1 / 63)), (2, np.uint8(127))])
def test_a_quantiser_with_other_numbers_than_the_normalisation_stays(x86: onnx.ModelProto, slot: int, value: Any) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(x86)
    view = QdqGraph(other.graph)
    pair = next(pair for pair in view.pairs() if pair.source == "normal")
    for tensor in other.graph.initializer:
        if tensor.name == pair.dequantize.input[slot]:
            tensor.CopyFrom(numpy_helper.from_array(value.reshape(numpy_helper.to_array(tensor).shape), tensor.name))
    assert after(dequantise_image, other) == other


# Depthwise channels


def channels(model: onnx.ModelProto) -> list[int]:
    return [attribute(node, "group", 1) for node in of(model, "Conv") if attribute(node, "group", 1) > 1]


@pytest.mark.parametrize("kind", ["float", "x86", "portable"])
def test_depthwise_convolutions_get_multiples_of_16(kind: str, x86: onnx.ModelProto, portable: onnx.ModelProto) -> None:
    model = {"float": FLOAT, "x86": x86, "portable": portable}[kind]
    filled = after(fill_depthwise_channels, model)
    assert channels(model) == [8, 24, 24]
    assert channels(filled) == [16, 32, 32]
    np.testing.assert_allclose(run_onnx(filled, CROPS), run_onnx(model, CROPS), atol=0 if kind == "x86" else 1e-6)


def test_new_channels_are_zeros_with_a_scale(x86: onnx.ModelProto) -> None:
    filled = after(fill_depthwise_channels, x86)
    view, values = QdqGraph(filled.graph), constants(filled)
    seen = 0
    for node in of(filled, "Conv"):
        for name in node.input[1:]:
            stored, scale = (values[part] for part in view.maker[name].input[:2])
            if len(stored) in (16, 32) and scale.size == len(stored):
                seen += 1
                assert (scale > 0).all()
                if attribute(node, "group", 1) > 1:
                    assert not stored[-8:].any()
    assert seen > 4


def squeeze_and_excite(*, scale_per_channel: bool = False) -> onnx.ModelProto:
    """A depthwise convolution of 24 channels whose result is pooled, gated and summed up, in the opset of the project."""
    random = np.random.default_rng(5)
    values = {
        "expand.w": random.normal(0, 0.5, (24, 3, 1, 1)),
        "depthwise.w": random.normal(0, 0.5, (24, 1, 3, 3)),
        "depthwise.b": random.normal(0, 0.5, 24),
        "down.w": random.normal(0, 0.5, (4, 24, 1, 1)),
        "up.w": random.normal(0, 0.5, (24, 4, 1, 1)),
        "last.w": random.normal(0, 0.5, (2, 24, 1, 1)),
        "gain": random.normal(1, 0.2, (24, 1, 1) if scale_per_channel else ()),
    }
    groups = {"group": 24, "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "expand.w"], ["expanded"], "expand"),
        helper.make_node("HardSwish", ["expanded"], ["swished"]),
        helper.make_node("Mul", ["swished", "gain"], ["gained"]),
        helper.make_node("Conv", ["gained", "depthwise.w", "depthwise.b"], ["filtered"], "depthwise", **groups),
        helper.make_node("GlobalAveragePool", ["filtered"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "down.w"], ["small"], "down"),
        helper.make_node("Relu", ["small"], ["positive"]),
        helper.make_node("Conv", ["positive", "up.w"], ["large"], "up"),
        helper.make_node("HardSigmoid", ["large"], ["gate"]),
        helper.make_node("Mul", ["filtered", "gate"], ["gated"]),
        helper.make_node("Conv", ["gated", "last.w"], ["summed"], "last"),
        helper.make_node("GlobalAveragePool", ["summed"], ["answer"]),
        helper.make_node("Reshape", ["answer", "shape"], ["landmarks"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()]
    tensors.append(numpy_helper.from_array(np.array([0, 1, 2]), "shape"))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 32, 32, 3])],
        [helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["batch", 1, 2])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_gate_around_the_convolution_follows_its_channels() -> None:
    model = squeeze_and_excite()
    filled = after(fill_depthwise_channels, model)
    assert channels(filled) == [32]
    shapes = {name: value.shape for name, value in constants(filled).items()}
    assert shapes["down.w_32"] == (4, 32, 1, 1)
    assert shapes["up.w_32"] == (32, 4, 1, 1)
    assert shapes["last.w_32"] == (2, 32, 1, 1)
    np.testing.assert_allclose(run_onnx(filled, CROPS), run_onnx(model, CROPS), rtol=1e-4)


def test_a_convolution_that_makes_and_reads_the_same_channels_gets_both() -> None:
    """A block without expansion: its shortcut joins what its projection makes with what its depthwise convolution reads."""
    random = np.random.default_rng(6)
    shapes = {"stem": (8, 3, 1, 1), "depthwise": (8, 1, 3, 3), "project": (8, 8, 1, 1), "last": (2, 8, 1, 1)}
    tensors = [numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), n) for n, shape in shapes.items()]
    tensors.append(numpy_helper.from_array(np.array([0, 1, 2]), "shape"))
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        test (uint8[batch, 32, 32, 3] image) => (float[batch, 1, 2] landmarks) {
            floats = Cast<to = 1>(image)
            planes = Transpose<perm = [0, 3, 1, 2]>(floats)
            made = Conv(planes, stem)
            filtered = Conv<group = 8, pads = [1, 1, 1, 1]>(made, depthwise)
            projected = Conv(filtered, project)
            joined = Add(made, projected)
            summed = Conv(joined, last)
            pooled = GlobalAveragePool(summed)
            landmarks = Reshape(pooled, shape)
        }
    """)
    model.graph.initializer.extend(tensors)
    filled = after(fill_depthwise_channels, model)
    found = {tuple(value.shape) for value in constants(filled).values()}
    assert found == {(16, 3, 1, 1), (16, 1, 3, 3), (16, 16, 1, 1), (2, 16, 1, 1), (3,)}
    np.testing.assert_allclose(run_onnx(filled, CROPS), run_onnx(model, CROPS), rtol=1e-4, atol=1e-3)


def test_what_works_on_channels_in_an_unknown_way_keeps_its_channels() -> None:
    model = squeeze_and_excite(scale_per_channel=True)
    assert after(fill_depthwise_channels, model) == model


# Residual adds


def test_the_pair_of_a_branch_that_ends_in_a_convolution_stands_twice(x86: onnx.ModelProto) -> None:
    changed = after(repeat_add_pairs, x86)
    view = QdqGraph(changed.graph)
    (add,) = of(changed, "Add")
    pairs = {name: view.pair(name) for name in add.input}
    main = next(pair for name, pair in pairs.items() if pair and view.pair(pair.source))
    skip = next(pair for pair in pairs.values() if pair and pair != main)
    first = view.pair(main.source)
    assert first is not None
    assert view.maker[first.source].name == "project_3"
    assert list(first.dequantize.input[1:]) == list(main.dequantize.input[1:]) == list(main.quantize.input[1:])
    assert view.maker[skip.source].name == "project_2"


def test_openvino_rounds_what_the_file_rounds(x86: onnx.ModelProto) -> None:
    """Without the second pair it leaves one out, which these answers show."""
    requirements.require("openvino")
    from lmedge.runtimes.openvino import import_openvino

    core = import_openvino().Core()

    def difference(model: onnx.ModelProto) -> float:
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return float(np.abs(compiled(CROPS)["landmarks"] - run_onnx(model, CROPS)).mean())

    assert difference(after(repeat_add_pairs, x86)) < 0.5 * difference(x86)


# Biases


def test_int32_biases_lose_their_zero_points(x86: onnx.ModelProto) -> None:
    changed = after(drop_bias_zero_points, x86)
    values, inputs = constants(changed), [list(node.input) for node in of(changed, "DequantizeLinear")]
    biases = [names for names in inputs if names[0] in values and values[names[0]].dtype == np.int32]
    assert len(biases) > 5
    assert all(len(names) == 2 for names in biases)
    assert all(len(names) == 3 for names in inputs if names not in biases)
    assert len(changed.SerializeToString()) < len(x86.SerializeToString())
