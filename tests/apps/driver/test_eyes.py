"""Blinks, PERCLOS and eyes that cannot be seen: which are never eyes that are shut."""

from __future__ import annotations

import pytest

from lmedge.apps.driver import DriverThresholds
from lmedge.apps.driver.eyelids import EyelidWatch
from lmedge.data.synthetic.camera import HeadPose
from tests.apps.driver.drives import (
    AWAY,
    BARE,
    SUNGLASSES,
    YAWN,
    Stretch,
    events_of,
    frames_above,
    lids_at,
    lost,
    rest,
    rested_monitor,
    shut,
    told,
    watch,
)
from tests.apps.heads import Face

LIMITS = DriverThresholds()
# Blinks


@pytest.mark.parametrize("rate", [15, 30, 60])
@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3])
def test_eyes_shut_for_a_moment_are_one_blink_of_that_length(rate: int, seconds: float) -> None:
    seconds = frames_above(seconds, rate)
    (blink,) = events_of(watch([rest(1), shut(seconds), rest(1)], rate=rate))
    assert (blink.kind, blink.phase) == ("blink", "ended")
    assert blink.seen_s == pytest.approx(seconds, abs=0.012)


@pytest.mark.parametrize(("closure", "blinks"), [(0.49, 0), (0.51, 1)])
def test_lids_have_to_pass_half_way(closure: float, blinks: int) -> None:
    assert len(told(watch([rest(1), Stretch(0.2, lids_at(closure)), rest(1)]))) == blinks


@pytest.mark.parametrize(("seconds", "blinks"), [(0.45, 1), (0.6, 0)])
def test_lids_that_droop_for_longer_than_a_blink_are_none(seconds: float, blinks: int) -> None:
    assert len(told(watch([rest(1), Stretch(seconds, lids_at(0.6)), rest(1)]))) == blinks


def test_eyes_are_shut_from_four_fifths_until_they_are_half_open() -> None:
    def eyes(*closures: float) -> list[str]:
        return [state.eyes for state in watch([Stretch(1 / 30, lids_at(closure)) for closure in closures])]

    assert eyes(0.01, 0.79, 0.81, 0.79, 0.51, 0.49) == ["open", "half-shut", "shut", "shut", "shut", "open"]


def test_a_blink_of_a_single_noisy_frame_is_none() -> None:
    """At 60 frames per second a spike that barely passes half-way lasts 3 ms."""
    spike = [rest(1), Stretch(1 / 60, lids_at(0.55)), rest(1)]
    assert not told(watch(spike, rate=60))


def test_a_wink_shuts_no_eyes() -> None:
    assert not told(watch([rest(1), Stretch(3, Face(closure=1.0, wink=True)), rest(1)]))


def test_the_ends_of_a_blink_lie_between_frames() -> None:
    """From 0 to 0.8 half-shut is passed after 5/8 of the interval, from 0.8 to 0.2 after half of it."""
    watch_lids = EyelidWatch(LIMITS)
    told_events = [watch_lids.update(index / 10, closure) for index, closure in enumerate((0.0, 0.8, 0.8, 0.2))]
    assert told_events[:3] == [[], [], []]
    (blink,) = told_events[3]
    assert (blink.start_s, blink.end_s, blink.seen_s) == pytest.approx((0.0625, 0.25, 0.1875))


def test_a_blink_that_a_lost_face_cuts_off_is_not_told() -> None:
    assert not told(watch([rest(1), shut(0.1), lost(0.7), rest(1)]))


def test_a_blink_with_a_frame_lost_in_it_is_one_blink() -> None:
    assert told(watch([rest(1), shut(2 / 30), lost(1 / 30), shut(2 / 30), rest(1)])) == [("blink", "ended")]


def test_a_closure_is_no_blink_however_short() -> None:
    assert told(watch([rest(1), shut(0.45), rest(1)])) == [("closure", "raised"), ("closure", "ended")]


def test_a_blink_does_not_run_on_over_time_without_frames() -> None:
    """Shut before the gap and shut after it: what was between may have been anything."""
    monitor = rested_monitor()
    before = watch([rest(1), shut(0.1)], monitor=monitor)
    after = watch([shut(0.1), rest(1)], monitor=monitor, start_s=1.1 + LIMITS.longest_gap_s + 0.1)
    (blink,) = events_of(before + after)
    assert blink.start_s == pytest.approx(1.7, abs=1e-6)


def test_eyes_that_were_shut_before_a_gap_are_looked_at_anew() -> None:
    """Eyes 0.6 closed stay shut if they were; after a gap nobody knows that."""
    monitor = rested_monitor()
    watch([rest(1), shut(1)], monitor=monitor)
    assert watch([Stretch(0.1, lids_at(0.6))], monitor=monitor, start_s=2.6)[0].eyes == "half-shut"


def test_the_blink_after_a_closure_that_a_gap_cut_off_is_told() -> None:
    monitor = rested_monitor()
    before = watch([rest(1), shut(1.5)], monitor=monitor)
    after = watch([rest(1), shut(0.15), rest(1)], monitor=monitor, start_s=4)
    assert told(before + after)[-2:] == [("microsleep", "ended"), ("blink", "ended")]


# PERCLOS


def nodding(share: float, seconds: float) -> list[Stretch]:
    """Eyes shut for that share of every two seconds."""
    return [stretch for _ in range(round(seconds / 2)) for stretch in (rest(2 * (1 - share)), shut(2 * share))]


@pytest.mark.parametrize(("rate", "share"), [(10, 0.1), (10, 0.2), (10, 0.4), (15, 0.2), (30, 0.2), (60, 0.1)])
def test_perclos_is_the_share_of_the_last_minute(rate: int, share: float) -> None:
    states = watch([*nodding(share, 70)], rate=rate)
    errors = [abs((state.perclos or 0.0) - share) for state in states if state.time_s > 62]
    assert errors
    assert max(errors) < 0.012


def test_perclos_forgets_what_is_older_than_a_minute() -> None:
    states = watch([*nodding(0.4, 60), rest(61)], rate=10)
    perclos = states[-1].perclos
    assert perclos == pytest.approx(0, abs=1e-9)
    assert max(state.perclos or 0 for state in states) > 0.35


@pytest.mark.parametrize(("closure", "expected"), [(0.79, 0.0), (0.81, 1.0)])
def test_perclos_counts_eyes_from_four_fifths_shut(closure: float, expected: float) -> None:
    assert watch([Stretch(61, lids_at(closure))], rate=10)[-1].perclos == pytest.approx(expected)


@pytest.mark.parametrize(("share", "drowsy"), [(0.13, False), (0.17, True)])
def test_drowsy_is_raised_between_13_and_17_hundredths(share: float, drowsy: bool) -> None:
    assert (("drowsy", "raised") in told(watch(nodding(share, 80), rate=20))) == drowsy


def test_drowsy_is_over_below_the_band_of_the_awake() -> None:
    states = watch([*nodding(0.2, 80), rest(60)], rate=10)
    raised, ended = events_of(states, "drowsy")
    assert raised.value == pytest.approx(0.2, abs=0.02)
    assert ended.value == pytest.approx(LIMITS.perclos_awake, abs=0.01)
    assert ended.reason == "over"


def test_perclos_is_not_told_from_less_than_half_a_minute_of_eyes() -> None:
    states = watch([*nodding(0.2, 28), lost(20), *nodding(0.2, 6)], rate=10)
    assert all(state.perclos is None for state in states if state.time_s < 48)
    assert states[-1].perclos == pytest.approx(0.2, abs=0.03)


def test_time_without_eyes_is_in_no_share() -> None:
    """Much of the minute behind sunglasses, whose points claim shut eyes."""
    hidden = Stretch(26, Face(closure=1.0), SUNGLASSES)
    states = watch([*nodding(0.1, 34), hidden], rate=15)
    assert states[-1].perclos == pytest.approx(0.1, abs=0.02)


def test_perclos_counts_the_seen_half_of_flickering_eyes() -> None:
    """A frame stands for half of the time to its neighbours, also where those show no eyes."""
    monitor, rate = rested_monitor(DriverThresholds(perclos_least_seen_s=25)), 15
    shuts = [Face(closure=float(index / rate % 2 >= 1.6)) for index in range(60 * rate)]
    states = watch(
        [Stretch(1 / rate, face, (BARE, SUNGLASSES)[i % 2]) for i, face in enumerate(shuts)], rate=rate, monitor=monitor
    )
    assert states[-1].perclos == pytest.approx(0.2, abs=0.02)


def test_drowsy_ends_as_lost_where_no_eyes_are_seen_any_more() -> None:
    states = watch([*nodding(0.3, 60), lost(60)], rate=10)
    assert [(event.phase, event.reason) for event in events_of(states, "drowsy")] == [("raised", None), ("ended", "lost")]


@pytest.mark.parametrize("jump_s", [-500.0, -20.0, 500.0])
def test_a_clock_that_is_set_empties_the_minute(jump_s: float) -> None:
    monitor = rested_monitor()
    watch(nodding(0.3, 60), monitor=monitor, rate=10, start_s=1000)
    assert watch([rest(1)], monitor=monitor, rate=10, start_s=1060 + jump_s)[-1].perclos is None


# Eyes that cannot be seen


@pytest.mark.parametrize(
    ("stretch", "reason"),
    [
        (Stretch(5, Face(closure=1.0), SUNGLASSES), "sunglasses"),
        (Stretch(5, Face(closure=1.0), type(BARE)(20, 20)), "too-dark"),
        (Stretch(5, Face(closure=1.0), type(BARE)(254, 254)), "too-bright"),
        (Stretch(5, Face(closure=1.0), type(BARE)(float("nan"), float("nan"))), "outside-picture"),
        (Stretch(5, Face(closure=1.0, pose=HeadPose(41, 0, 0))), "head-turned"),
        (Stretch(5, Face(closure=1.0, pose=HeadPose(-41, 0, 0))), "head-turned"),
        (Stretch(5, Face(closure=1.0, pose=HeadPose(0, -31, 0))), "head-turned"),
        (Stretch(5, Face(closure=1.0), BARE, 0.45), "eyes-unsure"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_eyes_that_are_not_seen_are_never_shut(stretch: Stretch, reason: str) -> None:
    states = watch([rest(1), stretch, rest(1)])
    hidden = [state for state in states if 1 <= state.time_s < 6 - 1e-6]
    assert {(state.eyes, state.closure, state.degraded) for state in hidden} == {("unseen", None, (reason,))}
    assert not told(states, "closure", "microsleep", "sleep", "blink")
    raised = next(event for event in events_of(states, "degraded"))
    assert raised.reason == reason


@pytest.mark.parametrize(
    "stretch",
    [
        Stretch(2, Face(closure=1.0), type(BARE)(92, 150)),
        Stretch(2, Face(closure=1.0), type(BARE)(26, 26)),
        Stretch(2, Face(closure=1.0, pose=HeadPose(39, 0, 0))),
        Stretch(2, Face(closure=1.0, pose=HeadPose(0, -29, 0))),
        Stretch(2, Face(closure=1.0), BARE, 0.55),
    ],
    ids=["clear glasses", "dim", "turned", "nodding", "sure enough"],
)
def test_eyes_that_are_seen_just_so_are_watched(stretch: Stretch) -> None:
    states = watch([rest(1), stretch, rest(1)])
    assert ("microsleep", "raised") in told(states)
    assert not any(state.degraded for state in states)


def test_behind_sunglasses_head_and_mouth_are_still_watched() -> None:
    yawning, away = Stretch(3, YAWN, SUNGLASSES), Stretch(4, AWAY, SUNGLASSES)
    kinds = {kind for kind, _ in told(watch([Stretch(1, Face(), SUNGLASSES), yawning, away]))}
    assert {"yawn", "long-distraction", "degraded"} <= kinds
