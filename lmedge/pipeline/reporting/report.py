"""The page that a build ends with: one HTML file that needs nothing else, no scripts and no network.

It answers in the order in which people ask: did it pass, how good and how fast is it, what do its mistakes look like, and
what was it made from. It reads the files of the stages; only the pictured faces are run through an engine again.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import cv2
import numpy as np

from lmedge import __version__
from lmedge.calibration.report import LayerTable, layer_tables
from lmedge.data.pictures import contact_sheet
from lmedge.data.samples import FaceSample
from lmedge.data.sources import KINDS, source_terms
from lmedge.errors import DataError
from lmedge.export.check_tensorrt import EXTRA
from lmedge.pipeline.engines import EnginesFound, read_engines
from lmedge.pipeline.reporting.charts import ced_svg, confidence_svg, front_svg, latency_svg, layers_svg, training_svg
from lmedge.pipeline.reporting.commands import PLACE, build_command, verify_command
from lmedge.pipeline.reporting.findings import (
    Row,
    engine_name,
    fastest,
    fastest_per_precision,
    gate_value,
    gate_words,
    key_of,
    label_findings,
    mark_fastest,
    megabytes,
    ms,
    name_of,
    percent,
    points,
    px,
    reference_words,
    speed_notes,
    thousands,
    verdict,
)
from lmedge.pipeline.reporting.summary import summary_rows
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.faces import FaceIndex, read_index
from lmedge.pipeline.runs.network import NetworkFacts
from lmedge.pipeline.runs.stages import RunContext
from lmedge.reports import ParityReport
from lmedge.runtimes.gates import GROUP_GATES, PYTORCH

TEMPLATE = "report.html.j2"
PICTURED = 12
PICTURED_PRECISIONS = ("fp32", "int8")
_TILE_PX, _COLUMNS, _JPEG_QUALITY = 224, 6, 80


def render_report(context: RunContext) -> str:
    """The report of a run whose stages up to the bundle are done.

    Raises:
        DataError: a photo cannot be read.
        BackendUnavailableError: the engine of the pictured faces is not installed.
    """
    import jinja2

    facts, parity = NetworkFacts.read(context.folder / "train"), run_files.parity_reports(context)
    index = read_index(context.folder / "faces", context.sources)
    latency, evaluation = _read(context, "bench", run_files.LATENCY), _read(context, "evaluate", run_files.EVALUATION)
    rows = mark_fastest(summary_rows(context))
    timed = [row for row in rows if row["p50_ms"] is not None]
    engines = read_engines(context)
    gated = [*parity, *run_files.accuracy_reports(context), *engines.parity]
    errors = _errors_per_face(context)
    compared = fastest_per_precision(rows)
    pictured = fastest([row for row in rows if row["precision"] in PICTURED_PRECISIONS])
    manifest = run_files.candidate(context).manifest
    values = {
        "context": context,
        "config": context.config,
        "facts": facts,
        "version": __version__,
        "verdict": verdict(context.config.targets, rows, gated, manifest.artifacts),
        "rows": rows,
        "speed_notes": speed_notes(rows),
        "loss_groups": [name for name in GROUP_GATES if any(name in row["group_losses"] for row in rows)],
        "latency_chart": latency_svg(timed, [name_of(row) for row in timed]) if timed else "",
        "best": pictured,
        "latency": latency,
        "evaluation": evaluation,
        "groups": list(evaluation[0]["groups"]) if evaluation else [],
        "subsets": _subsets(evaluation, compared),
        "compared": compared,
        "ced": ced_svg({name_of(row): errors[key_of(row)] for row in compared}) if compared else "",
        "training": training_svg(facts.history, facts.training["epoch"], context.config.train.loss),
        "confidence": facts.training.get("confidence"),
        "confidence_chart": confidence_svg(facts.training["confidence"]) if "confidence" in facts.training else "",
        "sheets": _sheets(context, index.validation, pictured, errors),
        "parity_crops": next((report.crops for report in parity if report.reference == PYTORCH), 0),
        "gated": _by_engine_and_file(gated),
        "agreements": _read(context, "parity", run_files.AGREEMENT),
        "tensorrt": _tensorrt(engines),
        "passes": _read(context, "export", run_files.PASSES),
        "fp16_int8": _read(context, "quantize", run_files.PASSES),
        "calibration": _read(context, "quantize", run_files.CALIBRATION),
        "recipes": _read(context, "quantize", run_files.RECIPES),
        "finetuning": _read(context, "quantize", run_files.FINETUNING),
        "layers": _layers(context),
        "data": _data(context, index),
        "manifest": manifest,
        "provenance": manifest.provenance,
        "stages": _stage_keys(context),
        "commands": {"build": build_command(context.config), "verify": verify_command(context.config), "place": PLACE},
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    writers = (percent, points, px, gate_value, gate_words, reference_words, ms, megabytes, thousands)
    environment.filters |= {write.__name__: write for write in writers}
    environment.filters |= {"engine": engine_name, "names": name_of}
    template = files("lmedge.pipeline.reporting").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(values)


def _by_engine_and_file(reports: Sequence[ParityReport]) -> list[ParityReport]:
    """What was found of one file on one engine stands together: against PyTorch, golden answers, labels."""
    order = {pair: place for place, pair in enumerate(dict.fromkeys((r.backend, r.artifact) for r in reports))}
    return sorted(reports, key=lambda report: order[report.backend, report.artifact])


def _subsets(evaluation: Sequence[Row], compared: Sequence[Row]) -> list[dict[str, Any]]:
    """Per tag: the number of faces, and the NME of each compared file."""
    reports = {key_of(row): row["subsets"] for row in evaluation}
    columns = [reports[key_of(row)] for row in compared]
    tags = columns[0] if columns else {}
    return [{"tag": tag, "count": tags[tag]["count"], "nme": [column[tag]["nme"] for column in columns]} for tag in tags]


def _errors_per_face(context: RunContext) -> dict[tuple[str, str], Any]:
    """(artifact, backend) → NME of each validation face (N,), NaN where it has none."""
    rows = _read(context, "evaluate", run_files.PER_FACE)
    return {key_of(row): np.array([np.nan if value is None else value for value in row["nme"]], np.float64) for row in rows}


def _sheets(
    context: RunContext, faces: Sequence[FaceSample], row: Row | None, errors: Mapping[tuple[str, str], Any]
) -> list[dict[str, str]]:
    """Pictures of the worst faces, and of a spread over all others."""
    if row is None:
        return []
    from lmedge.runtimes.evaluate import evaluate
    from lmedge.runtimes.landmarker import FaceLandmarker

    values = errors[key_of(row)]
    order = [int(i) for i in np.argsort(-values, kind="stable") if np.isfinite(values[i])]
    worst, others = order[:PICTURED], order[PICTURED:]
    spread = [others[i] for i in sorted({round(i) for i in np.linspace(len(others) - 1, 0, PICTURED)})[::-1]] if others else []
    chosen = worst + spread
    bundle = run_files.candidate(context)
    opened = FaceLandmarker.open(bundle, backend=row["backend"], precision=row["precision"], dialect=row["dialect"])
    with opened as landmarker:
        _, results = evaluate(landmarker, [faces[i] for i in chosen], boxes="landmarks", split="all")
    titles = (
        [f"The {len(worst)} worst of {len(order)} faces"] if others else [f"All {len(worst)} validation faces, worst first"]
    )
    parts = [(titles[0], results[: len(worst)])]
    if spread:
        parts.append((f"{len(spread)} of the other {len(others)}, from the best to the worst of them", results[len(worst) :]))
    return [
        {
            "title": title,
            "uri": _jpeg_uri(
                contact_sheet(
                    [face.sample for face in part],
                    predictions=[face.points_px for face in part],
                    columns=_COLUMNS,
                    tile_px=_TILE_PX,
                )
            ),
        }
        for title, part in parts
    ]


def _tensorrt(engines: EnginesFound) -> dict[str, Any] | None:
    """What became of TensorRT; None where it is no target and nobody gave an opinion on it."""
    if engines.state == "no target" and not engines.opinions:
        return None
    return {
        "state": engines.state,
        "reason": engines.reason,
        "machine": engines.race.get("machine"),
        "engines": engines.race.get("engines", []),
        "fastest": engines.race.get("fastest"),
        "left_out": engines.race.get("left_out", []),
        "failed": engines.failed,
        "opinions": engines.opinions,
        "extra": EXTRA,
    }


def _layers(context: RunContext) -> list[dict[str, Any]]:
    """What each layer costs in int8 and what a bound made of it, per dialect that was asked about."""
    sections = []
    for table in layer_tables(_read(context, "quantize", run_files.LAYERS)):
        sections.append(
            {
                "table": table,
                "picture": layers_svg(table.layers, f"layers-{table.dialect}") if table.layers else "",
                "front": _front(table) if len(table.points) > 1 else "",
            }
        )
    return sections


def _front(table: LayerTable) -> str:
    bound = table.document["bound"]
    return front_svg(table.points, bound["max_nme_loss"], bound["min_speedup"], f"front-{table.dialect}")


def _jpeg_uri(image_bgr: Any) -> str:
    done, encoded = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise DataError(f"OpenCV could not encode a contact sheet of shape {image_bgr.shape}.")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _data(context: RunContext, index: FaceIndex) -> dict[str, Any]:
    validating = {id(sample) for sample in index.validation}
    every, held = Counter(index.kinds), Counter[str]()
    for sample, kind in zip(index.samples, index.kinds, strict=True):
        held[kind] += id(sample) in validating
    terms = {s.kind: "; ".join(entry["terms"] for entry in source_terms([s])) for s in context.sources}
    sources = [
        {
            "kind": kind,
            "what": KINDS[kind].what,
            "terms": terms[kind],
            "training": every[kind] - held[kind],
            "validation": held[kind],
        }
        for kind in every
    ]
    photos = len({sample.photo_key for sample in index.samples})
    own = [(s, kind) for s, kind in zip(index.samples, index.kinds, strict=True) if s.schema == index.schema]
    photographed = [sample for sample, kind in own if kind != "synthetic"]
    return {
        "sources": sources,
        "faces": len(index.samples),
        "photos": photos,
        "restricted": set(every) != {"synthetic"},
        "labels": label_findings(photographed or [sample for sample, _ in own]),
    }


def _stage_keys(context: RunContext) -> list[dict[str, Any]]:
    """The sha256 of what decided each stage, and of what it made."""
    return [
        {
            "name": name,
            "key": _table_digest(record.components),
            "components": len(record.components),
            "outputs": _table_digest(record.outputs),
            "files": len(record.outputs),
        }
        for name, record in context.lock.records.items()
        if name != "report"
    ]


def _table_digest(table: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{name}\t{value}" for name, value in sorted(table.items())).encode()).hexdigest()


def _read(context: RunContext, stage: str, name: str) -> Any:
    return run_files.read_json(context.file(stage, name))
