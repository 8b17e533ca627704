"""What lies in a run folder: the names of its files, and reading them back as what later stages and reports need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lmedge.bundle import Artifact, Bundle, Manifest, file_digest, network_specs, write_atomically
from lmedge.calibration.report import bound_reports
from lmedge.data.sources import source_terms
from lmedge.export.pack import VARIANTS, keep_passing, list_artifacts, photo_digest
from lmedge.metrics import PairedLoss
from lmedge.pipeline.runs.faces import FaceIndex, read_index
from lmedge.pipeline.runs.network import NetworkFacts
from lmedge.pipeline.runs.stages import RunContext
from lmedge.reports import ParityReport
from lmedge.runtimes.gates import QUANTISED, accuracy_report

PROGRAM, BEST = "model.pt2", "best.pt"
# How training went, for people: outside the stages, so that it decides nothing.
LOGS = "logs"
PARITY, EVALUATION, LATENCY, CALIBRATION, PASSES = (
    "parity.json",
    "evaluation.json",
    "latency.json",
    "calibration.json",
    "passes.json",
)
# Beside the evaluation, so that the manifest stays small and names no photo.
PER_FACE, CALIBRATED_ON = "per_face.json", "calibrated_on.json"
GOLDEN_FILE = "golden.npz"
# How far the engines are apart on the same int8 files.
AGREEMENT = "agreement.json"
# What each layer costs in int8 and what was left in float, by dialect; empty where nobody asked.
LAYERS = "layers.json"
# What each recipe of quantisation added to the error, by dialect; empty where there was nothing to choose.
RECIPES = "recipes.json"
# What fine-tuning did to each dialect; empty where it was off.
FINETUNING = "finetuning.json"


def read_json(path: Path) -> Any:
    """A JSON file of a stage."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Plain data as indented JSON, atomically."""
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def read_faces(context: RunContext) -> FaceIndex:
    """The faces of a run, with their split."""
    return read_index(context.folder / "faces", context.sources)


def read_network(context: RunContext) -> NetworkFacts:
    """What training wrote for those without torch."""
    return NetworkFacts.read(context.folder / "train")


def candidate(context: RunContext) -> Bundle:
    """The bundle as it will be, read from the stage folders: artifacts that passed parity, everything but the evaluation."""
    facts = read_network(context)
    parity = parity_reports(context)
    manifest = Manifest(
        name=context.config.name,
        schema=facts.schema,
        preprocess=facts.preprocess,
        artifacts=tuple(keep_passing(artifacts(context), parity)),
        calibration=read_json(context.file("quantize", CALIBRATION)),
        parity=tuple(report.to_json() for report in parity),
        provenance=_provenance(context, facts),
    )
    return Bundle(context.folder, manifest)


def packed(context: RunContext) -> Manifest:
    """The manifest of the bundle as far as the build host makes it: without files that failed on labelled faces, with the
    evaluation; TensorRT engines come on top."""
    manifest = candidate(context).manifest
    accurate = [
        artifact
        for artifact in keep_passing(manifest.artifacts, accuracy_reports(context))
        if any(fnmatchcase(artifact.path, pattern) for pattern in context.config.bundle.files)
    ]
    rows = read_json(context.file("evaluate", EVALUATION))
    return replace(manifest, artifacts=tuple(accurate), evaluation={"split": "validation", "reports": rows})


def artifacts(context: RunContext) -> list[Artifact]:
    """All files that the run made for engines, whether they passed or not."""
    facts = read_network(context)
    return list_artifacts(
        onnx_folders(context),
        context.folder / "compile" if context.config.writes_ir else None,
        targets=context.config.engines,
        spec=facts.preprocess,
        schema=facts.schema,
        confidence=facts.confident,
        program_sha256=context.lock.digest(context.file("train", PROGRAM)),
        tool_versions=tool_versions(context),
    )


def parity_reports(context: RunContext) -> list[ParityReport]:
    """The parity stage's reports, read back: against PyTorch, and against the golden answers."""
    return [ParityReport.from_json(row) for row in read_json(context.file("parity", PARITY))]


def accuracy_reports(context: RunContext) -> list[ParityReport]:
    """The gates on labelled faces of everything that was evaluated: its error, what int8 adds to it, that calibration saw none
    of these faces, and the bounds that int8 was given."""
    files = {artifact.path: artifact for artifact in artifacts(context)}
    photos = calibrated_on(context)
    rows = read_json(context.file("evaluate", EVALUATION))
    reports = [
        accuracy_report(
            row["backend"],
            files[row["artifact"]],
            row["count"],
            row["nme"],
            context.config.gates,
            loss=_paired_loss(row["added_error"]),
            calibration_photos=None if photos is None else len(photos),
        )
        for row in rows
    ]
    layers = read_json(context.file("quantize", LAYERS))
    return reports + bound_reports(layers, [(files[row["artifact"]], row["backend"]) for row in rows])


def calibrated_on(context: RunContext) -> list[str] | None:
    """Names of the evaluated photos that int8 was calibrated on, of which there must be none; None where that is not known."""
    photos: list[str] | None = read_json(context.file("evaluate", CALIBRATED_ON))
    return photos


def program_artifact(context: RunContext, facts: NetworkFacts) -> Artifact:
    """The exported program, for the torch reference."""
    inputs, outputs = network_specs(facts.preprocess, facts.schema, confidence=facts.confident)
    file = context.file("train", PROGRAM)
    return Artifact.of_file(file, file.parent, format="torch", precision="fp32", inputs=inputs, outputs=outputs)


def engine_pairs(every: Sequence[Artifact]) -> list[tuple[Artifact, str]]:
    """Every file with every engine that it is meant for."""
    return [(artifact, backend) for artifact in every for backend in sorted(artifact.serves)]


def onnx_folders(context: RunContext) -> dict[str, Path]:
    """Precision → the stage folder that holds its ONNX files."""
    return {v.precision: context.folder / ("quantize" if v.precision in QUANTISED else "export") for v in VARIANTS}


def tool_versions(context: RunContext) -> dict[str, str]:
    """Versions of the tools that made the artifacts, as the lock noted them when each stage ran."""
    versions: dict[str, str] = {}
    records = [context.lock.records.get(stage) for stage in ("train", "export", "quantize", "compile")]
    for record in filter(None, records):
        for name, value in record.components.items():
            if name.startswith("tool ") and value != "absent":
                versions[name.removeprefix("tool ")] = value
    return dict(sorted(versions.items()))


def _paired_loss(row: Mapping[str, Any] | None) -> PairedLoss | None:
    if row is None:
        return None
    return PairedLoss(**{**row, "groups": {name: (mean, upper) for name, (mean, upper) in row["groups"].items()}})


def _provenance(context: RunContext, facts: NetworkFacts) -> dict[str, Any]:
    counts = facts.training["faces"]
    return {
        "sources": facts.training.get("sources", source_terms(context.sources)),
        "faces": counts,
        "trained_photos": sorted({photo_digest(key) for key in facts.training["photo_keys"]}),
        "checkpoint_sha256": file_digest(context.file("train", BEST)),
        "program_sha256": context.lock.digest(context.file("train", PROGRAM)),
        "architecture": dict(facts.architecture),
        "parameters": facts.training["parameters"],
        "macs": facts.training["macs"],
        "epoch": facts.training["epoch"],
        "options": {"train": facts.training["options"], "augment": facts.training["augment"]},
        "tool_versions": tool_versions(context),
    }
