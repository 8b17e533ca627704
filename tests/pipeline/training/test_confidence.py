"""Confidence: what its likelihood is least at, what calibration finds, what the report says of good and useless orders."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lmedge.data.augment import AugmentSpec
from lmedge.data.samples import FaceSample
from lmedge.pipeline.training.checkpoint import BEST, LAST, Checkpoint, load_tensors
from lmedge.pipeline.training.confidence import NEAR, calibrate, cross_calibrated, judge, likelihood_loss
from lmedge.pipeline.training.validation import ValidationFaces, with_calibrated_confidence
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.drawn_runs import ARCHITECTURE, SPEC, run, run_options


def answers_of(distances: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Answers (N, K, 3) so far from the true points (N, K, 2), in a direction that differs from point to point."""
    true = torch.full((*distances.shape, 2), 0.5)
    angle = torch.arange(distances.numel()).view(distances.shape) * 2.4
    places = true + distances.unsqueeze(2) * torch.stack([angle.cos(), angle.sin()], 2)
    return torch.cat([places, logits.unsqueeze(2)], 2), true


def mean_loss(distance: float, logit: float) -> float:
    answers, true = answers_of(torch.full((1, 1), distance), torch.full((1, 1), logit))
    return likelihood_loss(answers.double(), true.double(), torch.ones(1, 1, dtype=torch.bool)).item()


# The likelihood


@pytest.mark.parametrize("distance", [0.006, 0.03, 0.1, 0.2])
def test_the_likelihood_is_that_of_a_gaussian_around_the_answer(distance: float) -> None:
    """Differences of −ln p, with s² = NEAR² / (2 softplus(z)) and p = exp(−d² / 2s²) / (2π s²)."""

    def minus_log(logit: float) -> float:
        variance = NEAR**2 / (2 * math.log1p(math.exp(logit)))
        return distance**2 / (2 * variance) + math.log(2 * math.pi * variance)

    for logit in (-3.0, -0.5, 2.0):
        assert mean_loss(distance, logit) - mean_loss(distance, 0.0) == pytest.approx(
            minus_log(logit) - minus_log(0.0), rel=1e-3, abs=1e-4
        )


@given(distance=st.floats(0.3 * NEAR, 7.9 * NEAR))
def test_it_is_least_where_the_scale_is_the_error(distance: float) -> None:
    """softplus(z) = (NEAR / d)²: then 2s² = d², the best that a Gaussian in two dimensions can say of one error."""
    best = math.log(math.expm1((NEAR / distance) ** 2))
    for step in (0.05, 0.5):
        assert mean_loss(distance, best) < min(mean_loss(distance, best - step), mean_loss(distance, best + step))


def test_an_error_beyond_reason_says_no_more_than_a_large_one() -> None:
    assert mean_loss(0.9, -1.0) == pytest.approx(mean_loss(8 * NEAR, -1.0))


def test_the_places_have_no_gradient_and_the_logits_have() -> None:
    answers, true = answers_of(torch.rand(4, 5) * 0.1, torch.randn(4, 5))
    answers.requires_grad_()
    likelihood_loss(answers, true, torch.ones(4, 5, dtype=torch.bool)).backward()
    assert answers.grad is not None
    assert not answers.grad[:, :, :2].any()
    assert answers.grad[:, :, 2].all()


def test_unknown_points_have_no_influence_and_every_face_counts_alike() -> None:
    answers, true = answers_of(torch.rand(3, 5) * 0.1, torch.randn(3, 5))
    answers.requires_grad_()
    mask = torch.tensor([[True] * 5, [True] + [False] * 4, [False] * 5])
    holed = torch.where(mask.unsqueeze(2), true, torch.nan)
    loss = likelihood_loss(answers, holed, mask)
    whole, single = (likelihood_loss(answers[i : i + 1], holed[i : i + 1], mask[i : i + 1]).detach() for i in (0, 1))
    torch.testing.assert_close(loss.detach(), (whole + single) / 2)
    loss.backward()
    assert answers.grad is not None
    assert answers.grad.isfinite().all()
    assert not answers.grad[:, :, 2][~mask].any()


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_logits_are_still_numbers(logit: float) -> None:
    answers, true = answers_of(torch.tensor([[0.0, 0.5]]), torch.full((1, 2), logit))
    answers.requires_grad_()
    loss = likelihood_loss(answers, true, torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert math.isfinite(loss.item())
    assert answers.grad is not None
    assert answers.grad.isfinite().all()


def test_a_likely_point_is_near_with_that_probability() -> None:
    """What the logit means: errors drawn from its Gaussian are within NEAR as often as sigmoid(z) says."""
    rng = np.random.default_rng(0)
    for logit in (-2.0, 0.0, 1.5):
        scale = math.sqrt(NEAR**2 / (2 * F.softplus(torch.tensor(logit)).item()))
        errors = np.linalg.norm(rng.normal(0, scale, (40000, 2)), axis=1)
        assert float((errors <= NEAR).mean()) == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.01)


# Calibration


def drawn_errors(logits: np.ndarray, factor: float, offset: float, seed: int = 0) -> np.ndarray:
    """Distances that are near as often as sigmoid(factor · z + offset) says."""
    near = np.random.default_rng(seed).random(logits.shape) < 1 / (1 + np.exp(-(factor * logits + offset)))
    return np.where(near, 0.5 * NEAR, 2 * NEAR)


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (0.4, -1.0), (2.0, 0.7)])
def test_calibration_finds_the_factor_and_offset_that_are_true(factor: float, offset: float) -> None:
    logits = np.random.default_rng(1).normal(0.5, 1.5, 60000)
    assert calibrate(logits, drawn_errors(logits, factor, offset)) == pytest.approx((factor, offset), abs=0.06)


@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_calibration_of_points_that_are_all_alike_is_finite(distance: float) -> None:
    factor, offset = calibrate(np.linspace(-2, 2, 50), np.full(50, distance))
    assert math.isfinite(factor)
    assert (offset > 0) == (distance < NEAR)


def test_calibration_of_nothing_changes_nothing() -> None:
    assert calibrate(np.empty(0), np.empty(0)) == (1.0, 0.0)


def test_each_half_is_calibrated_by_what_the_other_says() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 1, (200, 5))
    distances = drawn_errors(logits, 0.5, 0.3)
    distances[3, 2] = np.nan
    found = cross_calibrated(logits, distances)
    changed = distances.copy()
    changed[::2] = 2 * NEAR  # of one half
    again = cross_calibrated(logits, changed)
    np.testing.assert_array_equal(again[::2], found[::2])
    assert (again[1::2] < found[1::2]).all()
    assert np.isfinite(found).all()


# The report


ERRORS = np.random.default_rng(3).gamma(2, 0.02, (300, 10))


def test_a_perfect_order_gives_all_of_the_drop_and_the_reverse_less_than_nothing() -> None:
    perfect = judge(-ERRORS, ERRORS, 2 * ERRORS, 1.0, 0.0)
    assert perfect.drop_ratio == pytest.approx(1)
    assert perfect.errors == pytest.approx(perfect.best_errors)
    assert judge(ERRORS, ERRORS, 2 * ERRORS, 1.0, 0.0).drop_ratio < -0.5


def test_a_random_order_gives_none_of_it() -> None:
    assert judge(np.random.default_rng(4).random(ERRORS.shape), ERRORS, ERRORS, 1.0, 0.0).drop_ratio == pytest.approx(
        0, abs=0.1
    )


def test_the_drop_is_that_of_the_most_certain_80_percent() -> None:
    errors = np.arange(1.0, 11.0)[None]
    confidence = np.array([[10, 9, 8, 7, 1, 5, 4, 3, 2, 6.0]])  # left out are the 5th and the 9th
    report = judge(confidence, errors, errors, 1.0, 0.0)
    kept, best = (5.5 * 10 - 5 - 9) / 8, 4.5
    assert report.retained[0] == 1.0
    place = report.retained.index(0.8)
    assert (report.errors[0], report.errors[place], report.best_errors[place]) == pytest.approx((5.5, kept, best))
    assert report.drop_ratio == pytest.approx((5.5 - kept) / (5.5 - best))


def test_points_without_a_label_do_not_count() -> None:
    confidence, errors = np.random.default_rng(5).random(ERRORS.shape), ERRORS.copy()
    errors[::3, 4] = np.nan
    known = np.isfinite(errors)
    kept = judge(confidence[known][None], errors[known][None], errors[known][None], 1.0, 0.0)
    assert judge(confidence, errors, errors, 1.0, 0.0) == kept
    assert sum(count for *_, count in kept.bins) == int(known.sum())


def test_bins_show_what_was_said_and_what_was_true() -> None:
    logits = np.random.default_rng(6).normal(0, 2, (4000, 10))
    honest = 1 / (1 + np.exp(-logits))
    distances = drawn_errors(logits, 1.0, 0.0)
    report = judge(honest, distances, distances, 1.0, 0.0)
    assert len(report.bins) == 10
    said, true, _ = zip(*report.bins, strict=True)
    assert list(said) == sorted(said)
    np.testing.assert_allclose(said, true, atol=0.03)
    boastful = judge(np.sqrt(honest), distances, distances, 1.0, 0.0)
    assert boastful.bins[2][0] > boastful.bins[2][1] + 0.1


def test_errors_that_are_all_alike_leave_nothing_to_sort() -> None:
    same = np.full((4, 5), 0.02)
    assert judge(np.random.default_rng(7).random((4, 5)), same, same, 1.0, 0.0).drop_ratio == 0


@pytest.mark.parametrize("spread", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("level", [-3.0, 0.0, 3.0])
def test_a_network_that_is_far_too_sure_is_calibrated_all_the_same(level: float, spread: float) -> None:
    """Newton's step alone runs away here: to a factor of ten million, which no engine can hold."""
    rng = np.random.default_rng(0)
    u = rng.normal(0, 1, 4000)
    true = 1 / (1 + np.exp(-(1 + 0.5 * u)))
    distances = np.where(rng.random(4000) < true, 0.5 * NEAR, 2 * NEAR)
    factor, offset = calibrate(level + spread * u, distances)
    assert factor * spread == pytest.approx(0.5, abs=0.1)
    assert factor * level + offset == pytest.approx(1.0, abs=0.1)


def test_the_order_of_the_network_is_never_turned_around() -> None:
    logits = np.linspace(-2, 2, 40)
    assert calibrate(logits, np.where(logits > 0, 2 * NEAR, 0.5 * NEAR)) == (1.0, 0.0)


def test_a_report_is_plain_data() -> None:
    document = json.loads(json.dumps(judge(-ERRORS, ERRORS, ERRORS, 1.2, -0.3).to_json()))
    assert (document["factor"], document["offset"], document["near"]) == (1.2, -0.3, NEAR)


# In a run


def with_noisy_nose(face: FaceSample, number: int) -> FaceSample:
    """The nose's label somewhere in the middle of the face, where nobody could find it."""
    points = face.points_px.copy()
    points[2] = [32, 35] + np.random.default_rng([1, number]).uniform(-9, 9, 2)
    return replace(face, points_px=points.astype(np.float32))


def level(face: FaceSample) -> bool:
    eyes = face.points_px[1] - face.points_px[0]
    return abs(float(np.degrees(np.arctan2(eyes[1], eyes[0])))) < 8


@pytest.mark.usefixtures("without_program")
def test_a_network_is_less_sure_of_points_whose_labels_are_noise(tmp_path: Path) -> None:
    training, validation = (
        [with_noisy_nose(face, n) for n, face in enumerate(side) if level(face)] for side in drawn_faces(320, 240)
    )
    still = AugmentSpec(rotation_deg=5, scale=0, shift=0).weak()
    options = run_options(epochs=14, learning_rate=1e-2, ema=0.9)
    run(tmp_path, options, (training, validation), architecture=replace(ARCHITECTURE, confidence=True), augment=still)
    assert "confidence" in Checkpoint.load(tmp_path / BEST).training
    faces = ValidationFaces.load(validation, SPEC)
    # What the last epoch left: the best one by its places may be one that has not learned yet how sure it is.
    average = load_tensors(tmp_path / LAST)["average"]
    weights = {name.removeprefix("module."): tensor for name, tensor in average.items() if name.startswith("module.")}
    learned = replace(Checkpoint.load(tmp_path / BEST), weights=weights)
    calibrated = with_calibrated_confidence(learned, faces)
    before, after = faces.answers(learned.network()), faces.answers(calibrated.network())
    sure = torch.sigmoid(after[:, :, 2]).mean(0)
    assert sure[2] < 0.9 * sure[[0, 1, 3, 4]].min()
    record = calibrated.training["confidence"]
    torch.testing.assert_close(after[:, :, :2], before[:, :, :2])
    torch.testing.assert_close(after[:, :, 2], before[:, :, 2] * record["factor"] + record["offset"], rtol=1e-4, atol=1e-4)
    assert record["drop_ratio"] > 0.05
    said, true, count = zip(*record["bins"], strict=True)
    assert sum(count) == 5 * len(validation)
    # Said of validation faces about as often as it is true.
    assert float(np.average(said, weights=count)) == pytest.approx(float(np.average(true, weights=count)), abs=0.1)
