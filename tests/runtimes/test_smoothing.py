"""Smoothing: still faces are held still, moving ones are followed, and the lag is the one that is stated."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmedge.errors import InputError
from lmedge.runtimes.smoothing import OneEuro, PointSmoother

Floats = npt.NDArray[np.float64]

SIDE_PX = 100.0
FACE = SIDE_PX * np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.4], [0.2, 1.0], [0.8, 0.9]])
RIGHT = np.array([1.0, 0.0])


def smoothed(frames: Floats, fps: float, chosen: OneEuro | None = None) -> Floats:
    smoother = PointSmoother(chosen)
    return np.stack([smoother.update(points, number / fps) for number, points in enumerate(frames)])


def ramp(velocities: Floats, fps: float, seconds: float = 6.0) -> Floats:
    """The face with velocities (K, 2) in faces per second."""
    times = np.arange(int(seconds * fps)) / fps
    return FACE + SIDE_PX * times[:, None, None] * velocities


@settings(max_examples=20)
@given(
    speed=st.floats(0.05, 3.0),
    fps=st.sampled_from([12.5, 30.0, 60.0]),
    min_cutoff_hz=st.floats(0.5, 3.0),
    face_beta=st.floats(0.0, 40.0),
)
def test_at_a_steady_speed_the_lag_is_the_one_stated(speed: float, fps: float, min_cutoff_hz: float, face_beta: float) -> None:
    chosen = OneEuro(min_cutoff_hz=min_cutoff_hz, face_beta=face_beta)
    frames = ramp(np.tile(speed * RIGHT, (5, 1)), fps)
    behind_s = (frames - smoothed(frames, fps, chosen))[-1, :, 0] / (speed * SIDE_PX)
    np.testing.assert_allclose(behind_s, chosen.lag_s(speed), rtol=1e-3)


def test_a_point_that_moves_by_itself_lags_by_its_own_speed() -> None:
    # A lid at 0.7 faces per second: the mean of five points moves at a fifth of that, the lid at the rest beside it.
    chosen, speed = OneEuro(speed_cutoff_hz=1e6), 0.7
    frames = np.tile(FACE, (20, 1, 1))
    frames[:, 2] += SIDE_PX * speed * np.arange(20)[:, None] / 30.0 * RIGHT
    behind_s = (frames - smoothed(frames, 30.0, chosen))[-1, 2, 0] / (speed * SIDE_PX)
    assert behind_s == pytest.approx(chosen.lag_s(speed / 5, speed * 4 / 5), rel=0.02)
    assert behind_s < 0.5 * chosen.lag_s(speed / 5)


def test_the_smoother_says_how_far_behind_it_is() -> None:
    smoother = PointSmoother()
    assert smoother.lag_s == 0.0
    smoother.update(FACE, 0.0)
    assert smoother.lag_s == 0.0
    smoother.update(FACE, 0.1)
    assert smoother.lag_s == pytest.approx(OneEuro().lag_s(0.0))
    for number, points in enumerate(ramp(np.tile(0.5 * RIGHT, (5, 1)), 30.0)):
        smoother.update(points, 1.0 + number / 30.0)
    assert smoother.lag_s == pytest.approx(OneEuro().lag_s(0.5), rel=1e-3)


def test_the_first_frame_passes_and_a_still_face_stays() -> None:
    frames = np.tile(FACE, (20, 1, 1))
    np.testing.assert_allclose(smoothed(frames, 30.0), frames, atol=1e-9)


def test_tremble_at_rest_is_taken_away() -> None:
    noise = np.random.default_rng(5).normal(0, 0.004 * SIDE_PX, (300, 5, 2))
    trembling = smoothed(FACE + noise, 30.0)[60:] - FACE
    assert trembling.std() < 0.55 * noise.std()
    # With no weight on speed it is an exponential mean, whose noise is known: sqrt(w / (2 - w)).
    weight = 1 / (1 + 1 / (2 * math.pi * 0.5 / 30.0))
    plain = smoothed(FACE + noise, 30.0, OneEuro(face_beta=0.0, point_beta=0.0))[60:] - FACE
    assert plain.std() == pytest.approx(noise.std() * math.sqrt(weight / (2 - weight)), rel=0.25)


def test_the_speed_of_the_face_is_less_troubled_by_noise_than_that_of_a_point() -> None:
    noise = np.random.default_rng(6).normal(0, 0.004 * SIDE_PX, (300, 5, 2))
    by_face = smoothed(FACE + noise, 30.0, OneEuro(face_beta=20.0, point_beta=0.0))[60:] - FACE
    by_point = smoothed(FACE + noise, 30.0, OneEuro(face_beta=0.0, point_beta=20.0))[60:] - FACE
    assert by_face.std() < 0.9 * by_point.std()


@settings(max_examples=20)
@given(scale=st.floats(0.1, 20.0), x=st.floats(-1e3, 1e3), y=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
def test_size_and_place_of_the_face_do_not_matter(scale: float, x: float, y: float, seed: int) -> None:
    walk = FACE + np.random.default_rng(seed).normal(0, 2.0, (15, 5, 2)).cumsum(axis=0)
    shift = np.array([x, y])
    expected = scale * smoothed(walk, 30.0) + shift
    np.testing.assert_allclose(smoothed(scale * walk + shift, 30.0), expected, atol=1e-6 * max(1.0, scale * SIDE_PX))
    np.testing.assert_allclose(smoothed(walk[..., ::-1], 30.0), smoothed(walk, 30.0)[..., ::-1], atol=1e-9)


def test_a_frame_that_comes_late_counts_for_more() -> None:
    moved = FACE + [10.0, 0.0]
    soon, late = PointSmoother(), PointSmoother()
    for smoother in (soon, late):
        smoother.update(FACE, 0.0)
    chosen = OneEuro(face_beta=0.0, point_beta=0.0)
    soon.settings = late.settings = chosen
    assert (late.update(moved, 0.5) - soon.update(moved, 0.03))[0, 0] > 3.0


@pytest.mark.parametrize(
    ("points", "time_s", "message"),
    [
        (FACE * np.nan, 0.1, "finite"),
        (FACE[:4], 0.1, r"\(5, 2\); got shape \(4, 2\)"),
        (FACE.ravel(), 0.1, r"\(10,\)"),
        (FACE, 0.0, "rise"),
        (FACE, -1.0, "rise"),
        (FACE, np.nan, "rise"),
        (FACE, np.inf, "rise"),
    ],
)
def test_a_frame_that_cannot_be_used_changes_nothing(points: Floats, time_s: float, message: str) -> None:
    disturbed, calm = PointSmoother(), PointSmoother()
    for smoother in (disturbed, calm):
        smoother.update(FACE, 0.0)
    with pytest.raises(InputError, match=message):
        disturbed.update(points, time_s)
    np.testing.assert_array_equal(disturbed.update(FACE + 1, 0.1), calm.update(FACE + 1, 0.1))


def test_points_own_their_memory() -> None:
    changed, calm = PointSmoother(), PointSmoother()
    given = FACE.copy()
    answer = changed.update(given, 0.0)
    answer += 7
    given += 7
    calm.update(FACE, 0.0)
    np.testing.assert_array_equal(changed.update(FACE + 1, 0.1), calm.update(FACE + 1, 0.1))


@pytest.mark.parametrize("name", ["min_cutoff_hz", "speed_cutoff_hz", "face_beta", "point_beta"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_settings_without_meaning_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        OneEuro(**{name: value})


@pytest.mark.parametrize("name", ["min_cutoff_hz", "speed_cutoff_hz"])
def test_a_cutoff_of_zero_would_never_move(name: str) -> None:
    with pytest.raises(InputError, match="above 0"):
        OneEuro(**{name: 0.0})
