"""The quantize stage: calibrate on some training faces, choose on others, and write both int8 files and the fp16-int8 one.

    training faces ─┬─ calibration crops ─▶ recipes ─▶ prepared networks ─┐
                    └─ faces of the choice ─▶ judge ──────────────────────┴─▶ recipe ─▶ float layers ─▶ fine-tuning ─▶ files

Validation faces stay out of all of it: the gates judge by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmedge.calibration.bounded_network import CHOICE_FACES, BoundedNetwork, bound_network, choice_images
from lmedge.calibration.finish_qdq import finish_qdq
from lmedge.calibration.images import CalibrationImages, calibration_images
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect
from lmedge.calibration.quantize import calibration_record, check_fit, read_network, write_quantised
from lmedge.calibration.recipe import Prepared, Recipe, RecipeResult, candidates, choose, prepare
from lmedge.calibration.sensitivity import Judge
from lmedge.data.samples import FaceSample
from lmedge.errors import CalibrationError, ExportError
from lmedge.export.graph.to_fp16 import write_fp16_int8
from lmedge.export.pack import VARIANTS, X86_DIALECT, onnx_name, photo_digest
from lmedge.pipeline.configuration.options import QuantizeOptions
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.stages import RunContext

if TYPE_CHECKING:
    import onnx

# Of the photos, at most this part calibrates; on the others recipes and float layers are chosen.
_CALIBRATED_PART = 2 / 3
# Faces that recipes are compared on, and those that the fp16-int8 file is checked on.
_RECIPE_FACES, _CHECK_FACES = 400, 32

_FP32, _FP16_INT8 = VARIANTS[0], VARIANTS[4]
_FILES = {PORTABLE: VARIANTS[2], X86: VARIANTS[3]}


def quantize(context: RunContext, folder: Path) -> None:
    """fp32 ONNX and training crops → both int8 ONNX files, and from the portable one the fp16-int8 file for TensorRT."""
    options, network = context.config.quantize, run_files.read_network(context)
    training = run_files.read_faces(context).training
    model = read_network(context.file("export", onnx_name(_FP32)))
    count = min(options.images, max(1, int(_CALIBRATED_PART * len(training))))
    layers: dict[str, Any] = {}
    tuned: dict[str, Any] = {}
    recipes: list[RecipeResult] = []
    with ExitStack() as stack:
        images = stack.enter_context(calibration_images(training, network.preprocess, count=count, seed=options.seed))
        check_fit(model, images.crops)
        others = _choice(training, images, context)
        if others is not None:
            stack.enter_context(others)
        prepared = prepare(model, images.crops, _recipes(options, others is not None), context.progress)
        for dialect in DIALECTS:
            chosen, results = _choose(model, prepared, dialect, others, context)
            recipes += results
            bounded = _bounded(model, chosen, dialect, others, context)
            layers[dialect] = bounded.to_json()
            network_int8 = bounded.model
            if options.finetune_epochs and others is not None:
                network_int8, tuned[dialect] = _finetuned(model, chosen, bounded, dialect, others, context)
            write_quantised(network_int8, dialect, folder / onnx_name(_FILES[dialect]))
        int8 = folder / onnx_name(_FILES[PORTABLE])
        checked = _fp16_int8(int8, folder / onnx_name(_FP16_INT8), images)
        kinds = sorted({source.kind for source in context.sources})
        record = images.complete(calibration_record(model, chosen, images.crops, seed=options.seed, sources=kinds))
    methods = {result.dialect: str(result.recipe) for result in recipes if result.chosen}
    if tuned:
        methods = {dialect: f"{method}, fine-tuned" for dialect, method in methods.items()}
    record = replace(record, method="; ".join(f"{dialect}: {method}" for dialect, method in methods.items()) or record.method)
    run_files.write_json(folder / run_files.CALIBRATION, record.to_json())
    run_files.write_json(folder / run_files.PASSES, checked)
    run_files.write_json(folder / run_files.LAYERS, layers)
    run_files.write_json(folder / run_files.FINETUNING, tuned)
    run_files.write_json(folder / run_files.RECIPES, [result.to_json() for result in recipes])


def _fp16_int8(int8: Path, target: Path, images: CalibrationImages) -> dict[str, Any]:
    """Writes the file for TensorRT and says how it was checked; a network that half precision moves too far has none."""
    try:
        return write_fp16_int8(int8, target, images.crops[:_CHECK_FACES]).to_json()
    except ExportError as error:
        return {"name": "int8 to fp16-int8", "left_out": str(error)}


def _recipes(options: QuantizeOptions, can_choose: bool) -> list[Recipe]:
    """The recipes that the configuration allows; the first where there are no faces to choose on."""
    recipe = Recipe(equalise=options.equalise, correct_bias=options.correct_bias)
    allowed = candidates(recipe, base=options.base, ranges=options.ranges)
    return allowed if can_choose else allowed[:1]


def _choice(training: Sequence[FaceSample], images: CalibrationImages, context: RunContext) -> CalibrationImages | None:
    """Training faces on other photos than the calibration crops; None where all photos calibrate."""
    photos = {sample.photo_key for sample in training}
    if len(photos) <= len(images.photo_digests):
        return None
    spec, options = run_files.read_network(context).preprocess, context.config.quantize
    # Fine-tuning trains on all others: it needs many faces more than the choice does.
    count = max(1, len(training) // 4) if options.finetune_epochs else CHOICE_FACES
    return choice_images(training, images, spec, seed=options.seed, count=min(count, CHOICE_FACES))


def _choose(
    model: onnx.ModelProto,
    prepared: Sequence[Prepared],
    dialect: Dialect,
    others: CalibrationImages | None,
    context: RunContext,
) -> tuple[Prepared, list[RecipeResult]]:
    """The recipe of a dialect; where only one is left, nothing has to be measured."""
    if others is None or len(prepared) == 1:
        return prepared[0], []
    few = min(_RECIPE_FACES, len(others.crops))
    schema = run_files.read_faces(context).schema
    judge = Judge(model, others.crops[:few], others.fractions[:few], schema)
    done = 0

    def counted(candidate: onnx.ModelProto) -> Any:
        nonlocal done
        loss = judge(candidate)
        done += 1
        if context.progress:
            context.progress(done, len(prepared), f"choosing the {dialect} recipe")
        return loss

    return choose(prepared, dialect, counted)


def _bounded(
    model: onnx.ModelProto, prepared: Prepared, dialect: Dialect, others: CalibrationImages | None, context: RunContext
) -> BoundedNetwork:
    """The network of a dialect with as many layers in float as the configured bounds need."""
    options = context.config.quantize
    wishes = (options.max_nme_loss, options.min_speedup)
    if others is None:
        if options.sensitivity or any(wish is not None for wish in wishes):
            raise CalibrationError(
                "Every training photo is needed for calibration, so none is left to measure layers or a bound on. "
                "Give more photos."
            )
        return BoundedNetwork(prepared.place(dialect), (), None, None, "onnxruntime", 0)
    return bound_network(
        lambda float_layers: finish_qdq(prepared.place(dialect, float_layers), dialect),
        model,
        others.crops,
        others.fractions,
        run_files.read_faces(context).schema,
        max_nme_loss=options.max_nme_loss,
        # The portable file is for other engines than the one that times are taken on.
        min_speedup=options.min_speedup if dialect == X86_DIALECT else None,
        sensitivity=options.sensitivity,
        progress=context.progress,
    )


def _finetuned(
    model: onnx.ModelProto,
    prepared: Prepared,
    bounded: BoundedNetwork,
    dialect: Dialect,
    others: CalibrationImages,
    context: RunContext,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The int8 network trained on to answer more like the float one, on the training faces that do not judge it."""
    from lmedge.pipeline.finetuning.finetune_int8 import FinetuneOptions, finetune_int8
    from lmedge.pipeline.training.dataset import load_canvases

    faces, spec = run_files.read_faces(context), run_files.read_network(context).preprocess
    judging = set(others.photo_digests)
    taught = [sample for sample in faces.training if photo_digest(sample.photo_key) not in judging]
    trained, record = finetune_int8(
        prepared.place(dialect, bounded.float_layers),
        model,
        load_canvases(taught, spec, context.progress),
        Judge(model, others.crops, others.fractions, faces.schema),
        schema=faces.schema,
        spec=spec,
        augment=context.config.augment,
        options=FinetuneOptions(epochs=context.config.quantize.finetune_epochs, threads=context.config.train.threads),
        prepared=prepared.float_model,
        progress=context.progress,
    )
    return trained, record.to_json()
