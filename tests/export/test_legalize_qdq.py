"""What other tools write becomes legal, each rewrite keeps what the network says, and a wrong rewrite is caught."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from lmedge.errors import ExportError, InputError  # noqa: E402
from lmedge.export.graph import legalize_qdq as subject  # noqa: E402
from lmedge.export.graph import qdq_rewrites as rewrites  # noqa: E402
from lmedge.export.graph.cast_first import move_casts  # noqa: E402
from lmedge.export.graph.compare import check_graph  # noqa: E402
from lmedge.export.graph.legalize_qdq import EXACT_PX, REWRITES, legalize_checked, legalize_qdq  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from lmedge.export.graph.qdq_graph import QUANTIZE, QdqGraph  # noqa: E402
from lmedge.export.graph.to_fp16 import sort_nodes  # noqa: E402

EXACT = [rewrite.name for rewrite in REWRITES if rewrite.exact]
# The stand-in has random weights: a rounding moves its points by up to 6 px of 64, a wrong rewrite by 20 and more.
ROUNDING_PX = 10.0


# ---- graphs that other tools wrote ----


def crops(count: int, seed: int) -> Any:
    from tests.export.networks import picture_crops

    return picture_crops(count, seed=seed)


@pytest.fixture(scope="module")
def by_onnxruntime(fp32_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., onnx.ModelProto]:
    """`quantize_static` with these options, its own defaults otherwise."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Any] = iter(crops(16, seed=1))

        def get_next(self) -> dict[str, Any] | None:
            crop = next(self.left, None)
            return None if crop is None else {"image": crop[None]}

    def quantize(**options: Any) -> onnx.ModelProto:
        file = tmp_path_factory.mktemp("quantized") / "model.onnx"
        logging.disable(logging.WARNING)  # it recommends a preparation that is not wanted here
        try:
            quantize_static(fp32_onnx, file, Reader(), **options)
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(file)

    return quantize


@pytest.fixture(scope="module")
def symmetric(by_onnxruntime: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    """ONNX Runtime's default layout with unsigned symmetric activations: zero point 128 everywhere, int32 biases, int8 head."""
    from onnxruntime.quantization import QuantType

    return by_onnxruntime(activation_type=QuantType.QUInt8, extra_options={"ActivationSymmetric": True})


@pytest.fixture(scope="module")
def both_nodes(by_onnxruntime: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    """Signed activations, and float weights with both nodes behind them, a scale per channel."""
    return by_onnxruntime(per_channel=True, extra_options={"ActivationSymmetric": True, "AddQDQPairToWeight": True})


@pytest.fixture(scope="module")
def by_nncf(fp32_onnx: Path) -> onnx.ModelProto:
    """NNCF's default: unsigned with zero point 0 behind ReLU6, a scale per channel in front of depthwise convolutions."""
    requirements.require("nncf")
    from lmedge.runtimes.telemetry import telemetry_off

    logging.disable(logging.WARNING)
    try:
        with telemetry_off():
            import nncf

            data = nncf.Dataset(list(crops(8, seed=1)), lambda crop: {"image": crop[None]})
            quantized: onnx.ModelProto = nncf.quantize(onnx.load(fp32_onnx), data, subset_size=8)
    finally:
        logging.disable(logging.NOTSET)
    return quantized


@pytest.fixture(scope="module")
def without_clips(by_nncf: onnx.ModelProto) -> onnx.ModelProto:
    """The same after a tool that leaves ReLU6 to the unsigned quantiser behind it, as ONNX Runtime's does."""
    model = copy(by_nncf)
    maker = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == QUANTIZE and node.input[0] in maker and maker[node.input[0]].op_type == "Clip":
            node.input[0] = maker[node.input[0]].input[0]
    return model


@pytest.fixture(scope="module")
def transposed_first(symmetric: onnx.ModelProto) -> onnx.ModelProto:
    """The same with the uint8 image transposed before it becomes float, as torch's exporter writes it."""
    model = copy(symmetric)
    cast, sub, div, transpose = (node for node in model.graph.node if node.op_type in ("Cast", "Sub", "Div", "Transpose"))
    made = [node.output[0] for node in (cast, sub, div, transpose)]
    for node, read, result in zip((transpose, cast, sub, div), ("image", *made), made, strict=False):
        node.input[0], node.output[0] = read, result
    del model.graph.value_info[:]
    sort_nodes(model.graph)
    return model


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


SOURCES = ("symmetric", "transposed_first", "both_nodes", "by_nncf", "without_clips")


@pytest.mark.parametrize("source", SOURCES)
def test_what_other_tools_write_becomes_legal(source: str, request: pytest.FixtureRequest) -> None:
    model: onnx.ModelProto = request.getfixturevalue(source)
    assert {finding.effect for finding in lint_qdq(model)} == {"refused", "slow"}
    before = model.SerializeToString()
    legal, records = legalize_checked(model, crops(12, seed=2), rounding_px=ROUNDING_PX)
    assert lint_qdq(legal) == []
    check_graph(legal, "legalise")
    assert {record.name for record in records} <= {rewrite.name for rewrite in REWRITES}
    assert all(record.max_px <= EXACT_PX for record in records if record.name in EXACT)
    assert model.SerializeToString() == before, "the given model is left alone"
    assert legalize_qdq(model) == legal
    assert legalize_qdq(legal) == legal


def test_each_source_needs_the_rewrites_it_is_known_for(symmetric: onnx.ModelProto, by_nncf: onnx.ModelProto) -> None:
    def applied(model: onnx.ModelProto) -> set[str]:
        return {record.name for record in legalize_checked(model, crops(2, seed=2), rounding_px=ROUNDING_PX)[1]}

    residual = "residual adds quantised on the skip input only"
    assert applied(symmetric) >= {"uint8 with zero point 128 to int8", "biases in float", "no pair on outputs", residual}
    assert applied(by_nncf) >= {"one scale per activation", "uint8 with zero point 0 to int8", "head in float", residual}


def test_asymmetric_activations_are_refused_by_name(by_onnxruntime: Callable[..., onnx.ModelProto]) -> None:
    model = by_onnxruntime()
    tensors = {name for node in model.graph.node for name in node.output}
    with pytest.raises(ExportError, match=r"quantised to int8 with zero point -?\d+; .*'ActivationSymmetric': True") as caught:
        legalize_qdq(model)
    assert str(caught.value).split("'")[1] in tensors


def test_graphs_of_integer_operators_are_refused_by_name(by_onnxruntime: Callable[..., onnx.ModelProto]) -> None:
    from onnxruntime.quantization import QuantFormat

    model = by_onnxruntime(quant_format=QuantFormat.QOperator, extra_options={"ActivationSymmetric": True})
    with pytest.raises(ExportError, match="QLinearConv computes on integers itself"):
        legalize_qdq(model)


def test_crops_are_checked(symmetric: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="Crops must be uint8"):
        legalize_checked(symmetric, np.zeros((1, 64, 64, 3), np.float32))  # type: ignore[arg-type]


# ---- mutants: each is caught by the comparison with the graph before ----


def _scale(network: onnx.GraphProto, ending: str, factor: float) -> None:
    for tensor in network.initializer:
        if tensor.name.endswith(ending):
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), tensor.name))


def _transposes_otherwise(network: onnx.GraphProto) -> None:
    move_casts(network)
    next(node for node in network.node if node.op_type == "Transpose").attribute[0].ints[2:] = [2, 1]


def _shares_the_smallest(network: onnx.GraphProto) -> None:
    rewrites.share_scale(network)
    _scale(network, "_shared", 0.02)


def _forgets_to_shift(network: onnx.GraphProto) -> None:
    rewrites.sign_middle(network)
    for node in network.node:
        if node.op_type == QUANTIZE:
            node.input[1] = next(tensor.name for tensor in network.initializer if tensor.name.endswith("_scale"))


def _forgets_to_widen(network: onnx.GraphProto) -> None:
    rewrites.sign_lowest(network)
    _scale(network, "_int8", 127 / 255)


def _forgets_the_clip(network: onnx.GraphProto) -> None:
    rewrites.sign_lowest(network)
    maker = {node.output[0]: node for node in network.node}
    for node in network.node:
        if node.op_type == QUANTIZE and node.input[0].endswith("_clipped"):
            node.input[0] = maker[node.input[0]].input[0]


def _forgets_the_scale(network: onnx.GraphProto) -> None:
    rewrites.float_biases(network)
    _scale(network, "_float", 2.0)


def _reverses_the_head(network: onnx.GraphProto) -> None:
    rewrites.float_head(network)
    head = next(node for node in network.node if node.op_type == "Gemm")
    weights = next(tensor for tensor in network.initializer if tensor.name == head.input[1])
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[::-1].copy(), weights.name))


def _drops_the_activation(network: onnx.GraphProto) -> None:
    rewrites.join_activations(network)
    clips = {node.output[0]: node.input[0] for node in network.node if node.op_type == "Clip"}
    for node in network.node:
        node.input[:] = [clips.get(name, name) for name in node.input]


def _adds_the_skip_twice(network: onnx.GraphProto) -> None:
    rewrites.join_residuals(network)
    for node in network.node:
        if node.op_type == "Add":
            pairs = [name for name in node.input if QdqGraph(network).pair(name)]
            node.input[:] = [pairs[0], pairs[0]]


def _answers_before_the_head(network: onnx.GraphProto) -> None:
    rewrites.float_outputs(network)
    head = next(node for node in network.node if node.op_type == "Gemm")
    del head.input[2]


MUTANTS = (
    ("image cast to float first", _transposes_otherwise, "transposed_first"),
    ("one scale per activation", _shares_the_smallest, "by_nncf"),
    ("uint8 with zero point 128 to int8", _forgets_to_shift, "symmetric"),
    ("uint8 with zero point 0 to int8", _forgets_to_widen, "by_nncf"),
    ("uint8 with zero point 0 to int8", _forgets_the_clip, "without_clips"),
    ("biases in float", _forgets_the_scale, "symmetric"),
    ("no pair on outputs", _answers_before_the_head, "symmetric"),
    ("head in float", _reverses_the_head, "by_nncf"),
    ("no pair between a layer and its activation", _drops_the_activation, "symmetric"),
    ("residual adds quantised on the skip input only", _adds_the_skip_twice, "symmetric"),
)


@pytest.mark.parametrize(("name", "mutant", "source"), MUTANTS, ids=[mutant.__name__.strip("_") for _, mutant, _ in MUTANTS])
def test_a_wrong_rewrite_is_caught_by_name(
    name: str,
    mutant: Callable[[onnx.GraphProto], None],
    source: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = request.getfixturevalue(source)
    wrong = tuple(subject.Rewrite(r.name, mutant, r.exact) if r.name == name else r for r in REWRITES)
    assert wrong != REWRITES
    monkeypatch.setattr(subject, "REWRITES", wrong)
    with pytest.raises(ExportError, match=f"After '{name}' a point lies"):
        legalize_checked(model, crops(12, seed=2), rounding_px=ROUNDING_PX)


def test_the_limit_of_roundings_can_be_tightened(symmetric: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match=r"allowed are 0\.001 px"):
        legalize_checked(symmetric, crops(4, seed=2), rounding_px=1e-3)
