"""Labelled faces as the network sees them: the device's own crops, and the labels as fractions of the crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample, check_labels
from lmedge.errors import DataError
from lmedge.preprocess import PreprocessSpec, crop_face


def labelled_crops(
    samples: Sequence[FaceSample], spec: PreprocessSpec
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Crops uint8 (N, H, W, 3) BGR by the reference boxes, and labels (N, K, 2) as fractions, NaN where unknown.

    Raises:
        DataError: no samples, an image that cannot be read, or a label far outside it.
    """
    if not samples:
        raise DataError("There are no faces to cut crops from; give more photos.")
    crops, fractions = [], []
    for sample in samples:
        image = sample.read_image()
        check_labels(sample.points_px, (image.shape[0], image.shape[1]), sample.origin or sample.photo_key)
        crop, transform = crop_face(image, sample.box(), spec)
        crops.append(crop)
        fractions.append(transform.to_fractions(sample.points_px))
    return np.stack(crops), np.stack(fractions)
