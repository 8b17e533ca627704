"""The uint8 image becomes float before anything else, and the numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx")

import onnx  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from lmedge.export.graph.cast_first import cast_first  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from tests.export.qdq_texts import CHANNELS, WEIGHTS, graph, pair, parse  # noqa: E402


def answers(model: onnx.ModelProto, x: Any) -> Any:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_the_image_becomes_float_before_it_is_transposed() -> None:
    body = f"""[move] t = Transpose <perm = [0, 3, 1, 2]> (x) [cast] c = Cast <to = 1> (t) [divide] d = Div (c, s)
        {WEIGHTS} {pair("d", "dd")} y = Conv (dd, wd, b)"""
    model = parse(graph(body, x=f"uint8[batch, 1, 1, {CHANNELS}]"))
    turned = cast_first(model)
    onnx.checker.check_model(turned, full_check=True)
    assert [node.name for node in turned.graph.node][:3] == ["cast", "divide", "move"]
    assert lint_qdq(turned) == []
    image = np.arange(4 * CHANNELS, dtype=np.uint8).reshape(4, 1, 1, CHANNELS)
    np.testing.assert_array_equal(answers(turned, image), answers(model, image))
    assert cast_first(turned) == turned


@pytest.mark.parametrize(
    "body",
    [
        "t = Transpose <perm = [0, 3, 1, 2]> (x) c = Cast <to = 1> (t) e = Cast <to = 1> (t) y = Add (c, e)",
        "t = Transpose <perm = [0, 3, 1, 2]> (x) r = Reshape (x, image) c = Cast <to = 1> (t) e = Cast <to = 1> (r)"
        " y = Add (c, e)",
        "c = Cast <to = 1> (x) d = Div (c, s) y = Transpose <perm = [0, 3, 1, 2]> (d)",
    ],
    ids=["two-casts", "two-moves", "already"],
)
def test_other_chains_stay_as_they_are(body: str) -> None:
    model = parse(graph(body, x=f"uint8[batch, 1, 1, {CHANNELS}]"))
    assert cast_first(model) == model


def test_arithmetic_per_channel_stays_behind_the_transposition() -> None:
    body = "t = Transpose <perm = [0, 3, 1, 2]> (x) c = Cast <to = 1> (t) r = Reshape (b, image) y = Div (c, r)"
    model = cast_first(parse(graph(body, x=f"uint8[batch, 1, 1, {CHANNELS}]")))
    assert operators(model) == ["Cast", "Transpose", "Reshape", "Div"]
