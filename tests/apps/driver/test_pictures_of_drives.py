"""From pictures to a record: the driver among the faces, the summary, the dashboard, the picture of the drive."""

from __future__ import annotations

from dataclasses import dataclass
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
from lmedge.landmarks import Landmarks
from lmedge.schemas import IBUG_68
from tests.apps.driver.drives import Stretch, lost, rest, rested_monitor, shut, watch
from tests.apps.heads import Face, Sitter

LIMITS = DriverThresholds()
FRAME = np.full((480, 640, 3), 128, np.uint8)
DAY = [rest(4), shut(0.2), rest(2), shut(1.4), rest(1), lost(3), rest(2), Stretch(1, Face(mouth_gap_mm=60))]


@dataclass(frozen=True)
class Found:
    landmarks: Landmarks


class GivenFaces:
    """A tracker that finds what it is told."""

    def __init__(self) -> None:
        self.faces: list[Found] = []

    def update(self, image_bgr: np.ndarray, time_s: float) -> list[Found]:
        return self.faces


def recorded(stretches: list[Stretch]) -> DriveRecord:
    monitor = rested_monitor()
    record = DriveRecord(LIMITS)
    for state in watch(stretches, monitor=monitor):
        record.add(state)
    record.add_events(monitor.finish())
    return record


def test_the_driver_is_the_largest_face_and_what_happens_is_logged_and_recorded(tmp_path: Path) -> None:
    tracker, sitter = GivenFaces(), Sitter()
    passenger = sitter.points_px(Face()) * 0.4
    with EventLog(tmp_path / "events.jsonl", LIMITS) as log:
        drive = Drive(tracker, DriverMonitor(IBUG_68), log=log)  # type: ignore[arg-type]
        for index in range(180):
            closure = 1.0 if index >= 120 else 0.0
            small = Landmarks(passenger.astype(np.float32), IBUG_68, sitter.landmarks(Face()).box)
            tracker.faces = [Found(small), Found(sitter.landmarks(Face(closure=closure)))]
            # The box of the small face is drawn around its own points.
            tracker.faces[0] = Found(Landmarks(small.points_px, IBUG_68, type(small.box).around(small.points_px)))
            shown = drive.show(FRAME, index / 30)
        assert drive.landmarks is tracker.faces[1].landmarks
        tracker.faces = []
        assert drive.update(FRAME, 6.0).face is False
        drive.finish()
    assert shown.shape == (480, 640 + 240, 3)
    kinds = [(event.kind, event.phase) for event in read_events(log.path)]
    assert kinds == [("closure", "raised"), ("microsleep", "raised"), ("microsleep", "ended")]
    assert drive.record.summary().counts == {"microsleep": 1}


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


@pytest.mark.parametrize("size", [(120, 160), (360, 640), (1080, 1920)])
def test_a_dashboard_has_one_size_for_every_state(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    shapes = {draw_dashboard(frame, state, None, LIMITS).shape for state in watch([rest(0.1), lost(2.5), shut(0.1)])}
    assert shapes == {(max(size[0], 360), size[1] + 240, 3)}
