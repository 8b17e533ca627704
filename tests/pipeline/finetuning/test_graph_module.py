"""An ONNX graph in PyTorch: an engine's answers, operator by operator, and what it does not know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import torch  # noqa: E402

from lmedge.calibration.finish_qdq import finish_qdq  # noqa: E402
from lmedge.errors import ExportError  # noqa: E402
from lmedge.export.graph.compare import LITERAL, run_onnx  # noqa: E402
from lmedge.pipeline.finetuning.graph_module import GraphModule  # noqa: E402
from tests.pipeline.graph_modules import FLOAT_PX, assert_same, distances_px, every_dialect, every_network, small_graph  # noqa: E402
from tests.pipeline.int8_networks import int8_network  # noqa: E402

# The same answers


@every_network
def test_a_float_network_answers_as_on_onnx_runtime(name: str) -> None:
    model = int8_network(name).fp32
    assert distances_px(GraphModule(model), model).max() < FLOAT_PX


@every_network
@every_dialect
@pytest.mark.parametrize("learn_scales", [False, True])
def test_an_int8_network_answers_as_on_onnx_runtime(name: str, dialect: str, learn_scales: bool) -> None:
    network = int8_network(name)
    module = GraphModule(network.int8[dialect], network.prepared, learn_scales=learn_scales)
    assert_same(distances_px(module, network.int8[dialect]))


@every_dialect
def test_a_finished_file_can_be_read_too(dialect: str) -> None:
    model = finish_qdq(int8_network().int8[dialect], dialect)
    assert_same(distances_px(GraphModule(model), model))


@every_dialect
def test_rounding_another_way_would_be_seen(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = int8_network().int8[dialect]

    def cut_off(x: torch.Tensor, scale: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return (x / scale).floor().clamp(low, high) * scale

    monkeypatch.setattr("lmedge.pipeline.finetuning.graph_module.fake_quantize", cut_off)
    with pytest.raises(AssertionError):
        assert_same(distances_px(GraphModule(model), model))


QUANTISERS = {
    "int8": ("int8", 0),
    "uint8": ("uint8", 0),
    "uint8 with a zero point": ("uint8", 37),
    "int8 with a zero point": ("int8", -101),
}


@pytest.mark.parametrize(("kind", "zero"), QUANTISERS.values(), ids=QUANTISERS)
def test_a_quantiser_rounds_half_to_even_and_saturates(kind: str, zero: int) -> None:
    # Every whole number from −127 to 128 in steps of 2: each second one lies in the middle; and with scale ⅓, most saturate.
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 4, 4, 3)
    for scale in (2.0, 1 / 3):
        model = small_graph(
            """centred = Sub (x, middle)
               q = QuantizeLinear (centred, scale, zero)
               y = DequantizeLinear (q, scale, zero)
               landmarks = Flatten (y)""",
            f"float middle = {{127.0}}, float scale = {{{scale!r}}}, {kind} zero = {{{zero}}}",
        )
        expected = run_onnx(model, image, settings=LITERAL)
        assert len(np.unique(expected)) > 20
        np.testing.assert_array_equal(GraphModule(model)(torch.from_numpy(image)).numpy(), expected)


REPEAT = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
OPERATORS = {
    "arithmetic": (
        "a = Sub (x, c)  b = Div (a, c)  d = Mul (b, x)  e = Add (d, x)  landmarks = Flatten (e)",
        "float c = {3.0}",
    ),
    "clip": ("a = Clip (x, low, high)  landmarks = Flatten (a)", "float low = {60.0}, float high = {200.0}"),
    "clip below": ("a = Clip (x, low)  landmarks = Flatten (a)", "float low = {60.0}"),
    "clip above": ("a = Clip (x, , high)  landmarks = Flatten (a)", "float high = {60.0}"),
    "activations": (
        """a = Sub (x, c)  b = Div (a, d)  e = Relu (b)  f = HardSwish (b)  g = HardSigmoid <alpha = 0.3, beta = 0.4> (b)
           h = HardSigmoid (b)  i = Add (e, f)  j = Add (g, h)  k = Add (i, j)  landmarks = Flatten (k)""",
        "float c = {128.0}, float d = {20.0}",
    ),
    "convolution": (
        """a = Conv <strides = [2, 1], pads = [1, 0, 1, 0], dilations = [1, 2], kernel_shape = [3, 2]> (x, w, b)
           landmarks = Flatten (a)""",
        f"float[2,3,3,2] w = {{{', '.join(f'{math.sin(i):.3f}' for i in range(36))}}}, float[2] b = {{5.0, -7.0}}",
    ),
    "convolution by channel, padded on one side": (
        "a = Conv <group = 3, pads = [0, 1, 2, 0], kernel_shape = [2, 2]> (x, w)  landmarks = Flatten (a)",
        f"float[3,1,2,2] w = {{{', '.join(f'{math.cos(i):.3f}' for i in range(12))}}}",
    ),
    "pooling": ("a = GlobalAveragePool (x)  landmarks = Flatten (a)", ""),
    "mean": ("a = ReduceMean (x, axes)  landmarks = Flatten (a)", "int64[2] axes = {2, 3}"),
    "mean that drops its axes": ("landmarks = ReduceMean <keepdims = 0> (x, axes)", "int64[2] axes = {-1, 2}"),
    "mean over no axes": (
        "a = ReduceMean <noop_with_empty_axes = 1> (x)  landmarks = Flatten (a)",
        "",
    ),
    "reshape with copied and counted sizes": ("landmarks = Reshape (x, shape)", "int64[2] shape = {0, -1}"),
    "flatten later": ("a = Flatten <axis = 3> (x)  landmarks = Reshape (a, shape)", "int64[2] shape = {-1, 48}"),
    "linear": (
        "a = GlobalAveragePool (x)  b = Flatten (a)  landmarks = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (b, w, c)",
        "float[2,3] w = {1.0, 2.0, 3.0, -4.0, 5.0, 6.0}, float[2] c = {10.0, 20.0}",
    ),
    "linear without bias, untransposed": (
        "a = GlobalAveragePool (x)  b = Flatten (a)  landmarks = Gemm (b, w)",
        "float[3,2] w = {1.0, 2.0, 3.0, -4.0, 5.0, 6.0}",
    ),
    "sigmoid": (
        "a = Sub (x, c)  b = Div (a, d)  e = Sigmoid (b)  landmarks = Flatten (e)",
        "float c = {128.0}, float d = {20.0}",
    ),
    "softmax": (
        "a = Div (x, d)  b = Reshape (a, flat)  e = Softmax <axis = 2> (b)  landmarks = Flatten (e)",
        "float d = {20.0}, int64[3] flat = {-1, 3, 16}",
    ),
    "product of matrices": (
        "a = Div (x, d)  b = MatMul (a, w)  landmarks = Flatten (b)",
        "float d = {20.0}, float[4,2] w = {1.0, 2.0, 3.0, -4.0, 5.0, 6.0, 0.5, -1.0}",
    ),
    "softmax over the last axis": ("a = Div (x, d)  e = Softmax (a)  landmarks = Flatten (e)", "float d = {20.0}"),
    "greatest of overlapping parts": (
        "a = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)  landmarks = Flatten (a)",
        "",
    ),
    "greatest, one step at a time": ("a = MaxPool <kernel_shape = [2, 3]> (x)  landmarks = Flatten (a)", ""),
    "greatest of negative numbers": (
        "a = Sub (x, c)  b = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)  landmarks = Flatten (b)",
        "float c = {300.0}",
    ),
    "repeated rows and columns": (
        f"a = Resize <{REPEAT}> (x, , scales)  landmarks = Flatten (a)",
        "float[4] scales = {1.0, 1.0, 2.0, 3.0}",
    ),
    "repeated and cut off": (
        f"a = Resize <{REPEAT}> (x, , scales)  b = Slice (a, starts, ends, axes, steps)  landmarks = Flatten (b)",
        """float[4] scales = {1.0, 1.0, 2.0, 2.0}, int64[2] starts = {0, 0}, int64[2] ends = {7, 5}, int64[2] axes = {2, 3},
           int64[2] steps = {1, 2}""",
    ),
    "slice of the first axes, counted from the end": (
        "a = Slice (x, starts, ends)  landmarks = Flatten (a)",
        "int64[3] starts = {0, -2, -3}, int64[3] ends = {100, 9223372036854775807, -1}",
    ),
    "equal parts": (
        "a, b, d = Split <axis = 1, num_outputs = 3> (x)  e = Sub (a, d)  f = Mul (e, b)  landmarks = Flatten (f)",
        "",
    ),
    "parts of which the last is smaller": (
        "a, b = Split <axis = 1, num_outputs = 2> (x)  c = Concat <axis = 1> (b, a)  landmarks = Flatten (c)",
        "",
    ),
    "parts of given sizes, side by side": (
        "a, b = Split <axis = 3> (x, sizes)  c = Concat <axis = -1> (b, a, b)  landmarks = Flatten (c)",
        "int64[2] sizes = {1, 3}",
    ),
    "sum": ("landmarks = ReduceSum <keepdims = 0> (x, axes)", "int64[2] axes = {2, 3}"),
    "sum that keeps its axes": ("a = ReduceSum (x, axes)  landmarks = Flatten (a)", "int64[1] axes = {-1}"),
    "new axes": (
        "a = GlobalAveragePool (x)  b = Flatten (a)  c = Unsqueeze (b, axes)  d = Mul (c, x)  landmarks = Flatten (d)",
        "int64[2] axes = {-1, 2}",
    ),
    "one of an axis": ("a = Gather <axis = 2> (x, index)  landmarks = Flatten (a)", "int64 index = {3}"),
    "some of an axis": ("a = Gather <axis = 1> (x, indices)  landmarks = Flatten (a)", "int64[2] indices = {-1, 0}"),
    "transposition without an order": (
        "a = Transpose (x)  b = Transpose (a)  landmarks = Flatten (b)",
        "",
    ),
}


@pytest.mark.parametrize(("body", "constants"), OPERATORS.values(), ids=OPERATORS)
def test_each_operator_answers_as_on_onnx_runtime(body: str, constants: str) -> None:
    model = small_graph(body, constants)
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    answers = GraphModule(model)(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(answers, run_onnx(model, image), rtol=1e-5, atol=1e-4)


UNKNOWN = {
    "operator": ("a = Erf (x)  landmarks = Flatten (a)", "", "Erf, is not among Add, Cast, Clip, Concat, Conv"),
    "type": (
        "a = Cast <to = 10> (x)  b = Cast <to = 1> (a)  landmarks = Flatten (b)",
        "",
        "Cast, to another type than float32",
    ),
    "padding": (
        'a = Conv <auto_pad = "SAME_UPPER"> (x, w)  landmarks = Flatten (a)',
        "float[1,3,1,1] w = {1.0, 1.0, 1.0}",
        "Conv, of 'w' pads by itself",
    ),
    "two outputs": (
        "a, i = MaxPool <kernel_shape = [2, 2]> (x)  landmarks = Flatten (a)",
        "",
        "MaxPool, has 2 outputs; expected one",
    ),
    "pooling with a margin at one side": (
        "a = MaxPool <kernel_shape = [2, 2], pads = [0, 0, 1, 1]> (x)  landmarks = Flatten (a)",
        "",
        "MaxPool, has other margins at the end",
    ),
    "pooling that rounds up": (
        "a = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)  landmarks = Flatten (a)",
        "",
        "MaxPool, pads by itself, rounds its size up",
    ),
    "linear resize": (
        'a = Resize <mode = "linear"> (x, , scales)  landmarks = Flatten (a)',
        "float[4] scales = {1.0, 1.0, 2.0, 2.0}",
        "Resize, is linear, half_pixel, round_prefer_floor; expected nearest, asymmetric, floor",
    ),
    "resize by half a position": (
        'a = Resize <mode = "nearest"> (x, , scales)  landmarks = Flatten (a)',
        "float[4] scales = {1.0, 1.0, 2.0, 2.0}",
        "Resize, is nearest, half_pixel",
    ),
    "resize by a part": (
        f"a = Resize <{REPEAT}> (x, , scales)  landmarks = Flatten (a)",
        "float[4] scales = {1.0, 1.0, 1.5, 2.0}",
        "Resize, does not repeat rows and columns a whole number of times",
    ),
    "resize of channels": (
        f"a = Resize <{REPEAT}> (x, , scales)  landmarks = Flatten (a)",
        "float[4] scales = {1.0, 2.0, 2.0, 2.0}",
        "Resize, does not repeat rows and columns",
    ),
    "resize to a size": (
        f"a = Resize <{REPEAT}> (x, , , sizes)  landmarks = Flatten (a)",
        "int64[4] sizes = {1, 3, 8, 8}",
        "Resize, does not repeat rows and columns",
    ),
    "slice backwards": (
        "a = Slice (x, starts, ends, axes, steps)  landmarks = Flatten (a)",
        "int64[1] starts = {3}, int64[1] ends = {0}, int64[1] axes = {2}, int64[1] steps = {-1}",
        "Slice, goes backwards",
    ),
    "table of indices": (
        "a = Gather <axis = 2> (x, indices)  landmarks = Flatten (a)",
        "int64[2,2] indices = {0, 1, 2, 3}",
        "Gather, has indices of 2 dimensions",
    ),
    "shape that is computed": (
        "s = Shape (x)  landmarks = Reshape (x, s)",
        "",
        "Shape, is not among|Reshape, input 's' is computed; expected a constant",
    ),
    "scale that does not fit": (
        "q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, t, z)  landmarks = Flatten (y)",
        "float s = {1.0}, float t = {2.0}, int8 z = {0}",
        "DequantizeLinear, does not undo a QuantizeLinear of the same scale",
    ),
    "scale per channel": (
        "q = QuantizeLinear <axis = 1> (x, s, z)  y = DequantizeLinear <axis = 1> (q, s, z)  landmarks = Flatten (y)",
        "float[3] s = {1.0, 2.0, 3.0}, int8[3] z = {0, 0, 0}",
        "QuantizeLinear, has 3 scales for an activation; expected one",
    ),
    "zero point of a weight": (
        "w = DequantizeLinear (q, s, z)  a = Conv (x, w)  landmarks = Flatten (a)",
        "int8[1,3,1,1] q = {1, 2, 3}, float s = {1.0}, int8 z = {5}",
        "DequantizeLinear, has a weight with the zero point 5; expected 0",
    ),
}


@pytest.mark.parametrize(("body", "constants", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_refused_by_name(body: str, constants: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        GraphModule(small_graph(body, constants))
