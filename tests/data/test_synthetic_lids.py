"""Lids over time: the truth that sequences are held against."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lmedge.data.synthetic.lids import LidMove, closure_at, draw_lid_moves
from lmedge.errors import InputError


def test_a_blink_closes_fully_half_way_and_is_half_shut_for_half_of_it() -> None:
    blink = LidMove(1.0, 0.1, 0.0, 0.1)
    times = np.array([0.9, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3])
    np.testing.assert_allclose(closure_at(times, [blink]), [0, 0, 0.5, 1, 0.5, 0, 0], atol=1e-9)


def test_eyes_stay_shut_for_as_long_as_they_are_told() -> None:
    move = LidMove(2.0, 0.12, 0.5, 0.2)
    times = np.arange(0, 4, 0.001)
    assert (closure_at(times, [move]) == 1).sum() * 0.001 == pytest.approx(0.5, abs=0.002)
    assert move.end_s == pytest.approx(2.82)


def test_movements_follow_one_another_with_blinks_alone_at_first() -> None:
    moves = draw_lid_moves(np.random.default_rng(1), 120, blink_s=0.15, rested_s=6)
    assert all(first.end_s < second.start_s for first, second in pairwise(moves))
    assert all(move.shut_s == 0 for move in moves if move.start_s < 6)
    assert {move.shut_s > 0 for move in moves} == {True, False}
    blinks = [move.end_s - move.start_s for move in moves if move.shut_s == 0]
    assert 0.15 <= min(blinks) <= max(blinks) <= 0.24
    assert moves == draw_lid_moves(np.random.default_rng(1), 120, blink_s=0.15, rested_s=6)


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"seconds": 10.0, "blink_s": -0.1}])
def test_times_that_are_not_positive_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be positive"):
        draw_lid_moves(np.random.default_rng(0), **wrong)
