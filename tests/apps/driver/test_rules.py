"""What lasts, at its threshold, at every frame rate; with frames dropped, the clock set, and the face lost in between."""

from __future__ import annotations

import pytest

from lmedge.apps.driver import DriverThresholds
from tests.apps.driver.drives import (
    AWAY,
    RATES,
    SUNGLASSES,
    YAWN,
    Stretch,
    events_of,
    frames_above,
    frames_below,
    lost,
    rest,
    rested_monitor,
    shut,
    told,
    watch,
)
from tests.apps.heads import Face

LIMITS = DriverThresholds()
# Kind, seconds, what lasts.
LASTING = {
    "closure": (LIMITS.closure_s, Stretch(0, Face(closure=1))),
    "microsleep": (LIMITS.microsleep_s, Stretch(0, Face(closure=1))),
    "sleep": (LIMITS.sleep_s, Stretch(0, Face(closure=1))),
    "yawn": (LIMITS.yawn_s, Stretch(0, YAWN)),
    "long-distraction": (LIMITS.long_distraction_s, Stretch(0, AWAY)),
    "no-face": (LIMITS.no_face_s, Stretch(0, None)),
    "degraded": (LIMITS.degraded_s, Stretch(0, Face(), SUNGLASSES)),
}
AT_ANY_RATE = pytest.mark.parametrize("rate", RATES)
EACH = pytest.mark.parametrize("kind", LASTING)


def lasting(kind: str, seconds: float) -> Stretch:
    like = LASTING[kind][1]
    return Stretch(seconds, like.face, like.sight)


# At the threshold


@EACH
@AT_ANY_RATE
def test_a_frame_less_than_the_threshold_tells_nothing(kind: str, rate: int) -> None:
    seconds = frames_below(LASTING[kind][0], rate)
    assert not told(watch([rest(1), lasting(kind, seconds), rest(1)], rate=rate), kind)


@EACH
@AT_ANY_RATE
def test_as_long_as_the_threshold_is_raised_once_and_ended_once(kind: str, rate: int) -> None:
    seconds = frames_above(LASTING[kind][0], rate)
    states = watch([rest(1), lasting(kind, seconds), rest(1)], rate=rate)
    assert told(states, kind) == [(kind, "raised"), (kind, "ended")]
    raised, ended = events_of(states, kind)
    assert ended.seen_s == pytest.approx(seconds, abs=1e-6)
    assert (ended.start_s, ended.end_s) == pytest.approx((1 - 0.5 / rate, 1 - 0.5 / rate + seconds))
    assert raised.start_s == ended.start_s
    assert ended.reason == "over"


@EACH
def test_it_is_raised_while_it_lasts_not_when_it_is_over(kind: str) -> None:
    seconds, rate = LASTING[kind][0], 30
    states = watch([rest(1), lasting(kind, seconds + 0.5), rest(1)], rate=rate)
    raised = next(event for event in events_of(states, kind) if event.phase == "raised")
    assert raised.time_s == pytest.approx(1 + seconds, abs=1.01 / rate)
    at_once = [kind in state.active for state in states if raised.time_s <= state.time_s < 1 + seconds + 0.5]
    assert at_once
    assert all(at_once)
    assert not states[-1].active


def test_eyes_that_stay_shut_climb_and_end_once_as_the_worst_they_were() -> None:
    states = watch([rest(1), shut(4), rest(1)])
    assert told(states) == [("closure", "raised"), ("microsleep", "raised"), ("sleep", "raised"), ("sleep", "ended")]
    assert events_of(states)[-1].seen_s == pytest.approx(4)


def test_a_closure_of_two_and_a_half_seconds_is_a_microsleep_and_no_sleep() -> None:
    assert told(watch([rest(1), shut(2.5), rest(1)]))[-1] == ("microsleep", "ended")


# Frames dropped


@EACH
@pytest.mark.parametrize("keep", [lambda i: i % 3 != 1, lambda i: i % 8 < 2], ids=["every third lost", "six of eight lost"])
def test_dropped_frames_shift_a_duration_by_no_more_than_a_gap(kind: str, keep: object) -> None:
    seconds = LASTING[kind][0] + 0.25
    states = watch([rest(1), lasting(kind, seconds), rest(1)], keep=keep)  # type: ignore[arg-type]
    assert told(states, kind) == [(kind, "raised"), (kind, "ended")]
    assert events_of(states, kind)[-1].seen_s == pytest.approx(seconds, abs=7 / 30)


@EACH
def test_time_without_frames_is_not_counted(kind: str) -> None:
    """Both halves are shorter than the threshold, and nothing is known of the two seconds between."""
    half = 0.7 * LASTING[kind][0]
    silent = range(round((1 + half) * 30), round((1 + half + 2) * 30))
    states = watch([rest(1), lasting(kind, 2 * half + 2), rest(1)], keep=lambda index: index not in silent)
    assert not told(states, kind)


# The face lost in between


@pytest.mark.parametrize("kind", [kind for kind in LASTING if kind != "no-face"])
def test_a_face_lost_for_a_moment_pauses_what_lasts(kind: str) -> None:
    threshold = LASTING[kind][0]
    under = [rest(1), lasting(kind, 0.8 * threshold), lost(0.3), lasting(kind, 0.1 * threshold), rest(1)]
    over = [rest(1), lasting(kind, 0.8 * threshold), lost(0.3), lasting(kind, 0.3 * threshold), rest(1)]
    assert not told(watch(under), kind)
    states = watch(over)
    assert told(states, kind) == [(kind, "raised"), (kind, "ended")]
    ended = events_of(states, kind)[-1]
    assert ended.seen_s == pytest.approx(1.1 * threshold, abs=3 / 30)
    assert ended.end_s is not None
    assert ended.end_s - ended.start_s == pytest.approx(ended.seen_s + 0.3, abs=2 / 30)


@pytest.mark.parametrize("kind", [kind for kind in LASTING if kind != "no-face"])
def test_a_face_lost_for_longer_ends_it_where_it_was_last_seen(kind: str) -> None:
    threshold = LASTING[kind][0]
    states = watch([rest(1), lasting(kind, 1.2 * threshold), lost(0.8), lasting(kind, 0.8 * threshold), rest(1)])
    assert told(states, kind) == [(kind, "raised"), (kind, "ended")]
    ended = events_of(states, kind)[-1]
    assert ended.reason == "lost"
    assert ended.end_s == pytest.approx(1 + 1.2 * threshold, abs=1.5 / 30)
    assert ended.time_s <= 1 + 1.2 * threshold + LIMITS.longest_gap_s + 2 / 30


def test_a_lost_face_is_never_eyes_that_are_shut() -> None:
    states = watch([rest(1), shut(0.3), lost(10), rest(1)])
    assert not told(states, "closure", "microsleep", "sleep", "blink")
    assert all(state.eyes == "unseen" and state.closure is None for state in states if not state.face)


@pytest.mark.parametrize("kind", [kind for kind in LASTING if kind not in ("no-face", "degraded")])
def test_what_is_seen_in_every_other_frame_counts_for_half_of_the_time(kind: str) -> None:
    like, rate = lasting(kind, 0), 30

    def flickering(seconds: float) -> list[Stretch]:
        frames = range(round(seconds * rate))
        return [Stretch(1 / rate, None if index % 2 else like.face, like.sight) for index in frames]

    under, over = ([rest(1), *flickering(2 * part * LASTING[kind][0]), rest(1)] for part in (0.9, 1.1))
    assert not told(watch(under), kind)
    states = watch(over)
    assert told(states, kind) == [(kind, "raised"), (kind, "ended")]
    assert events_of(states, kind)[-1].seen_s == pytest.approx(1.1 * LASTING[kind][0], abs=2 / rate)


# The clock


@pytest.mark.parametrize("jump_s", [5.0, 3600.0])
def test_an_alarm_that_a_gap_ends_is_lost_where_it_was_last_seen(jump_s: float) -> None:
    """Glances away add up to an alarm; then the clock is set forward, so far that the window is empty."""
    monitor = rested_monitor()
    glances = [stretch for _ in range(5) for stretch in (Stretch(2.4, AWAY), rest(1))]
    before = watch([rest(1), *glances], monitor=monitor, rate=15)
    after = watch([rest(0.5)], monitor=monitor, rate=15, start_s=18 + jump_s)
    events = events_of(before + after, "short-glances")
    assert events[0].phase == "raised"
    if jump_s < LIMITS.distraction_window_s:
        assert [event.phase for event in events] == ["raised"]
    else:
        assert (events[1].reason, events[1].end_s) == ("lost", pytest.approx(before[-1].time_s))
        assert events[1].seen_s == pytest.approx(before[-1].time_s - events[0].start_s)


@EACH
@pytest.mark.parametrize("jump_s", [-100.0, 3600.0])
def test_a_clock_that_is_set_joins_nothing(kind: str, jump_s: float) -> None:
    monitor, part = rested_monitor(), 0.8 * LASTING[kind][0]
    before = watch([rest(1), lasting(kind, part)], monitor=monitor, start_s=1000)
    after = watch([lasting(kind, part), rest(1)], monitor=monitor, start_s=1000 + 1 + part + jump_s)
    assert not told(before + after, kind)


def test_a_clock_set_back_ends_what_is_raised_and_says_why() -> None:
    monitor = rested_monitor()
    watch([rest(1), shut(2)], monitor=monitor, start_s=1000)
    state = watch([rest(0.1)], monitor=monitor, start_s=10)[0]
    (ended,) = state.events
    assert (ended.kind, ended.phase, ended.reason) == ("microsleep", "ended", "clock")
    assert ended.end_s == pytest.approx(1003, abs=0.05)
    assert not state.active


def test_the_same_frame_twice_changes_nothing() -> None:
    once, twice = rested_monitor(), rested_monitor()
    single = watch([rest(1), shut(1.2), rest(1)], monitor=once)
    doubled = []
    for state in single:
        face = Stretch(1 / 30, Face(closure=1.0) if state.eyes == "shut" else Face())
        doubled += watch([face], monitor=twice, start_s=state.time_s)
        doubled += watch([face], monitor=twice, start_s=state.time_s)
    assert told(doubled) == told(single)
    assert [event.seen_s for event in events_of(doubled)] == [event.seen_s for event in events_of(single)]


# Yawns


@pytest.mark.parametrize(("gap_mm", "yawns"), [(20, False), (60, True)])
def test_speech_opens_no_mouth_wide_enough_for_a_yawn(gap_mm: float, yawns: bool) -> None:
    states = watch([rest(1), Stretch(4, Face(mouth_gap_mm=gap_mm)), rest(1)])
    assert (("yawn", "raised") in told(states)) == yawns
