"""Samples as tensors: random views for training, plain crops for validation.

The view of face i in epoch e depends only on (seed, e, i), so a resumed run sees exactly what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lmedge.data.augment import AugmentSpec, Canvas, MirroredPoints, make_canvas, random_view
from lmedge.data.crops import labelled_crops
from lmedge.data.samples import FaceSample, check_labels
from lmedge.landmarks import FaceBox
from lmedge.pipeline.training.joint import Frames, JointPoints
from lmedge.preprocess import PreprocessSpec
from lmedge.progress import Progress

Item = tuple[Tensor, Tensor]


class TrainingFaces(Dataset[Item]):
    """Random views: crop uint8 (H, W, 3), fractions float32 (K, 2) with NaN for unknown points.

    `epoch`, `augment` and `spec` may be changed between epochs.
    """

    def __init__(
        self, canvases: Sequence[Canvas], points: MirroredPoints, spec: PreprocessSpec, augment: AugmentSpec, seed: int
    ) -> None:
        self.canvases, self.points, self.spec, self.augment, self.seed = canvases, points, spec, augment, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.canvases)

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        crop, fractions = random_view(self.canvases[index], self.points, self.spec, self.augment, rng)
        return torch.from_numpy(crop), torch.from_numpy(fractions)


class EpochOrder(Sampler[int]):
    """An order of the faces that depends only on (seed, epoch): all of the first `count`, and `drawn` of the `others` behind
    them."""

    def __init__(self, count: int, seed: int, others: int = 0, drawn: int = 0) -> None:
        self.count, self.seed, self.others, self.drawn = count, seed, others, min(drawn, others)
        self.epoch = 0

    def __len__(self) -> int:
        return self.count + self.drawn

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if not self.drawn:
            return iter(rng.permutation(self.count).tolist())
        # Further faces take turns: each round of epochs shows all of them once.
        start = self.epoch * self.drawn
        rounds = range(start // self.others, (start + self.drawn - 1) // self.others + 1)
        turns = np.concatenate([np.random.default_rng([self.seed, 1, turn]).permutation(self.others) for turn in rounds])
        first = start - rounds[0] * self.others
        chosen = np.concatenate([np.arange(self.count), self.count + turns[first : first + self.drawn]])
        return iter(rng.permutation(chosen).tolist())


def load_canvases(
    samples: Sequence[FaceSample],
    spec: PreprocessSpec,
    progress: Progress | None = None,
    *,
    box_of: Callable[[FaceSample], FaceBox] = FaceSample.box,
) -> list[Canvas]:
    """Reads every image once and keeps what training needs of it; `box_of` says what a face is framed by.

    Raises:
        DataError: an image cannot be read, or a label lies far outside it.
    """
    canvases = []
    for done, sample in enumerate(samples, start=1):
        image = sample.read_image()
        check_labels(sample.points_px, (image.shape[0], image.shape[1]), sample.origin)
        canvases.append(make_canvas(image, sample, spec, box_of(sample)))
        if progress:
            progress(done, len(samples), "reading training faces")
    return canvases


def load_joint_canvases(
    samples: Sequence[FaceSample],
    spec: PreprocessSpec,
    points: JointPoints,
    frames: Frames,
    progress: Progress | None = None,
) -> list[Canvas]:
    """As `load_canvases`, for faces of several schemas: labels in one row, framed alike.

    Raises:
        DataError: see `load_canvases`.
    """
    canvases = load_canvases(samples, spec, progress, box_of=frames.box)
    return [
        replace(canvas, points_px=points.row(canvas.points_px, sample.schema))
        for canvas, sample in zip(canvases, samples, strict=True)
    ]


def load_crops(samples: Sequence[FaceSample], spec: PreprocessSpec) -> tuple[Tensor, Tensor]:
    """The device's own crops of samples: uint8 (N, H, W, 3), and the labels as fractions (N, K, 2).

    Raises:
        DataError: an image cannot be read, or a label lies far outside it.
    """
    crops, fractions = labelled_crops(samples, spec)
    return torch.from_numpy(crops), torch.from_numpy(fractions.astype(np.float32))
