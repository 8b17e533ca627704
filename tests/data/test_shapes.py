"""Alignment, and what counts as an unusual shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.shapes import align, shape_deviations
from lmedge.errors import InputError
from lmedge.schemas import IBUG_68, MMLAB_5
from tests.data.faces import points_of

TARGET = points_of(IBUG_68)


def turned(points_px: np.ndarray, angle: float, zoom: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return zoom * points_px @ np.array([[cos, sin], [-sin, cos]]) + shift


@given(
    angle=st.floats(-3.1, 3.1),
    zoom=st.floats(0.05, 20),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    unknown=st.sets(st.integers(0, 67), max_size=65),
)
def test_alignment_undoes_any_similarity(angle: float, zoom: float, shift: tuple[float, float], unknown: set[int]) -> None:
    shape = turned(TARGET, angle, zoom, shift)
    shape[sorted(unknown)] = np.nan
    aligned = align(shape, TARGET)
    known = np.isfinite(shape).all(axis=1)
    assert np.isnan(aligned[~known]).all()
    np.testing.assert_allclose(aligned[known], TARGET[known], atol=1e-6)


def test_a_mirrored_face_is_not_turned_over() -> None:
    lopsided = TARGET + np.linspace(0, 20, 68)[:, None] * [1, 0]
    mirrored = lopsided * [-1, 1]
    assert np.abs(align(mirrored, lopsided) - lopsided).max() > 1


def test_pose_and_size_in_the_image_do_not_count() -> None:
    rng = np.random.default_rng(0)
    shapes = [turned(TARGET, rng.uniform(-1, 1), rng.uniform(0.5, 3), tuple(rng.uniform(0, 500, 2))) for _ in range(12)]
    np.testing.assert_allclose(shape_deviations(np.array(shapes)), 0, atol=1e-9)


@given(wrong=st.integers(0, 59))
def test_a_misplaced_point_is_the_most_unusual(wrong: int) -> None:
    rng = np.random.default_rng(wrong)
    # All faces turn their heads: a usual variation that must not count.
    yaw = rng.uniform(-1, 1, 60)[:, None] * (TARGET[:, 1] - TARGET[:, 1].mean()) ** 2 / 150
    shapes = np.array([TARGET] * 60) + yaw[..., None] * [1, 0] + rng.normal(0, 0.3, (60, 68, 2))
    shapes[wrong, 30] += [25, -10]
    deviations = shape_deviations(shapes)
    assert np.argmax(deviations) == wrong
    assert deviations[wrong] > 1.3 * np.sort(deviations)[-2]


def test_unknown_points_count_neither_way() -> None:
    shapes = np.array([points_of(MMLAB_5)] * 30) + np.random.default_rng(0).normal(0, 0.2, (30, 5, 2))
    shapes[3, 2] = np.nan
    deviations = shape_deviations(shapes)
    assert np.isfinite(deviations).all()
    assert np.argmax(deviations) != 3 or deviations[3] < 3 * np.median(deviations)


def test_deviations_are_in_parts_of_the_face() -> None:
    base = points_of(MMLAB_5)
    shapes = np.array([base, base + [[0, 0], [0, 0], [4, 0], [0, 0], [0, 0]]])
    np.testing.assert_allclose(shape_deviations(shapes * 7), shape_deviations(shapes), rtol=1e-9)


def test_faces_that_know_different_points_are_compared_where_they_can_be() -> None:
    base = points_of(IBUG_68)
    shapes = np.array([base, base, base + 3.0])
    shapes[0, 40:] = np.nan
    shapes[1, :40] = np.nan
    shapes[:, 67] = np.nan
    np.testing.assert_allclose(shape_deviations(shapes), 0, atol=1e-9)


@pytest.mark.parametrize("shape", [(0, 68, 2), (68, 2), (1, 68, 3)])
def test_other_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(N, K, 2\)"):
        shape_deviations(np.ones(shape))
