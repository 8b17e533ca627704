"""What the numbers of a build say, in words: the verdict, what was not verified, what is fastest; and how numbers are written.

Rows are those of `lmedge.pipeline.reporting.summary`, with `engine_precision`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmedge.bundle import Artifact
from lmedge.data.samples import FaceSample
from lmedge.data.spreads import Histogram
from lmedge.data.statistics import pose_histograms, size_histogram, suspicious_labels
from lmedge.reports import MEAN_OF_FEW, GateResult, ParityReport
from lmedge.runtimes.gates import LEAST_FACES, NORMALISED, QUANTISED

# A p99 this many times the p50 tells of other work on the machine, not of the engine.
_BUSY_RATIO = 3.0

# How OpenVINO and ONNX Runtime call them.
_FLOATS = {"f32": "fp32", "f16": "fp16"}

ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}
GATES = {
    "max_px": "largest distance of a point",
    "p99_px": "distance of the worst point, 99th percentile",
    "shift_x_px": "mean shift in x",
    "shift_y_px": "mean shift in y",
    "confidence_max": "largest difference of a confidence",
    "confidence_mean": "mean difference of the confidence",
    "nme_loss": "NME added on labelled faces",
    "eyes_loss": "NME added at the eyes",
    "mouth_loss": "NME added at the mouth",
    "nme": "NME on validation faces",
    "bounded_loss": "NME added where float layers were chosen",
    "bounded_time": "time, bounded by min_speedup",
    "calibration_photos": "validation photos that int8 was calibrated on",
    "golden_crop": "gray levels between a golden crop and the one cut here",
    "golden_network": "largest distance from the golden answers, on the golden crops",
    "golden_frame": "largest distance from the golden answers, from the golden frames",
    "golden_confidence_max": "largest difference from the golden confidence",
    "golden_confidence_mean": "mean difference from the golden confidence",
}
ANGLE_TITLES = {"yaw_deg": "Yaw, degrees", "pitch_deg": "Pitch, degrees", "roll_deg": "Roll, degrees"}
LISTED_LABELS = 8
REFERENCES = {
    "pytorch": "PyTorch, {} crops",
    "golden": "golden answers, {} frames",
    "labels": "labels, {} faces",
    "bound": "bounds, {} training faces",
}

Row = dict[str, Any]


def label_findings(samples: Sequence[FaceSample]) -> dict[str, Any]:
    """What labels of one schema say without a look at any picture: how large faces are, where they look, which are suspicious.

    Returns:
        `histograms`: per quantity its `title` and `bins`, each with its `range` as text, its `count`, and its `share` of the
        highest bin; empty bins at both ends are left out. `suspicious`: the most unusual labels, see `suspicious_labels`.
    """
    histograms = {"Longer side of the points, px": size_histogram(samples)}
    histograms |= {ANGLE_TITLES[name]: histogram for name, histogram in pose_histograms(samples).items()}
    return {
        "histograms": [{"title": title, "bins": _bins(histogram)} for title, histogram in histograms.items()],
        "suspicious": suspicious_labels(samples)[:LISTED_LABELS],
    }


def _bins(histogram: Histogram) -> list[Row]:
    filled = [index for index, count in enumerate(histogram.counts) if count]
    highest = max(histogram.counts)
    return [
        {
            "range": f"{histogram.edges[index]:g} to {histogram.edges[index + 1]:g}".replace("-", "−"),
            "count": histogram.counts[index],
            "share": histogram.counts[index] / highest,
        }
        for index in range(filled[0], filled[-1] + 1)
    ]


def verdict(
    targets: Sequence[str], rows: Sequence[Row], parity: Sequence[ParityReport], artifacts: Sequence[Artifact] = ()
) -> dict[str, Any]:
    """What passed, what failed, and what nobody looked at: three lists, never one read as another.

    Args:
        artifacts: of the bundle, for those that are in it without an engine that serves them.
    """
    gates = [gate for report in parity for gate in report.gates]
    failed = [
        f"{engine_name(report.backend)} {report.precision} ({report.artifact}): "
        f"{gate_words(gate)} is {gate_value(gate.value, gate.unit)}, "
        f"allowed {gate_value(gate.limit, gate.unit)}"
        for report in parity
        for gate in report.gates
        if not gate.passed
    ]
    failed += [
        f"{report.backend} {report.precision} ({report.artifact}): no gate was checked" for report in parity if not report.gates
    ]
    checked = {report.backend for report in parity}
    missing = [engine_name(target) for target in targets if target not in checked]
    unverified = [
        f"{name}: engines are built on the GPU that runs them; none was compiled or compared here." for name in missing
    ]
    untimed = [f"{name_of(row)} ({row['artifact']})" for row in rows if row["passed"] and row["p50_ms"] is None]
    if untimed:
        unverified.append(f"Latency of {', '.join(untimed)}: the engine takes another file for this precision on this machine.")
    unverified += [
        f"{artifact.path}: made for TensorRT, and compared with the int8 file it was made from only."
        for artifact in artifacts
        if artifact.precision == "fp16-int8" and not artifact.serves and artifact.precision not in {r.precision for r in parity}
    ]
    unverified += loss_notes(parity)
    unverified.append(
        "Other machines: the golden self-test runs on each device with lmedge verify, and latency with lmedge bench."
    )
    unverified.append(
        "Faces from a detector: NME here uses boxes from the labels. For a detector's: lmedge evaluate --boxes detector."
    )
    held = sum(gate.passed for gate in gates)
    if failed:
        state = "failed"
        broken = len(gates) - held
        title = f"Failed: {broken} of {len(gates)} gates do not hold" if broken else "Failed: a file was held to no gate"
    elif not parity:
        state, title = "partial", "Not verified: no engine was compared with PyTorch"
    elif missing:
        state, title = "partial", f"Passed as far as checked: {held} gates hold, {', '.join(missing)} was not verified"
    else:
        state, title = "passed", f"Passed: all {held} gates hold"
    outcomes = [
        (engine_name(t), "not verified" if t not in checked else "failed" if _fails(parity, t) else "passed") for t in targets
    ]
    return {"state": state, "title": title, "failed": failed, "unverified": unverified, "targets": outcomes}


def _fails(parity: Sequence[ParityReport], backend: str) -> bool:
    return any(report.backend == backend and not report.passed for report in parity)


def loss_notes(reports: Sequence[ParityReport]) -> list[str]:
    """What could not be judged well, or not at all, of the error that quantised files add."""
    quantised = [report for report in reports if report.precision in QUANTISED and report.reference in ("pytorch", "labels")]
    few = sorted({gate.faces for report in quantised for gate in report.gates if gate.statistic == MEAN_OF_FEW})
    notes = []
    if few:
        notes.append(
            f"An upper bound of the NME that int8 adds: {' or '.join(map(str, few))} labelled faces are too few for one, so "
            f"the mean was held to the limit. It takes {LEAST_FACES}."
        )
    unjudged = [report for report in quantised if "nme_loss" not in {gate.gate for gate in report.gates}]
    if unjudged:
        names = ", ".join(dict.fromkeys(f"{engine_name(report.backend)} {report.artifact}" for report in unjudged))
        notes.append(f"The NME that int8 adds, on {names}: there was no fp32 file, or no labelled face, to compare with.")
    labelled = [report for report in quantised if report.reference == "labels"]
    if any("calibration_photos" not in {gate.gate for gate in report.gates} for report in labelled):
        notes.append("That int8 was not calibrated on validation photos: the record of calibration does not name its photos.")
    return notes


def gate_words(gate: GateResult) -> str:
    """What a gate is about, and of how many faces its value is."""
    words = GATES.get(gate.gate, gate.gate)
    return f"{words} ({gate.basis})" if gate.basis else words


def reference_words(report: ParityReport) -> str:
    """What a report's engine was compared with, and on how much."""
    return REFERENCES.get(report.reference, report.reference + ", {} crops").format(report.crops)


def gate_value(value: float, unit: str) -> str:
    """A gate's value with its unit; errors in points of %."""
    if not math.isfinite(value):
        return "no number"
    return f"{px(value)} px" if unit == "px" else f"{points(value)} points" if unit == NORMALISED else f"{value:.4g} {unit}"


def mark_fastest(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with whether it is the fastest of its engine; where nothing was timed, none is."""
    best = {id(fastest([row for row in rows if row["backend"] == backend])) for backend in {row["backend"] for row in rows}}
    return [{**row, "fastest": id(row) in best and row["p50_ms"] is not None} for row in rows]


def fastest(rows: Sequence[Row]) -> Row | None:
    """Of those that passed: the fastest timed one, else the first that was evaluated."""
    usable = [row for row in rows if row["passed"] and row["nme"] is not None]
    return min(usable, key=lambda row: math.inf if row["p50_ms"] is None else row["p50_ms"], default=None)


def fastest_per_precision(rows: Sequence[Row]) -> list[Row]:
    found = [fastest([row for row in rows if row["precision"] == precision]) for precision in ("fp32", "fp16", "int8")]
    return [row for row in found if row is not None]


def speed_notes(rows: Sequence[Row]) -> list[str]:
    """What the table says about speed on this machine, one text per engine; above all where int8 does not pay."""
    notes = []
    timed = [row for row in rows if row["passed"] and row["p50_ms"] is not None]
    for backend in dict.fromkeys(row["backend"] for row in timed):
        own = sorted((row for row in timed if row["backend"] == backend), key=lambda row: row["p50_ms"])
        best = own[0]
        fp32, int8 = (next((row for row in own if row["precision"] == name), None) for name in ("fp32", "int8"))
        text = f"{engine_name(backend)}: {best['precision']} is fastest with {ms(best['p50_ms'])} ms"
        text += f", {fp32['p50_ms'] / best['p50_ms']:.2f} times as fast as fp32." if fp32 and fp32 is not best else "."
        if int8 is not None and int8 is not best:
            text += f" int8 is not: it takes {int8['p50_ms'] / best['p50_ms']:.2f} times as long on this machine."
        elif int8 is None and any(row["backend"] == backend and row["precision"] == "int8" for row in rows):
            text += " int8 was not timed: no int8 file for this machine passed its gates."
        for row in own:
            used = _FLOATS.get(row["engine_precision"] or "", row["engine_precision"])
            if used and used != row["precision"]:
                text += f" {row['precision']} is computed in {used} there: its file is smaller, the arithmetic is not."
        notes.append(text)
    busy = [row for row in timed if row["p99_ms"] > _BUSY_RATIO * row["p50_ms"]]
    if busy:
        notes.append(
            f"In {len(busy)} of {len(timed)} rows p99 is more than {_BUSY_RATIO:.0f} times p50: other work ran on the machine. "
            "Measure again when it is idle: lmedge bench."
        )
    return notes


def percent(value: float | None, digits: int = 2) -> str:
    return _number(value, lambda v: f"{100 * v:.{digits}f} %")


def points(value: float | None) -> str:
    """A difference of two errors, in points of %, with its sign."""
    return _number(value, lambda v: f"{100 * v + 0.0:+.3f}".replace("-0.000", "+0.000").replace("-", "−"))


def px(value: float | None) -> str:
    return _number(value, lambda v: "< 0.0001" if 0 < v < 1e-4 else f"{v:.4f}" if v < 1 else f"{v:.2f}")


def ms(value: float | None) -> str:
    return _number(value, lambda v: f"{v:.2f}")


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _number(value: float | None, write: Callable[[float], str]) -> str:
    if value is None:
        return "–"
    return write(value) if math.isfinite(value) else "no number"


def engine_name(backend: str) -> str:
    """As its makers write it; an adapter of somebody else by its own name."""
    return ENGINES.get(backend, backend)


def key_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["artifact"], row["backend"]


def name_of(row: Mapping[str, Any]) -> str:
    dialect = f" ({row['dialect']})" if row["dialect"] else ""
    return f"{engine_name(row['backend'])} {row['precision']}{dialect}"
