"""The roofline's arithmetic, and that layers of both engines do all the multiply-adds of a file."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requirements import REPOSITORY, require

require("onnx", "onnxruntime", "openvino", "torch")


@pytest.fixture(scope="module", autouse=True)
def _folder() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        yield


@pytest.fixture(scope="module")
def model(_folder: None) -> ModuleType:
    return importlib.import_module("roofline_model")


@pytest.fixture(scope="module")
def profiles(_folder: None) -> ModuleType:
    return importlib.import_module("layer_profiles")


def machine(model: ModuleType) -> Any:
    """100 kMAC and 50 kB or 10 kB in a microsecond."""
    return model.Machine({"fp32": 100.0, "int8": 400.0}, {1000: 50.0, 100_000: 10.0}, {"fp32": 1.0, "int8": 1.0})


def layer(profiles: ModuleType, **facts: Any) -> Any:
    given: dict[str, Any] = {
        "name": "one",
        "operator": "Conv",
        "kind": profiles.POINTWISE,
        "precision": "fp32",
        "input_shape": (1, 64, 8, 8),
        "output_shape": (1, 64, 8, 8),
        "macs": 1_000_000,
        "inputs": 64,
        "weight_bytes": 300,
        "activation_bytes": 200,
        "us": 20.0,
    }
    return profiles.EngineLayer(**{**given, **facts})


@pytest.mark.parametrize(
    ("facts", "bound", "least_us"),
    [
        ({}, "compute", 10.0),
        ({"precision": "int8"}, "compute", 2.5),
        ({"macs": 100_000, "activation_bytes": 50_000}, "bytes", 5.03),
        ({"macs": 10_000}, "call", 1.0),
        ({"macs": 0, "activation_bytes": 900_000}, "bytes", 90.03),
    ],
)
def test_the_largest_of_three_limits_bounds_a_layer(
    facts: dict[str, Any], bound: str, least_us: float, model: ModuleType, profiles: ModuleType
) -> None:
    found = model.bounded(layer(profiles, **facts), machine(model))
    assert found.bound == bound
    assert max(found.compute_us, found.bytes_us, found.call_us) == pytest.approx(least_us)


def test_a_layer_at_half_its_peak(model: ModuleType, profiles: ModuleType) -> None:
    found = model.bounded(layer(profiles), machine(model))
    assert (found.gmacs, found.of_peak, found.intensity) == pytest.approx((50.0, 0.5, 2000.0))


def test_causes_of_time_beyond_the_peak(model: ModuleType, profiles: ModuleType) -> None:
    nothing = {"macs": 0, "inputs": 0}
    layers = [
        layer(profiles, **nothing, us=3.0),
        layer(profiles, inputs=3, us=14.0),
        layer(profiles, kind=profiles.DEPTHWISE, us=15.0),
        layer(profiles, **nothing, kind=profiles.CONVERSIONS, us=2.0),
        layer(profiles, **nothing, kind=profiles.ADDS, us=6.0),
        layer(profiles, macs=100_000, activation_bytes=50_000, us=12.0),
        layer(profiles, **nothing, us=7.0),
    ]
    spent = model.budget([model.bounded(one, machine(model)) for one in layers], 70.0)
    wanted = {
        model.IMAGE: 3.0,
        model.FIRST_LAYER: 4.0,
        model.DEPTHWISE_LAYERS: 5.0,
        model.CONVERTING: 2.0,
        model.MIDDLE: 6.0,
        model.SMALL_LAYERS: 1.0,
        model.LAYER_BYTES: 4.03,
        model.SHAPES: 5.97,
        model.HEAD: 7.0,
    }
    assert spent.causes == pytest.approx(wanted)
    assert (spent.ideal, spent.between) == pytest.approx((21.0, 11.0))


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 10**6), st.floats(0.1, 1e3)), max_size=8), st.floats(1, 1e4))
def test_a_budget_adds_up_to_the_call(model: ModuleType, profiles: ModuleType, rows: list[Any], whole_us: float) -> None:
    layers = [layer(profiles, macs=macs, activation_bytes=held, us=us) for macs, held, us in rows]
    spent = model.budget([model.bounded(one, machine(model)) for one in layers], whole_us)
    assert spent.ideal + sum(spent.causes.values()) + spent.between == pytest.approx(whole_us, rel=1e-6, abs=1e-6)
    assert spent.ideal + sum(spent.causes.values()) == pytest.approx(sum(one.us for one in layers), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_layers_do_all_the_multiply_adds_of_a_bundle(engine: str, precision: str, profiles: ModuleType) -> None:
    from lmedge.bundle import Bundle

    bundle = Bundle.open("zoo:mmlab5")
    file = bundle.select(engine, precision).file
    crop = np.zeros((1, *bundle.manifest.preprocess.input_hw, 3), np.uint8)
    layers = profiles.engine_layers(engine, file, crop, 2)
    macs = sum(work.macs for work in profiles.network_work(file, crop.shape).values())
    assert sum(one.macs for one in layers) == macs == bundle.manifest.provenance["macs"]
    assert {one.precision for one in layers if one.kind == profiles.DEPTHWISE} == {precision}
