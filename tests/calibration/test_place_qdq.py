"""Where each dialect has quantisers."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.calibration.place_qdq import (  # noqa: E402
    DIALECTS,
    PORTABLE,
    X86,
    Dialect,
    Ranges,
    place_qdq,
    quantised_layers,
    quantised_tensors,
)
from lmedge.calibration.ranges import measure_extremes  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from tests.calibration.graph_writer import with_activation  # noqa: E402
from tests.calibration.landmark_graph import landmark_graph, smooth_crops  # noqa: E402
from tests.calibration.onnx_view import OnnxView  # noqa: E402

CROPS = smooth_crops(16)
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
ACTIVATIONS = ("Relu", "Clip")


@cache
def float_network(activation: str = "Clip") -> onnx.ModelProto:
    return with_activation(landmark_graph(), "Relu") if activation == "Relu" else landmark_graph()


def ranges_of(model: onnx.ModelProto) -> Ranges:
    return measure_extremes(model, quantised_tensors(model), CROPS).ranges(1.0)


def placed(model: onnx.ModelProto, dialect: Dialect) -> onnx.ModelProto:
    return place_qdq(model, ranges_of(model), dialect)


@pytest.fixture(scope="module", params=ACTIVATIONS)
def portable(request: pytest.FixtureRequest) -> OnnxView:
    return OnnxView(placed(float_network(request.param), PORTABLE))


@pytest.fixture(scope="module", params=ACTIVATIONS)
def x86(request: pytest.FixtureRequest) -> OnnxView:
    return OnnxView(placed(float_network(request.param), X86))


# ---- the portable dialect ----


def test_portable_zero_points_are_int8_and_zero(portable: OnnxView) -> None:
    pairs = portable.of(*QUANTISERS)
    assert len(pairs) > 20
    for node in pairs:
        assert portable.constants[node.input[2]].dtype == np.int8
        assert not portable.constants[node.input[2]].any()


def test_portable_weights_are_stored_as_int8_with_one_scale_per_output_channel(portable: OnnxView) -> None:
    weights = list(portable.weight_dequantizers())
    assert len(weights) == len(portable.of("Conv"))
    for node in weights:
        stored, scale = portable.constants[node.input[0]], portable.constants[node.input[1]]
        assert stored.dtype == np.int8
        assert stored.ndim == 4, "no bias is quantised"
        assert scale.shape == (stored.shape[0],)
        assert (np.abs(stored).reshape(len(stored), -1).max(axis=1) >= 96).all(), "each channel uses most of its range"


def test_portable_activations_have_one_scale_each(portable: OnnxView) -> None:
    for node in portable.of("QuantizeLinear"):
        assert portable.constants[node.input[1]].ndim == 0
        assert portable.constants[node.input[1]] > 0


def test_portable_biases_and_head_are_float(portable: OnnxView) -> None:
    for node in portable.of("Conv"):
        assert portable.constants[node.input[2]].dtype == np.float32
    (head,) = portable.of("Gemm")
    assert portable.constants[head.input[1]].dtype == np.float32
    assert portable.makes(head.input[0]) == "Reshape"


def test_portable_residual_adds_are_quantised_on_the_skip_input_only(portable: OnnxView) -> None:
    (add,) = portable.of("Add")
    assert sorted(portable.makes(name) for name in add.input) == ["Conv", "DequantizeLinear"]


def test_portable_has_nothing_between_a_convolution_and_its_activation_or_on_outputs(portable: OnnxView) -> None:
    assert len(portable.of(*ACTIVATIONS)) == 7
    for node in portable.of(*ACTIVATIONS):
        assert portable.makes(node.input[0]) == "Conv"
    for name in portable.outputs:
        assert portable.makes(name) not in QUANTISERS
    for node in portable.of("Conv"):
        assert [portable.makes(name) for name in node.input[:2]] == ["DequantizeLinear"] * 2


def test_portable_reads_every_level_of_the_image(portable: OnnxView) -> None:
    (first,) = (node for node in portable.of("QuantizeLinear") if node.input[0] == "normal")
    assert portable.constants[first.input[1]] == np.float32(1 / 64), "image − 128 is the int8 value itself"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_portable_is_legal(activation: str) -> None:
    assert lint_qdq(placed(float_network(activation), PORTABLE)) == []


# ---- the x86 dialect ----


def test_x86_activations_are_unsigned_with_zero_point_0_behind_relu(x86: OnnxView) -> None:
    behind_relu = {node.output[0] for node in float_network().graph.node if node.op_type in ACTIVATIONS}
    seen = 0
    for node in x86.of("QuantizeLinear"):
        zero_point = x86.constants[node.input[2]]
        assert zero_point.dtype == np.uint8
        if node.output[0].removesuffix("_QuantizeLinear_Output") in behind_relu:
            seen += 1
            assert zero_point == 0
    assert seen == len(behind_relu) == 7


def test_x86_leaves_the_clip_to_the_quantiser(x86: OnnxView) -> None:
    assert not x86.of(*ACTIVATIONS)


def test_x86_reads_every_level_of_the_image(x86: OnnxView) -> None:
    (first,) = (node for node in x86.of("QuantizeLinear") if node.input[0] == "normal")
    assert x86.constants[first.input[1]] == np.float32(1 / 64)
    assert x86.constants[first.input[2]] == np.uint8(128), "the uint8 value is that of the image"


def test_x86_quantises_both_sides_of_an_add_and_its_sum(x86: OnnxView) -> None:
    (add,) = x86.of("Add")
    assert [x86.makes(name) for name in add.input] == ["DequantizeLinear"] * 2
    assert [node.op_type for node in x86.readers(add.output[0])] == ["QuantizeLinear"]


def test_x86_biases_are_int32_and_its_head_is_float(x86: OnnxView) -> None:
    kinds = [x86.constants[node.input[0]].dtype for node in x86.weight_dequantizers()]
    assert kinds.count(np.dtype(np.int32)) == kinds.count(np.dtype(np.int8)) == len(x86.of("Conv"))
    (head,) = x86.of("Gemm")
    assert x86.constants[head.input[1]].dtype == np.float32


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_x86_is_not_portable_and_the_linter_says_why(activation: str) -> None:
    rules = {finding.rule for finding in lint_qdq(placed(float_network(activation), X86))}
    assert {"zero-point", "activation-type", "bias-int32", "residual-both"} <= rules


# ---- both ----


@pytest.mark.parametrize("dialect", DIALECTS)
def test_scales_are_those_of_the_given_ranges(dialect: Dialect) -> None:
    model = float_network()
    ranges = {**ranges_of(model), "depthwise_1.out.clip": (np.float32(0), np.float32(3))}
    view = OnnxView(place_qdq(model, ranges, dialect))
    scale = {node.output[0]: view.constants[node.input[1]] for node in view.of("QuantizeLinear")}
    levels = {PORTABLE: 127, X86: 255}[dialect]
    for name, greatest in (("depthwise_1.out.clip", 3), ("stem.out.clip", ranges["stem.out.clip"][1])):
        assert scale[f"{name}_QuantizeLinear_Output"] == pytest.approx(greatest / levels, rel=1e-6)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_tensors_that_were_announced_are_quantised_and_the_given_network_is_not_changed(dialect: Dialect) -> None:
    model = landmark_graph()
    before = model.SerializeToString()
    view = OnnxView(placed(model, dialect))
    announced = {f"{name}_QuantizeLinear_Output" for name in quantised_tensors(model)}
    assert {node.output[0] for node in view.of("QuantizeLinear")} <= announced
    assert view.int8_convolutions() == [name for name in quantised_layers(model) if name != "add"]
    assert model.SerializeToString() == before
