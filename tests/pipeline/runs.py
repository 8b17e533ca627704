"""A finished run of the tiny network, written by hand: every stage folder that a report reads, without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lmedge.data.csv import write_csv
from lmedge.data.samples import FaceSample, is_validation
from lmedge.data.sources import parse_source
from lmedge.export.pack import VARIANTS, onnx_name, photo_digest
from lmedge.pipeline import steps
from lmedge.pipeline.configuration.options import DataOptions, RunConfig
from lmedge.pipeline.engines import ENGINES, OPINION
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.lock import Lock
from lmedge.pipeline.runs.network import NetworkFacts
from lmedge.pipeline.runs.stages import RunContext
from lmedge.reports import CalibrationRecord, GateResult, LatencyReport, ParityReport
from lmedge.runtimes.gates import GateLimits
from tests.bundles import SCHEMA, SPEC, tiny_onnx

VALIDATION, TRAINING = 26, 4  # enough for two contact sheets
_PHOTO_PX = 64
MACHINE = {"cpu": "Test CPU", "arch": "x86_64", "cores": 4, "cores_usable": 2, "os": "Linux", "python": "3.11", "versions": {}}
P50_MS = {"fp32": 2.0, "fp16": 2.2, "int8": 1.0}
HISTORY = ({"epoch": 0, "loss": 9.0, "validation_nme": 0.4}, {"epoch": 1, "loss": 5.0, "validation_nme": 0.3})


def finished_run(folder: Path) -> RunContext:
    """A run for ONNX Runtime up to the bench stage; needs the packages onnx and onnxruntime."""
    import onnx

    source = f"csv:{_write_faces(folder / 'photos')}"
    # The network has learned nothing, so the gate on its error is open.
    config = RunConfig(name="tiny", data=DataOptions(sources=(source,), schema=SCHEMA.name), gates=GateLimits(max_nme=9.0))
    context = RunContext(folder, config, [parse_source(source, SCHEMA)], Lock(folder))
    for stage in ("faces", "train", "export", "quantize", "parity", "evaluate", "bench", "engines"):
        (folder / stage).mkdir(parents=True)
    steps.index_faces(context, folder / "faces")
    _write_network(folder / "train")
    network = onnx.load(tiny_onnx(folder / "source"))
    for variant in VARIANTS:
        network.doc_string = variant.stem  # files of a run have digests of their own
        onnx.save(network, run_files.onnx_folders(context)[variant.precision] / onnx_name(variant))
    _write(folder / "export" / run_files.PASSES, [{"name": "simplify", "max_px": 2e-5, "crops": 34, "nodes": 9}])
    _write(folder / "quantize" / run_files.PASSES, {"name": "int8 to fp16-int8", "max_px": 0.7, "crops": 34, "nodes": 12})
    calibration = CalibrationRecord(60, "min-max", 0, "ab" * 32, ("synthetic",), ("head",), tool_versions={"onnx": "1"})
    photos = [photo_digest(sample.photo_key) for sample in run_files.read_faces(context).training]
    _write(folder / "quantize" / run_files.CALIBRATION, {**calibration.to_json(), "photo_digests": photos})
    _write(folder / "quantize" / run_files.RECIPES, [_recipe("min-max ranges", 6e-4), _recipe("mse ranges", 2e-4, chosen=True)])
    tuned = {"kept": True, "before": {"mean_px": 0.5}, "after": {"mean_px": 0.2}, "options": {"epochs": 3}, "faces": 41}
    _write(folder / "quantize" / run_files.FINETUNING, {"x86": tuned})
    write_layers(context, {})
    write_agreement(context, [])
    write_parity(context, [passing(variant.precision, variant.dialect) for variant in VARIANTS if variant.engines])
    for stage in ("faces", "train", "export", "quantize", "compile", "parity"):
        files = [path for path in (folder / stage).rglob("*") if path.is_file()]
        context.lock.record(stage, {"tool onnx": "1.2.3", "option x": "1"}, files)
    steps.evaluate_bundle(context, folder / "evaluate")
    write_latency(context, P50_MS)
    write_engines(context)
    return context


def _recipe(name: str, upper: float, *, chosen: bool = False) -> dict[str, Any]:
    loss = {"added": {"nme": upper / 2, "upper": upper}, "mean_px": 0.25}
    return {"dialect": "x86", "name": name, "loss": loss, "chosen": chosen}


def passing(precision: str, dialect: str = "", backend: str = "onnxruntime") -> ParityReport:
    """A report whose only gate holds."""
    return with_gate(precision, GateResult("max_px", 0.004, 0.01, "px"), dialect, backend)


def with_gate(precision: str, gate: GateResult, dialect: str = "", backend: str = "onnxruntime") -> ParityReport:
    artifact = onnx_name(next(v for v in VARIANTS if (v.precision, v.dialect) == (precision, dialect)))
    return ParityReport(backend, precision, dialect, artifact, "pytorch", 60, 0.004, 0.004, 0.001, 0.0, 0.0, 2e-4, (gate,))


def write_parity(context: RunContext, reports: Sequence[ParityReport]) -> None:
    _write(context.file("parity", run_files.PARITY), [report.to_json() for report in reports])


def write_layers(context: RunContext, document: Mapping[str, object]) -> None:
    """What the quantize stage found out about layers."""
    _write(context.file("quantize", run_files.LAYERS), document)


def write_agreement(context: RunContext, found: Sequence[Mapping[str, object]]) -> None:
    """How far two engines are apart on int8 files; nothing where a run has one engine."""
    _write(context.file("parity", run_files.AGREEMENT), found)


def write_latency(context: RunContext, p50_ms: dict[str, float]) -> None:
    """As on a machine that takes the x86 file for int8."""
    files = {variant.precision: onnx_name(variant) for variant in VARIANTS}
    rows = [
        LatencyReport("onnxruntime", name, 1, 1, p50, p50 * 1.1, p50 * 1.2, 300, p50 / 2, p50 / 2, p50, files[name])
        for name, p50 in p50_ms.items()
    ]
    _write(context.file("bench", run_files.LATENCY), {"machine": MACHINE, "rows": [row.to_json() for row in rows]})


def write_engines(
    context: RunContext,
    state: str = "no target",
    reason: str = "",
    race: Mapping[str, object] | None = None,
    opinions: Mapping[str, object] | None = None,
) -> None:
    """What became of TensorRT, and TensorRT-RTX's opinion of the files."""
    _write(context.file("engines", ENGINES), {"state": state, "reason": reason, "race": race or {}})
    _write(context.file("engines", OPINION), opinions or {})


def _write_faces(folder: Path) -> Path:
    """Photos of noise whose names put them on the wanted side of the split, and random labels on them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"face{number}" for number in range(1000)]
    validating = [name for name in names if is_validation(name)][:VALIDATION]
    training = [name for name in names if not is_validation(name)][:TRAINING]
    samples = []
    for name in validating + training:
        photo = folder / f"{name}.png"
        cv2.imwrite(str(photo), rng.integers(0, 256, (_PHOTO_PX, _PHOTO_PX, 3), np.uint8))
        points_px = rng.uniform(0.2 * _PHOTO_PX, 0.8 * _PHOTO_PX, (SCHEMA.num_points, 2)).astype(np.float32)
        samples.append(FaceSample(image=photo, points_px=points_px, schema=SCHEMA, photo_key=name))
    write_csv(folder / "faces.csv", samples)
    return folder / "faces.csv"


def _write_network(folder: Path) -> None:
    config = RunConfig()
    training = {
        "options": asdict(config.train),
        "augment": asdict(config.augment),
        "parameters": 277800,
        "macs": 8249872,
        "photo_keys": ["a"],
        "faces": {"training": TRAINING, "validation": VALIDATION},
        "epoch": 1,
        "validation_nme": 0.3,
    }
    NetworkFacts(SCHEMA, SPEC, {"trunk": "tiny", "width": 1.0}, training, HISTORY).write(folder)
    for name in (run_files.PROGRAM, run_files.BEST):
        (folder / name).write_bytes(name.encode())


def _write(file: Path, document: object) -> None:
    file.write_text(json.dumps(document), encoding="utf-8")
