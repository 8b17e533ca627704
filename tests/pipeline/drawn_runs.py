"""Short training runs of a small network on drawn faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmedge.data.augment import AugmentSpec
from lmedge.data.samples import FaceSample
from lmedge.pipeline.models import Architecture
from lmedge.pipeline.options import TrainOptions
from lmedge.pipeline.train import EpochRecord, train
from lmedge.preprocess import PreprocessSpec
from tests.pipeline.drawn_faces import drawn_faces

SPEC = PreprocessSpec(input_hw=(32, 32))
ARCHITECTURE = Architecture("mobilenet_v2", 0.25, "relu", 16, 32, 5)
# Two batches an epoch, three epochs.
SHORT = TrainOptions(epochs=3, batch_size=8, warmup_epochs=1)


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
