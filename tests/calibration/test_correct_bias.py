"""Bias correction: rounded weights shift the mean of no channel, whatever kind of convolution makes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.calibration import correct_bias as subject  # noqa: E402
from lmedge.calibration.correct_bias import correct_biases, measure_means  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect, head_nodes, place_qdq, quantised_tensors  # noqa: E402
from lmedge.calibration.probe import probe  # noqa: E402
from lmedge.calibration.ranges import measure_extremes  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from tests.calibration.graph_writer import GraphWriter, constant, node_of, set_constant  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, constants, landmark_graph, smooth_crops  # noqa: E402

CROPS = smooth_crops(32)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"outputs": 10, "size": 1},
    "grouped": {"outputs": 12, "size": 1, "groups": 4},
    "wide": {"outputs": 10, "size": 3},
    "depthwise": {"outputs": 8, "size": 3, "groups": 8},
    "depthwise, strided": {"outputs": 8, "size": 5, "groups": 8, "stride": 2},
    "two per input": {"outputs": 16, "size": 3, "groups": 8},
}
# What is left of the shift. Biases of the x86 dialect are whole numbers of small steps. A kernel that reaches over the border
# meets zeros there, which the correction takes for more of the same picture; on these small crops that is a lot.
LEFT = {name: 0.5 if kind["size"] > 1 else 0.1 for name, kind in KINDS.items()}


def network_of(kind: str) -> onnx.ModelProto:
    """A stem, a convolution of this kind named "layer", and a large last one."""
    writer = GraphWriter(CROP_PX)
    inputs = writer.relu("relu", writer.conv("stem", writer.image, 8, 3, stride=2))
    return writer.model(writer.conv("last", writer.conv("layer", inputs, **KINDS[kind]), 8, 3))


def placed(model: onnx.ModelProto, dialect: Dialect = PORTABLE, float_layers: tuple[str, ...] = ()) -> onnx.ModelProto:
    ranges = measure_extremes(model, quantised_tensors(model), CROPS).ranges(1.0)
    return place_qdq(model, ranges, dialect, float_layers)


def corrected(model: onnx.ModelProto, dialect: Dialect = PORTABLE, float_layers: tuple[str, ...] = ()) -> onnx.ModelProto:
    return correct_biases(placed(model, dialect, float_layers), model, measure_means(model, CROPS))


def stored(quantised: onnx.ModelProto, layer: str, slot: int) -> npt.NDArray[np.float64]:
    """What a constant of a Q/DQ graph's layer stands for: its weights (slot 1) or its bias (slot 2)."""
    values, name = constants(quantised), node_of(quantised, layer).input[slot]
    maker = next((node for node in quantised.graph.node if name in node.output), None)
    if maker is None:
        return values[name].astype(np.float64)
    integers, scale = (values[each].astype(np.float64) for each in maker.input[:2])
    return np.asarray(integers * scale.reshape(-1, *[1] * (integers.ndim - 1)))


def as_stored(model: onnx.ModelProto, quantised: onnx.ModelProto, layers: list[str]) -> onnx.ModelProto:
    """The float network with the weights and biases of these layers as the int8 one has them."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for layer in layers:
        set_constant(changed, f"{layer}.weight", stored(quantised, layer, 1).astype(np.float32))
        set_constant(changed, f"{layer}.bias", stored(quantised, layer, 2).astype(np.float32))
    return changed


def channel_means(model: onnx.ModelProto, layer: str) -> npt.NDArray[np.float64]:
    """The mean output of each channel over all crops and positions."""
    rows = [features.astype(np.float64).mean(axis=(0, 2, 3)) for (features,) in probe(model, [f"{layer}.out"], CROPS)]
    return np.asarray(np.mean(rows, axis=0))


def shift(model: onnx.ModelProto, quantised: onnx.ModelProto, layers: list[str], layer: str = "layer") -> float:
    """How far the stored weights of some layers move the mean of a channel, in the root mean square over channels."""
    difference = channel_means(as_stored(model, quantised, layers), layer) - channel_means(model, layer)
    return float(np.sqrt(np.square(difference).mean()))


# ---- what it is for ----


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_every_channel_is_that_of_the_float_network(kind: str, dialect: Dialect) -> None:
    network = network_of(kind)
    # The layer alone is rounded: each makes up for itself.
    before, after = (shift(network, make(network, dialect), ["layer"]) for make in (placed, corrected))
    assert before > 1e-4, "so there is something to correct"
    assert after < LEFT[kind] * before


@pytest.mark.parametrize("dialect", DIALECTS)
def test_layers_behind_each_other_gain_together(dialect: Dialect) -> None:
    network = landmark_graph()
    layers = [node.name for node in network.graph.node if node.op_type == "Conv"]
    before, after = (shift(network, make(network, dialect), layers, "last") for make in (placed, corrected))
    assert after < 0.6 * before


@pytest.mark.parametrize("kind", KINDS)
def test_a_sign_turned_round_would_be_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = subject._mean_shift
    monkeypatch.setattr(subject, "_mean_shift", lambda error, means: -original(error, means))
    with pytest.raises(AssertionError):
        test_the_mean_of_every_channel_is_that_of_the_float_network(kind, PORTABLE)


@pytest.mark.parametrize("kind", ["plain", "depthwise"])
def test_errors_of_other_scales_than_the_stored_ones_would_be_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of scales that let each channel reach 127, as one would expect them: `place_qdq` moves them."""
    original = subject._constant

    def expected(view: Any, name: str) -> Any:
        value = original(view, name)
        if value is None or value.ndim < 4 or name not in view.maker:
            return value
        exact = constant(network_of(kind), name.removesuffix("_DequantizeLinear_Output")).astype(np.float64)
        scale = np.abs(exact).max(axis=(1, 2, 3), keepdims=True) / 127
        return np.rint(exact / scale) * scale

    monkeypatch.setattr(subject, "_constant", expected)
    with pytest.raises(AssertionError):
        test_the_mean_of_every_channel_is_that_of_the_float_network(kind, PORTABLE)


# ---- means ----


def test_means_are_those_of_every_tensor_that_a_quantised_convolution_reads() -> None:
    network = landmark_graph()
    means = measure_means(network, CROPS)
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    assert set(means) == {node.input[0] for node in convolutions}
    for name, mean in means.items():
        rows = [features.mean(axis=(0, 2, 3)) for (features,) in probe(network, [name], CROPS)]
        np.testing.assert_allclose(mean, np.mean(rows, axis=0), rtol=1e-4, atol=1e-5)


def test_the_order_of_the_crops_changes_no_bit_of_a_mean() -> None:
    network = landmark_graph()
    straight, mixed = (measure_means(network, CROPS[order]) for order in (range(32), np.random.default_rng(0).permutation(32)))
    assert all(np.array_equal(mean, mixed[name]) for name, mean in straight.items())


# ---- what it touches ----


@pytest.mark.parametrize("dialect", DIALECTS)
def test_biases_of_convolutions_change_and_nothing_else(dialect: Dialect) -> None:
    network = landmark_graph()
    start = placed(network, dialect)
    before = start.SerializeToString()
    result = correct_biases(start, network, measure_means(network, CROPS))
    assert start.SerializeToString() == before
    assert list(result.graph.node) == list(start.graph.node)
    after = constants(result)
    changed = {name for name, value in constants(start).items() if not np.array_equal(value, after[name])}
    assert all(".bias" in name and "scale" not in name for name in changed)
    assert len(changed) == len([node for node in network.graph.node if node.op_type == "Conv"])


def test_biases_are_stored_as_they_were() -> None:
    network = landmark_graph()
    for dialect, kind in ((PORTABLE, np.float32), (X86, np.int32)):
        kinds = {name: value.dtype for name, value in constants(placed(network, dialect)).items()}
        assert {name: value.dtype for name, value in constants(corrected(network, dialect)).items()} == kinds
        assert np.dtype(kind) in {dtype for name, dtype in kinds.items() if ".bias" in name}
    assert lint_qdq(corrected(network, PORTABLE)) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_both_dialects_get_the_same_biases_up_to_their_rounding(dialect: Dialect) -> None:
    network = network_of("plain")
    result = corrected(network, dialect)
    error = stored(result, "layer", 1) - constant(network, "layer.weight")
    means = measure_means(network, CROPS)["relu.out"]
    expected = constant(network, "layer.bias") - (error[:, :, 0, 0] @ means)
    np.testing.assert_allclose(stored(result, "layer", 2), expected, atol=1e-3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_layer_that_stays_in_float_keeps_its_bias(dialect: Dialect) -> None:
    network = network_of("plain")
    np.testing.assert_array_equal(stored(corrected(network, dialect, ("layer",)), "layer", 2), constant(network, "layer.bias"))
    assert not np.array_equal(stored(corrected(network, dialect), "layer", 2), constant(network, "layer.bias"))


def test_the_head_keeps_its_biases() -> None:
    writer = GraphWriter(CROP_PX)
    inputs = writer.relu("relu", writer.conv("large", writer.conv("stem", writer.image, 16, 3), 24, 3))
    network = writer.model(writer.conv("last", inputs, 2))
    assert "last" in head_nodes(network)
    result = corrected(network)
    for name, is_kept in (("stem", False), ("large", False), ("last", True)):
        assert np.array_equal(stored(result, name, 2), constant(network, f"{name}.bias")) == is_kept


def test_convolutions_without_a_bias_stay_without() -> None:
    writer = GraphWriter(CROP_PX)
    network = writer.model(writer.conv("last", writer.conv("first", writer.image, 8, 3, bias=False), 8, 3))
    result = corrected(network)
    assert len(node_of(result, "first").input) == 2
    assert not np.array_equal(stored(result, "last", 2), constant(network, "last.bias"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_bias_that_layers_share_is_corrected_for_none_or_for_each(dialect: Dialect) -> None:
    network = network_of("plain")
    set_constant(network, "layer.bias", np.zeros(8, np.float32))
    set_constant(network, "layer.weight", constant(network, "layer.weight")[:8])
    set_constant(network, "last.weight", constant(network, "last.weight")[:, :8])
    separate = onnx.ModelProto()
    separate.CopyFrom(network)
    node_of(network, "last").input[2] = "layer.bias"
    set_constant(separate, "last.bias", np.zeros(8, np.float32))
    before, after, expected = placed(network, dialect), corrected(network, dialect), corrected(separate, dialect)
    for layer in ("layer", "last"):
        found = stored(after, layer, 2)
        assert np.array_equal(found, stored(before, layer, 2)) or np.allclose(found, stored(expected, layer, 2), atol=1e-6)
