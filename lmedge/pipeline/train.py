"""Training, readable from top to bottom: options, preparation, the loop, validation, resume.

`train` leaves three files: `last.pt` (everything a resumed run needs, after each epoch), `best.pt` (the weights with the
lowest validation NME), and `model.pt2` (the exported program, made of `best.pt` at the end).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from lmedge.data.augment import AugmentSpec
from lmedge.data.samples import FaceSample
from lmedge.errors import AccuracyError, DataError
from lmedge.metrics import nme
from lmedge.pipeline.checkpoint import (
    BEST,
    LAST,
    PROGRAM,
    Checkpoint,
    export_program,
    load_tensors,
    save_tensors,
    start_from,
)
from lmedge.pipeline.dataset import EpochOrder, Progress, TrainingFaces, load_canvases, load_crops
from lmedge.pipeline.losses import get_loss
from lmedge.pipeline.memory import keep_freed_memory
from lmedge.pipeline.models import Architecture, DeployedNetwork, LandmarkNetwork, build_network, count_macs, count_parameters
from lmedge.pipeline.options import TrainOptions
from lmedge.preprocess import PreprocessSpec

_VALIDATION_BATCH = 64


@dataclass(frozen=True)
class EpochRecord:
    """One line of the training history; NME is a fraction of the normaliser."""

    epoch: int
    loss: float
    validation_nme: float
    learning_rate: float
    seconds: float


def train(
    folder: Path,
    training: Sequence[FaceSample],
    validation: Sequence[FaceSample],
    *,
    architecture: Architecture,
    spec: PreprocessSpec,
    augment: AugmentSpec,
    options: TrainOptions,
    init: Checkpoint | None = None,
    sources: Sequence[Mapping[str, str]] = (),
    progress: Progress | None = None,
) -> list[EpochRecord]:
    """Trains into `folder`, resuming from its `last.pt` if there is one; the history of all epochs.

    `sources` says where the faces come from, with their terms; those that `init` was trained on are added to the record.

    Raises:
        DataError: too few faces on one side of the split, no validation face with an error, or an image that cannot be used.
        AccuracyError: the loss, or the error on validation faces, is no longer a number.
    """
    # Batch norm needs two faces in a batch.
    if len(training) < 2 or not validation:
        raise DataError(
            f"Training needs faces on both sides of the split; got {len(training)} for training and {len(validation)} for "
            "validation. About one photo in ten is for validation: give more photos."
        )
    if not any(np.isfinite(nme(face.points_px[None], face.points_px[None], face.schema)[0]) for face in validation):
        raise DataError(
            f"None of the {len(validation)} validation faces has the points that its error is divided by "
            f"({validation[0].schema.normalizer_name}). Give faces that have them."
        )
    schema = training[0].schema
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    keep_freed_memory()
    accelerator = Accelerator()

    faces = TrainingFaces(load_canvases(training, spec, progress), schema, spec, augment, options.seed)
    validation_set = load_crops(validation, spec)
    order = EpochOrder(len(faces), options.seed)
    loader = DataLoader(faces, options.batch_size, sampler=order, drop_last=len(faces) > options.batch_size)

    network = build_network(architecture)
    network.head.start_at(torch.from_numpy(_mean_fractions(faces)))
    fresh = start_from(network, init) if init is not None else []
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    deployed = DeployedNetwork(network, spec.mean, spec.std)
    optimizer = AdamW(_decay_groups(network, options.weight_decay), lr=options.learning_rate)
    schedule = LambdaLR(optimizer, _warmup_cosine(options, len(loader)))
    deployed, optimizer, loader = accelerator.prepare(deployed, optimizer, loader)
    loss_function = get_loss(options.loss)

    history = _resume(folder / LAST, network, optimizer, schedule)
    best_nme = min((record.validation_nme for record in history), default=math.inf)
    facts: dict[str, Any] = {
        "options": asdict(options),
        "augment": asdict(augment),
        "parameters": count_parameters(network),
        "macs": count_macs(network, architecture.input_px),
        "photo_keys": sorted({sample.photo_key for sample in training}.union(_inherited(init, "photo_keys"))),
        "sources": [dict(source) for source in sources] + [s for s in _inherited(init, "sources") if s not in sources],
        "not_from_init": fresh,
        "faces": {"training": len(training), "validation": len(validation)},
    }
    total_steps = options.epochs * len(loader)
    for epoch in range(len(history), options.epochs):
        faces.epoch = order.epoch = epoch
        started = time.monotonic()
        losses: list[float] = []
        deployed.train()
        for crops, fractions in loader:
            mask = torch.isfinite(fractions).all(dim=2)
            loss = loss_function(deployed(crops), fractions, mask, architecture.input_px)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            _check_finite("loss", losses[-1], epoch, options)
            if progress:
                best = "" if math.isinf(best_nme) else f", best NME {best_nme:.2%}"
                progress(epoch * len(loader) + len(losses), total_steps, f"epoch {epoch + 1}/{options.epochs}{best}")
        value = validation_nme(network, *validation_set, spec, validation)
        _check_finite("validation NME", value, epoch, options)
        record = EpochRecord(epoch, float(np.mean(losses)), value, float(schedule.get_last_lr()[0]), time.monotonic() - started)
        history.append(record)
        if value < best_nme:
            best_nme = value
            weights = network.state_dict()
            Checkpoint(weights, architecture, schema, spec, {**facts, "epoch": epoch, "validation_nme": value}).save(
                folder / BEST
            )
        _save_last(folder / LAST, network, optimizer, schedule, history)
    export_program(Checkpoint.load(folder / BEST), folder / PROGRAM)
    return history


@torch.no_grad()
def validation_nme(
    network: LandmarkNetwork, crops: Tensor, true_fractions: Tensor, spec: PreprocessSpec, samples: Sequence[FaceSample]
) -> float:
    """Mean NME over faces that have a normaliser; crops are square, so fractions give the same ratio as pixels."""
    deployed = DeployedNetwork(network, spec.mean, spec.std).eval()
    device = next(network.parameters()).device
    answers = torch.cat([deployed(batch.to(device)).cpu() for batch in torch.split(crops, _VALIDATION_BATCH)])
    network.train()
    return float(np.nanmean(nme(answers.numpy(), true_fractions.numpy(), samples[0].schema)))


def _check_finite(what: str, value: float, epoch: int, options: TrainOptions) -> None:
    if not math.isfinite(value):
        raise AccuracyError(
            f"The {what} became {value} in epoch {epoch + 1}. Lower the learning rate: --set train.learning_rate="
            f"{options.learning_rate / 4:g}"
        )


def _inherited(init: Checkpoint | None, key: str) -> list[Any]:
    """What a checkpoint that a network starts from says of its own training."""
    if init is None:
        return []
    if key == "sources" and key not in init.training:
        return [{"kind": "init", "what": "a checkpoint that does not name its faces", "terms": "unknown: those of its faces"}]
    return list(init.training.get(key, ()))


def _mean_fractions(faces: TrainingFaces) -> Any:
    """The mean face in the crop, (K, 2) float32, over training labels."""
    middle = (faces.canvases[0].image_bgr.shape[0] - 1) / 2
    stacked = np.stack([(canvas.points_px - middle) / canvas.crop_side_px + 0.5 for canvas in faces.canvases])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a point that no face has starts in the middle
        mean = np.nanmean(stacked, axis=0)
    return np.nan_to_num(mean, nan=0.5).astype(np.float32)


def _decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: a decayed bias or norm scale shrinks answers towards nothing."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _warmup_cosine(options: TrainOptions, steps_per_epoch: int) -> Any:
    warmup = max(1.0, options.warmup_epochs * steps_per_epoch)
    total = max(warmup + 1, options.epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total - warmup))))

    return factor


def _save_last(path: Path, network: nn.Module, optimizer: Any, schedule: LambdaLR, history: list[EpochRecord]) -> None:
    save_tensors(
        path,
        {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "history": [asdict(record) for record in history],
        },
    )


def _resume(path: Path, network: nn.Module, optimizer: Any, schedule: LambdaLR) -> list[EpochRecord]:
    if not path.is_file():
        return []
    state = load_tensors(path)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return [EpochRecord(**record) for record in state["history"]]
