"""Networks whose layers do known harm: some that exist only as a set of float layers, and a real one with a bad range."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from lmedge.calibration.bound import leave_float
from lmedge.calibration.bounded_network import BoundedNetwork
from lmedge.calibration.place_qdq import Dialect, Ranges, place_qdq, quantised_layers, quantised_tensors
from lmedge.calibration.ranges import measure_extremes
from lmedge.calibration.sensitivity import Make, NetworkLoss, measure_sensitivity
from lmedge.calibration.stopwatch import Timing
from lmedge.export.graph.compare import run_onnx
from lmedge.metrics import PairedLoss
from tests.calibration.landmark_graph import landmark_graph, smooth_crops

FP32_MS = 10.0


@dataclass(frozen=True)
class Network:
    """Stands for an ONNX model; equal sets of float layers are equal bytes."""

    float_layers: frozenset[str]

    def SerializeToString(self, deterministic: bool = True) -> bytes:  # noqa: N802 (as in protobuf)
        assert deterministic
        return ",".join(sorted(self.float_layers)).encode()


def make(float_layers: frozenset[str]) -> Any:
    return Network(float_layers)


def loss(upper: float, nme: float | None = None, px: float | None = None, faces: int = 8) -> NetworkLoss:
    """A loss with the same distance on every face."""
    mean = upper if nme is None else nme
    distance = abs(upper) if px is None else px
    groups = {"eyes": (mean, upper), "mouth": (mean, upper)}
    return NetworkLoss(PairedLoss(mean, upper, groups, faces), distance, distance, 2 * distance, np.full(faces, distance))


class SquareSum:
    """Measures networks whose layers' rounding errors add up in squares; the loss is their sum, as to second order."""

    def __init__(self, squares: Mapping[str, float]) -> None:
        self.squares = squares
        self.asked: list[frozenset[str]] = []

    def __call__(self, model: Any) -> NetworkLoss:
        self.asked.append(model.float_layers)
        total = sum(square for layer, square in self.squares.items() if layer not in model.float_layers)
        return loss(upper=total, px=float(np.sqrt(total)))


class FloatTime:
    """Times networks in which each float layer takes its own time more."""

    def __init__(self, times_ms: Mapping[str, float], base_ms: float = 4.0) -> None:
        self.times_ms, self.base_ms = times_ms, base_ms

    def __call__(self, model: Any) -> Timing:
        return Timing(self.base_ms + sum(self.times_ms[layer] for layer in model.float_layers), FP32_MS)


def noisy_answers(squares: Mapping[str, float], truth: npt.NDArray[np.float64], seed: int = 0) -> Any:
    """An `answer` for `Judge`: the truth, moved for each int8 layer by vectors of its own with that variance per coordinate."""
    random = np.random.default_rng(seed)
    moves = {layer: random.normal(0, np.sqrt(square), truth.shape) for layer, square in squares.items()}

    def answer(model: Any, crops_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        assert len(crops_uint8) == len(truth)
        return truth + sum((move for layer, move in moves.items() if layer not in model.float_layers), np.zeros_like(truth))

    return answer


@dataclass(frozen=True, eq=False)
class NarrowNetwork:
    """A real network, ranges of which one is far too narrow, and labelled crops."""

    fp32: onnx.ModelProto
    ranges: Ranges
    crops: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.float64]

    @property
    def layers(self) -> list[str]:
        return quantised_layers(self.fp32)

    def maker(self, dialect: Dialect) -> Make:
        return lambda float_layers: place_qdq(self.fp32, self.ranges, dialect, float_layers)


def narrow_network(spoilt: str, count: int = 40) -> NarrowNetwork:
    """A network whose layer `spoilt` makes values of which the quantiser holds a quarter of the range."""
    fp32, crops = landmark_graph(), smooth_crops(count)
    ranges = measure_extremes(fp32, quantised_tensors(fp32), crops).ranges(1.0)
    for name in (f"{spoilt}.out", f"{spoilt}.out.clip"):
        least, greatest = ranges[name]
        ranges[name] = (least / 4, greatest / 4)
    labels = run_onnx(fp32, crops) + np.random.default_rng(0).normal(0, 0.01, (count, 5, 2))
    return NarrowNetwork(fp32, ranges, crops, labels)


PART_LAYERS = tuple(f"layer{number:02d}" for number in range(26))
PART_SQUARES = {layer: 1e-4 * 0.5**number for number, layer in enumerate(PART_LAYERS)}


def part(max_nme_loss: float | None = None, min_speedup: float | None = None, sensitivity: bool = False) -> dict[str, Any]:
    """What the quantize stage writes of one dialect, of a network that exists only as a set of float layers."""
    bound, measure, latency = None, SquareSum(PART_SQUARES), FloatTime(dict.fromkeys(PART_LAYERS, 0.5))
    if max_nme_loss is not None or min_speedup is not None:
        bound = leave_float(make, PART_LAYERS, measure, latency, max_nme_loss=max_nme_loss, min_speedup=min_speedup)
    ranked = measure_sensitivity(make, PART_LAYERS, measure) if sensitivity else None
    found = BoundedNetwork(make(frozenset()), bound.chosen.float_layers if bound else (), ranked, bound, "onnxruntime", 300)
    plain: dict[str, Any] = json.loads(json.dumps(found.to_json()))
    return plain
