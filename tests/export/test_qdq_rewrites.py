"""Each rewrite of a Q/DQ graph by itself: what it changes, what it leaves, and the numbers that come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import requirements

requirements.require("onnx")

import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from lmedge.errors import ExportError  # noqa: E402
from lmedge.export.graph import qdq_rewrites as rewrites  # noqa: E402
from lmedge.export.graph.legalize_qdq import legalize_qdq  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from tests.export.qdq_texts import CHANNELS, CONV, FLOAT_WEIGHTS, IMAGES, WEIGHTS, graph, pair, parse  # noqa: E402

RESIDUAL = f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} [add] y = Add (xd, cd)"
X = np.random.default_rng(0).normal(0, 40, (64, CHANNELS, 1, 1)).astype(np.float32)
# uint8 with the zero point 0 and the scale 0.5 ends at 127.5, int8 of the same range has this scale.
UNSIGNED_END = np.float32(127.5)
WIDE_SCALE = UNSIGNED_END / np.float32(127)


def rewritten(model: onnx.ModelProto, rewrite: Any) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    rewrite(changed.graph)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def answers(model: onnx.ModelProto, x: Any = X) -> Any:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(node for node in model.graph.node if node.name == name)
    return found


def constant(model: onnx.ModelProto, name: str) -> Any:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node if node.name}


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


# ---- integers and scales ----


def test_zero_point_128_becomes_0_with_the_same_bits() -> None:
    model = parse(graph(f"{WEIGHTS} {pair('x', 'xd', zero='u128')} {CONV}"))
    signed = rewritten(model, rewrites.sign_middle)
    np.testing.assert_array_equal(answers(signed), answers(model))
    assert lint_qdq(signed) == []


def test_weights_with_zero_point_128_are_stored_again() -> None:
    body = f"wd = DequantizeLinear <axis = 0> (wu, ws, w128) {pair('x', 'xd')} {CONV}"
    model = parse(graph(body.replace("w128", "wu0")))
    middle = numpy_helper.from_array(np.full(CHANNELS, 128, np.uint8), "wu0")
    next(tensor for tensor in model.graph.initializer if tensor.name == "wu0").CopyFrom(middle)
    signed = legalize_qdq(model)
    assert constant(signed, signed.graph.node[0].input[0]).dtype == np.int8
    np.testing.assert_array_equal(answers(signed), answers(model))
    assert lint_qdq(signed) == []


@given(st.floats(-400, 400, width=32))
def test_zero_point_0_keeps_the_range_and_cuts_off_what_is_negative(value: float) -> None:
    model = parse(graph(f"{pair('x', 'y', zero='u0')}"))
    signed = rewritten(model, rewrites.sign_lowest)
    x = np.full((1, CHANNELS, 1, 1), value, np.float32)
    before, after = answers(model, x), answers(signed, x)
    assert np.abs(after - before).max() <= (0.5 + WIDE_SCALE) / 2 + 1e-4, "half a step of each"
    assert after.min() >= 0
    assert after.max() <= UNSIGNED_END


def test_a_relu_that_the_quantiser_replaced_comes_back_as_a_clip() -> None:
    model = parse(graph(f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd', zero='u0')} y = Conv (cd, wd, b)"))
    signed = rewritten(model, rewrites.sign_lowest)
    (clip,) = (node for node in signed.graph.node if node.op_type == "Clip")
    assert clip.input[0] == "c"
    assert [float(constant(signed, name)) for name in clip.input[1:]] == [0, UNSIGNED_END]


@pytest.mark.parametrize("operator", ["Relu (c)", "Sigmoid (c)", "HardSigmoid (c)", "Clip (c, zero, s)", "Mul (square, half)"])
def test_no_clip_is_put_behind_what_is_never_negative(operator: str) -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) square = Abs (c) half = Relu (c)
        r = {operator.replace("zero", "s_zero")} m = MaxPool <kernel_shape = [1, 1]> (r) {pair("m", "md", zero="u0")}
        y = Conv (md, wd, b)"""
    signed = rewritten(parse(graph(body)), rewrites.sign_lowest)
    assert operators(signed).count("Clip") == operator.startswith("Clip")


def test_int8_with_its_lowest_zero_point_is_unsigned_too() -> None:
    unsigned = parse(graph(f"{pair('x', 'y', zero='u0')}"))
    lowest = parse(graph(f"{pair('x', 'y', zero='z3')}"))
    next(t for t in lowest.graph.initializer if t.name == "z3").CopyFrom(numpy_helper.from_array(np.array(-128, np.int8), "z3"))
    np.testing.assert_array_equal(answers(lowest), answers(unsigned))
    signed = [rewritten(model, rewrites.sign_lowest) for model in (unsigned, lowest)]
    np.testing.assert_array_equal(answers(signed[0]), answers(signed[1]))


def test_a_quantiser_without_a_zero_point_is_unsigned() -> None:
    model = parse(graph("[q] xq = QuantizeLinear (x, s) [d] y = DequantizeLinear (xq, s)"))
    explicit = parse(graph(f"{pair('x', 'y', zero='u0')}"))
    np.testing.assert_array_equal(
        answers(rewritten(model, rewrites.sign_lowest)), answers(rewritten(explicit, rewrites.sign_lowest))
    )


def test_of_many_scales_the_largest_stays() -> None:
    model = parse(graph(f"{WEIGHTS} {pair('x', 'xd', 'ws', 'wz', '<axis = 1>')} {CONV}"))
    scales = np.linspace(0.1, 0.8, CHANNELS, dtype=np.float32)
    next(t for t in model.graph.initializer if t.name == "ws").CopyFrom(numpy_helper.from_array(scales, "ws"))
    shared = rewritten(model, rewrites.share_scale)
    for name in ("quantize_x", "dequantize_x"):
        assert constant(shared, named(shared, name).input[1]) == scales.max()
        assert not named(shared, name).attribute
    assert shared.graph.node[0] == model.graph.node[0], "scales of weights stay"
    assert lint_qdq(shared) == []


def test_biases_become_their_float_values() -> None:
    body = f"{WEIGHTS} {pair('x', 'xd')} [bias] bd = DequantizeLinear <axis = 0> (bi, ws, bz) [conv] y = Conv (xd, wd, bd)"
    model = parse(graph(body))
    in_float = rewritten(model, rewrites.float_biases)
    np.testing.assert_array_equal(
        constant(in_float, named(in_float, "conv").input[2]), np.float32(9) * np.full(8, 0.1, np.float32)
    )
    np.testing.assert_array_equal(answers(in_float), answers(model))
    assert lint_qdq(in_float) == []


# ---- places ----


def test_a_residual_add_reads_its_convolution_and_keeps_the_other_pair() -> None:
    model = parse(graph(RESIDUAL))
    joined = rewritten(model, rewrites.join_residuals)
    assert list(named(joined, "add").input) == ["xd", "c"]
    assert names(model) - names(joined) == {"quantize_c", "dequantize_c"}
    assert lint_qdq(joined) == []


def test_a_pair_that_another_layer_reads_stays() -> None:
    joined = rewritten(
        parse(graph(RESIDUAL.replace("y = Add (xd, cd)", "a = Add (xd, cd) e = Conv (cd, wd, b) y = Add (a, e)"))),
        rewrites.join_residuals,
    )
    assert list(named(joined, "add").input) == ["xd", "c"]
    assert "dequantize_c" in names(joined)


def test_of_two_convolutions_the_later_one_ends_the_main_branch() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} a = Conv (xd, wd, b) {pair("a", "ad")} c = Conv (xd, wd, b) {pair("c", "cd")}
        [add] y = Add (ad, cd)"""
    assert list(named(rewritten(parse(graph(body)), rewrites.join_residuals), "add").input) == ["ad", "c"]


def test_where_only_the_main_branch_is_quantised_neither_is_afterwards() -> None:
    joined = rewritten(parse(graph(RESIDUAL.replace("Add (xd, cd)", "Add (x, cd)"))), rewrites.join_residuals)
    assert list(named(joined, "add").input) == ["x", "c"]


def test_an_activation_reads_its_layer() -> None:
    body = f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) {pair('c', 'cd')} [act] t = HardSwish (cd) y = Conv (cd, wd, b)"
    joined = rewritten(
        parse(graph(body.replace("y = Conv (cd, wd, b)", "e = Conv (cd, wd, b) y = Add (t, e)"))), rewrites.join_activations
    )
    assert list(named(joined, "act").input) == ["c"]
    assert "dequantize_c" in names(joined), "a convolution still reads it"


def test_an_output_keeps_its_name_when_its_pair_goes() -> None:
    body = f"{WEIGHTS} {pair('x', 'xd')} [conv] c = Conv (xd, wd, b) {pair('c', 'y')}"
    plain = rewritten(parse(graph(body)), rewrites.float_outputs)
    assert list(named(plain, "conv").output) == ["y"]
    assert "dequantize_c" not in names(plain)


def test_an_output_that_is_the_input_keeps_an_operator_between() -> None:
    plain = rewritten(parse(graph(pair("x", "y"))), rewrites.float_outputs)
    assert operators(plain) == ["Identity"]
    np.testing.assert_array_equal(answers(plain), X)


def test_every_pair_on_the_way_to_an_output_goes() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) {pair("c", "cd")} t = Transpose <perm = [0, 1, 3, 2]> (cd)
        {pair("t", "y")}"""
    assert operators(rewritten(parse(graph(body)), rewrites.float_outputs)).count("QuantizeLinear") == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_the_head_gets_the_values_of_its_integers(axis: int) -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) f = Reshape (c, flat) {pair("f", "fd")}
        gd = DequantizeLinear <axis = {axis}> (g, ws, wz) [head] y = Gemm (fd, gd)"""
    model = parse(graph(body, y=f"float[batch, {CHANNELS}]"))
    integers = np.arange(64, dtype=np.int8).reshape(8, 8)
    scales = np.linspace(0.1, 0.8, CHANNELS, dtype=np.float32)
    for name, value in (("g", integers), ("ws", scales)):
        next(t for t in model.graph.initializer if t.name == name).CopyFrom(numpy_helper.from_array(value, name))
    head = named(in_float := rewritten(model, rewrites.float_head), "head")
    assert head.input[0] == "f"
    np.testing.assert_array_equal(constant(in_float, head.input[1]), integers * (scales[:, None] if axis == 0 else scales))


def test_float_weights_of_the_head_lose_both_nodes() -> None:
    body = (
        f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) f = Reshape (c, flat) {pair("gf", "gd")} [head] y = Gemm (f, gd)"""
    )
    model = rewritten(parse(graph(body, y=f"float[batch, {CHANNELS}]")), rewrites.float_head)
    assert list(named(model, "head").input) == ["f", "gf"]


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        (f"{pair('x', 'xd')} [conv] y = Conv (xd, wf, b)", ["x", "wf", "b"]),
        (f"{FLOAT_WEIGHTS} [conv] y = Conv (x, wd, b)", ["x", "wf", "b"]),
        (f"{WEIGHTS} [conv] y = Conv (x, wd, b)", ["x", "wd_float", "b"]),
    ],
    ids=["input", "both-nodes", "stored"],
)
def test_a_half_quantised_layer_becomes_float(body: str, inputs: list[str]) -> None:
    model = rewritten(parse(graph(body)), rewrites.float_half_layers)
    assert list(named(model, "conv").input) == inputs
    assert operators(model) == ["Conv"]


def test_pairs_around_squeeze_and_excite_go() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) t = HardSwish (c) {pair("t", "td")}
        m = GlobalAveragePool (td) {pair("m", "md")} e = Conv (md, wd, b) g2 = HardSigmoid (e) {pair("g2", "gd")}
        [gate] u = Mul (td, gd) {pair("u", "ud")} y = Conv (ud, wd, b)"""
    model = rewritten(parse(graph(body)), rewrites.drop_idle_pairs)
    assert list(named(model, "gate").input) == ["t", "g2"]
    assert {"dequantize_m", "dequantize_u"} <= names(model), "convolutions read these"
    assert lint_qdq(model) == []


def test_convolutions_of_pooled_values_read_them_unrounded() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) m = GlobalAveragePool (c) {pair("m", "md")}
        [squeeze] e = Conv (md, wd, b) r = Relu (e) {pair("r", "rd")} [excite] f = Conv (rd, wd, b)
        u = Mul (c, f) {pair("u", "ud")} [next] y = Conv (ud, wd, b)"""
    model = rewritten(parse(graph(body)), rewrites.float_pooled)
    assert [named(model, name).input[0] for name in ("squeeze", "excite", "next")] == ["m", "r", "ud"]
    assert [named(model, name).input[1] for name in ("squeeze", "excite")] == ["wd", "wd"], "their weights stay int8"
    assert names(model) & {"quantize_m", "dequantize_r"} == set()
    assert lint_qdq(model) == []
    assert legalize_qdq(model) == model


def test_a_pair_that_also_scales_is_no_rounding_and_stays() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) [q] cq = QuantizeLinear (c, s, z)
        [d] cd = DequantizeLinear (cq, s_half, z) y = Relu (cd)"""
    model = parse(graph(body))
    assert legalize_qdq(model).graph.node == model.graph.node


# ---- what cannot be done ----


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{WEIGHTS} {pair('x', 'xd', zero='z3')} {CONV}", "The tensor 'x' is quantised to int8 with zero point 3;"),
        (f"{WEIGHTS} {pair('x', 'xd', zero='i0')} {CONV}", "The tensor 'x' is quantised to int16 with zero point 0;"),
        (f"wd = DequantizeLinear <axis = 0> (w, ws, wz1) {pair('x', 'xd')} {CONV}", "The tensor 'w' is quantised to int8"),
        (f"wd = DequantizeLinear <axis = 0> (wu, ws, wu0) {pair('x', 'xd')} {CONV}", "The tensor 'wu' is quantised to uint8"),
    ],
    ids=["asymmetric", "int16", "asymmetric-weights", "unsigned-weights"],
)
def test_what_no_rewrite_makes_symmetric_is_named(body: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        legalize_qdq(parse(graph(body, opset=21)))


def test_the_uint8_image_cannot_be_called_int8() -> None:
    model = parse(graph(f"{WEIGHTS} xd = DequantizeLinear (x, s, u128) {CONV}", x=IMAGES.replace("float", "uint8")))
    with pytest.raises(ExportError, match="The tensor 'x' is quantised to uint8 with zero point 128"):
        legalize_qdq(model)


def test_arithmetic_on_bare_integers_is_named() -> None:
    body = f"{WEIGHTS} [q] xq = QuantizeLinear (x, s, z) r = Relu (xq) xd = DequantizeLinear (r, s, z) {CONV}"
    with pytest.raises(ExportError, match="q: its integers go to Relu"):
        legalize_qdq(parse(graph(body)))
