"""A drive as one picture: lids, PERCLOS, head and mouth over time with their limits, and a line for each kind of event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lmedge.apps.driver.events import BLINK, DEGRADED, KINDS, MICROSLEEP, NO_FACE, SLEEP
from lmedge.apps.driver.record import DriveRecord, DriveRow
from lmedge.apps.driver.thresholds import NOT_CERTIFIED, DriverThresholds
from lmedge.data.drawing import BACKGROUND_BGR, FAINT_BGR, TEXT_BGR, Color, Image, fitted_text, write_text

WIDTH_PX = 1200
_LEFT_PX, _RIGHT_PX, _TITLE_PX, _LANE_PX, _GAP_PX, _EVENT_PX, _FOOT_PX = 130, 16, 34, 96, 14, 16, 46
_GRID_BGR, _LIMIT_BGR = (62, 62, 62), (80, 80, 220)
CURVE_BGR: Color = (210, 165, 85)
_SMALL = 0.36
# Rows farther apart than this are not joined by a line.
_JOINED_S = 1.0
_MOST_TICKS = 10


@dataclass(frozen=True)
class _Lane:
    name: str
    low: float
    high: float
    limits: tuple[float, ...]
    value: Callable[[DriveRow], float | None]


def event_color(kind: str) -> Color:
    """Red for what is dangerous, gray for what cannot be seen, green for what is ordinary."""
    if kind == BLINK:
        return (120, 190, 120)
    if kind in (NO_FACE, DEGRADED):
        return (150, 150, 150)
    return (70, 70, 235) if kind in (MICROSLEEP, SLEEP) else (60, 165, 245)


def drive_picture(record: DriveRecord, thresholds: DriverThresholds, title: str = "Drive") -> Image:
    """uint8 (H, 1200, 3) BGR: the course of a drive; an empty record gives empty lanes."""
    lanes = _lanes(thresholds)
    # A clock that was set back draws over what was there.
    times_s = [row.time_s for row in record.rows] or [0.0]
    first_s, last_s = min(times_s), max(*times_s, min(times_s) + 1.0)
    events_top = _TITLE_PX + len(lanes) * (_LANE_PX + _GAP_PX)
    height = events_top + len(KINDS) * _EVENT_PX + _FOOT_PX
    picture = np.full((height, WIDTH_PX, 3), BACKGROUND_BGR, np.uint8)

    def x_of(time_s: float) -> int:
        part = (min(max(time_s, first_s), last_s) - first_s) / (last_s - first_s)
        return round(_LEFT_PX + part * (WIDTH_PX - _LEFT_PX - _RIGHT_PX))

    write_text(picture, fitted_text(f"{title}: {_words(record)}", WIDTH_PX - 20), (10, _TITLE_PX - 12), TEXT_BGR)
    for number, lane in enumerate(lanes):
        _draw_lane(picture, lane, record.rows, _TITLE_PX + number * (_LANE_PX + _GAP_PX), x_of)
    _draw_events(picture, record, events_top, x_of)
    _draw_time_axis(picture, first_s, last_s, x_of)
    write_text(picture, fitted_text(NOT_CERTIFIED, WIDTH_PX - 20), (10, height - 8), FAINT_BGR, _SMALL)
    return picture


def _lanes(limits: DriverThresholds) -> tuple[_Lane, ...]:
    road_yaw, road_pitch = limits.road_yaw_deg, limits.road_pitch_deg
    return (
        _Lane("lids closed", 0.0, 1.0, (limits.half_shut, limits.shut), lambda row: row.closure),
        _Lane("PERCLOS", 0.0, 0.4, (limits.perclos_awake, limits.perclos_drowsy), lambda row: row.perclos),
        _Lane("yaw, degrees", -60.0, 60.0, (-road_yaw, road_yaw), lambda row: row.yaw_deg),
        _Lane("pitch, degrees", -40.0, 40.0, (-road_pitch, road_pitch), lambda row: row.pitch_deg),
        _Lane("mouth open", 0.0, 1.0, (limits.yawn_opening,), lambda row: row.mouth_opening),
    )


def _words(record: DriveRecord) -> str:
    summary = record.summary()
    seen = summary.eyes_s / summary.seconds if summary.seconds else 0.0
    counts = ", ".join(f"{count} {kind}" for kind, count in summary.counts.items()) or "no events"
    return f"{summary.seconds:.0f} s, eyes seen {seen:.0%}; {counts}"


def _draw_lane(picture: Image, lane: _Lane, rows: Sequence[DriveRow], top: int, x_of: Callable[[float], int]) -> None:
    bottom, right = top + _LANE_PX, WIDTH_PX - _RIGHT_PX

    def y_of(value: float) -> int:
        part = (min(max(value, lane.low), lane.high) - lane.low) / (lane.high - lane.low)
        return round(bottom - part * _LANE_PX)

    cv2.rectangle(picture, (_LEFT_PX, top), (right, bottom), _GRID_BGR, 1)
    write_text(picture, lane.name, (10, top + 16), TEXT_BGR, _SMALL)
    for limit in lane.limits:
        cv2.line(picture, (_LEFT_PX, y_of(limit)), (right, y_of(limit)), _LIMIT_BGR, 1)
        write_text(picture, f"{limit:g}", (_LEFT_PX - 40, y_of(limit) + 4), FAINT_BGR, _SMALL)
    before: tuple[float, tuple[int, int]] | None = None
    for row in rows:
        value = lane.value(row)
        if value is None:
            before = None
            continue
        place = (x_of(row.time_s), y_of(value))
        joined = before is not None and 0 < row.time_s - before[0] <= _JOINED_S
        cv2.line(picture, before[1] if before is not None and joined else place, place, CURVE_BGR, 1, cv2.LINE_AA)
        before = (row.time_s, place)


def _draw_events(picture: Image, record: DriveRecord, top: int, x_of: Callable[[float], int]) -> None:
    for number, kind in enumerate(KINDS):
        y = top + number * _EVENT_PX
        write_text(picture, kind, (10, y + 11), TEXT_BGR, _SMALL)
        cv2.line(picture, (_LEFT_PX, y + 7), (WIDTH_PX - _RIGHT_PX, y + 7), _GRID_BGR, 1)
        for event in record.events:
            if event.kind == kind:
                # What was raised reaches to the frame that told so; its end is drawn over it.
                end_s = event.time_s if event.end_s is None else event.end_s
                left, right = x_of(event.start_s), max(x_of(end_s), x_of(event.start_s) + 2)
                cv2.rectangle(picture, (left, y + 3), (right, y + 11), event_color(kind), cv2.FILLED)


def _draw_time_axis(picture: Image, first_s: float, last_s: float, x_of: Callable[[float], int]) -> None:
    y = picture.shape[0] - _FOOT_PX + 16
    steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
    step = next((step for step in steps if (last_s - first_s) / step <= _MOST_TICKS), steps[-1])
    for passed_s in range(0, int(last_s - first_s) + 1, step):
        write_text(picture, _clock(passed_s), (x_of(first_s + passed_s) - 8, y), FAINT_BGR, _SMALL)


def _clock(seconds: int) -> str:
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60}:{seconds % 60:02d}"
