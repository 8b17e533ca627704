"""Equalisation: the float network answers the same, from channels that fill one range; and where it must keep its hands off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.calibration import equalise as subject  # noqa: E402
from lmedge.calibration.equalise import equalise, find_sites  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, Dialect, place_qdq, quantised_tensors  # noqa: E402
from lmedge.calibration.probe import probe  # noqa: E402
from lmedge.calibration.ranges import measure_extremes  # noqa: E402
from lmedge.export.graph.compare import max_distance_px, run_onnx  # noqa: E402
from tests.calibration.graph_writer import constant, set_constant, with_activation  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, constants, landmark_graph, smooth_crops  # noqa: E402

CROPS = smooth_crops(24)
HW = (CROP_PX, CROP_PX)
RESIDUAL = ("project_2.out", "project_3.out", "sum")
NOISE = np.random.default_rng(0).integers(0, 256, (16, CROP_PX, CROP_PX, 3), np.uint8)


def largest(model: onnx.ModelProto, tensor: str, crops: Any = CROPS) -> np.ndarray:
    """The largest absolute value of each channel (C,)."""
    return np.max([np.abs(features).max(axis=(0, 2, 3)) for (features,) in probe(model, [tensor], crops)], axis=0)


def moved_px(model: onnx.ModelProto, reference: onnx.ModelProto, crops: Any = CROPS) -> float:
    return max_distance_px(run_onnx(model, crops), run_onnx(reference, crops), HW)


# ---- the same function ----


@pytest.mark.parametrize("unequal", [1.0, 30.0])
@pytest.mark.parametrize("kind", ["Clip", "Relu"])
def test_the_answers_stay_on_all_crops_that_were_measured(kind: str, unequal: float) -> None:
    network = landmark_graph(unequal=unequal)
    if kind == "Relu":
        network = with_activation(network, kind)
    assert len(find_sites(network)) == 8
    assert moved_px(equalise(network, CROPS), network) < 1e-3


def test_with_relu_the_answers_stay_on_any_crops() -> None:
    network = with_activation(landmark_graph(unequal=30.0), "Relu")
    assert moved_px(equalise(network, CROPS[:2]), network, NOISE) < 1e-3


def test_with_relu6_they_stay_up_to_values_that_were_never_seen() -> None:
    network = landmark_graph()
    assert moved_px(equalise(network, CROPS), network, smooth_crops(24, seed=7)) < 1.0


def test_the_given_network_is_not_changed_and_nodes_stay_what_they_are() -> None:
    network = landmark_graph()
    before = network.SerializeToString()
    equalised = equalise(network, CROPS[:2])
    assert network.SerializeToString() == before
    assert list(equalised.graph.node) == list(network.graph.node)
    changed = {name for name, value in constants(network).items() if not np.array_equal(value, constants(equalised)[name])}
    layers = [name for site in find_sites(network) for name in (*site.producers, *site.consumers)]
    assert {name.split(".")[0] for name in changed} == set(layers)
    assert {"head.weight", "head.bias", "stem.weight"} & changed == {"stem.weight"}


def test_the_order_of_the_crops_does_not_matter() -> None:
    network = landmark_graph(unequal=30.0)
    assert equalise(network, CROPS).SerializeToString() == equalise(network, CROPS[::-1]).SerializeToString()


def test_multiplying_without_dividing_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = subject._multiply

    def only_enlarge(tensor: Any, factors: Any, axis: int) -> None:
        if (factors >= 1).all():
            original(tensor, factors, axis)

    monkeypatch.setattr(subject, "_multiply", only_enlarge)
    with pytest.raises(AssertionError):
        test_the_answers_stay_on_all_crops_that_were_measured("Clip", 1.0)


# ---- equal channels ----


def test_behind_relu6_every_channel_reaches_the_clip() -> None:
    network = landmark_graph(unequal=30.0)
    equalised = equalise(network, CROPS)
    clipped = [site.tensors[0] for site in find_sites(network) if site.ceiling == 6]
    assert len(clipped) == 6
    for name in clipped:
        # One channel of all needs a larger factor than any gets.
        np.testing.assert_allclose(largest(equalised, name), np.minimum(6, 64 * largest(network, name)), rtol=1e-4)


def test_elsewhere_every_channel_reaches_what_the_greatest_did() -> None:
    network = landmark_graph(unequal=30.0)
    equalised = equalise(network, CROPS)
    before, after = largest(network, "project_1.out"), largest(equalised, "project_1.out")
    assert before.max() > 8 * before.min(), "so there is something to do"
    # The layers before it do not change what reaches it.
    np.testing.assert_allclose(after, before.max(), rtol=1e-4)


def test_tensors_that_adds_join_share_their_factors() -> None:
    network = landmark_graph()
    equalised = equalise(network, CROPS)
    factors = [largest(equalised, name) / largest(network, name) for name in RESIDUAL]
    np.testing.assert_allclose(factors[1], factors[0], rtol=1e-4)
    np.testing.assert_allclose(factors[2], factors[0], rtol=1e-4)
    joint = np.max([largest(equalised, name) for name in RESIDUAL], axis=0)
    np.testing.assert_allclose(joint, joint.max(), rtol=1e-4)


def test_a_channel_that_hardly_ever_speaks_is_not_blown_up_without_end() -> None:
    network = with_activation(landmark_graph(unequal=1e5), "Relu")
    factors = largest(equalise(network, CROPS), "project_1.out") / largest(network, "project_1.out")
    assert factors.max() == pytest.approx(64, rel=1e-4)
    assert moved_px(equalise(network, CROPS), network) < 1e-3


def test_channels_that_are_always_zero_stay_as_they_are() -> None:
    network = landmark_graph()
    for name in ("project_1.weight", "project_1.bias"):
        set_constant(network, name, np.zeros_like(constant(network, name)))
    equalised = equalise(network, CROPS)
    assert not constant(equalised, "project_1.weight").any()
    np.testing.assert_array_equal(np.isfinite(constant(equalised, "expand_2.weight")), True)
    assert moved_px(equalised, network) < 1e-3


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_makes_unequal_channels_quantise_better(dialect: Dialect) -> None:
    network = landmark_graph(unequal=100.0)

    def error_px(model: onnx.ModelProto) -> float:
        ranges = measure_extremes(model, quantised_tensors(model), CROPS).ranges(1.0)
        return moved_px(place_qdq(model, ranges, dialect), network)

    assert error_px(equalise(network, CROPS)) < 0.5 * error_px(network)
