"""What stages and runtimes report: plain frozen data with `to_json`. Errors are fractions here and % where people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
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


# What a gate's value is of the labelled faces it was measured on.
UPPER_BOUND, MEAN, MEAN_OF_FEW = "upper 95 % bound", "mean", "mean, too few faces for a bound"


@dataclass(frozen=True)
class GateResult:
    """One gate: the measured value against its limit; `passed` is value ≤ limit.

    Attributes:
        statistic: `UPPER_BOUND`, `MEAN`, or `MEAN_OF_FEW`; "" where labelled faces have no part in it.
        faces: how many labelled faces the value is from.
    """

    gate: str
    value: float
    limit: float
    unit: str
    statistic: str = ""
    faces: int = 0

    @property
    def basis(self) -> str:
        """What the value is, and of how many faces; "" where labelled faces have no part in it."""
        return f"{self.statistic}, {self.faces} {'face' if self.faces == 1 else 'faces'}" if self.statistic else ""

    @property
    def passed(self) -> bool:
        return self.value <= self.limit  # NaN compares false, so a broken measurement never passes

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> GateResult:
        """The inverse of `to_json`; what an older gate does not have keeps its default."""
        return cls(**_known(cls, document))


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
        nme_loss_upper: one-sided 95 % upper bound of `nme_loss`.
        group_losses: per region of the schema the same two numbers, "nme" and "upper".
        loss_faces: labelled faces that these are from.
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
    nme_loss_upper: float | None = None
    group_losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    loss_faces: int = 0

    @property
    def passed(self) -> bool:
        return bool(self.gates) and all(gate.passed for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        return {**document, "gates": [gate.to_json() for gate in self.gates], "passed": self.passed}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ParityReport:
        """The inverse of `to_json`; what an older report does not have keeps its default."""
        return cls(**{**_known(cls, document), "gates": tuple(GateResult.from_json(gate) for gate in document["gates"])})


@dataclass(frozen=True)
class ColdStart:
    """From the start of a process to its first answer: medians over `processes`, and resident memory in MiB, None where the
    system does not tell. The files were in the system's cache.

    Attributes:
        start_ms: Python, and the import of lmedge with NumPy and OpenCV.
        open_ms: `FaceLandmarker.open`: the engine's import, its compiling, self-test and warm-up.
        first_predict_ms: the first answer; total_ms: all three.
        before_mib: before opening; opening_mib: what opening and the first answer add; peak_mib: the most there was.
    """

    processes: int
    start_ms: float
    open_ms: float
    first_predict_ms: float
    total_ms: float
    before_mib: float | None = None
    opening_mib: float | None = None
    peak_mib: float | None = None


@dataclass(frozen=True)
class EnergyUse:
    """What one meter counted while faces were found, for everything that ran on the machine in that time.

    Attributes:
        source: the meter and what it covers.
        joules_per_frame: of all; added_joules_per_frame: above the idle power.
        watts, idle_watts: mean power with and without work; frames, seconds: how much work.
    """

    source: str
    joules_per_frame: float
    added_joules_per_frame: float
    watts: float
    idle_watts: float
    frames: int
    seconds: float


@dataclass(frozen=True)
class LatencyReport:
    """Latency of one (backend, precision), in milliseconds: of `FaceLandmarker.predict` and of the bare engine, in one run.

    Attributes:
        threads: of CPU engines; None is the engine's default. batch: faces per call. count: timed calls.
        engine_precision: what the engine computes in, where that is not the artifact's precision; else "".
        device: where it ran; engines that do not get the device they were asked for raise.
        every_ms: pause between the starts of two frames; None is none. late: frames that began later than that.
        p999_ms, engine_p999_ms: None below 10,000 calls.
        p50_blocks_ms, engine_p50_blocks_ms: medians of `block` successive calls, for intervals that know of slow drifts.
        interruptions: how often the system took the processor away during the timed calls; None where it does not tell.
        cpu: frequency, governor and load "before" and "after", and "opencv_threads", with which crops are made.
        not_measured: what is missing → why.
    """

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
    remark: str = ""
    device: str = ""
    every_ms: float | None = None
    late: int = 0
    p999_ms: float | None = None
    engine_p999_ms: float | None = None
    block: int = 1
    p50_blocks_ms: tuple[float, ...] = ()
    engine_p50_blocks_ms: tuple[float, ...] = ()
    interruptions: int | None = None
    cold_start: ColdStart | None = None
    energy: tuple[EnergyUse, ...] = ()
    cpu: Mapping[str, Any] = field(default_factory=dict)
    not_measured: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LatencyReport:
        """The inverse of `to_json`; what an older report does not have keeps its default, what it has beside is left out."""
        known, cold = _known(cls, document), document.get("cold_start")
        known |= {name: tuple(known.get(name, ())) for name in ("p50_blocks_ms", "engine_p50_blocks_ms")}
        known["energy"] = tuple(EnergyUse(**_known(EnergyUse, use)) for use in known.get("energy", ()))
        known["cold_start"] = None if cold is None else ColdStart(**_known(ColdStart, cold))
        return cls(**known)


@dataclass(frozen=True)
class StratumCount:
    """`available`: faces of a kind that could be chosen; `chosen`: calibration crops that show such a face."""

    available: int
    chosen: int


@dataclass(frozen=True)
class CoverageReport:
    """Which kinds of faces a set of calibration crops shows.

    Attributes:
        faces: training faces there were.
        examined: those whose pictures were looked at; all counts of available faces are of these.
        attributes: "yaw", "roll", "brightness", "occlusion" → bin → counts; a bin without faces is listed too.
        strata: "yaw, roll, brightness, occlusion" → counts, for the kinds there were.
    """

    faces: int
    examined: int
    attributes: Mapping[str, Mapping[str, StratumCount]]
    strata: Mapping[str, StratumCount]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CalibrationRecord:
    """What the int8 ranges were measured on.

    Attributes:
        count: crops; method: how ranges were found; seed: of the choice of crops.
        digest: sha256 over the crops' bytes in order; sources: data sets they came from.
        excluded_nodes: nodes left in float; split: always "train".
        photo_digests: of the photos the crops were cut from (see `export.pack.photo_digest`).
        jitter: how the boxes were moved, as fractions of their side, and how many crops one face may give.
        coverage: which kinds of faces the crops show; None where they did not come from labelled faces.
        checks: names of the checks that the crops passed.
    """

    count: int
    method: str
    seed: int
    digest: str
    sources: tuple[str, ...]
    excluded_nodes: tuple[str, ...] = ()
    split: str = "train"
    tool_versions: Mapping[str, str] = field(default_factory=dict)
    photo_digests: tuple[str, ...] = ()
    jitter: Mapping[str, float] = field(default_factory=dict)
    coverage: CoverageReport | None = None
    checks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _known(kind: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    return {entry.name: document[entry.name] for entry in fields(kind) if entry.name in document}
