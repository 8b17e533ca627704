"""What each stage does: it reads the files of the stages before it, and writes its own into the folder it is given.

Engines and torch are imported by the step that needs them, so a build that skips a step never loads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact, Bundle, Manifest, file_digest, write_atomically, write_bundle
from lmedge.data.crops import labelled_crops
from lmedge.data.samples import FaceSample
from lmedge.data.sources import check_sources, source_terms
from lmedge.errors import DataError
from lmedge.export.pack import OPENVINO_VARIANTS, VARIANTS, ir_name, onnx_name, photo_digest
from lmedge.pipeline.engines import kept_engines, read_engines
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.faces import SYNTHETIC, SourceFaces, read_source, with_detector_boxes, write_index
from lmedge.pipeline.runs.network import NetworkFacts
from lmedge.pipeline.runs.stages import RunContext
from lmedge.pipeline.training.processes import is_helper
from lmedge.preprocess import REFERENCE, BoxFit, PreprocessSpec, fit_boxes
from lmedge.reports import LatencyReport, ParityReport
from lmedge.runtimes.answers import Answer, all_answers
from lmedge.runtimes.golden import Golden
from lmedge.schemas import LandmarkSchema

EXPORT_CROPS = 32
GOLDEN_FRAMES = 4
GOLDEN_FRAME_PX = 192
# Not a seed that anyone trains on.
GOLDEN_SEED = 987_654_321


def index_faces(context: RunContext, folder: Path) -> None:
    """Sources → `faces.json`: duplicates share a key, and the detector's boxes are added where one is configured."""
    from lmedge.data.duplicates import share_keys_of_duplicates

    check_sources(context.sources)
    parts = [SourceFaces(source, _trainable(read_source(source, context.progress))) for source in context.sources]
    photos = share_keys_of_duplicates([s for part in parts if part.source.kind != SYNTHETIC for s in part.samples])
    detect = _detector(context)
    if detect is not None:
        from lmedge.runtimes.detector import YUNET

        photos = with_detector_boxes(photos, detect, YUNET, context.progress)
    remaining = iter(photos)
    joined = [
        part if part.source.kind == SYNTHETIC else SourceFaces(part.source, [next(remaining) for _ in part.samples])
        for part in parts
    ]
    write_index(folder, joined, context.lock.digest, context.schema)


def train_network(context: RunContext, folder: Path) -> None:
    """`faces.json` → `best.pt`, `last.pt`, `model.pt2`, `network.json`."""
    from lmedge.pipeline.models import Architecture
    from lmedge.pipeline.training.checkpoint import Checkpoint
    from lmedge.pipeline.training.train import train

    faces, config = run_files.read_faces(context), context.config
    training, validation = faces.training, faces.validation
    size = config.crop.input_px
    spec = PreprocessSpec(input_hw=(size, size), crop_scale=config.crop.crop_scale, box_fits=_box_fits(training))
    model = config.model
    architecture = Architecture(
        model.trunk,
        model.width,
        model.activation,
        model.head_channels,
        size,
        faces.schema.num_points,
        model.head,
        model.confidence,
    )
    history = train(
        folder,
        training,
        validation,
        architecture=architecture,
        spec=spec,
        augment=config.augment,
        options=config.train,
        others=faces.others,
        others_part=config.data.others,
        init=Checkpoint.load(context.init) if context.init else None,
        teacher=Checkpoint.load(context.teacher) if context.teacher else None,
        sources=source_terms(context.sources),
        logs=context.folder / run_files.LOGS,
        progress=context.progress,
    )
    if is_helper():
        return
    best = Checkpoint.load(folder / run_files.BEST)
    rows = tuple({name: value for name, value in asdict(record).items() if name != "seconds"} for record in history)
    NetworkFacts(faces.schema, spec, architecture.to_json(), best.training, rows).write(folder)


def export_network(context: RunContext, folder: Path) -> None:
    """`model.pt2` → fp32 and fp16 ONNX, each graph pass compared with PyTorch on real crops."""
    from lmedge.export.graph.to_fp16 import write_fp16
    from lmedge.export.torch_to_onnx import export_onnx

    crops, _ = labelled_crops(run_files.read_faces(context).training[:EXPORT_CROPS], run_files.read_network(context).preprocess)
    fp32, fp16 = folder / onnx_name(VARIANTS[0]), folder / onnx_name(VARIANTS[1])
    records = [*export_onnx(context.file("train", run_files.PROGRAM), fp32, crops), write_fp16(fp32, fp16, crops)]
    run_files.write_json(folder / run_files.PASSES, [asdict(record) for record in records])


def quantize_network(context: RunContext, folder: Path) -> None:
    """fp32 ONNX and training faces → both int8 ONNX files, and from the portable one the fp16-int8 file for TensorRT."""
    from lmedge.pipeline.quantization import quantize

    quantize(context, folder)


def compile_engines(context: RunContext, folder: Path) -> None:
    """ONNX → OpenVINO IR, one per variant that it serves, where OpenVINO is a target."""
    if not context.config.writes_ir:
        reason = "reads the ONNX files" if "openvino" in context.config.engines else "not among the targets"
        run_files.write_json(folder / "skipped.json", {"openvino": reason})
        return
    from lmedge.export.compile_openvino import compile_ir

    for variant in OPENVINO_VARIANTS:
        source = run_files.onnx_folders(context)[variant.precision] / onnx_name(variant)
        target = folder / ir_name(variant)
        target.parent.mkdir(parents=True, exist_ok=True)
        compile_ir(source, target)


def check_parity(context: RunContext, folder: Path) -> None:
    """Every file on every engine it is meant for, against PyTorch on real crops, and the golden vectors for the device, which
    each of them has to answer here as it will there."""
    from lmedge.runtimes import find_runtime
    from lmedge.runtimes.landmarker import FaceLandmarker
    from lmedge.runtimes.parity import check_golden, compare

    facts, faces, limits = run_files.read_network(context), run_files.read_faces(context), context.config.gates
    spec, schema, validation = facts.preprocess, facts.schema, faces.validation
    crops, true_fractions = labelled_crops([*validation, *faces.training][: context.config.parity.crops], spec)
    # The error that int8 adds is judged on faces that neither training nor calibration saw.
    true_fractions[len(validation) :] = np.nan
    with find_runtime("torch").open(run_files.program_artifact(context, facts), batch=None) as reference:
        expected = all_answers(reference, crops)
        golden = _golden(spec, schema, lambda golden_crops: all_answers(reference, golden_crops))
    write_atomically(folder / run_files.GOLDEN_FILE, golden.to_bytes())
    every = run_files.artifacts(context)
    digest = file_digest(folder / run_files.GOLDEN_FILE)
    device = Bundle(folder, Manifest(context.config.name, schema, spec, tuple(every), golden=digest))
    reports: list[ParityReport] = []
    pairs = run_files.engine_pairs(every)
    for done, (artifact, backend) in enumerate(pairs, start=1):
        with find_runtime(backend).open(artifact) as runtime:
            reports.append(compare(runtime, crops, expected, schema=schema, limits=limits, true_fractions=true_fractions))
            reports.append(check_golden(FaceLandmarker(device, runtime), limits))
        if context.progress:
            context.progress(done, len(pairs), "comparing engines with PyTorch")
    run_files.write_json(folder / run_files.PARITY, [report.to_json() for report in reports])
    run_files.write_json(folder / run_files.AGREEMENT, _agreements(context, every, crops))


def evaluate_bundle(context: RunContext, folder: Path) -> None:
    """NME on validation faces of everything that passed parity, end to end from photo to image points."""
    from lmedge.runtimes.added_error import Evaluated, added_errors
    from lmedge.runtimes.evaluate import evaluate
    from lmedge.runtimes.landmarker import FaceLandmarker

    bundle = run_files.candidate(context)
    validation = run_files.read_faces(context).validation
    rows, per_face, evaluated = [], [], []
    pairs = run_files.engine_pairs(bundle.manifest.artifacts)
    for done, (artifact, backend) in enumerate(pairs, start=1):
        opened = FaceLandmarker.open(bundle, backend=backend, precision=artifact.precision, dialect=artifact.dialect)
        with opened as landmarker:
            report, results = evaluate(landmarker, validation, boxes="landmarks", split="all")
        evaluated.append(Evaluated(backend, artifact, results))
        errors = [round(result.nme, 6) if np.isfinite(result.nme) else None for result in results]
        per_face.append({"artifact": artifact.path, "backend": backend, "nme": errors})
        rows.append({**replace(report, split="validation").to_json(), "artifact": artifact.path, "dialect": artifact.dialect})
        if context.progress:
            context.progress(done, len(pairs), "measuring NME")
    for row, loss in zip(rows, added_errors(evaluated), strict=True):
        row["added_error"] = None if loss is None else asdict(loss)
    run_files.write_json(folder / run_files.EVALUATION, rows)
    run_files.write_json(folder / run_files.CALIBRATED_ON, calibration_photos(bundle.manifest.calibration, validation))
    write_atomically(folder / run_files.PER_FACE, json.dumps(per_face, separators=(",", ":")) + "\n")


def measure_latency(context: RunContext, folder: Path) -> None:
    """Latency of every engine and precision on this machine; stays out of the bundle, which is the same everywhere."""
    from lmedge.runtimes.bench import Conditions, bench, describe_machine

    options, progress, bundle = context.config.bench, context.progress, run_files.candidate(context)
    golden = context.file("parity", run_files.GOLDEN_FILE)
    bundle = Bundle(golden.parent, replace(bundle.manifest, golden=file_digest(golden)))
    rows: list[LatencyReport] = []
    # Where no file passed its gates there is nothing to measure, and the build ends with the gates.
    if any(artifact.serves for artifact in bundle.manifest.artifacts):
        rows = bench(
            bundle,
            conditions=Conditions(threads=(options.threads,), iterations=options.iterations, limits=context.config.gates),
            progress=(lambda done, total: progress(done, total, "measuring latency")) if progress else None,
        )
    run_files.write_json(folder / run_files.LATENCY, {"machine": describe_machine(), "rows": [row.to_json() for row in rows]})


def pack_bundle(context: RunContext, folder: Path) -> None:
    """What passed its gates, with its proof, as a bundle."""
    manifest = run_files.packed(context)
    proof = [report.to_json() for report in read_engines(context).parity]
    engines = kept_engines(context)
    manifest = replace(manifest, artifacts=(*manifest.artifacts, *engines), parity=(*manifest.parity, *proof))
    write_bundle(folder, manifest, context.file("parity", run_files.GOLDEN_FILE).read_bytes())


def write_report(context: RunContext, folder: Path) -> None:
    """`report.html`, of everything above."""
    from lmedge.pipeline.reporting.report import render_report

    write_atomically(folder / "report.html", render_report(context))


def calibration_photos(calibration: Mapping[str, Any] | None, scored: Sequence[FaceSample]) -> list[str] | None:
    """Names of the scored photos that int8 was calibrated on; None where the record of calibration does not say which it saw.

    Copies of a photo have its name, so a copy under another file name is found too.
    """
    digests = (calibration or {}).get("photo_digests")
    if not digests:
        return None
    return sorted({sample.photo_key for sample in scored if photo_digest(sample.photo_key) in set(digests)})


def _golden(spec: PreprocessSpec, schema: LandmarkSchema, reference: Answer) -> Golden:
    """Rendered frames with the reference's answers: free of any data set's terms, so that they may go with the bundle."""
    from lmedge.data.synthetic import render_faces

    drawn = list(render_faces(GOLDEN_FRAMES, schema, seed=GOLDEN_SEED, size_px=GOLDEN_FRAME_PX))
    frames = np.stack([sample.read_image() for sample in drawn])
    boxes_xyxy = np.stack([sample.box().xyxy for sample in drawn])
    return Golden.record(frames, boxes_xyxy, spec, reference)


def _agreements(context: RunContext, every: Sequence[Artifact], crops: npt.NDArray[np.uint8]) -> list[Mapping[str, Any]]:
    """How far the engines are apart on each int8 file that they share; none where only one of them is a target."""
    from lmedge.calibration.agreement import ENGINES, disagreement

    if not set(ENGINES) <= set(context.config.engines):
        return []
    shared = [artifact for artifact in every if (artifact.format, artifact.precision) == ("onnx", "int8")]
    return [disagreement(artifact.file, crops).to_json() for artifact in shared]


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
