"""Where channels may be scaled: between convolutions that alone touch them, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lmedge.calibration.equalise import Site, equalise, find_sites  # noqa: E402
from lmedge.export.graph.compare import max_distance_px, run_onnx  # noqa: E402
from tests.calibration.graph_writer import GraphWriter, constant, node_of, set_constant, with_activation  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, landmark_graph, smooth_crops  # noqa: E402

CROPS = smooth_crops(24)
RESIDUAL = ("project_2.out", "project_3.out", "sum")
CLIPPED = ("stem", "depthwise_1", "expand_2", "depthwise_2", "expand_3", "depthwise_3")

Change = Callable[[onnx.ModelProto], None]


def moved_px(network: onnx.ModelProto) -> float:
    """How far equalising moves a point."""
    return max_distance_px(run_onnx(equalise(network, CROPS), CROPS), run_onnx(network, CROPS), (CROP_PX, CROP_PX))


def test_the_sites_of_inverted_residuals() -> None:
    plain = [
        ("stem", "depthwise_1", 6), ("depthwise_1", "project_1", 6), ("project_1", "expand_2", np.inf),
        ("expand_2", "depthwise_2", 6), ("depthwise_2", "project_2", 6), ("expand_3", "depthwise_3", 6),
        ("depthwise_3", "project_3", 6),
    ]  # fmt: skip
    tensor = {np.inf: "{}.out", 6: "{}.out.clip"}
    expected = {Site((tensor[ceiling].format(first),), (first,), (second,), ceiling) for first, second, ceiling in plain}
    found = find_sites(landmark_graph())
    (residual,) = [site for site in found if len(site.tensors) > 1]
    assert set(found) - {residual} == expected
    assert (set(residual.tensors), residual.producers, residual.consumers, residual.ceiling) == (
        set(RESIDUAL), ("project_2", "project_3"), ("expand_3", "last"), np.inf
    )  # fmt: skip


def test_relu_has_no_ceiling() -> None:
    assert {site.ceiling for site in find_sites(with_activation(landmark_graph(), "Relu"))} == {np.inf}


@pytest.mark.parametrize("kind", ["HardSwish", "Sigmoid", "Tanh"])
def test_other_activations_leave_linear_sites_only(kind: str) -> None:
    network = with_activation(landmark_graph(unequal=30.0), kind)
    assert [site.producers for site in find_sites(network)] == [("project_1",), ("project_2", "project_3")]
    assert moved_px(network) < 1e-3


def test_a_network_without_sites_stays_as_it_is() -> None:
    writer = GraphWriter(CROP_PX)
    network = writer.model(writer.hard_swish("swish", writer.conv("only", writer.image, 4, 3)))
    assert find_sites(network) == []
    assert equalise(network, CROPS).SerializeToString() == network.SerializeToString()


def test_squeeze_and_excite_rules_out_what_it_pools_and_what_it_weighs() -> None:
    writer = GraphWriter(CROP_PX)
    before = writer.relu("before", writer.conv("first", writer.image, 8))
    filtered = writer.relu("filtered", writer.depthwise("filter", before))
    weighed = writer.squeeze_excite("excite", filtered)
    network = writer.model(writer.conv("last", writer.conv("project", weighed, 6), 8))
    # Between the two convolutions of the gate stands a Relu: exact there as elsewhere.
    expected = [("before.out",), ("excite.relu.out",), ("project.out",)]
    assert [site.tensors for site in find_sites(network)] == expected
    assert moved_px(network) < 1e-3


def test_a_residual_block_of_one_convolution_reads_and_writes_the_same_channels() -> None:
    writer = GraphWriter(CROP_PX)
    start = writer.conv("start", writer.image, 6)
    network = writer.model(writer.conv("last", writer.add("add", start, writer.conv("middle", start, 6, 3)), 4))
    (site,) = find_sites(network)
    assert (site.producers, site.consumers) == (("start", "middle"), ("middle", "last"))
    assert moved_px(network) < 1e-3


def answer_it(tensor: str) -> Change:
    shape = ["batch", None, None, None]
    return lambda model: model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape))


def read_it(tensor: str, kind: str = "Sigmoid") -> Change:
    return lambda model: model.graph.node.append(helper.make_node(kind, [tensor], ["read"], name="read"))


def share(layer: str, slot: int, other: str) -> Change:
    """Lets a convolution read a constant of the other one."""

    def change(model: onnx.ModelProto) -> None:
        node_of(model, layer).input[slot] = node_of(model, other).input[slot]

    return change


def clip_from(least: float) -> Change:
    return lambda model: set_constant(model, "zero", np.float32(least).reshape(()))


def compute(layer: str, slot: int) -> Change:
    """Puts a node between a constant and its reader, so that it is no constant to the reader."""

    def change(model: onnx.ModelProto) -> None:
        node = node_of(model, layer)
        model.graph.node.insert(0, helper.make_node("Identity", [node.input[slot]], ["computed"], name="computed"))
        node.input[slot] = "computed"

    return change


def group_two(layer: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        weight = constant(model, f"{layer}.weight")
        set_constant(model, f"{layer}.weight", weight[:, : weight.shape[1] // 2].copy())
        next(item for item in node_of(model, layer).attribute if item.name == "group").i = 2

    return change


def add_constant(tensor: str, reader: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 6, 1, 1), np.float32), "ones"))
        place = list(model.graph.node).index(node_of(model, reader))
        model.graph.node.insert(place, helper.make_node("Add", [tensor, "ones"], ["added"], name="added"))
        node_of(model, reader).input[0] = "added"

    return change


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (answer_it("project_1.out"), {"project_1.out"}),
        (answer_it("stem.out.clip"), {"stem.out.clip"}),
        (answer_it("stem.out"), {"stem.out.clip"}),
        (answer_it("project_2.out"), set(RESIDUAL)),
        (read_it("project_1.out"), {"project_1.out"}),
        (read_it("stem.out"), {"stem.out.clip"}),
        (read_it("sum", "Relu"), set(RESIDUAL)),
        (read_it("project_1.weight"), {"project_1.out", "depthwise_1.out.clip"}),
        (share("project_3", 1, "project_2"), {*RESIDUAL, "depthwise_2.out.clip", "depthwise_3.out.clip"}),
        (share("project_3", 2, "project_2"), {*RESIDUAL, "depthwise_2.out.clip", "depthwise_3.out.clip"}),
        (clip_from(-1.0), {f"{name}.out.clip" for name in CLIPPED}),
        (compute("stem.out.clip", 2), {"stem.out.clip"}),
        (compute("stem.out.clip", 1), {"stem.out.clip"}),
        (compute("expand_2", 1), {"project_1.out", "expand_2.out.clip"}),
        (compute("expand_2", 2), {"project_1.out", "expand_2.out.clip"}),
        (group_two("expand_2"), {"project_1.out"}),
        (add_constant("project_1.out", "expand_2"), {"project_1.out"}),
    ],
    ids=[
        "output", "clipped output", "output before the clip", "output in a residual", "read", "read before the clip",
        "residual read", "weight read", "shared weight", "shared bias", "clip from -1", "computed ceiling", "computed floor",
        "computed weight", "computed bias", "grouped consumer", "constant added",
    ],
)  # fmt: skip
def test_what_something_else_touches_is_ruled_out_and_the_rest_is_not(change: Change, lost: set[str]) -> None:
    network = landmark_graph()
    before = {site.tensors for site in find_sites(network)}
    change(network)
    onnx.checker.check_model(network)
    assert {site.tensors for site in find_sites(network)} == {tensors for tensors in before if not lost & set(tensors)}
    assert moved_px(network) < 1e-3


def test_convolutions_without_a_bias_are_equalised_too() -> None:
    writer = GraphWriter(CROP_PX)
    first = writer.relu("relu", writer.conv("first", writer.image, 6, 3, bias=False))
    network = writer.model(writer.conv("last", first, 4, bias=False))
    assert len(find_sites(network)) == 1
    assert moved_px(network) < 1e-3
