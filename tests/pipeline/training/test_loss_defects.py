"""Known defects of public training code. Each check is passed by every loss here, and failed by a formula with the defect."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lmedge.pipeline.training.losses import Loss, get_loss
from tests.pipeline.training.test_losses import SIDE, every_loss, holed

AnyLoss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def check_right_pose_is_not_free(loss: AnyLoss) -> None:
    true = torch.full((1, 4, 2), 0.5)
    assert float(loss(true + 0.05, true, torch.ones(1, 4, dtype=torch.bool), SIDE)) > 0


def check_pixels(loss: AnyLoss) -> None:
    """Half a pixel and fifty in a crop of 1,000 px lie in different parts of the losses that have parts."""
    true, mask = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
    small, large = (float(loss(true + 0.05, true, mask, size)) for size in (10, 1000))
    assert large > 5 * small


def check_nan_labels_spoil_nothing(loss: AnyLoss) -> None:
    predicted, true, mask = holed()
    predicted.requires_grad_()
    value = loss(predicted, true, mask, SIDE)
    [gradient] = torch.autograd.grad(value, predicted)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def check_unknown_points_do_not_dilute(loss: AnyLoss) -> None:
    true, known = torch.full((1, 4, 2), 0.5), torch.tensor([[True, False, False, False]])
    all_known = torch.ones(1, 4, dtype=torch.bool)
    torch.testing.assert_close(loss(true + 0.05, true, known, SIDE), loss(true + 0.05, true, all_known, SIDE))


def check_faces_count_alike(loss: AnyLoss) -> None:
    predicted, true, mask = holed()
    each = [loss(predicted[i : i + 1], true[i : i + 1], mask[i : i + 1], SIDE) for i in range(2)]
    torch.testing.assert_close(loss(predicted, true, mask, SIDE), torch.stack(each).mean())


def pose_and_attribute_weights(attributes: float, angle_error: float) -> AnyLoss:
    """PFLD as much-used code has it: the squared error, times weights of attributes and of a pose that is estimated beside."""

    def loss(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
        weight = attributes * (1 - math.cos(angle_error))
        return weight * ((predicted - true) * size_px).square().sum((1, 2)).mean()

    return loss


def wing_on_fractions(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
    return get_loss("wing")(predicted, true, mask, 1)


def times_mask(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
    return ((predicted - true).abs() * mask.unsqueeze(-1)).sum() * size_px / (2 * mask.sum())


def over_all_points(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
    """Points that are not there count as found."""
    distance_px = (predicted - true.nan_to_num()).abs() * size_px
    return torch.where(mask.unsqueeze(-1), distance_px, 0).mean()


def over_the_batch(predicted: Tensor, true: Tensor, mask: Tensor, size_px: int) -> Tensor:
    """A face with twice as many known points counts twice, and the parts of a batch do not average to the whole."""
    return torch.where(mask.unsqueeze(-1), (predicted - true.nan_to_num()).abs() * size_px, 0).sum() / (2 * mask.sum())


DEFECTS = {
    "a right angle is free": (check_right_pose_is_not_free, pose_and_attribute_weights(attributes=1, angle_error=0)),
    "no attribute is free": (check_right_pose_is_not_free, pose_and_attribute_weights(attributes=0, angle_error=0.2)),
    "Wing on fractions": (check_pixels, wing_on_fractions),
    "labels times mask": (check_nan_labels_spoil_nothing, times_mask),
    "divided by all points": (check_unknown_points_do_not_dilute, over_all_points),
    "mean over the batch": (check_faces_count_alike, over_the_batch),
}
every_defect = pytest.mark.parametrize(("check", "defective"), DEFECTS.values(), ids=DEFECTS)


@every_loss
@every_defect
def test_no_loss_has_a_known_defect(loss: Loss, check: Callable[[AnyLoss], None], defective: AnyLoss) -> None:
    check(loss)


@every_defect
def test_the_check_catches_the_defect(check: Callable[[AnyLoss], None], defective: AnyLoss) -> None:
    with pytest.raises(AssertionError):
        check(defective)
