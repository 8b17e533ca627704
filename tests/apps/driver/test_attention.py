"""Where the head points: zones, and glances away that add up."""

from __future__ import annotations

import pytest

from lmedge.data.synthetic.camera import HeadPose
from tests.apps.driver.drives import AWAY, Stretch, events_of, lost, rest, told, watch
from tests.apps.heads import Face

# Attention


@pytest.mark.parametrize(
    ("yaw", "pitch", "zone"),
    [
        (0, 0, "road"), (22.9, 0, "road"), (23.1, 0, "left"), (-22.9, 0, "road"), (-23.1, 0, "right"), (0, 17.9, "road"),
        (0, 18.1, "up"), (0, -17.9, "road"), (0, -18.1, "down"), (25, 28, "up"), (30, -19, "left"),
    ],
)  # fmt: skip
def test_zones_begin_at_their_angles_and_sides_are_the_drivers(yaw: float, pitch: float, zone: str) -> None:
    assert watch([Stretch(1 / 30, Face(pose=HeadPose(yaw, pitch, 0)))])[-1].zone == zone


def test_a_head_is_back_on_the_road_only_a_little_inside() -> None:
    yaws = (0, 24, 22, 21, 19.9, 22, 24)
    states = watch([Stretch(1 / 30, Face(pose=HeadPose(yaw, 0, 0))) for yaw in yaws])
    assert [state.zone for state in states] == ["road", "left", "left", "left", "road", "road", "left"]


def glances(away_s: float, road_s: float, count: int) -> list[Stretch]:
    return [stretch for _ in range(count) for stretch in (Stretch(away_s, AWAY), rest(road_s))]


@pytest.mark.parametrize("rate", [10, 30])
def test_ten_seconds_of_short_glances_within_thirty_are_raised(rate: int) -> None:
    under, over = ([rest(3), *glances(1.4, 1.5, count)] for count in (7, 8))
    assert not told(watch(under, rate=rate))
    states = watch(over, rate=rate)
    assert told(states) == [("short-glances", "raised")]
    assert events_of(states)[0].value == pytest.approx(10, abs=1.1 / rate)


def test_glances_that_are_spread_farther_than_thirty_seconds_are_not() -> None:
    assert not told(watch([rest(3), *glances(0.7, 1.9, 30)], rate=20))


@pytest.mark.parametrize(("back_s", "raised"), [(1.9, True), (2.1, False)])
def test_two_seconds_on_the_road_make_glances_forgotten(back_s: float, raised: bool) -> None:
    states = watch([rest(3), *glances(2.4, 1.0, 4), rest(back_s - 1.0), *glances(2.4, 1.0, 1)])
    assert (("short-glances", "raised") in told(states)) == raised


def test_short_glances_are_over_after_two_seconds_on_the_road() -> None:
    states = watch([rest(3), *glances(2.4, 1.0, 6), rest(3)])
    raised, ended = events_of(states, "short-glances")
    assert raised.time_s < 3 + 6 * 3.4
    assert ended.reason == "over"
    assert ended.time_s == pytest.approx(3 + 6 * 3.4 - 1.0 + 2.0, abs=0.1)


def test_short_glances_that_grow_old_unseen_are_lost_and_not_over() -> None:
    states = watch([rest(3), *glances(2.4, 1.0, 5), lost(35)], rate=15)
    raised, ended = events_of(states, "short-glances")
    assert raised.reason is None
    assert ended.reason == "lost"


def test_a_face_lost_on_the_way_is_neither_away_nor_back() -> None:
    away = [Stretch(2.4, AWAY), lost(1.0)] * 4
    states = watch([rest(3), *away, Stretch(0.3, AWAY)])
    assert states[-1].away_s == pytest.approx(4 * 2.4 + 0.3, abs=0.2)
    assert not told(states, "long-distraction", "short-glances")
