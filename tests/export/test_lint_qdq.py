"""Every rule of the linter finds the graph that breaks it, names the node and the remedy, and passes its sound counterpart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import requirements

requirements.require("onnx")

import onnx  # noqa: E402

from lmedge.errors import ExportError  # noqa: E402
from lmedge.export.graph.lint_qdq import RULES, Finding, lint_file, lint_qdq  # noqa: E402
from tests.export.qdq_texts import (  # noqa: E402
    CASES,
    CONV,
    FLOAT_WEIGHTS,
    IMAGES,
    SOUND,
    WEIGHTS,
    Case,
    graph,
    pair,
    parse,
)

# Layers that no engine computes in int8, as MobileNetV3 has them: h-swish, and a squeeze with its gate.
SQUEEZE = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) t = HardSwish (c)
    m = ReduceMean <keepdims = 1> (t, rows_and_columns) {pair("m", "md")} r = Conv (md, wd, b) r2 = Relu (r) {pair("r2", "rd")}
    e = Conv (rd, wd, b) gate = HardSigmoid (e) u = Mul (t, gate) {pair("u", "ud")} p = Conv (ud, wd, b) y = Add (xd, p)"""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_names_what_breaks_it_and_nothing_else_does(case: Case) -> None:
    findings = lint_qdq(parse(case.broken))
    assert {finding.rule for finding in findings} == {case.rule}, "\n".join(map(str, findings))
    assert findings[0].node == case.node


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_sound_counterpart_is_valid_and_clean(case: Case) -> None:
    onnx.checker.check_model(parse(case.sound), full_check=True)
    assert lint_qdq(parse(case.sound)) == []


def test_the_table_covers_every_rule() -> None:
    assert {case.rule for case in CASES} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_what_tensorrt_does_and_what_to_do(name: str) -> None:
    rule = RULES[name]
    assert rule.effect in ("refused", "slow")
    assert name == name.lower()
    assert rule.why.endswith(".")
    assert rule.cure.endswith(".")


def test_a_finding_reads_as_a_sentence_and_goes_into_a_document() -> None:
    (finding,) = lint_qdq(parse(next(case.broken for case in CASES if case.rule == "bias-int32")))
    assert str(finding).startswith("bias: it dequantises an int32 constant, as quantised biases are (bias-int32). TensorRT's ")
    assert finding.to_json() == {
        "rule": "bias-int32",
        "effect": "refused",
        "node": "bias",
        "what": "it dequantises an int32 constant, as quantised biases are",
        "why": RULES["bias-int32"].why,
        "cure": RULES["bias-int32"].cure,
    }


# ---- graphs that must pass ----


def test_float_networks_have_nothing_to_lint() -> None:
    assert lint_qdq(parse(graph("c = Conv (x, wf, b) r = Relu (c) y = Add (x, r)"))) == []


def test_squeeze_and_excite_and_h_swish_may_stay_in_float() -> None:
    model = parse(graph(SQUEEZE))
    onnx.checker.check_model(model, full_check=True)
    assert lint_qdq(model) == []


@pytest.mark.parametrize("weights", [WEIGHTS, FLOAT_WEIGHTS], ids=["stored", "both-nodes"])
def test_weights_may_be_stored_as_integers_or_as_floats(weights: str) -> None:
    assert lint_qdq(parse(graph(f"{weights} {pair('x', 'xd')} {CONV}"))) == []


def test_half_precision_between_quantisers_is_fine() -> None:
    half = IMAGES.replace("float", "float16")
    body = f"wd = DequantizeLinear <axis = 0> (w, wh, wz) {pair('x', 'xd', scale='h')} c = Conv (xd, wd) y = HardSwish (c)"
    assert lint_qdq(parse(graph(body, x=half, y=half))) == []


def test_layers_left_in_float_are_fine() -> None:
    body = f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) e = Conv (c, wf, b) y = Add (c, e)"
    assert lint_qdq(parse(graph(body))) == []


def test_a_quantiser_may_stand_before_an_operator_that_moves_values() -> None:
    body = f"{WEIGHTS} {pair('x', 'xd')} m = MaxPool <kernel_shape = [1, 1]> (xd) y = Conv (m, wd, b)"
    assert lint_qdq(parse(graph(body))) == []


# ---- corners ----


def test_a_pair_that_a_layer_and_others_read_is_not_idle() -> None:
    body = f"{WEIGHTS} {pair('x', 'xd')} c = Conv (xd, wd, b) y = Mul (xd, c)"
    assert lint_qdq(parse(graph(body))) == []


def test_every_pair_on_the_way_to_an_output_is_found() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} c = Conv (xd, wd, b) {pair("c", "cd")} t = Transpose <perm = [0, 1, 3, 2]> (cd)
        {pair("t", "y")}"""
    found = [finding.node for finding in lint_qdq(parse(graph(body)))]
    assert found == ["dequantize_c", "dequantize_t"]


def test_a_matrix_product_before_a_convolution_is_no_head() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} f = Reshape (xd, flat) gd = DequantizeLinear (g, s, z) p = Gemm (f, gd)
        i = Reshape (p, image) {pair("i", "id")} y = Conv (id, wd, b)"""
    assert lint_qdq(parse(graph(body))) == []


def test_the_projected_shortcut_of_two_convolutions_may_be_quantised() -> None:
    body = f"""{WEIGHTS} {pair("x", "xd")} a = Conv (xd, wd, b) {pair("a", "ad")} c = Conv (xd, wd, b) y = Add (ad, c)"""
    assert lint_qdq(parse(graph(body))) == []


@pytest.mark.parametrize(("options", "axis"), [("", 1), ("<transB = 1>", 0)])
def test_the_output_channels_of_a_matrix_product_depend_on_its_layout(options: str, axis: int) -> None:
    def lint(at: int) -> set[str]:
        body = f"""{WEIGHTS} {pair("x", "xd")} f = Reshape (xd, flat) gd = DequantizeLinear <axis = {at}> (g, ws, wz)
            p = Gemm {options} (f, gd) i = Reshape (p, image) {pair("i", "id")} y = Conv (id, wd, b)"""
        return {finding.rule for finding in lint_qdq(parse(graph(body)))}

    assert lint(axis) == set()
    assert lint(1 - axis) == {"weight-axis"}


def test_nodes_without_a_name_are_told_by_what_they_make() -> None:
    model = parse(SOUND)
    for node in model.graph.node:
        node.ClearField("name")
    model.graph.node[0].attribute[0].i = 1
    assert [finding.node for finding in lint_qdq(model)] == ["DequantizeLinear → wd"]


# ---- files ----


def test_a_file_is_linted_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "graph.bin").write_bytes(parse(CASES[0].broken).SerializeToString())
    assert [type(finding) for finding in lint_file(tmp_path / "graph.bin")] == [Finding, Finding]


@pytest.mark.parametrize("content", [None, b"not a graph"])
def test_what_is_no_onnx_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "file.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="cannot be read as an ONNX file"):
        lint_file(tmp_path / "file.onnx")
