"""The monitor as a whole: what it learns, what it refuses, what it leaves behind."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import lmedge.apps.driver
from lmedge.apps.driver import NOT_CERTIFIED, DriverEvent, DriverMonitor, DriverThresholds, EventLog, read_events
from lmedge.data.synthetic.camera import HeadPose
from lmedge.errors import DataError, InputError
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98
from tests.apps.driver.drives import RATES, SUNGLASSES, Stretch, events_of, lost, rest, rested_monitor, shut, told, watch
from tests.apps.heads import Face, Sitter

LIMITS = DriverThresholds()
SEATED = Face(pose=HeadPose(12, -6, 2))

# Learning


@pytest.mark.parametrize("rate", RATES)
def test_three_seconds_of_open_eyes_make_it_ready(rate: int) -> None:
    states = watch([rest(4), shut(1.5), rest(1)], rate=rate, monitor=DriverMonitor(IBUG_68))
    assert next(state.time_s for state in states if state.ready) == pytest.approx(3, abs=1e-6)
    assert all(state.eyes == "unseen" for state in states if not state.ready)
    assert ("microsleep", "raised") in told(states)


def test_the_road_is_where_the_driver_looks_at_rest_not_where_the_camera_is() -> None:
    monitor = DriverMonitor(IBUG_68)
    states = watch([Stretch(4, SEATED), Stretch(4, Face(pose=HeadPose(30, -6, 2)))], monitor=monitor)
    assert states[-1].zone == "road"
    assert states[-1].yaw_deg == pytest.approx(18)
    turned = watch([Stretch(1, Face(pose=HeadPose(36, -6, 2)))], monitor=monitor, start_s=8)
    assert turned[-1].zone == "left"


def test_nothing_is_learnt_from_eyes_that_are_not_seen() -> None:
    monitor = DriverMonitor(IBUG_68)
    states = watch([Stretch(5, Face(), SUNGLASSES)], monitor=monitor)
    assert not states[-1].ready
    assert monitor.baseline is None
    assert states[-1].zone == "road"
    assert watch([rest(3.2)], monitor=monitor, start_s=5)[-1].ready


def test_a_baseline_of_an_earlier_drive_makes_it_ready_at_once() -> None:
    learnt = DriverMonitor(IBUG_68)
    watch([rest(4)], monitor=learnt)
    monitor = DriverMonitor(IBUG_68, baseline=learnt.baseline)
    assert watch([rest(0.1)], monitor=monitor)[0].ready


def test_both_point_sets_see_the_same_drive() -> None:
    drive = [rest(1), shut(1.5), rest(0.5), shut(0.15), rest(1), Stretch(3, Face(mouth_gap_mm=60)), rest(1)]
    assert told(watch(drive, schema=IBUG_68)) == told(watch(drive, schema=WFLW_98))


def test_a_network_that_never_draws_the_lids_together_is_read_by_what_it_leaves() -> None:
    """A shut eye that shows 60 % of its opening: never shut by exact points' measure, shut by its own."""
    drive = [rest(1), Stretch(1.5, Face(closure=0.4)), rest(1)]
    assert not told(watch(drive))
    monitor = rested_monitor(DriverThresholds(shut_eye_part=0.6))
    assert ("microsleep", "raised") in told(watch(drive, monitor=monitor))


def test_eyes_that_are_never_open_are_told_and_not_waited_for_in_silence() -> None:
    monitor = DriverMonitor(IBUG_68)
    states = watch([shut(8)], monitor=monitor)
    (raised,) = events_of(states)
    assert (raised.kind, raised.reason) == ("degraded", "never-open")
    assert raised.time_s == pytest.approx(3 + LIMITS.degraded_s, abs=0.1)
    assert {state.eyes for state in states} == {"unseen"}
    opened = watch([rest(6)], monitor=monitor, start_s=8)
    assert opened[-1].ready
    assert told(opened) == [("degraded", "ended")]


def test_the_first_seconds_of_a_drive_are_not_degraded() -> None:
    assert not any(state.degraded for state in watch([rest(4)], monitor=DriverMonitor(IBUG_68)))


# States


def test_what_is_told_before_there_is_a_face() -> None:
    state = watch([lost(0.1)])[0]
    assert (state.face, state.eyes, state.zone, state.mouth_opening, state.perclos) == (False, "unseen", None, None, None)
    assert state.degraded == ()


def test_without_a_head_pose_the_eyes_are_not_seen() -> None:
    state = rested_monitor().update(0.0, Sitter().landmarks(Face(closure=1.0)))
    assert (state.eyes, state.degraded, state.zone) == ("unseen", ("no-head-pose",), None)


def test_finishing_ends_what_is_raised_and_the_monitor_can_begin_again() -> None:
    monitor = rested_monitor()
    watch([rest(1), shut(2)], monitor=monitor)
    (ended,) = monitor.finish()
    assert (ended.kind, ended.phase, ended.reason) == ("microsleep", "ended", "stopped")
    assert monitor.finish() == ()
    assert not told(watch([rest(1)], monitor=monitor))


# Refusals


def test_five_points_are_refused() -> None:
    with pytest.raises(InputError, match="MMLAB_5 does not say how far an eye"):
        DriverMonitor(MMLAB_5)


@pytest.mark.parametrize("time_s", [float("nan"), float("inf")])
def test_times_that_are_no_numbers_are_refused(time_s: float) -> None:
    with pytest.raises(InputError, match="finite"):
        rested_monitor().update(time_s, None)


def test_angles_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="finite angles"):
        rested_monitor().update(0.0, Sitter().landmarks(Face()), HeadPose(float("nan"), 0, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"microsleep_s": -1}, "microsleep_s must be a positive number"),
        ({"yawn_s": float("nan")}, "yawn_s must be a positive number"),
        ({"microsleep_s": 4}, "microsleep_s must not be above sleep_s"),
        ({"shut": 0.4}, "half_shut must not be above shut"),
        ({"shut_eye_part": 1.0}, "shut_eye_part below 1"),
        ({"perclos_awake": 0.2}, "perclos_awake must not be above perclos_drowsy"),
    ],
)
def test_thresholds_that_contradict_each_other_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DriverThresholds(**settings)


def test_every_threshold_has_its_source_or_is_named_an_own_choice() -> None:
    """An entry names a norm, a paper with its year, a program or a measurement, or says that nobody gave the number."""
    text = (DriverThresholds.__doc__ or "").split("Attributes:")[1]
    _, *parts = re.split(r"\n {8}((?:\w+)(?:, \w+)*): ", text)
    entries = {name: words for names, words in zip(parts[::2], parts[1::2], strict=True) for name in names.split(", ")}
    assert list(entries) == list(DriverThresholds().to_json())
    sources = r"Own choice|\b(19|20)\d\d\b|Euro NCAP|ibid\.|openpilot|Wierwille|[Mm]easure"
    assert [name for name, words in entries.items() if not re.search(sources, words)] == []


def test_it_says_plainly_that_it_is_no_safety_function() -> None:
    assert NOT_CERTIFIED.startswith("Not a certified safety function")
    assert "Not a certified safety function" in (lmedge.apps.driver.__doc__ or "")


# Events as lines


def test_events_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    events = events_of(watch([rest(1), shut(1.5), rest(1), Stretch(4, Face(), SUNGLASSES), rest(1)]))
    with EventLog(tmp_path / "events.jsonl", DriverThresholds()) as log:
        log.write(*events)
    assert [event.to_json() for event in read_events(log.path)] == [event.to_json() for event in events]
    assert len(events) == 5


def test_whole_seconds_are_written_too() -> None:
    monitor, face = rested_monitor(), Sitter().landmarks(Face())
    states = [monitor.update(time_s, None if time_s > 0 else face, Face().pose) for time_s in (0, 1)]
    assert all(isinstance(state.time_s, float) for state in states)
    assert DriverEvent("yawn", "raised", 5, 2, 3).to_json() == {
        "kind": "yawn", "phase": "raised", "time_s": 5.0, "start_s": 2.0, "seen_s": 3.0,
    }  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_told_plainly() -> None:
    with pytest.raises(DataError, match="Cannot write events to /dev/full"):
        EventLog("/dev/full", DriverThresholds())


def test_every_line_is_on_disk_at_once_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", DriverThresholds(yawn_s=2.5))
    event = DriverEvent("yawn", "raised", 5.0, 2.5, 2.5)
    log.write(event)
    first, line = (json.loads(line) for line in log.path.read_text().splitlines())
    assert first["statement"] == NOT_CERTIFIED
    assert first["thresholds"]["yawn_s"] == 2.5
    assert line == {"kind": "yawn", "phase": "raised", "time_s": 5.0, "start_s": 2.5, "seen_s": 2.5}
    log.close()
    log.path.write_text(log.path.read_text() + '{"kind": "yawn", "pha')
    assert read_events(log.path) == [event]


def test_files_that_are_no_events_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"kind": "sneeze", "phase": "raised"}\n')
    with pytest.raises(DataError, match="line 1"):
        read_events(tmp_path / "other.jsonl")
    with pytest.raises(DataError, match="Cannot read"):
        read_events(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="Cannot write events"):
        EventLog(tmp_path / "none" / "events.jsonl", DriverThresholds())


def test_an_event_that_ended_has_an_end() -> None:
    with pytest.raises(InputError, match="ended with one"):
        DriverEvent("yawn", "ended", 5.0, 2.5, 2.5)
    with pytest.raises(InputError, match="one of"):
        replace(DriverEvent("yawn", "raised", 5.0, 2.5, 2.5), kind="sneeze")
