"""Limits of the parity gates, and which gate holds for which precision.

Distances are in pixels of the network's crop. int8 engines are not held to a maximum, since rounding moves single answers
far; they are held to a high percentile of the worst point, to an unbiased answer, and to the error that they add on labelled
faces. Of that error the upper confidence bound must hold, overall and at the eyes and the mouth: a mean over few faces may be
small by luck. Where a network says how sure it is of its points, the largest difference is limited for floats, the mean for
int8.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact
from lmedge.errors import ConfigError
from lmedge.metrics import PairedLoss
from lmedge.reports import MEAN, MEAN_OF_FEW, UPPER_BOUND, GateResult, ParityReport
from lmedge.runtimes.answers import Answers
from lmedge.toml_file import read_toml

QUANTISED = ("int8", "fp16-int8")
# Below it a bootstrap bound is too low too often: on measured losses it held the true mean in 92 of 100 draws of 20 faces, in
# 93 of 50, but in 87 of 5.
LEAST_FACES = 20
# The regions that matter most to a driver monitor, and their gates.
GROUP_GATES = {"eyes": "eyes_loss", "mouth": "mouth_loss"}
NORMALISED = "of the normaliser"
OF_ONE = "of 1"
# What answers are compared with, as reports name it.
PYTORCH, GOLDEN = "pytorch", "golden"
_PERCENTILE = 99


@dataclass(frozen=True)
class GateLimits:
    """The ``[gates]`` table: what an engine may differ from its reference by.

    Attributes:
        fp32_max_px: sums in another order; measured differences are below 0.001 px, bf16 arithmetic gives 0.1 px and more.
        fp16_max_px: rounding to 11 bits of mantissa in every layer.
        int8_p99_px: 99th percentile over crops, of each crop's worst point.
        int8_shift_px: mean signed difference per axis, over all crops and points.
        int8_nme_loss: added NME on labelled faces, a fraction (0.0005 is 0.05 points): the one-sided 95 % upper bound of it by
            a paired bootstrap over faces, or its mean where they are fewer than `LEAST_FACES`.
        int8_group_loss: the same at the eyes, and at the mouth.
        fp32_confidence, fp16_confidence: largest difference of a point's confidence, which lies between 0 and 1.
        int8_confidence: mean difference, since rounding moves single answers far here too; a MobileNetV4 that was trained on
            300-W measured 0.002, and 0.006 on drawn faces. Both limits hold for golden answers as well.
        max_nme: NME on labelled faces; the default is the mean face's on 300-W, which a network that learned nothing has.
        crop_levels: gray levels a crop may differ from the recorded one; OpenCV rounds differently between processors.
        golden_fp32_px, golden_fp16_px, golden_int8_px: largest difference from the recorded answers; drawn frames are less
            like the training faces than photos are, so int8 is given more room.
        golden_crop_px: added to the golden limits where the answer starts from the frame, for the gray level above.
    """

    fp32_max_px: float = 0.01
    fp16_max_px: float = 0.25
    int8_p99_px: float = 1.5
    int8_shift_px: float = 0.1
    int8_nme_loss: float = 0.0005
    int8_group_loss: float = 0.001
    fp32_confidence: float = 0.005
    fp16_confidence: float = 0.05
    int8_confidence: float = 0.05
    max_nme: float = 0.20
    crop_levels: float = 1.0
    golden_fp32_px: float = 0.02
    golden_fp16_px: float = 0.25
    golden_int8_px: float = 4.0
    golden_crop_px: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
                raise ConfigError(f"gates.{field.name} must be a number of at least 0; got {value!r}.")

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> GateLimits:
        """Limits from a ``[gates]`` table; what it leaves out keeps its default.

        Raises:
            ConfigError: an unknown key, with the nearest known one, or a value that is no limit.
        """
        known = [field.name for field in fields(cls)]
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"[gates] has no key {key!r}; known: {', '.join(known)}.{hint}")
        return cls(**table)

    @classmethod
    def from_toml(cls, file: str | Path) -> GateLimits:
        """Limits from the ``[gates]`` table of a TOML file, such as a run's configuration; needs Python 3.11.

        Raises:
            ConfigError: no such file or table, or a table that `from_mapping` refuses.
        """
        table = read_toml(Path(file), ConfigError).get("gates")
        if not isinstance(table, dict):
            raise ConfigError(f"{file} has no [gates] table, so it sets no limit. Leave it out for lmedge's own limits.")
        return cls.from_mapping(table)

    def golden_px(self, precision: str) -> float:
        """The limit of a precision's difference from the golden answers."""
        if precision in QUANTISED:
            return self.golden_int8_px
        return self.golden_fp16_px if precision == "fp16" else self.golden_fp32_px


@dataclass(frozen=True)
class Difference:
    """Statistics of answers − reference answers, in pixels of the crop. Anything that is not a number makes them NaN.

    Attributes:
        max_px: the largest distance.
        p99_px: 99th percentile over crops of each crop's worst point: one lost point of 98 would hide in a percentile over all.
        mean_px: mean distance.
        shift_x_px, shift_y_px: mean signed difference over crops and points.
    """

    max_px: float
    p99_px: float
    mean_px: float
    shift_x_px: float
    shift_y_px: float

    @classmethod
    def between(cls, fractions: npt.NDArray[np.floating], reference: npt.NDArray[np.floating], size_px: int) -> Difference:
        """Of two arrays (N, K, 2) of fractions of crops with a side of `size_px`."""
        signed = (np.asarray(fractions, np.float64) - np.asarray(reference, np.float64)) * size_px
        distances = np.linalg.norm(signed, axis=2)
        shift = signed.mean(axis=(0, 1))
        return cls(
            max_px=float(distances.max()),
            p99_px=float(np.percentile(distances.max(axis=1), _PERCENTILE)),
            mean_px=float(distances.mean()),
            shift_x_px=float(shift[0]),
            shift_y_px=float(shift[1]),
        )


def parity_gates(precision: str, found: Difference, loss: PairedLoss | None, limits: GateLimits) -> tuple[GateResult, ...]:
    """The gates of one precision against its reference; without a loss, those on labelled faces are left out."""
    if precision not in QUANTISED:
        limit = limits.fp16_max_px if precision == "fp16" else limits.fp32_max_px
        return (GateResult("max_px", found.max_px, limit, "px"),)
    return (
        GateResult("p99_px", found.p99_px, limits.int8_p99_px, "px"),
        GateResult("shift_x_px", abs(found.shift_x_px), limits.int8_shift_px, "px"),
        GateResult("shift_y_px", abs(found.shift_y_px), limits.int8_shift_px, "px"),
        *(() if loss is None else loss_gates(loss, limits)),
    )


def confidence_gates(
    precision: str, found: Answers, reference: Answers, limits: GateLimits, *, golden: bool = False
) -> tuple[GateResult, ...]:
    """The gate on the confidence (N, K) of one precision; none where the reference has no confidence.

    An engine that gives none where the reference does fails.

    Args:
        golden: whether the reference is a recorded answer, for the name of the gate.
    """
    if reference.confidence is None:
        return ()
    quantised = precision in QUANTISED
    gate = "confidence_mean" if quantised else "confidence_max"
    if found.confidence is None:
        value = math.nan
    else:
        apart = np.abs(np.asarray(found.confidence, np.float64) - reference.confidence)
        value = float(apart.mean() if quantised else apart.max())
    floats = limits.fp16_confidence if precision == "fp16" else limits.fp32_confidence
    limit = limits.int8_confidence if quantised else floats
    return (GateResult(f"{GOLDEN}_{gate}" if golden else gate, value, limit, OF_ONE),)


def loss_gates(loss: PairedLoss, limits: GateLimits) -> tuple[GateResult, ...]:
    """The gates on the error that a quantised file adds: overall, and at those of the eyes and the mouth that have labels."""
    gates = [_loss_gate("nme_loss", (loss.nme, loss.upper), loss.count, limits.int8_nme_loss)]
    for group, gate in GROUP_GATES.items():
        if group in loss.groups:
            faces = loss.group_counts.get(group, loss.count)
            gates.append(_loss_gate(gate, loss.groups[group], faces, limits.int8_group_loss))
    return tuple(gates)


def loss_fields(loss: PairedLoss | None) -> dict[str, Any]:
    """What a `ParityReport` says of a loss."""
    if loss is None:
        return {"nme_loss": None}
    groups = {name: {"nme": mean, "upper": upper} for name, (mean, upper) in loss.groups.items()}
    return {"nme_loss": loss.nme, "nme_loss_upper": loss.upper, "group_losses": groups, "loss_faces": loss.count}


def accuracy_report(
    backend: str,
    artifact: Artifact,
    faces: int,
    nme: float,
    limits: GateLimits,
    *,
    loss: PairedLoss | None = None,
    calibration_photos: int | None = None,
) -> ParityReport:
    """The gates on labelled faces as a report against "labels": the error itself, and for a quantised file what it adds.

    Args:
        faces: how many were scored; nme: their mean error, a fraction.
        loss: against the fp32 file on the same faces, from photo to image points; without it, its gates are left out.
        calibration_photos: on how many of their photos the file was calibrated: none may be; None where nobody looked.
    """
    gates = [GateResult("nme", nme, limits.max_nme, NORMALISED, MEAN, faces)]
    if artifact.precision in QUANTISED:
        gates += () if loss is None else loss_gates(loss, limits)
        gates += () if calibration_photos is None else [GateResult("calibration_photos", calibration_photos, 0, "photos")]
    unknown = math.nan
    return ParityReport(
        backend=backend,
        precision=artifact.precision,
        dialect=artifact.dialect,
        artifact=artifact.path,
        reference="labels",
        crops=faces,
        max_px=unknown,
        p99_px=unknown,
        mean_px=unknown,
        shift_x_px=unknown,
        shift_y_px=unknown,
        gates=tuple(gates),
        **loss_fields(loss),
    )


def _loss_gate(gate: str, mean_and_upper: tuple[float, float], faces: int, limit: float) -> GateResult:
    mean, upper = mean_and_upper
    if faces < LEAST_FACES:
        return GateResult(gate, mean, limit, NORMALISED, MEAN_OF_FEW, faces)
    return GateResult(gate, upper, limit, NORMALISED, UPPER_BOUND, faces)
