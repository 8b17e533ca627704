"""What came of a race of TensorRT engines: per precision its gates, latency and layers, and which is the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmedge.bundle import Artifact
from lmedge.errors import ExportError
from lmedge.export.engine_layers import EngineLayers
from lmedge.reports import LatencyReport, ParityReport
from lmedge.runtimes.tensorrt_machine import EngineMachine


@dataclass(frozen=True)
class RacedEngine:
    """One precision on its way into a bundle.

    Attributes:
        artifact: the engine as the manifest will have it.
        parity: the golden self-test and the comparison with the recorded answers of PyTorch, with their gates.
        latency: of one face; None where a gate failed, since nobody should use it.
        layers: what TensorRT made of the network.
        notes: what the user should know besides.
    """

    artifact: Artifact
    parity: tuple[ParityReport, ...]
    latency: LatencyReport | None
    layers: EngineLayers
    notes: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        return self.artifact.precision

    @property
    def passed(self) -> bool:
        return bool(self.parity) and all(report.passed for report in self.parity)

    def to_json(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "artifact": self.artifact.to_json(),
            "passed": self.passed,
            "parity": [report.to_json() for report in self.parity],
            "latency": None if self.latency is None else self.latency.to_json(),
            "layers": self.layers.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class FailedEngine:
    """A precision that came to no engine.

    Attributes:
        reason: all that TensorRT said: every node that its parser names, or its last words.
    """

    precision: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"precision": self.precision, "reason": self.reason}


def unbuilt(failed: Sequence[FailedEngine]) -> ExportError | None:
    """The error that a command ends with where other precisions were built; None where nothing failed."""
    if not failed:
        return None
    named = ", ".join(engine.precision for engine in failed)
    return ExportError("\n".join([f"No TensorRT engine for {named}; the others were built.", *(f.reason for f in failed)]))


@dataclass(frozen=True)
class RaceOutcome:
    """What came of a race.

    Attributes:
        machine: where the engines were built.
        engines: one per precision that came to an engine, its gates passed or not; never empty.
        left_out: (precision, why it was not compiled).
        failed: precisions that TensorRT refused or could not build, or whose engine it does not open.
    """

    machine: EngineMachine
    engines: tuple[RacedEngine, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    failed: tuple[FailedEngine, ...] = ()

    @property
    def kept(self) -> tuple[RacedEngine, ...]:
        return tuple(engine for engine in self.engines if engine.passed)

    @property
    def parity(self) -> tuple[ParityReport, ...]:
        return tuple(report for engine in self.engines for report in engine.parity)

    @property
    def passed(self) -> bool:
        return bool(self.engines) and len(self.kept) == len(self.engines) and not self.failed

    @property
    def fastest(self) -> RacedEngine | None:
        """Of those that passed, the one with the lowest median latency."""
        timed = [(engine.latency.p50_ms, index) for index, engine in enumerate(self.kept) if engine.latency is not None]
        return self.kept[min(timed)[1]] if timed else None

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine.to_json(),
            "engines": [engine.to_json() for engine in self.engines],
            "left_out": [{"precision": precision, "reason": reason} for precision, reason in self.left_out],
            "failed": [engine.to_json() for engine in self.failed],
            "fastest": None if self.fastest is None else self.fastest.precision,
            "passed": self.passed,
        }
