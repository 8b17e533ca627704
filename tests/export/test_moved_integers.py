"""Pairs around operators that only move values: the second one takes over the numbers of the first."""

from __future__ import annotations

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import numpy_helper, parser  # noqa: E402

from lmedge.export.graph.compare import LITERAL, open_session  # noqa: E402
from lmedge.export.graph.moved_integers import keep_moved_integers  # noqa: E402

NEAREST = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
FIRST, SECOND = np.float32(0.5), np.float32(0.35)


def pair_move_pair(moves: str) -> onnx.ModelProto:
    """x → pair with scale 0.5 → `moves`, from a to b → pair with scale 0.35 → y."""
    return parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[1,2,4,4] x) => (float[N,C,H,W] y)
        <float s = {{{FIRST}}}, uint8 z = {{7}}, float t = {{{SECOND}}}, uint8 u = {{0}},
         float[4] twice = {{1.0, 1.0, 2.0, 2.0}}, int64[1] zero = {{0}}, int64[1] three = {{3}}, int64[1] rows = {{2}}> {{
            q = QuantizeLinear (x, s, z)
            a = DequantizeLinear (q, s, z)
            {moves}
            r = QuantizeLinear (b, t, u)
            y = DequantizeLinear (r, t, u)
        }}""")


def scale_behind(model: onnx.ModelProto) -> np.float32:
    numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    behind = list(model.graph.node)[-2:]
    assert list(behind[0].input[1:]) == list(behind[1].input[1:])
    return np.float32(numbers[behind[1].input[1]])


MOVES = {
    "rows and columns repeated": f"b = Resize <{NEAREST}> (a, , twice)",
    "part of it": "b = Slice (a, zero, three, rows)",
    "repeated and cut": f"c = Resize <{NEAREST}> (a, , twice)  b = Slice (c, zero, three, rows)",
    "greatest of each": "b = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (a)",
}
OTHERS = {
    "a straight line between positions": 'b = Resize <mode = "linear"> (a, , twice)',
    "with a filter": f"b = Resize <{NEAREST}, antialias = 1> (a, , twice)",
    "a sum": "b = Add (a, a)",
    "a sum, moved": f"c = Add (a, a)  b = Resize <{NEAREST}> (c, , twice)",
    "nothing": "b = Identity (a)",
}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_moved_values_keep_their_integers(moves: str) -> None:
    model = pair_move_pair(moves)
    x = np.random.default_rng(0).normal(0, 20, (1, 2, 4, 4)).astype(np.float32)
    keep_moved_integers(model.graph)
    assert scale_behind(model) == FIRST
    onnx.checker.check_model(model, full_check=True)
    assert {tensor.name for tensor in model.graph.initializer} >= {"s", "z"}
    assert not {"t", "u"} & {tensor.name for tensor in model.graph.initializer}
    # Rounded once: without the second pair, the same.
    [y] = open_session(model, settings=LITERAL).run(None, {"x": x})
    once = parser.parse_model(onnx.printer.to_text(model))
    once.graph.node[-1].CopyFrom(onnx.helper.make_node("Identity", ["b"], ["y"]))
    del once.graph.node[-2]
    [expected] = open_session(once, settings=LITERAL).run(None, {"x": x})
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("moves", OTHERS.values(), ids=OTHERS)
def test_new_values_keep_their_own_scale(moves: str) -> None:
    model = pair_move_pair(moves)
    before = list(model.graph.node)
    keep_moved_integers(model.graph)
    assert list(model.graph.node) == before
    assert scale_behind(model) == SECOND
