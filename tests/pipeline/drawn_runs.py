"""Short training runs of a small network on drawn faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lmedge.data.augment import AugmentSpec
from lmedge.data.samples import FaceSample
from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.models import Architecture, build_network
from lmedge.pipeline.training.checkpoint import Checkpoint
from lmedge.pipeline.training.state import EpochRecord
from lmedge.pipeline.training.train import train
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema
from tests.data.faces import points_of, sample_of, textured_image
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.networks import settle_norms

SPEC = PreprocessSpec(input_hw=(32, 32))
ARCHITECTURE = Architecture("mobilenet_v2", 0.25, "relu", 16, 32, 5)
# Two batches an epoch, three epochs.
SHORT = TrainOptions(epochs=3, batch_size=8, learning_rate=2e-3, warmup_epochs=1, loss="wing")


def run(
    folder: Path, options: TrainOptions, faces: tuple[list[FaceSample], list[FaceSample]], **more: Any
) -> list[EpochRecord]:
    """Trains in `folder` on faces for training and for validation."""
    settings = {"architecture": ARCHITECTURE, "spec": SPEC, "augment": AugmentSpec(flip=0.5), **more}
    folder.mkdir(parents=True, exist_ok=True)
    return train(folder, *faces, options=options, **settings)


def short_run(folder: Path, **more: Any) -> list[EpochRecord]:
    """Three epochs of two batches."""
    return run(folder, SHORT, drawn_faces(18, 4), **more)


def run_options(**changes: Any) -> TrainOptions:
    """Those of `short_run`, changed."""
    return replace(SHORT, **changes)


def other_faces(count: int) -> list[FaceSample]:
    """Faces of 68 points, to be learned beside the drawn ones of 5."""
    return [sample_of(textured_image(n, 64, 64), points_of(IBUG_68, 40, 12), IBUG_68, f"other{n}") for n in range(count)]


def untrained(architecture: Architecture = ARCHITECTURE, schema: LandmarkSchema = MMLAB_5, **training: Any) -> Checkpoint:
    """A checkpoint whose answers depend on the picture, of a network that has learned nothing."""
    torch.manual_seed(7)
    network = build_network(architecture)
    settle_norms(network, architecture.input_px)
    return Checkpoint(network.state_dict(), architecture, schema, SPEC, training)
