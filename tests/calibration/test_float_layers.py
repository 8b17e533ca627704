"""Where no dialect has quantisers: heads, and layers that are left in float."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import helper  # noqa: E402

from lmedge.calibration.place_qdq import (  # noqa: E402
    DIALECTS,
    PORTABLE,
    X86,
    Dialect,
    conv_macs,
    head_nodes,
    place_qdq,
    quantised_layers,
    quantised_tensors,
)
from lmedge.calibration.ranges import measure_extremes  # noqa: E402
from lmedge.errors import CalibrationError  # noqa: E402
from lmedge.export.graph.compare import max_distance_px, run_onnx  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from tests.calibration.graph_writer import GraphWriter, node_of  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, landmark_graph, smooth_crops  # noqa: E402
from tests.calibration.onnx_view import OnnxView  # noqa: E402

CROPS = smooth_crops(16)
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
LAYERS = quantised_layers(landmark_graph())


@cache
def float_network() -> onnx.ModelProto:
    return landmark_graph()


def placed(model: onnx.ModelProto, dialect: Dialect, float_layers: Any = ()) -> onnx.ModelProto:
    ranges = measure_extremes(model, quantised_tensors(model), CROPS).ranges(1.0)
    return place_qdq(model, ranges, dialect, float_layers)


# ---- layers that stay in float ----


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "add"])
def test_a_float_layer_has_no_quantisers_and_neither_has_its_activation(layer: str, dialect: Dialect) -> None:
    model = float_network()
    full, view = OnnxView(placed(model, dialect)), OnnxView(placed(model, dialect, (layer,)))
    assert view.int8_convolutions() == [name for name in full.int8_convolutions() if name != layer]
    (node,) = (node for node in view.of("Conv") if node.name == layer)
    assert view.constants[node.input[1]].dtype == view.constants[node.input[2]].dtype == np.float32
    readers = [reader for reader in model.graph.node if f"{layer}.out" in reader.input]
    if readers[0].op_type == "Clip":
        assert [reader.op_type for reader in view.readers(f"{layer}.out")] == ["Clip"]
        left = {node.name for node in view.of("Clip")} - {node.name for node in full.of("Clip")}
        assert left == ({readers[0].name} if dialect == X86 else set())


def test_a_float_add_rounds_nothing_by_itself() -> None:
    """What it reads may be rounded for another reader: here its skip input, which a convolution reads."""
    (portable,) = OnnxView(placed(float_network(), PORTABLE, ("add", "expand_3"))).of("Add")
    assert list(portable.input) == ["project_2.out", "project_3.out"]
    view = OnnxView(placed(float_network(), X86, ("add", "last")))
    assert not any(reader.op_type in QUANTISERS for reader in view.readers("sum"))
    assert view.int8_convolutions() == [name for name in LAYERS if name not in ("add", "last")]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_with_every_layer_in_float_nothing_is_quantised(dialect: Dialect) -> None:
    model = float_network()
    result = placed(model, dialect, LAYERS)
    assert not OnnxView(result).of(*QUANTISERS)
    assert max_distance_px(run_onnx(result, CROPS), run_onnx(model, CROPS), (CROP_PX, CROP_PX)) == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_order_and_kind_of_the_collection_do_not_matter(dialect: Dialect) -> None:
    results = [
        placed(float_network(), dialect, names) for names in (["add", "stem"], ("stem", "add"), frozenset({"add", "stem"}))
    ]
    assert len({result.SerializeToString(deterministic=True) for result in results}) == 1


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(CalibrationError, match=r"no layer 'stem2'\. lmedge inspect FILE lists the layers"):
        placed(float_network(), PORTABLE, ("stem", "stem2"))


# ---- what always stays in float ----


def excited(crop_px: int = CROP_PX) -> onnx.ModelProto:
    """An inverted residual with squeeze-and-excite, and a large last convolution."""
    writer = GraphWriter(crop_px)
    before = writer.relu("before", writer.conv("stem", writer.image, 8, 3, stride=2))
    filtered = writer.hard_swish("filtered", writer.depthwise("filter", before))
    weighed = writer.squeeze_excite("excite", filtered)
    return writer.model(writer.relu("behind", writer.conv("last", writer.conv("project", weighed, 8), 16)))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_convolutions_on_pooled_features_are_quantised_but_not_their_gate(dialect: Dialect) -> None:
    model = excited()
    result = placed(model, dialect)
    view = OnnxView(result)
    layers = ["stem", "filter", "excite.squeeze", "excite.excite", "project", "last"]
    assert view.int8_convolutions() == layers == quantised_layers(model)
    gate = node_of(result, "excite.gate")
    assert not any(reader.op_type in QUANTISERS for tensor in gate.output for reader in view.readers(tensor))
    assert dialect == X86 or lint_qdq(result) == []


def test_multiply_accumulates_by_hand() -> None:
    assert conv_macs(excited()) == {
        "stem": 8 * 3 * 9 * 16 * 16,
        "filter": 8 * 1 * 9 * 16 * 16,
        "excite.squeeze": 4 * 8,
        "excite.excite": 8 * 4,
        "project": 8 * 8 * 16 * 16,
        "last": 16 * 8 * 16 * 16,
    }


def network_with_head(last: int, activation: str, hidden: int = 0) -> onnx.ModelProto:
    """A network whose last convolution makes so many channels: 2 are less than 2 % of its work, 16 are more."""
    writer = GraphWriter(CROP_PX)
    large = writer.relu("relu", writer.conv("large", writer.conv("stem", writer.image, 16, 3), 24, 3))
    behind = writer.conv("last", large, last)
    make = {"relu": writer.relu, "clip": writer.clip, "hard swish": writer.hard_swish}[activation]
    return writer.model(make("act", behind), hidden=hidden)


def test_the_head_rule_goes_by_the_part_of_the_work() -> None:
    for last, is_small in ((2, True), (16, False)):
        macs = conv_macs(network_with_head(last, "relu"))
        assert (macs["last"] <= 0.02 * sum(macs.values())) == is_small


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("activation", ["relu", "clip", "hard swish"])
def test_a_small_last_convolution_and_what_follows_it_stay_float(activation: str, dialect: Dialect) -> None:
    model = network_with_head(2, activation)
    assert head_nodes(model) == ["last", "act", "flatten", "head", "pairs"]
    assert quantised_layers(model) == ["stem", "large"]
    view = OnnxView(placed(model, dialect))
    assert view.int8_convolutions() == ["stem", "large"]
    for name in ("last.out", "act.out", "flatten.out", "head.out"):
        assert not any(reader.op_type in QUANTISERS for reader in view.readers(name))
    assert [node.op_type for node in view.readers("last.out")] == [node_of(model, "act").op_type]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_large_last_convolution_is_quantised(dialect: Dialect) -> None:
    model = network_with_head(16, "relu")
    assert head_nodes(model) == ["flatten", "head", "pairs"]
    assert OnnxView(placed(model, dialect)).int8_convolutions() == ["stem", "large", "last"]


@pytest.mark.parametrize("last", [2, 16])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_activation_between_linear_layers_belongs_to_the_head(last: int, dialect: Dialect) -> None:
    model = network_with_head(last, "relu", hidden=6)
    assert {"hidden", "hidden.relu", "head"} <= set(head_nodes(model))
    assert not {"hidden.out", "hidden.relu.out"} & set(quantised_tensors(model))
    view = OnnxView(placed(model, dialect))
    for name in ("hidden.out", "hidden.relu.out", "head.out"):
        assert not any(reader.op_type in QUANTISERS for reader in view.readers(name))


# ---- networks that cannot be quantised ----


def test_a_network_without_a_convolution_is_refused() -> None:
    writer = GraphWriter(CROP_PX)
    with pytest.raises(CalibrationError, match="no convolution, so there is nothing to quantise"):
        place_qdq(writer.model(writer.relu("relu", writer.image)), {}, PORTABLE)


@pytest.mark.parametrize(("layer", "name"), [("depthwise_1", "stem"), ("stem", ""), ("stem.out.clip", "")])
def test_layers_that_names_do_not_tell_apart_are_refused(layer: str, name: str) -> None:
    model = landmark_graph()
    node_of(model, layer).name = name
    with pytest.raises(CalibrationError, match=f"layers of the graph are called {name!r}"):
        quantised_layers(model)


def test_other_nodes_need_no_name() -> None:
    model = landmark_graph()
    node_of(model, "flatten").name = ""
    model.graph.output.append(helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, ["batch", 1024]))
    assert quantised_layers(model) == LAYERS
