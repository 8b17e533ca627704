"""What each stage does: it reads the files of the stages before it, and writes its own into the folder it is given.

Engines and torch are imported by the step that needs them, so a build that skips a step never loads them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact, Bundle, Manifest, file_digest, network_specs, write_atomically, write_bundle
from lmedge.data.samples import FaceSample, check_labels
from lmedge.data.sources import KINDS, read_sources
from lmedge.errors import DataError
from lmedge.export.pack import VARIANTS, ir_name, keep_passing, list_artifacts, onnx_name, photo_digest
from lmedge.pipeline.faces import SYNTHETIC, FaceIndex, SourceFaces, licences, read_index, with_detector_boxes, write_index
from lmedge.pipeline.network import NetworkFacts
from lmedge.pipeline.stages import RunContext
from lmedge.preprocess import REFERENCE, BoxFit, PreprocessSpec, crop_face, fit_boxes
from lmedge.reports import GateResult, ParityReport

PROGRAM, BEST, HISTORY = "model.pt2", "best.pt", "last.pt"
PARITY, EVALUATION, LATENCY, CALIBRATION, PASSES = (
    "parity.json",
    "evaluation.json",
    "latency.json",
    "calibration.json",
    "passes.json",
)
# Beside the evaluation, so that the manifest stays small.
PER_FACE = "per_face.json"
GOLDEN_FILE = "golden.npz"
EXPORT_CROPS = 32
GOLDEN_FRAMES = 4
GOLDEN_FRAME_PX = 192
# Not a seed that anyone trains on.
GOLDEN_SEED = 987_654_321

Crops = npt.NDArray[np.uint8]


def index_faces(context: RunContext, folder: Path) -> None:
    """Sources → `faces.json`: duplicates share a key, and the detector's boxes are added where one is configured."""
    from lmedge.data.duplicates import share_keys_of_duplicates

    parts = [SourceFaces(source, _trainable(read_sources([source]))) for source in context.sources]
    photos = share_keys_of_duplicates([s for part in parts if part.source.kind != SYNTHETIC for s in part.samples])
    detect = _detector(context)
    if detect is not None:
        from lmedge.runtimes.detector import YUNET

        photos = with_detector_boxes(photos, detect, YUNET)
    remaining = iter(photos)
    joined = [
        part if part.source.kind == SYNTHETIC else SourceFaces(part.source, [next(remaining) for _ in part.samples])
        for part in parts
    ]
    write_index(folder, joined, context.lock.digest)


def train_network(context: RunContext, folder: Path) -> None:
    """`faces.json` → `best.pt`, `last.pt`, `model.pt2`, `network.json`."""
    from lmedge.pipeline.checkpoint import Checkpoint
    from lmedge.pipeline.models import Architecture
    from lmedge.pipeline.train import train

    faces, config = _faces(context), context.config
    training, validation = faces.training, faces.validation
    size = config.crop.input_px
    spec = PreprocessSpec(input_hw=(size, size), crop_scale=config.crop.crop_scale, box_fits=_box_fits(training))
    model = config.model
    architecture = Architecture(model.trunk, model.width, model.activation, model.head_channels, size, faces.schema.num_points)
    history = train(
        folder,
        training,
        validation,
        architecture=architecture,
        spec=spec,
        augment=config.augment,
        options=config.train,
        init=Checkpoint.load(context.init) if context.init else None,
        progress=context.progress,
    )
    best = Checkpoint.load(folder / BEST)
    rows = tuple({name: value for name, value in asdict(record).items() if name != "seconds"} for record in history)
    NetworkFacts(faces.schema, spec, architecture.to_json(), best.training, rows).write(folder)


def export_network(context: RunContext, folder: Path) -> None:
    """`model.pt2` → fp32 and fp16 ONNX, each graph pass compared with PyTorch on real crops."""
    from lmedge.export.graph.to_fp16 import write_fp16
    from lmedge.export.torch_to_onnx import export_onnx

    crops, _ = _crops(_faces(context).training[:EXPORT_CROPS], _network(context).preprocess)
    fp32, fp16 = folder / onnx_name(VARIANTS[0]), folder / onnx_name(VARIANTS[1])
    records = [*export_onnx(context.file("train", PROGRAM), fp32, crops), write_fp16(fp32, fp16, crops)]
    _write_json(folder / PASSES, [asdict(record) for record in records])


def quantize_network(context: RunContext, folder: Path) -> None:
    """fp32 ONNX and training crops → both int8 ONNX files."""
    from lmedge.calibration.images import calibration_crops
    from lmedge.calibration.quantize import quantize_int8

    options = context.config.quantize
    crops = calibration_crops(_faces(context).training, _network(context).preprocess, count=options.images, seed=options.seed)
    record = quantize_int8(
        context.file("export", onnx_name(VARIANTS[0])),
        crops,
        folder / onnx_name(VARIANTS[2]),
        folder / onnx_name(VARIANTS[3]),
        seed=options.seed,
        sources=sorted({source.kind for source in context.sources}),
    )
    _write_json(folder / CALIBRATION, record.to_json())


def compile_engines(context: RunContext, folder: Path) -> None:
    """ONNX → OpenVINO IR, one per variant, where OpenVINO is a target."""
    if "openvino" not in context.config.engines:
        _write_json(folder / "skipped.json", {"openvino": "not among the targets"})
        return
    from lmedge.export.compile_openvino import compile_ir

    for variant in VARIANTS:
        source = onnx_folders(context)[variant.precision] / onnx_name(variant)
        target = folder / ir_name(variant)
        target.parent.mkdir(parents=True, exist_ok=True)
        compile_ir(source, target)


def check_parity(context: RunContext, folder: Path) -> None:
    """Every file on every engine it is meant for, against PyTorch on real crops, and the golden vectors for the device."""
    from lmedge.data.synthetic import render_faces
    from lmedge.runtimes import find_runtime
    from lmedge.runtimes.golden import Golden
    from lmedge.runtimes.parity import answer, compare

    facts, faces = _network(context), _faces(context)
    spec, schema = facts.preprocess, facts.schema
    crops, true_fractions = _crops([*faces.validation, *faces.training][: context.config.parity.crops], spec)
    with find_runtime("torch").open(_program(context, facts), batch=None) as reference:
        expected = answer(reference, crops)
        drawn = list(render_faces(GOLDEN_FRAMES, schema, seed=GOLDEN_SEED, size_px=GOLDEN_FRAME_PX))
        frames = np.stack([sample.read_image() for sample in drawn])
        boxes_xyxy = np.stack([sample.box().xyxy for sample in drawn])
        golden = Golden.record(frames, boxes_xyxy, spec, lambda golden_crops: answer(reference, golden_crops))
    write_atomically(folder / GOLDEN_FILE, golden.to_bytes())
    reports: list[ParityReport] = []
    pairs = _pairs(artifacts(context))
    for done, (artifact, backend) in enumerate(pairs, start=1):
        with find_runtime(backend).open(artifact) as runtime:
            reports.append(
                compare(
                    runtime,
                    crops,
                    expected,
                    schema=schema,
                    limits=context.config.gates,
                    true_fractions=true_fractions,
                )
            )
        if context.progress:
            context.progress(done, len(pairs), "comparing engines with PyTorch")
    _write_json(folder / PARITY, [report.to_json() for report in reports])


def evaluate_bundle(context: RunContext, folder: Path) -> None:
    """NME on validation faces of everything that passed parity, end to end from photo to image points."""
    from lmedge.runtimes.evaluate import evaluate
    from lmedge.runtimes.landmarker import FaceLandmarker

    bundle = candidate(context)
    validation = _faces(context).validation
    rows, per_face = [], []
    pairs = _pairs(bundle.manifest.artifacts)
    for done, (artifact, backend) in enumerate(pairs, start=1):
        opened = FaceLandmarker.open(bundle, backend=backend, precision=artifact.precision, dialect=artifact.dialect)
        with opened as landmarker:
            report, results = evaluate(landmarker, validation, boxes="landmarks", split="all")
        errors = [round(result.nme, 6) if np.isfinite(result.nme) else None for result in results]
        per_face.append({"artifact": artifact.path, "backend": backend, "nme": errors})
        rows.append({**replace(report, split="validation").to_json(), "artifact": artifact.path, "dialect": artifact.dialect})
        if context.progress:
            context.progress(done, len(pairs), "measuring NME")
    _write_json(folder / EVALUATION, rows)
    write_atomically(folder / PER_FACE, json.dumps(per_face, separators=(",", ":")) + "\n")


def measure_latency(context: RunContext, folder: Path) -> None:
    """Latency of every engine and precision on this machine; stays out of the bundle, which is the same everywhere."""
    from lmedge.runtimes.bench import bench, describe_machine

    options, progress = context.config.bench, context.progress
    rows = bench(
        candidate(context),
        threads=options.threads,
        iterations=options.iterations,
        progress=(lambda done, total: progress(done, total, "measuring latency")) if progress else None,
    )
    _write_json(folder / LATENCY, {"machine": describe_machine(), "rows": [row.to_json() for row in rows]})


def pack_bundle(context: RunContext, folder: Path) -> None:
    """What passed its gates, with its proof, as a bundle."""
    rows = read_json(context.file("evaluate", EVALUATION))
    manifest = replace(candidate(context).manifest, evaluation={"split": "validation", "reports": rows})
    write_bundle(folder, manifest, context.file("parity", GOLDEN_FILE).read_bytes())


def write_report(context: RunContext, folder: Path) -> None:
    """`report.html`, of everything above."""
    from lmedge.pipeline.report import render_report

    write_atomically(folder / "report.html", render_report(context))


def candidate(context: RunContext) -> Bundle:
    """The bundle as it will be, read from the stage folders: artifacts that passed parity, everything but the evaluation."""
    facts = _network(context)
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


def artifacts(context: RunContext) -> list[Artifact]:
    """All files that the run made for engines, whether they passed or not."""
    facts = _network(context)
    return list_artifacts(
        onnx_folders(context),
        context.folder / "compile" if "openvino" in context.config.engines else None,
        targets=context.config.engines,
        spec=facts.preprocess,
        schema=facts.schema,
        program_sha256=context.lock.digest(context.file("train", PROGRAM)),
        tool_versions=tool_versions(context),
    )


def parity_reports(context: RunContext) -> list[ParityReport]:
    """The parity stage's reports, read back."""
    reports = []
    for row in read_json(context.file("parity", PARITY)):
        gates = tuple(GateResult(g["gate"], g["value"], g["limit"], g["unit"]) for g in row["gates"])
        reports.append(ParityReport(**{**{k: v for k, v in row.items() if k != "passed"}, "gates": gates}))
    return reports


def onnx_folders(context: RunContext) -> dict[str, Path]:
    return {v.precision: context.folder / ("quantize" if v.precision == "int8" else "export") for v in VARIANTS}


def tool_versions(context: RunContext) -> dict[str, str]:
    """Versions of the tools that made the artifacts, as the lock noted them when each stage ran."""
    versions: dict[str, str] = {}
    records = [context.lock.records.get(stage) for stage in ("train", "export", "quantize", "compile")]
    for record in filter(None, records):
        for name, value in record.components.items():
            if name.startswith("tool ") and value != "absent":
                versions[name.removeprefix("tool ")] = value
    return dict(sorted(versions.items()))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, document: Any) -> None:
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _faces(context: RunContext) -> FaceIndex:
    return read_index(context.folder / "faces", context.sources)


def _network(context: RunContext) -> NetworkFacts:
    return NetworkFacts.read(context.folder / "train")


def _program(context: RunContext, facts: NetworkFacts) -> Artifact:
    inputs, outputs = network_specs(facts.preprocess, facts.schema)
    file = context.file("train", PROGRAM)
    return Artifact.of_file(file, file.parent, format="torch", precision="fp32", inputs=inputs, outputs=outputs)


def _pairs(every: Sequence[Artifact]) -> list[tuple[Artifact, str]]:
    return [(artifact, backend) for artifact in every for backend in sorted(artifact.serves)]


def _crops(samples: Sequence[FaceSample], spec: PreprocessSpec) -> tuple[Crops, npt.NDArray[np.float64]]:
    """The device's crops of samples, uint8 (N, H, W, 3), and their labels as fractions (N, K, 2)."""
    if not samples:
        raise DataError("There are no faces to compare engines on; give more photos.")
    crops, fractions = [], []
    for sample in samples:
        image = sample.read_image()
        check_labels(sample.points_px, (image.shape[0], image.shape[1]), sample.origin)
        crop, transform = crop_face(image, sample.box(), spec)
        crops.append(crop)
        fractions.append(transform.to_fractions(sample.points_px))
    return np.stack(crops), np.stack(fractions)


def _box_fits(samples: Sequence[FaceSample]) -> dict[str, BoxFit]:
    kinds = sorted({kind for sample in samples for kind in sample.boxes if kind != REFERENCE})
    fits = {}
    for kind in kinds:
        having = [sample for sample in samples if kind in sample.boxes]
        fits[kind] = fit_boxes([sample.box(kind) for sample in having], [sample.box() for sample in having])
    return fits


def _trainable(samples: Sequence[FaceSample]) -> list[FaceSample]:
    """Without faces that their data set calls a test: a full download of WFLW or MMLAB has both lists.

    Raises:
        DataError: nothing is left.
    """
    kept = [sample for sample in samples if "test" not in sample.subset]
    if not kept:
        raise DataError(f"All {len(samples)} faces are of a published test list; give the training list too.")
    return kept


def _detector(context: RunContext) -> Any:
    if not context.config.data.detector:
        return None
    from lmedge.runtimes.detector import yunet_detector

    return yunet_detector(context.config.data.detector)


def _provenance(context: RunContext, facts: NetworkFacts) -> dict[str, Any]:
    counts = facts.training["faces"]
    return {
        "sources": [
            {"kind": source.kind, "what": KINDS[source.kind].what, "terms": licences([source])[source.kind]}
            for source in context.sources
        ],
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
