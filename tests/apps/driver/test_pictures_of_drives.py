"""From pictures to a record: the driver among the faces, the summary, the dashboard, the picture of the drive."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lmedge.apps.driver import (
    Drive,
    DriveRecord,
    DriverMonitor,
    DriverThresholds,
    EventLog,
    draw_dashboard,
    drive_picture,
    read_events,
)
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import IBUG_68, WFLW_98, LandmarkSchema
from tests.apps.driver.drives import Stretch, lost, rest, rested_monitor, shut, watch
from tests.apps.heads import Face, Sitter

LIMITS = DriverThresholds()
FRAME = np.full((480, 640, 3), 128, np.uint8)
DAY = [rest(4), shut(0.2), rest(2), shut(1.4), rest(1), lost(3), rest(2), Stretch(1, Face(mouth_gap_mm=60))]


@dataclass(frozen=True)
class Found:
    landmarks: Landmarks
    identity: int = 1


class GivenFaces:
    """A tracker that finds what it is told."""

    def __init__(self) -> None:
        self.faces: list[Found] = []
        self.times_s: list[float] = []

    def update(self, image_bgr: np.ndarray, time_s: float) -> list[Found]:
        self.times_s.append(time_s)
        return self.faces


def recorded(stretches: list[Stretch]) -> DriveRecord:
    monitor = rested_monitor()
    record = DriveRecord(LIMITS)
    for state in watch(stretches, monitor=monitor):
        record.add(state)
    record.add_events(monitor.finish())
    return record


def sized(part: float, identity: int) -> Found:
    """A face of that part of the usual size; its box is drawn around its own points."""
    points = Sitter().points_px(Face()) * part
    return Found(Landmarks(points.astype(np.float32), IBUG_68, FaceBox.around(points)), identity)


def test_the_driver_is_the_largest_face_and_what_happens_is_logged_and_recorded(tmp_path: Path) -> None:
    tracker, sitter = GivenFaces(), Sitter()
    awake, asleep, passenger = sitter.landmarks(Face()), sitter.landmarks(Face(closure=1.0)), sized(0.4, 2)
    with EventLog(tmp_path / "events.jsonl", LIMITS) as log:
        drive = Drive(tracker, DriverMonitor(IBUG_68), log=log)  # type: ignore[arg-type]
        for index in range(90):
            tracker.faces = [passenger, Found(asleep if index >= 60 else awake)]
            shown = drive.show(FRAME, index / 15)
        assert drive.landmarks is asleep
        tracker.faces = []
        assert drive.update(FRAME, 6.0).face is False
        drive.finish()
    assert shown.shape == (480, 640 + 240, 3)
    kinds = [(event.kind, event.phase) for event in read_events(log.path)]
    assert kinds == [("closure", "raised"), ("microsleep", "raised"), ("microsleep", "ended")]
    assert drive.record.summary().counts == {"microsleep": 1}


def test_the_driver_stays_the_driver_until_another_face_is_twice_as_large() -> None:
    tracker = GivenFaces()
    drive = Drive(tracker, rested_monitor())  # type: ignore[arg-type]
    seen = []
    for driver, other in ((1.0, 0.8), (0.9, 1.1), (0.8, 1.2), (0.9, 1.1)):
        tracker.faces = [sized(driver, 1), sized(other, 2)]
        drive.update(FRAME, float(len(seen)))
        seen.append(drive.landmarks is tracker.faces[0].landmarks)
    assert seen == [True, True, False, False]


def test_a_clock_set_back_reaches_the_monitor_and_not_the_tracker() -> None:
    tracker = GivenFaces()
    drive = Drive(tracker, rested_monitor())  # type: ignore[arg-type]
    tracker.faces = [Found(Sitter().landmarks(Face(closure=1.0)))]
    states = [drive.update(FRAME, time_s) for time_s in (100.0, 100.4, 100.8, 100.8, 50.0, 50.2, 49.0)]
    assert [event.reason for state in states for event in state.events if event.phase == "ended"] == ["clock"]
    assert len(tracker.times_s) == 6
    assert all(later > sooner for sooner, later in pairwise(tracker.times_s))
    assert drive.record.summary().frames == 6


def test_a_clock_set_back_leaves_the_picture_of_the_drive_readable() -> None:
    forward, back = recorded([rest(10)]), recorded([rest(10)])
    for state in watch([rest(4)], start_s=-5):
        back.add(state)
    empty = drive_picture(DriveRecord(LIMITS), LIMITS)
    for record in (forward, back):
        drawn = (drive_picture(record, LIMITS) != empty).any(axis=2)[40:580, 130:1184]
        assert drawn.any(axis=0).mean() > 0.7


def test_a_summary_counts_what_happened() -> None:
    summary = recorded(DAY).summary()
    assert summary.counts == {"blink": 1, "microsleep": 1, "no-face": 1}
    assert summary.seconds == pytest.approx(14.6, abs=0.1)
    assert summary.face_s == pytest.approx(11.6, abs=0.1)
    assert summary.eyes_s == pytest.approx(11.6, abs=0.1)
    assert summary.road_s == pytest.approx(11.6, abs=0.1)
    assert summary.longest_shut_s == pytest.approx(1.4)
    assert summary.blink_mean_s == pytest.approx(0.2, abs=0.01)
    assert summary.to_json()["statement"].startswith("Not a certified safety function")


def test_an_empty_drive_has_a_summary_and_a_picture() -> None:
    record = DriveRecord(LIMITS)
    assert record.summary().counts == {}
    assert record.summary().highest_perclos is None
    assert drive_picture(record, LIMITS).shape[1] == 1200


def test_no_blink_is_lost_between_the_rows_of_a_record() -> None:
    record = recorded([rest(0.9), shut(1 / 30), rest(1)])
    assert max(row.closure or 0.0 for row in record.rows) > 0.9
    assert len(record.rows) == pytest.approx(8, abs=1)


def test_the_picture_of_a_drive_shows_its_events_and_its_course() -> None:
    empty, full = drive_picture(DriveRecord(LIMITS), LIMITS), drive_picture(recorded(DAY), LIMITS)
    assert full.shape == empty.shape
    assert full.dtype == np.uint8
    changed = (full != empty).any(axis=2)
    lanes = changed[40:580, 130:1184]
    assert lanes.any(axis=0).mean() > 0.7
    assert changed[590:740, 130:1184].sum() > 200


def test_a_dashboard_changes_with_the_state_and_leaves_the_frame_as_it_is() -> None:
    first, last = (watch(stretches)[-1] for stretches in ([rest(1)], [rest(1), shut(3.5)]))
    before = FRAME.copy()
    awake, asleep = (draw_dashboard(FRAME, state, Sitter().landmarks(Face()), LIMITS) for state in (first, last))
    assert (before == FRAME).all()
    assert awake.shape == asleep.shape == (480, 880, 3)
    # Red letters: what is raised.
    red = (asleep[:, 640:, 2].astype(int) - asleep[:, 640:, 1] > 120).sum() - (
        awake[:, 640:, 2].astype(int) - awake[:, 640:, 1] > 120
    ).sum()
    assert red > 50


@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98], ids=lambda schema: schema.name)
def test_a_dashboard_outlines_the_face_and_nothing_else_of_the_frame(schema: LandmarkSchema) -> None:
    landmarks, state = Sitter(schema=schema).landmarks(Face()), watch([rest(0.1)])[-1]
    drawn = (draw_dashboard(FRAME, state, landmarks, LIMITS)[:, :640] != FRAME).any(axis=2)
    lids = [index for curve in schema.curves if curve.name.endswith("_eye") for index in curve.indices]
    x, y = np.rint(landmarks.points_px[lids]).astype(int).T
    assert len(lids) >= 12
    assert drawn[y, x].all()
    rows, columns = np.nonzero(drawn)
    low, high = landmarks.points_px.min(axis=0) - 2, landmarks.points_px.max(axis=0) + 2
    assert (low <= [columns.min(), rows.min()]).all()
    assert ([columns.max(), rows.max()] <= high).all()
    assert not (draw_dashboard(FRAME, state, None, LIMITS)[:, :640] != FRAME).any()


@pytest.mark.parametrize("size", [(120, 160), (360, 640), (1080, 1920)])
def test_a_dashboard_has_one_size_for_every_state(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    shapes = {draw_dashboard(frame, state, None, LIMITS).shape for state in watch([rest(0.1), lost(2.5), shut(0.1)])}
    assert shapes == {(max(size[0], 360), size[1] + 240, 3)}
