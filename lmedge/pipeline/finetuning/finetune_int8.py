"""Quantisation-aware fine-tuning: trains the numbers of an int8 graph until it answers more like the float one.

The graph itself is trained (`GraphModule`), so its quantisers stay where they are, and what is legal stays legal. The float
network is the teacher: on random views of training faces, the int8 one learns to answer the same (distillation: Hinton et al.,
2015), its confidence too. That needs no labels, and leads to no other network. Weights move by parts of an int8 step, and the
scales of activations by percents (LSQ: Esser et al., ICLR 2020).

The result is judged as it will run, written back and on an engine, on faces that no training saw; the start wins unless the
result is closer to the teacher there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import torch
from accelerate import Accelerator
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from lmedge.bundle import CONFIDENCE
from lmedge.calibration.sensitivity import NetworkLoss
from lmedge.data.augment import AugmentSpec, Canvas
from lmedge.errors import AccuracyError, CalibrationError
from lmedge.export.graph.compare import OUTPUT
from lmedge.export.graph.legalize_qdq import QUANTIZE
from lmedge.export.graph.lint_qdq import lint_qdq
from lmedge.pipeline.finetuning.graph_module import GraphModule
from lmedge.pipeline.training.dataset import EpochOrder, TrainingFaces
from lmedge.pipeline.training.losses import get_loss
from lmedge.pipeline.training.memory import keep_freed_memory
from lmedge.pipeline.training.optimisation import half_cosine
from lmedge.preprocess import PreprocessSpec
from lmedge.progress import Progress
from lmedge.schemas import LandmarkSchema

# The part of all steps in which the learning rates rise.
_WARMUP = 0.05
# What a confidence that is off by 1 counts beside points that are off by pixels: 0.1 as much as a pixel.
_CONFIDENCE_PX = 10.0

Judge = Callable[[onnx.ModelProto], NetworkLoss]


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune.

    Attributes:
        epochs: over all faces; half a cosine takes the learning rates down to zero.
        batch_size: faces per step.
        learning_rate: of weights and biases, in int8 steps.
        scale_learning_rate: of activations' scales, in parts of the scale; 0 leaves them as they are.
        label_weight: of the labels' Wing loss beside the teacher; 0 leaves labels out.
        seed: of order and views.
        threads: CPU threads of torch; 0 leaves torch's default.
    """

    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 0.01
    scale_learning_rate: float = 0.03
    label_weight: float = 0.0
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise CalibrationError(
                f"Fine-tuning takes at least 1 epoch, faces in batches of at least 1, and a learning rate above 0; got "
                f"{self.epochs}, {self.batch_size} and {self.learning_rate}."
            )


@dataclass(frozen=True)
class FinetuneRecord:
    """What a run did.

    Attributes:
        kept: whether its result was taken; else the network is the one that it started from.
        before, after: how start and result differ from the float network, on the judge's faces.
        distance_px: of each epoch, the mean distance to the teacher on training views, in pixels of the crop.
        faces, seconds: what it took.
    """

    kept: bool
    before: NetworkLoss
    after: NetworkLoss
    distance_px: tuple[float, ...]
    options: FinetuneOptions
    faces: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        record = {**asdict(self), "before": self.before.to_json(), "after": self.after.to_json()}
        return {**record, "distance_px": list(self.distance_px), "seconds": round(self.seconds, 1)}


def finetune_int8(
    quantised: onnx.ModelProto,
    teacher: onnx.ModelProto,
    canvases: Sequence[Canvas],
    judge: Judge,
    *,
    schema: LandmarkSchema,
    spec: PreprocessSpec,
    augment: AugmentSpec,
    options: FinetuneOptions | None = None,
    prepared: onnx.ModelProto | None = None,
    progress: Progress | None = None,
) -> tuple[onnx.ModelProto, FinetuneRecord]:
    """The int8 network after a short training, or the given one where that is closer to the teacher; neither is changed.

    Args:
        quantised: a Q/DQ graph of either dialect, as `place_qdq` writes it.
        teacher: the float network whose answers it should give.
        canvases: training faces, as `load_canvases` makes them.
        judge: says how a network differs from the teacher, best on faces that are not among the canvases.
        prepared: the float network that `quantised` holds the rounded weights of, where that is not the teacher.
        progress: called with (steps done, in all, what is being done).

    Raises:
        CalibrationError: no faces, nothing quantised, or a result that is legal on fewer engines than the start.
        ExportError: an operator that the training does not know.
        AccuracyError: the answers or the gradients are no longer numbers.
    """
    options = options or FinetuneOptions()
    if not canvases:
        raise CalibrationError("Fine-tuning needs training faces; got none. Give more photos.")
    if not any(node.op_type == QUANTIZE for node in quantised.graph.node):
        raise CalibrationError("There is nothing to fine-tune: the network has no QuantizeLinear. Quantise it first.")
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    started = time.monotonic()
    device = Accelerator().device
    student = GraphModule(quantised, prepared or teacher, learn_scales=options.scale_learning_rate > 0)
    faces = TrainingFaces(canvases, schema, spec, augment, options.seed)
    distance_px = _train(student.to(device), GraphModule(teacher).to(device), faces, options, progress)
    result = student.write_back()
    if not lint_qdq(quantised) and (findings := lint_qdq(result)):
        raise CalibrationError(f"After fine-tuning, the int8 graph would break {len(findings)} rules: {findings[0]}")
    before, after = judge(quantised), judge(result)
    # On the mean face and on the odd one; never with NaN.
    kept = after.mean_px < before.mean_px and after.rms_px < before.rms_px
    record = FinetuneRecord(kept, before, after, distance_px, options, len(faces), time.monotonic() - started)
    return (result if kept else quantised), record


def _train(
    student: GraphModule, teacher: GraphModule, faces: TrainingFaces, options: FinetuneOptions, progress: Progress | None
) -> tuple[float, ...]:
    """Trains the student in place; the mean distance to the teacher in each epoch, in pixels of the crop."""
    order = EpochOrder(len(faces), options.seed)
    loader = DataLoader(faces, options.batch_size, sampler=order, drop_last=len(faces) > options.batch_size)
    device = next(student.parameters()).device
    size_px = faces.spec.input_hw[1]
    optimizer = Adam(
        [
            {"params": list(student.weights.values()), "lr": options.learning_rate},
            {"params": list(student.log_scales.values()), "lr": options.scale_learning_rate},
        ]
    )
    total = options.epochs * len(loader)
    schedule = LambdaLR(optimizer, lambda step: min(1, (step + 1) / (_WARMUP * total)) * half_cosine(step / total))
    label_loss = get_loss("wing")
    means: list[float] = []
    for epoch in range(options.epochs):
        faces.epoch = order.epoch = epoch
        distances: list[float] = []
        for crops, fractions in loader:
            with torch.no_grad():
                wanted = teacher.answers(crops.to(device))
            answers = student.answers(crops.to(device))
            apart_px = (answers[OUTPUT] - wanted[OUTPUT]) * size_px
            loss = apart_px.abs().mean()
            if CONFIDENCE in answers:
                loss = loss + _CONFIDENCE_PX * (answers[CONFIDENCE] - wanted[CONFIDENCE]).abs().mean()
            if options.label_weight:
                true = fractions.to(device)
                loss = loss + options.label_weight * label_loss(answers[OUTPUT], true, torch.isfinite(true).all(dim=2), size_px)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            distances.append(float(apart_px.detach().norm(dim=2).mean()))
            if not math.isfinite(distances[-1]):
                raise AccuracyError(
                    f"The distance to the float network became {distances[-1]} in epoch {epoch + 1}. Train with lower learning "
                    f"rates than {options.learning_rate:g} and {options.scale_learning_rate:g}, or without this step: "
                    "--set quantize.finetune_epochs=0"
                )
            if progress:
                done = epoch * len(loader) + len(distances)
                progress(done, total, f"fine-tuning int8, {np.mean(distances):.2f} px from float")
        means.append(float(np.mean(distances)))
    return tuple(means)
