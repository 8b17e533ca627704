"""Biases of the portable form in steps of their sums, which is how ONNX Runtime reads them."""

from __future__ import annotations

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from lmedge.calibration.finish_qdq import finish_qdq  # noqa: E402
from lmedge.calibration.place_qdq import PORTABLE  # noqa: E402
from lmedge.export.graph.compare import check_graph, run_onnx  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from lmedge.export.graph.qdq_graph import QdqGraph  # noqa: E402
from lmedge.export.graph.round_biases import round_biases  # noqa: E402
from tests.calibration.landmark_graph import constants, landmark_graph, smooth_crops  # noqa: E402
from tests.export.quantised import quantised  # noqa: E402

CROPS = smooth_crops(24, seed=3)
FLOAT = landmark_graph()


@pytest.fixture(scope="module")
def portable() -> onnx.ModelProto:
    return quantised(FLOAT, PORTABLE, smooth_crops(32))


def of(model: onnx.ModelProto, *op_types: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in op_types]


def test_portable_biases_are_multiples_of_the_step_of_their_sum(portable: onnx.ModelProto) -> None:
    rounded = round_biases(portable)
    check_graph(rounded, "round biases")
    view, before = QdqGraph(rounded.graph), constants(portable)
    seen = 0
    for old, new in zip(of(portable, "Conv"), of(rounded, "Conv"), strict=True):
        if view.op_type(new.input[0]) != "DequantizeLinear":
            assert new == old
            continue
        seen += 1
        scales = [np.asarray(view.array(view.maker[name].input[1]), np.float64) for name in new.input[:2]]
        step, bias = np.prod(np.broadcast_arrays(*scales), axis=0), np.asarray(view.array(new.input[2]), np.float64)
        np.testing.assert_allclose(bias / step, np.rint(bias / step), atol=1e-3)
        assert (np.abs(bias - before[old.input[2]]) <= 0.501 * step).all()
    assert seen > 5


def test_rounded_biases_bring_onnxruntime_to_the_file_as_it_is_written(portable: onnx.ModelProto) -> None:
    """It rounds them itself, so before, it computed another network than the one in the file."""
    from lmedge.export.graph.compare import LITERAL

    def difference(model: onnx.ModelProto) -> float:
        return float(np.abs(run_onnx(model, CROPS) - run_onnx(model, CROPS, settings=LITERAL)).mean())

    assert difference(round_biases(portable)) < 0.2 * difference(portable)


def test_rounded_biases_stay_legal(portable: onnx.ModelProto) -> None:
    assert lint_qdq(finish_qdq(portable, PORTABLE)) == lint_qdq(portable)


def test_a_bias_too_long_to_round_stays(portable: onnx.ModelProto) -> None:
    far = onnx.ModelProto()
    far.CopyFrom(portable)
    for tensor in far.graph.initializer:
        if tensor.name == "stem.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(8, 1e9, np.float32), "stem.bias"))
    assert (constants(round_biases(far))["stem.bias"] == np.float32(1e9)).all()
