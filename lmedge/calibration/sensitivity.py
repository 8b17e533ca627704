"""An int8 network, layer by layer: what each one adds to the error, most harmful first.

Two questions about each layer, both answered on labelled crops that no range was measured on:

* alone: only this layer in int8. This ranks the layers, by the mean squared distance of the points from the float network's.
* freed: only this layer in float, which is what leaving it out of int8 gains. Asked for the layers at the top.

Why so: rounding errors of independent layers add up in squares, so that a layer's own square is its part of the whole, while
`freed` is a small difference of two large numbers, and the NME of one layer drowns in the luck of the faces. On a trained
MobileNetV2 with 68 points, two halves of 200 faces rank the layers alike by `alone` (rank correlation 0.99) and not at all by
`freed` (−0.08) or by NME (0.2). `Sensitivity.agreement` is that number for the network at hand.

A quantiser between two layers belongs to both, so parts may add up to more than one, and freeing one of two neighbours can gain
nothing where freeing both does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.calibration.crop_store import Crops, as_crops
from lmedge.errors import CalibrationError
from lmedge.export.graph.compare import run_onnx
from lmedge.metrics import PairedLoss, paired_loss
from lmedge.progress import Progress
from lmedge.schemas import LandmarkSchema

if TYPE_CHECKING:
    import onnx

# Layers that are also measured in float alone; as many as a report shows.
FREED = 20
_PERCENTILE = 99

# Makes the int8 network in which these layers, names of convolutions and adds, are left in float.
Make = Callable[[frozenset[str]], "onnx.ModelProto"]
Answer = Callable[["onnx.ModelProto", npt.NDArray[np.uint8]], npt.NDArray[np.floating]]


@dataclass(frozen=True)
class NetworkLoss:
    """How a network differs from its float reference on the same faces; less is better in every number.

    Attributes:
        added: to the NME, in fractions.
        mean_px, rms_px: mean and root-mean-square distance of the points from the reference's, in pixels of the crop.
        p99_px: 99th percentile over faces, of each face's worst point.
        face_px: (N,) root-mean-square distance of each face; not part of the record.
    """

    added: PairedLoss
    mean_px: float
    rms_px: float
    p99_px: float
    face_px: npt.NDArray[np.float64] = field(compare=False, repr=False, default_factory=lambda: np.zeros(0))

    def to_json(self) -> dict[str, Any]:
        return {"added": asdict(self.added), "mean_px": self.mean_px, "rms_px": self.rms_px, "p99_px": self.p99_px}


class Judge:
    """Says how networks differ from the float one, all of them on the same labelled crops. Called with a network.

    Args:
        fp32: the float network.
        crops_uint8: (N, H, W, 3) BGR; training faces, but none that ranges were measured on.
        true_fractions: (N, K, 2), their labels as fractions of the crop, NaN where unknown.
        answer: network and crops → fractions (N, K, 2); ONNX Runtime with its graph optimisations, as on a device.

    Raises:
        CalibrationError: no crops, labels that do not belong to them, or a float network whose answers are no numbers.
    """

    def __init__(
        self,
        fp32: onnx.ModelProto,
        crops_uint8: Crops,
        true_fractions: npt.NDArray[np.floating],
        schema: LandmarkSchema,
        *,
        answer: Answer = run_onnx,
    ) -> None:
        crops = as_crops(crops_uint8)
        self._crops, self._schema, self._answer = crops[0 : len(crops)], schema, answer
        expected = (len(crops), schema.num_points, 2)
        if np.shape(true_fractions) != expected:
            raise CalibrationError(f"The labels of these crops must be {expected}; got {np.shape(true_fractions)}.")
        self._size_px = np.array([self._crops.shape[2], self._crops.shape[1]], np.float64)
        self._true_px = np.asarray(true_fractions, np.float64) * self._size_px
        self._reference_px = self._points_px(fp32)
        if not np.isfinite(self._reference_px).all():
            raise CalibrationError("The float network's answers are not all numbers; there is nothing to compare int8 with.")

    def __call__(self, model: onnx.ModelProto) -> NetworkLoss:
        points_px = self._points_px(model)
        squares = np.sum((points_px - self._reference_px) ** 2, axis=2)
        squares[~np.isfinite(squares)] = np.inf
        distances_px = np.sqrt(squares)
        with np.errstate(invalid="ignore"):  # between two infinite ones
            p99_px = float(np.percentile(distances_px.max(axis=1), _PERCENTILE))
        return NetworkLoss(
            added=paired_loss(points_px, self._reference_px, self._true_px, self._schema),
            mean_px=float(distances_px.mean()),
            rms_px=float(np.sqrt(squares.mean())),
            p99_px=np.inf if np.isnan(p99_px) else p99_px,
            face_px=np.sqrt(squares.mean(axis=1)),
        )

    def _points_px(self, model: onnx.ModelProto) -> npt.NDArray[np.float64]:
        fractions = self._answer(model, self._crops)
        if fractions.shape != self._true_px.shape:
            raise CalibrationError(
                f"The network answers in the shape {fractions.shape}; the labels have {self._true_px.shape}."
            )
        return np.asarray(fractions, np.float64) * self._size_px


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer: the network in which it alone is in int8, and the one in which it alone is in float.

    Attributes:
        layer: name of its node.
        what: its kind in words.
        alone: the loss of that layer's rounding.
        part: its mean squared distance, of full int8's.
        freed: the loss that is left without its rounding; None where that was not measured.
    """

    layer: str
    what: str
    alone: NetworkLoss
    part: float
    freed: NetworkLoss | None = None

    def to_json(self) -> dict[str, Any]:
        freed = None if self.freed is None else self.freed.to_json()
        return {"layer": self.layer, "what": self.what, "part": self.part, "alone": self.alone.to_json(), "freed": freed}


@dataclass(frozen=True)
class Sensitivity:
    """The layers of an int8 network, most harmful first.

    Attributes:
        full: the loss with every layer in int8.
        layers: by `part`, falling.
        faces: they were measured on.
        agreement: rank correlation (Spearman) of the order on one half of the faces with that on the other; 1 is the same.
    """

    full: NetworkLoss
    layers: tuple[LayerSensitivity, ...]
    faces: int
    agreement: float

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(layer.layer for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        return {
            "faces": self.faces,
            "agreement": self.agreement,
            "full": self.full.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }


def measure_sensitivity(
    make: Make,
    layers: Sequence[str],
    judge: Callable[[onnx.ModelProto], NetworkLoss],
    *,
    freed: int = FREED,
    what: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measures every layer by itself: len(layers) + 1 networks, and one more for each layer in `freed`.

    Args:
        make: a cheap variant will do that leaves out what is fitted to the whole network at the end.
        layers: names of those that int8 quantises, in graph order.
        freed: of how many layers, from the top, to measure what leaving them in float gains.
        what: kinds of the layers in words, by name.
        progress: called with (networks done, in all, what is being done).

    Raises:
        CalibrationError: no layers, or one twice.
    """
    if not layers or len(set(layers)) < len(layers):
        raise CalibrationError(f"Sensitivity takes the names of one or more layers, each once; got {len(layers)}.")
    everything, words = frozenset(layers), what or {}
    total = 1 + len(layers) + min(freed, len(layers))
    done = 0

    def measured(float_layers: frozenset[str]) -> NetworkLoss:
        nonlocal done
        loss = judge(make(float_layers))
        done += 1
        if progress:
            progress(done, total, "measuring layers")
        return loss

    full = measured(frozenset())
    alone = {layer: measured(everything - {layer}) for layer in layers}
    ranked = sorted(layers, key=lambda layer: -alone[layer].rms_px)  # stable: equal ones stay in graph order
    in_float = {layer: measured(frozenset({layer})) for layer in ranked[:freed]}
    rows = [
        LayerSensitivity(layer, words.get(layer, ""), alone[layer], _part(alone[layer], full), in_float.get(layer))
        for layer in ranked
    ]
    return Sensitivity(full, tuple(rows), full.added.count, _agreement([alone[layer].face_px for layer in layers]))


def _part(alone: NetworkLoss, full: NetworkLoss) -> float:
    if not (np.isfinite(alone.rms_px) and full.rms_px > 0):
        return 0.0 if alone.rms_px == 0 else float("inf")
    return (alone.rms_px / full.rms_px) ** 2


def _agreement(faces_px: Sequence[npt.NDArray[np.float64]]) -> float:
    """Spearman's rank correlation of the layers' squares on even and on odd faces; 1 where there is nothing to compare."""
    squares = np.stack(faces_px) ** 2
    if len(squares) < 2 or squares.shape[1] < 2:
        return 1.0
    even, odd = (np.argsort(np.argsort(half.mean(axis=1), kind="stable")) for half in (squares[:, ::2], squares[:, 1::2]))
    return float(np.corrcoef(even, odd)[0, 1])
