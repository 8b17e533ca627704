"""Engines × precisions × networks: what is concluded from the figures, and the yardstick."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import pytest

from tests.requirements import REPOSITORY, require

require("onnx", "onnxruntime", "openvino", "torch")


@pytest.fixture(scope="module", autouse=True)
def _folder() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        yield


@pytest.fixture(scope="module")
def target(_folder: None) -> ModuleType:
    return importlib.import_module("latency_target")


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.2, 0.25), "met"),
        ((0.24, 0.26), "undecided"),
        ((0.251, 0.3), "not met"),
        ((math.nan, math.nan), "undecided"),
    ],
)
def test_an_interval_decides_only_where_all_of_it_is_on_one_side(
    interval: tuple[float, float], verdict: str, target: ModuleType
) -> None:
    assert target.ratio_verdict(interval) == verdict


class Stated:
    """A manifest as far as its evaluation goes."""

    def __init__(self, name: str, *reports: dict[str, Any]) -> None:
        self.name, self.evaluation = name, {"reports": list(reports)}


def report(nme: float, count: int = 193, **facts: Any) -> dict[str, Any]:
    fixed = {"backend": "openvino", "precision": "int8", "dialect": "x86", "schema": "IBUG_68", "split": "validation"}
    return {**fixed, "nme": nme, "count": count, **facts}


def test_accuracy_is_compared_with_the_best_on_the_same_faces_only(target: ModuleType) -> None:
    own = report(0.0372)
    manifests = [Stated("own", own), Stated("best", report(0.0362)), Stated("other faces", report(0.01, count=12))]
    points, name = target.added_points(own, manifests)
    assert (points, name) == (pytest.approx(0.1), "best")
    assert target.added_points(own, []) == (0.0, "itself")


def test_a_bundle_states_the_accuracy_of_each_file_on_each_engine(target: ModuleType) -> None:
    manifest = Stated("one", report(0.05, dialect=""), report(0.04), report(0.03, backend="onnxruntime"))

    class File:
        precision, dialect = "int8", "x86"

    assert target.stated_report(manifest, "openvino", File)["nme"] == 0.04
    assert target.stated_report(manifest, "tensorrt", File) is None


def test_the_yardstick_is_the_published_network() -> None:
    """2.22 M parameters up to the pooling (3.5 M less 1.28 M of the classifier), and 1,280 × 196 of the last layer."""
    from lmedge.pipeline.models import count_macs, count_parameters

    yardstick = importlib.import_module("yardstick")
    network = yardstick.published_network()
    assert count_parameters(network) == 2_223_872 + 1281 * 196
    # The paper has 300 M at 224 px: a quarter of its convolutions, and the linear layer; 112 px end in 4 positions, not 3.5.
    assert count_macs(network, 112) == pytest.approx((300.8e6 - 1.28e6) / 4 + 1280 * 196, rel=0.09)
