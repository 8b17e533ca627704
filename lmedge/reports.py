"""What stages and runtimes report: plain frozen data with `to_json`. Errors are fractions here and % where people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class EvaluationReport:
    """The error on labelled faces.

    Attributes:
        nme: mean over scored faces, a fraction of the normaliser.
        nme_interval: 95 % bootstrap interval of it.
        auc10, auc08, fr10, fr08: area under the CED and failure rate at 0.10 and 0.08; a missed face is a failure.
        count: labelled faces; missed: those without a detection; excluded: those without a normaliser.
        groups: NME per region of the schema; subsets: NME and count per tag.
        normalizer: what divides the error; boxes: which boxes were used; split: which faces.
        backend, precision, schema: what was evaluated; mapping: the published schema conversion used, or "".
        outside: labelled points outside their image, kept.
        trained_on: how many of these faces' photos the bundle was trained on.
    """

    nme: float
    nme_interval: tuple[float, float]
    auc10: float
    auc08: float
    fr10: float
    fr08: float
    count: int
    missed: int
    excluded: int
    groups: Mapping[str, float]
    subsets: Mapping[str, Mapping[str, float]]
    normalizer: str
    boxes: str
    split: str
    backend: str
    precision: str
    schema: str
    mapping: str = ""
    outside: int = 0
    trained_on: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class GateResult:
    """One gate: the measured value against its limit; `passed` is value ≤ limit."""

    gate: str
    value: float
    limit: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.value <= self.limit  # NaN compares false, so a broken measurement never passes

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class ParityReport:
    """How far one engine's answers are from the reference's, on the same crops; distances in pixels of the crop.

    Attributes:
        backend, precision, dialect, artifact: what was compared (artifact: its path).
        reference: what it was compared with ("pytorch", "golden").
        crops: number of crops.
        max_px, mean_px: point distances; p99_px: 99th percentile over crops, of the point for which it is worst.
        shift_x_px, shift_y_px: mean signed differences.
        nme_loss: NME of the engine − NME of the reference on labelled crops, a fraction; None without labels.
        gates: the limits and whether each holds.
        engine_precision: what the engine says it computed in, for disclosure.
    """

    backend: str
    precision: str
    dialect: str
    artifact: str
    reference: str
    crops: int
    max_px: float
    p99_px: float
    mean_px: float
    shift_x_px: float
    shift_y_px: float
    nme_loss: float | None
    gates: tuple[GateResult, ...] = ()
    engine_precision: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.gates) and all(gate.passed for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        return {**document, "gates": [gate.to_json() for gate in self.gates], "passed": self.passed}


@dataclass(frozen=True)
class LatencyReport:
    """Latency of one (backend, precision), in milliseconds: of `FaceLandmarker.predict` and of the bare engine, in one run."""

    backend: str
    precision: str
    threads: int | None
    batch: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    count: int
    engine_p50_ms: float
    engine_p90_ms: float
    engine_p99_ms: float
    artifact: str = ""
    engine_precision: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CalibrationRecord:
    """What the int8 ranges were measured on.

    Attributes:
        count: crops; method: how ranges were found; seed: of the choice of crops.
        digest: sha256 over the crops' bytes in order; sources: data sets they came from.
        excluded_nodes: nodes left in float; split: always "train".
    """

    count: int
    method: str
    seed: int
    digest: str
    sources: tuple[str, ...]
    excluded_nodes: tuple[str, ...] = ()
    split: str = "train"
    tool_versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
