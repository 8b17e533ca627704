"""Training, readable from top to bottom: what it needs, preparation, the loop, what is kept.

`train` leaves three files: `last.pt` (everything a resumed run needs, after each epoch), `best.pt` (the weights with the
lowest validation NME), and `model.pt2` (the exported program, made of `best.pt` at the end). Trained on several point sets,
it also leaves a checkpoint named after each of the others, to start from.
"""

from __future__ import annotations

import copy
import io
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lmedge.bundle import write_atomically
from lmedge.data.augment import AugmentSpec, Canvas
from lmedge.data.samples import FaceSample
from lmedge.errors import AccuracyError, ConfigError
from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.models import (
    Architecture,
    LandmarkNetwork,
    TrainedNetwork,
    build_network,
    count_macs,
    count_parameters,
)
from lmedge.pipeline.training.averaging import WeightAverage
from lmedge.pipeline.training.checkpoint import BEST, LAST, PROGRAM, Checkpoint, export_program, start_from
from lmedge.pipeline.training.dataset import EpochOrder, TrainingFaces, load_joint_canvases
from lmedge.pipeline.training.facts import all_sources, check_faces, count_faces, seen_photos
from lmedge.pipeline.training.joint import Frames, JointPoints
from lmedge.pipeline.training.log import TrainingLog
from lmedge.pipeline.training.memory import keep_freed_memory
from lmedge.pipeline.training.objective import Objective
from lmedge.pipeline.training.optimisation import make_optimizer, make_schedule
from lmedge.pipeline.training.processes import check_shares, train_on_cpu
from lmedge.pipeline.training.state import EpochRecord, TrainingState
from lmedge.pipeline.training.teacher import check_teacher, teach
from lmedge.pipeline.training.validation import ValidationFaces, with_calibrated_confidence
from lmedge.preprocess import PreprocessSpec
from lmedge.progress import Progress

BAD_BATCH = "bad_batch.npz"


def train(
    folder: Path,
    training: Sequence[FaceSample],
    validation: Sequence[FaceSample],
    *,
    architecture: Architecture,
    spec: PreprocessSpec,
    augment: AugmentSpec,
    options: TrainOptions,
    others: Sequence[FaceSample] = (),
    others_part: float = 1.0,
    init: Checkpoint | None = None,
    teacher: Checkpoint | None = None,
    sources: Sequence[Mapping[str, str]] = (),
    logs: Path | None = None,
    progress: Progress | None = None,
) -> list[EpochRecord]:
    """Trains into `folder`, resuming from its `last.pt` if there is one; the history of all epochs.

    Args:
        training, validation: faces of the point set that is exported.
        architecture: of the exported network.
        others: training faces of other point sets, of which an epoch sees `others_part` times as many as of the first.
        init: where the weights start.
        teacher: whose answers are further labels.
        sources: where the faces come from, with their terms; those that `init` and `teacher` were trained on are added to the
            record.
        logs: folder for a CSV file and TensorBoard's events.

    Raises:
        DataError: too few faces on one side of the split, no validation face with an error, or an image that cannot be used.
        ConfigError: options that contradict the network, the teacher or the number of processes.
        SchemaError: point sets that cannot be trained together.
        AccuracyError: the loss, or the error on validation faces, is no longer a number; the batch is saved.
    """
    check_faces(training, validation, init, teacher)
    _prepare_process(options)
    accelerator = Accelerator(cpu=train_on_cpu(), dataloader_config=DataLoaderConfiguration(split_batches=True))

    points = _joint_points(training, others, teacher)
    canvases = load_joint_canvases(
        [*training, *others], spec, points, Frames(training[0].schema, training, points.schemas), progress
    )
    if teacher is not None:
        canvases = teach(canvases, teacher, points, spec, progress)
    faces = TrainingFaces(canvases, points, spec, augment, options.seed)
    judges = ValidationFaces.load(validation, spec)
    order = EpochOrder(len(training), options.seed, len(others), round(others_part * len(training)))
    loader = DataLoader(
        faces, options.batch_size, sampler=order, drop_last=len(order) > options.batch_size, num_workers=options.workers
    )

    network = build_network(replace(architecture, num_points=points.num_outputs))
    _check_sizes(network, options)
    network.head.start_at(torch.from_numpy(_mean_fractions(canvases, points)))
    fresh = start_from(network, init) if init is not None else []
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained: nn.Module = TrainedNetwork(network, spec.mean, spec.std)
    optimizer: Any = make_optimizer(network, options)
    schedule = make_schedule(optimizer, options, len(loader))
    trained, optimizer, loader = accelerator.prepare(trained, optimizer, loader)
    average = WeightAverage(network, options.ema)
    objective = Objective(points, options)

    state = TrainingState(network, average, optimizer, schedule)
    history = state.resume(folder / LAST)
    best_nme = min((record.validation_nme for record in history), default=math.inf)
    facts: dict[str, Any] = {
        "options": asdict(options),
        "augment": asdict(augment),
        "photo_keys": seen_photos([*training, *others], init, teacher),
        "sources": all_sources(sources, init, teacher),
        "not_from_init": fresh,
        "faces": count_faces(training, validation, others),
    }
    log = TrainingLog(logs if accelerator.is_main_process else None, history)
    total_steps = options.epochs * len(loader)
    for epoch in range(len(history), options.epochs):
        _prepare_epoch(faces, order, architecture, augment, options, epoch)
        started = time.monotonic()
        losses: list[float] = []
        _training_mode(trained, options)
        for crops, labels in loader:
            loss = objective(trained(crops), labels, architecture.input_px)
            optimizer.zero_grad()
            accelerator.backward(loss)
            losses.append(float(accelerator.reduce(loss.detach(), "mean")))
            if not math.isfinite(losses[-1]):
                _save_batch((logs or folder) / BAD_BATCH, accelerator, network, crops, labels)
                _stop("loss", losses[-1], epoch, options, f" The batch is in {(logs or folder) / BAD_BATCH}.")
            optimizer.step()
            schedule.step()
            average.update()
            if progress and accelerator.is_main_process:
                progress(epoch * len(loader) + len(losses), total_steps, _progress_text(epoch, options, best_nme))
        value = judges.nme(average.average)
        if not math.isfinite(value):
            _stop("validation NME", value, epoch, options)
        rate, seconds = float(schedule.get_last_lr()[0]), time.monotonic() - started
        history.append(EpochRecord(epoch, float(np.mean(losses)), value, rate, seconds))
        if accelerator.is_main_process:
            if value < best_nme:
                now = {**facts, "epoch": epoch, "validation_nme": value}
                _save_all(folder, average.average, points, architecture, spec, now)
            state.save(folder / LAST, history)
            log.add(history[-1])
        best_nme = min(best_nme, value)
    log.close()
    if accelerator.is_main_process:
        _finish(folder, judges)
    return history


def _prepare_process(options: TrainOptions) -> None:
    check_shares(options.batch_size)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    keep_freed_memory()


def _joint_points(training: Sequence[FaceSample], others: Sequence[FaceSample], teacher: Checkpoint | None) -> JointPoints:
    schemas = {face.schema.name: face.schema for face in (*training, *others)}
    points = JointPoints(tuple(schemas.values()), teacher is not None)
    if teacher is not None:
        check_teacher(teacher, points)
    return points


def _check_sizes(network: LandmarkNetwork, options: TrainOptions) -> None:
    if options.small_part and not network.head.any_size:
        raise ConfigError(
            "train.small_part: this head works at one crop size only. Take one that works at any: --set model.head=integral"
        )


def _prepare_epoch(
    faces: TrainingFaces, order: EpochOrder, architecture: Architecture, augment: AugmentSpec, options: TrainOptions, epoch: int
) -> None:
    """What an epoch sees depends on its number alone, so that a resumed run sees the same."""
    small, weak = round(options.small_part * options.epochs), round(options.weak_part * options.epochs)
    size = options.small_px if epoch < small else architecture.input_px
    faces.epoch = order.epoch = epoch
    faces.spec = replace(faces.spec, input_hw=(size, size))
    faces.augment = augment.weak() if epoch >= options.epochs - weak else augment


def _training_mode(trained: nn.Module, options: TrainOptions) -> None:
    trained.train()
    if options.freeze_norms:
        for module in trained.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _progress_text(epoch: int, options: TrainOptions, best_nme: float) -> str:
    best = "" if math.isinf(best_nme) else f", best NME {best_nme:.2%}"
    return f"epoch {epoch + 1}/{options.epochs}{best}"


def _stop(what: str, value: float, epoch: int, options: TrainOptions, more: str = "") -> None:
    raise AccuracyError(
        f"The {what} became {value} in epoch {epoch + 1}.{more} Lower the learning rate: --set train.learning_rate="
        f"{options.learning_rate / 4:g}"
    )


def _save_batch(path: Path, accelerator: Accelerator, network: nn.Module, crops: Tensor, labels: Tensor) -> None:
    """What the loss was no number with: the crops uint8 (N, H, W, 3) and labels (N, K, 2) of all processes, and the weights."""
    arrays = dict(zip(("crops", "fractions"), accelerator.gather((crops, labels)), strict=True))
    arrays |= {f"weights/{name}": tensor for name, tensor in network.state_dict().items()}
    if accelerator.is_main_process:
        packed = io.BytesIO()
        np.savez_compressed(packed, **{name: tensor.cpu().numpy() for name, tensor in arrays.items()})
        write_atomically(path, packed.getvalue())
    # A process that stops ends the others; the first one writes until here.
    accelerator.wait_for_everyone()


def _save_all(
    folder: Path,
    network: nn.Module,
    points: JointPoints,
    architecture: Architecture,
    spec: PreprocessSpec,
    facts: Mapping[str, Any],
) -> None:
    """`best.pt` with the head of the first schema, and a checkpoint for each other one."""
    for schema in points.schemas:
        single: Any = copy.deepcopy(network)
        if len(points.schemas) > 1:
            place = points.place_of(schema)
            single.head.keep_points(range(place.start, place.stop))
        own = replace(architecture, num_points=schema.num_points)
        cost = {"parameters": count_parameters(single), "macs": count_macs(single, own.input_px)}
        name = BEST if schema == points.schemas[0] else f"{schema.name}.pt"
        Checkpoint(single.state_dict(), own, schema, spec, {**facts, **cost}).save(folder / name)


def _finish(folder: Path, judges: ValidationFaces) -> None:
    best = Checkpoint.load(folder / BEST)
    if best.architecture.confidence and "confidence" not in best.training:
        best = with_calibrated_confidence(best, judges)
        best.save(folder / BEST)
    export_program(best, folder / PROGRAM)


def _mean_fractions(canvases: Sequence[Canvas], points: JointPoints) -> Any:
    """The mean face in the crop, (K, 2) float32, over training labels."""
    middle = (canvases[0].image_bgr.shape[0] - 1) / 2
    stacked = np.stack([(canvas.points_px - middle) / canvas.crop_side_px + 0.5 for canvas in canvases])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a point that no face has starts in the middle
        mean = np.nanmean(stacked[:, : points.num_outputs], axis=0)
    return np.nan_to_num(mean, nan=0.5).astype(np.float32)
