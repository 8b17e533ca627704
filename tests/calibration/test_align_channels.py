"""Channel alignment: the same answers, from channels that share one range well."""

from __future__ import annotations

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.calibration.align_channels import align_channels, aligned_pairs  # noqa: E402
from lmedge.calibration.place_qdq import PORTABLE, place_qdq, quantised_tensors  # noqa: E402
from lmedge.calibration.ranges import measure_extremes  # noqa: E402
from lmedge.export.graph.compare import INPUT, max_distance_px, open_session, run_onnx  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, EXPANSION, PROJECTION, constants, landmark_graph, smooth_crops  # noqa: E402

HW = (CROP_PX, CROP_PX)


def between(model: onnx.ModelProto) -> np.ndarray:
    """What stands between the two convolutions of the pair, (channels, values), on the crops of the tests."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.append(onnx.helper.make_tensor_value_info(f"{PROJECTION}.out", onnx.TensorProto.FLOAT, None))
    features = open_session(probed).run([f"{PROJECTION}.out"], {INPUT: smooth_crops(16)})[0]
    return np.moveaxis(features, 1, 0).reshape(features.shape[1], -1)


@pytest.mark.parametrize("unequal", [1.0, 30.0])
def test_the_answers_stay_and_the_channels_match(unequal: float) -> None:
    model, crops = landmark_graph(unequal=unequal), smooth_crops(16)
    before = model.SerializeToString()
    aligned = align_channels(model, crops)
    assert model.SerializeToString() == before, "the given model is not changed"
    assert max_distance_px(run_onnx(aligned, smooth_crops(8, seed=1)), run_onnx(model, smooth_crops(8, seed=1)), HW) < 1e-3

    def widths(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.ptp(values, axis=1))

    assert widths(between(aligned)).max() < 3 * widths(between(aligned)).min()
    centres = (between(aligned).max(axis=1) + between(aligned).min(axis=1)) / 2
    assert (np.abs(centres) < 0.35 * widths(between(aligned))).all()
    if unequal > 1:
        assert widths(between(model)).max() > 8 * widths(between(model)).min(), "so the first assertion says something"


def test_only_the_pair_changes() -> None:
    model = landmark_graph()
    aligned = align_channels(model, smooth_crops(4))
    assert [node.SerializeToString() for node in aligned.graph.node] == [node.SerializeToString() for node in model.graph.node]
    after = constants(aligned)
    changed = {name for name, value in constants(model).items() if not np.array_equal(value, after[name])}
    assert changed == {f"{layer}.{part}" for layer in (PROJECTION, EXPANSION) for part in ("weight", "bias")}


def test_the_order_of_the_crops_does_not_matter() -> None:
    model, crops = landmark_graph(), smooth_crops(6)
    assert align_channels(model, crops).SerializeToString() == align_channels(model, crops[::-1].copy()).SerializeToString()


def test_it_makes_unequal_channels_quantise_better() -> None:
    model, crops = landmark_graph(unequal=100.0), smooth_crops(32)

    def error_px(network: onnx.ModelProto) -> float:
        ranges = measure_extremes(network, quantised_tensors(network), crops).ranges(1.0)
        return max_distance_px(run_onnx(place_qdq(network, ranges, PORTABLE), crops), run_onnx(model, crops), HW)

    assert error_px(align_channels(model, crops)) < 0.5 * error_px(model)


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def pad(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    set_attribute(node, "pads", [1, 1, 1, 1])


def pad_by_name(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    set_attribute(node, "auto_pad", "SAME_UPPER")


def stride(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    set_attribute(node, "strides", [2, 2])


def group(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    set_attribute(node, "group", 2)


def activate(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    graph.node.append(onnx.helper.make_node("Relu", [node.input[0]], ["between"], name="between"))
    node.input[0] = "between"


def read_twice(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    graph.node.append(onnx.helper.make_node("Relu", [node.input[0]], ["second"], name="second"))


def answer_it(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None))


def share_weight(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    graph.node.append(onnx.helper.make_node("Relu", [node.input[1]], ["second"], name="second"))


def drop_bias(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    del node.input[2]


@pytest.mark.parametrize("change", [pad, pad_by_name, stride, group, activate, read_twice, answer_it, share_weight, drop_bias])
def test_where_a_channel_is_not_free_nothing_changes(change: object) -> None:
    model = landmark_graph()
    assert aligned_pairs(model) == [(PROJECTION, EXPANSION)]
    assert callable(change)
    change(model.graph, next(node for node in model.graph.node if node.name == EXPANSION))
    assert aligned_pairs(model) == []
    assert align_channels(model, smooth_crops(1)).SerializeToString() == model.SerializeToString()
