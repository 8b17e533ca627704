"""What training minimises: labels, a teacher's labels by their share, the error that is reported, and faces without labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmedge.errors import ConfigError
from lmedge.metrics import nme
from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.training.confidence import likelihood_loss
from lmedge.pipeline.training.joint import JointPoints
from lmedge.pipeline.training.losses import AVERAGE_NORMALIZER, get_loss
from lmedge.pipeline.training.objective import Objective
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.data.faces import points_of

SIZE_PX = 112
FIVE, TAUGHT = JointPoints((MMLAB_5,)), JointPoints((MMLAB_5,), taught=True)
JOINT_TAUGHT = JointPoints((MMLAB_5, IBUG_68), taught=True)
UNKNOWN = torch.full((1, 5, 2), torch.nan)


def faces(count: int, seed: int = 0) -> Tensor:
    """Labels of so many faces of 5 points, of sizes between 0.7 and 1.3 of a usual one."""
    torch.manual_seed(seed)
    base = torch.tensor(points_of(MMLAB_5, 0.5, 0.25), dtype=torch.float32)
    base[:2] = torch.tensor([[0.3, 0.35], [0.7, 0.35]])
    size = 0.7 + 0.6 * torch.rand(count, 1, 1)
    return (base - 0.5) * size + 0.5


def plain(predicted: Tensor, true: Tensor, loss: str = "wing") -> Tensor:
    return get_loss(loss)(predicted, true, true.isfinite().all(2), SIZE_PX)


# Labels alone


@pytest.mark.parametrize("loss", ["l2", "l1", "smooth_l1", "wing", "soft_wing"])
def test_without_more_it_is_the_loss_of_that_name(loss: str) -> None:
    true, answers = faces(4), faces(4) + 0.05 * torch.randn(4, 5, 2)
    found = Objective(FIVE, TrainOptions(loss=loss))(answers, true, SIZE_PX)
    torch.testing.assert_close(found, plain(answers, true, loss))


def test_faces_without_labels_have_no_say_and_no_gradient() -> None:
    true = faces(3)
    answers = (true + 0.03).requires_grad_()
    holed = true.clone()
    holed[1] = torch.nan
    loss = Objective(FIVE, TrainOptions(normalized=True))(answers, holed, SIZE_PX)
    loss.backward()
    assert answers.grad is not None
    assert answers.grad.isfinite().all()
    assert not answers.grad[1].any()
    assert answers.grad[[0, 2]].any()


def test_halves_of_a_batch_average_to_the_whole() -> None:
    """So that two processes have the loss of one; also where faces have unknown points."""
    true = faces(8)
    true[2, 1:4] = torch.nan
    answers = torch.cat([faces(8, 1), torch.randn(8, 5, 1)], 2)
    for normalized in (False, True):
        objective = Objective(FIVE, TrainOptions(normalized=normalized))
        halves = [objective(answers[part], true[part], SIZE_PX) for part in (slice(4), slice(4, 8))]
        torch.testing.assert_close(sum(halves) / 2, objective(answers, true, SIZE_PX))


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ConfigError, match="No loss is called 'huber'"):
        Objective(FIVE, TrainOptions(loss="huber"))


# Normalised


def test_normalised_l1_is_the_nme_up_to_a_constant() -> None:
    """Differences along x alone, where the sum over coordinates is the distance."""
    true = faces(16)
    answers = true.clone()
    answers[:, :, 0] += 0.03 * torch.randn(16, 5)
    loss = Objective(FIVE, TrainOptions(loss="l1", normalized=True))(answers, true, SIZE_PX)
    errors = nme(answers.numpy(), true.numpy(), MMLAB_5)
    assert loss.item() == pytest.approx(float(errors.mean()) * AVERAGE_NORMALIZER * SIZE_PX / 2, rel=1e-4)
    assert plain(answers, true, "l1").item() != pytest.approx(loss.item(), rel=1e-2)


def test_a_face_that_lacks_its_normaliser_counts_as_an_average_one() -> None:
    true = faces(1)
    true[0, 0] = torch.nan  # an eye
    answers = faces(1) + 0.02
    objective = Objective(FIVE, TrainOptions(loss="l1", normalized=True))
    torch.testing.assert_close(objective(answers, true, SIZE_PX), plain(answers, true, "l1"))


def test_a_face_of_other_points_is_divided_by_its_own_normaliser() -> None:
    points = JointPoints((MMLAB_5, IBUG_68))
    labels = torch.full((1, 73, 2), torch.nan)
    own = torch.tensor(points_of(IBUG_68, 0.5, 0.25), dtype=torch.float32)
    own[36], own[45] = torch.tensor([0.4, 0.4]), torch.tensor([0.6, 0.4])
    labels[0, 5:] = own
    answers = labels.nan_to_num(0.5) + 0.02
    normalised = Objective(points, TrainOptions(loss="l1", normalized=True))(answers, labels, SIZE_PX)
    plainly = Objective(points, TrainOptions(loss="l1"))(answers, labels, SIZE_PX)
    assert (normalised / plainly).item() == pytest.approx(AVERAGE_NORMALIZER / 0.2, rel=1e-4)


def test_where_only_the_teacher_knows_the_eyes_they_divide() -> None:
    taught = faces(1)
    labels = torch.cat([UNKNOWN, torch.full((1, 68, 2), torch.nan), taught], 1)
    answers = torch.cat([taught + 0.02, torch.full((1, 68, 2), 0.5)], 1)
    objective = Objective(JOINT_TAUGHT, TrainOptions(loss="l1", normalized=True, teacher_share=1.0))
    apart = (taught[0, 0] - taught[0, 1]).norm().item()
    assert objective(answers, labels, SIZE_PX).item() == pytest.approx(0.02 * SIZE_PX * AVERAGE_NORMALIZER / apart, rel=1e-4)


# A teacher


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_teacher_weighs_by_its_share(share: float) -> None:
    own, taught = faces(4), faces(4) + 0.04
    answers = faces(4) + 0.02 * torch.randn(4, 5, 2)
    found = Objective(TAUGHT, TrainOptions(loss="wing", teacher_share=share))(answers, torch.cat([own, taught], 1), SIZE_PX)
    torch.testing.assert_close(found, (1 - share) * plain(answers, own) + share * plain(answers, taught))


def test_a_teacher_teaches_the_points_of_the_first_schema_on_any_face() -> None:
    labels = torch.full((2, JOINT_TAUGHT.num_points, 2), torch.nan)
    labels[:, 73:] = faces(2)
    answers = torch.full((2, 73, 2), 0.5, requires_grad=True)
    Objective(JOINT_TAUGHT, TrainOptions())(answers, labels, SIZE_PX).backward()
    assert answers.grad is not None
    assert answers.grad[:, :5].any()
    assert not answers.grad[:, 5:].any()


# Confidence


def test_a_confident_network_also_learns_its_likelihood_and_places_as_before() -> None:
    true = faces(4)
    answers = torch.cat([true + 0.03 * torch.randn(4, 5, 2), torch.randn(4, 5, 1)], 2).requires_grad_()
    loss = Objective(FIVE, TrainOptions(loss="wing"))(answers, true, SIZE_PX)
    known = torch.ones(4, 5, dtype=torch.bool)
    expected = plain(answers[:, :, :2], true) + 0.5 * likelihood_loss(answers, true, known)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, answers, retain_graph=True)
    (of_places,) = torch.autograd.grad(plain(answers[:, :, :2], true), answers)
    torch.testing.assert_close(gradient[:, :, :2], of_places[:, :, :2])


def test_a_teacher_says_nothing_of_confidence() -> None:
    own = faces(2)
    answers = torch.cat([own + 0.02, torch.zeros(2, 5, 1)], 2)
    objective = Objective(TAUGHT, TrainOptions(teacher_share=0.0))
    near, far = (objective(answers, torch.cat([own, own + shift], 1), SIZE_PX) for shift in (0.0, 0.2))
    torch.testing.assert_close(near, far)
