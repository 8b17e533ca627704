"""The linter accepts the portable layout, and names the node for every way of breaking it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lmedge.export.graph.legalize_qdq import legalize_qdq  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402


def residual_graph() -> onnx.ModelProto:
    """As the quantiser leaves it: conv, activation, and a residual add with a pair in front of both inputs."""
    constants: dict[str, np.ndarray] = {
        "w": np.ones((4, 4, 1, 1), np.int8),
        "w_scale": np.full(4, 0.1, np.float32),
        "w_zero": np.zeros(4, np.int8),
        "scale": np.array(0.5, np.float32),
        "zero": np.array(0, np.int8),
        "bias": np.zeros(4, np.float32),
        "head": np.ones((4, 2), np.float32),
        "shape": np.array([-1, 4]),
    }

    def pair(name: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"], f"{name}_quantize"),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"], f"{name}_dequantize"),
        ]

    nodes = [
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], "w_dequantize", axis=0),
        *pair("x"),
        helper.make_node("Conv", ["x_dq", "w_dq", "bias"], ["a"], "conv_a"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        *pair("b"),
        helper.make_node("Conv", ["b_dq", "w_dq", "bias"], ["c"], "conv_c"),
        *pair("c"),
        helper.make_node("Add", ["x_dq", "c_dq"], ["d"], "add"),
        helper.make_node("Reshape", ["d", "shape"], ["e"], "flatten"),
        helper.make_node("MatMul", ["e", "head"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(node for node in model.graph.node if node.name == name)
    return found


def set_constant(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    next(t for t in model.graph.initializer if t.name == name).CopyFrom(numpy_helper.from_array(array, name))


def test_the_quantisers_own_layout_breaks_one_rule_and_legalising_cures_it() -> None:
    model = residual_graph()
    assert [message.partition(":")[0] for message in lint_qdq(model)] == ["add"]
    legal = legalize_qdq(model)
    onnx.checker.check_model(legal, full_check=True)
    assert lint_qdq(legal) == []
    assert list(node_of(legal, "add").input) == ["x_dq", "c"]
    assert {node.name for node in model.graph.node} - {node.name for node in legal.graph.node} == {"c_quantize", "c_dequantize"}


def test_legalising_twice_changes_nothing_more() -> None:
    legal = legalize_qdq(residual_graph())
    assert legalize_qdq(legal) == legal


def test_a_pair_that_another_layer_reads_stays() -> None:
    model = residual_graph()
    node_of(model, "flatten").input[0] = "c_dq"
    model.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, ["batch", 4, 1, 1]))
    legal = legalize_qdq(model)
    assert list(node_of(legal, "add").input) == ["x_dq", "c"]
    assert node_of(legal, "c_dequantize").output[0] == "c_dq"


def test_of_two_convolutions_the_later_one_ends_the_main_branch() -> None:
    model = residual_graph()
    model.graph.node.insert(4, helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["a_q"], "a_quantize"))
    model.graph.node.insert(5, helper.make_node("DequantizeLinear", ["a_q", "scale", "zero"], ["a_dq"], "a_dequantize"))
    node_of(model, "add").input[0] = "a_dq"
    assert list(node_of(legalize_qdq(model), "add").input) == ["a_dq", "c"]


def _asymmetric(model: onnx.ModelProto) -> None:
    set_constant(model, "zero", np.array(3, np.int8))


def _unsigned(model: onnx.ModelProto) -> None:
    set_constant(model, "zero", np.array(0, np.uint8))


def _no_zero_point(model: onnx.ModelProto) -> None:
    del node_of(model, "x_quantize").input[2]


def _negative_scale(model: onnx.ModelProto) -> None:
    set_constant(model, "w_scale", np.array([0.1, 0.1, -0.1, 0.1], np.float32))


def _scale_per_channel(model: onnx.ModelProto) -> None:
    node_of(model, "b_quantize").input[1] = "w_scale"


def _wrong_axis(model: onnx.ModelProto) -> None:
    node_of(model, "w_dequantize").attribute[0].i = 1


def _int32_bias(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.int32), "bias_i"))
    model.graph.node.insert(
        0, helper.make_node("DequantizeLinear", ["bias_i", "w_scale", "w_zero"], ["bias_dq"], "bias", axis=0)
    )


def _contrib_domain(model: onnx.ModelProto) -> None:
    node_of(model, "x_quantize").domain = "com.microsoft"


def _float_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w_float"))
    node_of(model, "conv_a").input[1] = "w_float"


def _float_input(model: onnx.ModelProto) -> None:
    node_of(model, "conv_a").input[0] = "x"


def _pair_before_activation(model: onnx.ModelProto) -> None:
    node_of(model, "relu").input[0] = "x_dq"


def _quantised_head(model: onnx.ModelProto) -> None:
    node_of(model, "head").input[0] = "b_dq"


def _quantised_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "b_dq"


BREAKS: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (_asymmetric, "x_quantize: the zero point is int8"),
    (_unsigned, "x_quantize: the zero point is uint8"),
    (_no_zero_point, "x_quantize: has no constant zero point"),
    (_negative_scale, "w_dequantize: a scale is not positive"),
    (_scale_per_channel, "b_quantize: an activation has 4 scales"),
    (_wrong_axis, "w_dequantize: a weight has its scales along axis 1"),
    (_int32_bias, "bias: dequantises a constant of type int32"),
    (_contrib_domain, "x_quantize: QuantizeLinear is no plain operator"),
    (_float_weight, "conv_a: only the input is quantised"),
    (_float_input, "conv_a: only the weight is quantised"),
    (_pair_before_activation, "relu: reads quantised values"),
    (_quantised_head, "head: the regression head is quantised"),
    (_quantised_output, "b_dequantize: makes a graph output"),
]


@pytest.mark.parametrize(("break_it", "message"), BREAKS, ids=[rule.__name__.strip("_") for rule, _ in BREAKS])
def test_every_rule_has_a_graph_that_breaks_it(break_it: Callable[[onnx.ModelProto], None], message: str) -> None:
    model = legalize_qdq(residual_graph())
    break_it(model)
    assert any(found.startswith(message) for found in lint_qdq(model)), lint_qdq(model)
