"""Copies of one photo with two labellings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmedge.data.duplicates import duplicate_pairs
from lmedge.data.relabelled import relabelled_pairs
from lmedge.data.samples import FaceSample
from lmedge.data.sources import parse_source, read_sources
from lmedge.schemas import IBUG_68
from tests.data.faces import points_of, sample_of, textured_image

POINTS = points_of(IBUG_68)


def face(key: str, points_px: np.ndarray = POINTS) -> FaceSample:
    return sample_of(textured_image(0), points_px, photo_key=key)


def test_the_difference_is_the_mean_distance_over_the_normaliser() -> None:
    noise_px = np.random.default_rng(0).normal(0, 1, POINTS.shape)
    noise_px[8] = [4, 0]
    (found,) = relabelled_pairs([face("a"), face("b", POINTS + noise_px)], [(0, 1)])
    expected = np.linalg.norm(noise_px, axis=1).mean() / float(IBUG_68.normalizer_px(POINTS))
    # The alignment takes away 4 of the noise's 136 degrees of freedom.
    assert found.difference == pytest.approx(expected, rel=0.05)
    assert (found.worst_point, found.origins) == ("chin", ("labels:a", "labels:b"))


def test_another_size_place_and_tilt_of_the_copy_are_no_difference() -> None:
    turned = POINTS @ (1.7 * np.array([[0.8, 0.6], [-0.6, 0.8]])) + [30, -12]
    (found,) = relabelled_pairs([face("a"), face("b", turned)], [(0, 1)])
    assert found.difference == pytest.approx(0, abs=1e-4)


def test_the_worst_pair_of_each_group_is_kept_and_the_worst_group_comes_first() -> None:
    rng = np.random.default_rng(1)
    noisy = [POINTS + rng.normal(0, size, POINTS.shape) for size in (0, 0.5, 2, 4)]
    faces = [face(key, points) for key, points in zip("abcd", noisy, strict=True)] + [face("x"), face("y", noisy[1])]
    found = relabelled_pairs(faces, [(0, 1), (0, 2), (1, 2), (4, 5), (2, 3)])
    assert [(entry.first, entry.second) for entry in found] == [(2, 3), (4, 5)]


def test_faces_without_a_normaliser_or_common_points_are_left_out() -> None:
    blind, lower = POINTS.copy(), POINTS.copy()
    blind[36] = np.nan
    lower[:60] = np.nan
    assert relabelled_pairs([face("a", blind), face("b")], [(0, 1)]) == []
    assert relabelled_pairs([face("a", lower), face("b")], [(0, 1)]) == []


@pytest.mark.data
def test_helen_and_lfpw_have_photos_that_were_labelled_twice(data_folder: Path) -> None:
    faces = read_sources([parse_source(f"300w:{data_folder / '300w'}")])
    found = relabelled_pairs(faces, duplicate_pairs(faces))
    assert len(found) == 50
    assert found[0].difference > 0.08
    # Two people disagree by 2 to 3 % on one photo; the worst pair of a group by more.
    assert 0.005 < float(np.median([entry.difference for entry in found])) < 0.05
