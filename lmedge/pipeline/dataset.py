"""Samples as tensors: random views for training, plain crops for validation.

The view of face i in epoch e depends only on (seed, e, i), so a resumed run sees exactly what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lmedge.data.augment import AugmentSpec, Canvas, make_canvas, random_view
from lmedge.data.crops import labelled_crops
from lmedge.data.samples import FaceSample, check_labels
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

Progress = Callable[[int, int, str], None]
Item = tuple[Tensor, Tensor]


class TrainingFaces(Dataset[Item]):
    """Random views: crop uint8 (H, W, 3), fractions float32 (K, 2) with NaN for unknown points."""

    def __init__(
        self, canvases: Sequence[Canvas], schema: LandmarkSchema, spec: PreprocessSpec, augment: AugmentSpec, seed: int
    ) -> None:
        self.canvases, self.schema, self.spec, self.augment, self.seed = canvases, schema, spec, augment, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.canvases)

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        crop, fractions = random_view(self.canvases[index], self.schema, self.spec, self.augment, rng)
        return torch.from_numpy(crop), torch.from_numpy(fractions)


class EpochOrder(Sampler[int]):
    """A permutation of the faces that depends only on (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return iter(order.tolist())


def load_canvases(samples: Sequence[FaceSample], spec: PreprocessSpec, progress: Progress | None = None) -> list[Canvas]:
    """Reads every image once and keeps what training needs of it.

    Raises:
        DataError: an image cannot be read, or a label lies far outside it.
    """
    canvases = []
    for done, sample in enumerate(samples, start=1):
        image = sample.read_image()
        check_labels(sample.points_px, (image.shape[0], image.shape[1]), sample.origin)
        canvases.append(make_canvas(image, sample, spec))
        if progress:
            progress(done, len(samples), "reading training faces")
    return canvases


def load_crops(samples: Sequence[FaceSample], spec: PreprocessSpec) -> tuple[Tensor, Tensor]:
    """The device's own crops of samples: uint8 (N, H, W, 3), and the labels as fractions (N, K, 2).

    Raises:
        DataError: an image cannot be read, or a label lies far outside it.
    """
    crops, fractions = labelled_crops(samples, spec)
    return torch.from_numpy(crops), torch.from_numpy(fractions.astype(np.float32))
