"""What training sees: views that depend on (seed, epoch, index) alone, and the device's own crops for validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmedge.data.augment import AugmentSpec
from lmedge.data.samples import FaceSample
from lmedge.errors import DataError
from lmedge.pipeline.training.dataset import EpochOrder, TrainingFaces, load_canvases, load_crops
from lmedge.preprocess import PreprocessSpec, crop_face
from lmedge.schemas import MMLAB_5
from tests.data.faces import points_of, sample_of, textured_image

SPEC = PreprocessSpec(input_hw=(32, 32))


def samples_of(count: int) -> list[FaceSample]:
    return [sample_of(textured_image(seed), points_of(MMLAB_5), MMLAB_5, f"face{seed}") for seed in range(count)]


def faces_of(count: int = 4, *, seed: int = 0, epoch: int = 0) -> TrainingFaces:
    faces = TrainingFaces(load_canvases(samples_of(count), SPEC), MMLAB_5, SPEC, AugmentSpec(), seed)
    faces.epoch = epoch
    return faces


def view(faces: TrainingFaces, index: int) -> tuple[bytes, bytes]:
    crop, fractions = faces[index]
    return crop.numpy().tobytes(), fractions.numpy().tobytes()


# Training


def test_an_item_is_a_crop_and_its_fractions() -> None:
    crop, fractions = faces_of()[0]
    assert (crop.dtype, crop.shape) == (torch.uint8, (32, 32, 3))
    assert (fractions.dtype, fractions.shape) == (torch.float32, (5, 2))


def test_a_view_does_not_depend_on_what_was_asked_before() -> None:
    first, again = faces_of(epoch=3), faces_of(epoch=3)
    forwards = [view(first, index) for index in range(4)]
    assert [view(again, index) for index in reversed(range(4))] == forwards[::-1]
    assert view(first, 2) == forwards[2]


def test_a_view_does_not_depend_on_other_faces_or_on_torch() -> None:
    alone = view(faces_of(1), 0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  (the global generator must have no influence)
    assert view(faces_of(4), 0) == alone


@pytest.mark.parametrize(("seed", "epoch", "index"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_epoch_and_index_each_change_the_view(seed: int, epoch: int, index: int) -> None:
    same_face = TrainingFaces(load_canvases(samples_of(1) * 2, SPEC), MMLAB_5, SPEC, AugmentSpec(), seed)
    same_face.epoch = epoch
    assert view(same_face, index) != view(faces_of(1), 0)


def test_unknown_points_reach_training_as_nan() -> None:
    points = points_of(MMLAB_5)
    points[2] = np.nan
    sample = sample_of(textured_image(0), points, MMLAB_5)
    faces = TrainingFaces(load_canvases([sample], SPEC), MMLAB_5, SPEC, AugmentSpec(), 0)
    assert torch.isnan(faces[0][1]).all(dim=1).tolist() == [False, False, True, False, False]


def test_loading_reports_progress_and_keeps_the_order() -> None:
    calls: list[tuple[int, int, str]] = []
    canvases = load_canvases(samples_of(3), SPEC, lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    alone = [load_canvases([sample], SPEC)[0] for sample in samples_of(3)]
    assert [c.image_bgr.tobytes() for c in canvases] == [c.image_bgr.tobytes() for c in alone]


# Order


def test_the_order_is_a_permutation_that_seed_and_epoch_decide() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochOrder(50, seed)
        sampler.epoch = epoch
        return list(sampler)

    assert sorted(order(0, 0)) == list(range(50))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert len(EpochOrder(50, 0)) == 50


# Validation


def test_validation_uses_the_crops_of_the_device() -> None:
    samples = samples_of(3)
    crops, fractions = load_crops(samples, SPEC)
    assert (crops.dtype, crops.shape, fractions.dtype) == (torch.uint8, (3, 32, 32, 3), torch.float32)
    for sample, crop, answer in zip(samples, crops, fractions, strict=True):
        expected, transform = crop_face(sample.read_image(), sample.box(), SPEC)
        np.testing.assert_array_equal(crop.numpy(), expected)
        np.testing.assert_allclose(answer.numpy(), transform.to_fractions(sample.points_px), atol=1e-6)


@pytest.mark.parametrize("load", [load_canvases, load_crops])
def test_a_label_far_outside_its_image_is_refused(load: object) -> None:
    swapped = sample_of(textured_image(0, 60, 200), points_of(MMLAB_5, 60, 120)[:, ::-1].copy(), MMLAB_5, "swapped")
    with pytest.raises(DataError, match=r"labels:swapped: a label at .* outside the image of 200 × 60 px"):
        load([swapped], SPEC)  # type: ignore[operator]
