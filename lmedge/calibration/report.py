"""Sensitivity and bound of a run's int8 files as plain data: a stage writes `BoundedNetwork.to_json` by dialect, and reports
read here what to show of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmedge.bundle import Artifact
from lmedge.reports import UPPER_BOUND, GateResult, ParityReport

if TYPE_CHECKING:
    import onnx

Document = Mapping[str, Any]

# Layers that a table or picture shows.
SHOWN = 20
# Gates of a file's loss and speed, where a build was told to bound them.
LOSS_GATE, TIME_GATE = "bounded_loss", "bounded_time"
# What such a report compares with.
BOUND = "bound"
# As place_qdq calls it, which needs onnx; artifacts of this dialect name none.
_PORTABLE = "portable"


@dataclass(frozen=True)
class LayerTable:
    """What reports show of one int8 file.

    Attributes:
        dialect: of the file.
        document: what the stage wrote.
        layers: the most harmful ones, `SHOWN` at most; empty where none was measured.
        others: number and joint part of those that are not shown.
        points: of the path from int8 to float; empty where no bound was asked for.
    """

    dialect: str
    document: Document
    layers: tuple[Document, ...]
    others: tuple[int, float]
    points: tuple[Document, ...]


def describe_layers(model: onnx.ModelProto) -> dict[str, str]:
    """Convolutions and adds in words, by name: "1×1 convolution, 24 → 144", "3×3 depthwise convolution, 144"."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    words = {}
    for node in model.graph.node:
        if node.op_type == "Add":
            words[node.name] = "residual add"
        if node.op_type == "Conv" and node.input[1] in weights:
            outside, inside, *kernel = weights[node.input[1]]
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            size = "×".join(map(str, kernel))
            kind = "depthwise convolution" if groups == outside > 1 else "convolution"
            channels = f"{outside}" if groups == outside > 1 else f"{inside * groups} → {outside}"
            words[node.name] = f"{size} {kind}, {channels}"
    return words


def layer_tables(document: Document) -> list[LayerTable]:
    """The dialects of which anything was measured, from what the stage wrote."""
    tables = []
    for dialect, part in document.items():
        layers = tuple(part["sensitivity"]["layers"]) if part["sensitivity"] else ()
        points = tuple(part["bound"]["points"]) if part["bound"] else ()
        if layers or points:
            hidden = layers[SHOWN:]
            others = (len(hidden), sum(layer["part"] for layer in hidden))
            tables.append(LayerTable(dialect, part, layers[:SHOWN], others, points))
    return tables


def bound_reports(document: Document, files: Iterable[tuple[Artifact, str]]) -> list[ParityReport]:
    """The bounds that a build was given, as gates of each int8 file on each engine; none where no bound was asked for."""
    reports = []
    for artifact, backend in files:
        part = document.get(artifact.dialect or _PORTABLE)
        if artifact.precision == "int8" and part and part["bound"]:
            reports.append(_bound_report(artifact, backend, part))
    return reports


def bound_failures(document: Document) -> list[str]:
    """For each dialect whose bounds do not hold: the best that was found, and the front."""
    return [
        f"{dialect}: {part['bound']['text']}"
        for dialect, part in document.items()
        if part["bound"] and not part["bound"]["met"]
    ]


def _bound_report(artifact: Artifact, backend: str, part: Document) -> ParityReport:
    bound, faces, unknown = part["bound"], part["faces"], math.nan
    chosen = next(point for point in bound["points"] if point["chosen"])
    added, gates = chosen["loss"]["added"], []
    if bound["max_nme_loss"] is not None:
        gates.append(GateResult(LOSS_GATE, added["upper"], bound["max_nme_loss"], "of the normaliser", UPPER_BOUND, faces))
    if bound["min_speedup"] is not None:
        gates.append(GateResult(TIME_GATE, 1 / chosen["speedup"], 1 / bound["min_speedup"], "of the time of fp32"))
    return ParityReport(
        backend=backend,
        precision=artifact.precision,
        dialect=artifact.dialect,
        artifact=artifact.path,
        reference=BOUND,
        crops=faces,
        max_px=unknown,
        p99_px=chosen["loss"]["p99_px"],
        mean_px=chosen["loss"]["mean_px"],
        shift_x_px=unknown,
        shift_y_px=unknown,
        nme_loss=added["nme"],
        gates=tuple(gates),
        nme_loss_upper=added["upper"],
        loss_faces=faces,
    )
