"""The state of the driver beside the picture: lids, PERCLOS, mouth, head, what is raised."""

from __future__ import annotations

import cv2
import numpy as np

from lmedge.apps.driver.drive_picture import CURVE_BGR, event_color
from lmedge.apps.driver.monitor import FrameState
from lmedge.apps.driver.thresholds import DriverThresholds
from lmedge.data.drawing import BACKGROUND_BGR, FAINT_BGR, TEXT_BGR, Color, Image, draw_outlines, fitted_text, write_text
from lmedge.landmarks import Landmarks
from lmedge.preprocess import check_image

PANEL_PX = 240
_LEAST_HEIGHT_PX = 360
_MARGIN_PX, _BAR_PX, _ROW_PX, _DIAL_PX = 14, 10, 38, 108
_TRACK_BGR, _LIMIT_BGR, _POINT_BGR = (62, 62, 62), (80, 80, 220), (120, 220, 120)
# Angles at the edge of the dial.
_DIAL_YAW_DEG, _DIAL_PITCH_DEG = 60.0, 40.0
_PERCLOS_AT_END = 0.4
_NOTE = "Not a certified safety function"


def draw_dashboard(image_bgr: Image, state: FrameState, landmarks: Landmarks | None, thresholds: DriverThresholds) -> Image:
    """A copy of the frame with the outlines of the driver's face, and beside it a panel of 240 px.

    Returns:
        uint8 (max(H, 360), W + 240, 3); the same size for every frame of a video.

    Raises:
        InputError: not an image.
    """
    frame = check_image(image_bgr)
    height, width = frame.shape[:2]
    room_px = max(_LEAST_HEIGHT_PX - height, 0)
    background = cv2.copyMakeBorder(frame, 0, room_px, 0, PANEL_PX, cv2.BORDER_CONSTANT, value=BACKGROUND_BGR)
    picture = np.asarray(background, np.uint8)
    if landmarks is not None:
        draw_outlines(picture[:height, :width], landmarks.points_px, _POINT_BGR, landmarks.schema)
    _draw_panel(picture[:, width:], state, thresholds)
    return picture


def _draw_panel(panel: Image, state: FrameState, limits: DriverThresholds) -> None:
    y = 24
    write_text(panel, f"{state.time_s:8.2f} s   eyes {state.eyes}", (_MARGIN_PX, y), TEXT_BGR)
    y = _draw_bar(panel, y + 22, "lids closed", state.closure, 1.0, (limits.half_shut, limits.shut))
    y = _draw_bar(panel, y, "PERCLOS", state.perclos, _PERCLOS_AT_END, (limits.perclos_awake, limits.perclos_drowsy))
    y = _draw_bar(panel, y, "mouth open", state.mouth_opening, 1.0, (limits.yawn_opening,))
    y = _draw_dial(panel, y, state, limits)
    for text, color in _notices(state):
        write_text(panel, fitted_text(text, PANEL_PX - 2 * _MARGIN_PX), (_MARGIN_PX, y), color)
        y += 16
    write_text(panel, _NOTE, (_MARGIN_PX, panel.shape[0] - 8), FAINT_BGR, 0.34)


def _notices(state: FrameState) -> list[tuple[str, Color]]:
    notices = [(kind.upper(), event_color(kind)) for kind in state.active]
    if state.degraded:
        notices.append((f"eyes not seen: {', '.join(state.degraded)}", FAINT_BGR))
    if not state.face:
        notices.append(("no face", FAINT_BGR))
    elif not state.ready and not state.degraded:
        notices.append(("learning the face at rest", FAINT_BGR))
    return notices


def _draw_bar(panel: Image, y: int, name: str, value: float | None, at_end: float, limits: tuple[float, ...]) -> int:
    """Returns where the next row begins."""
    left, right = _MARGIN_PX, PANEL_PX - _MARGIN_PX

    def x_of(amount: float) -> int:
        return round(left + (right - left) * min(max(amount / at_end, 0.0), 1.0))

    write_text(panel, f"{name}   {'-' if value is None else format(value, '.2f')}", (left, y), TEXT_BGR)
    top = y + 6
    cv2.rectangle(panel, (left, top), (right, top + _BAR_PX), _TRACK_BGR, cv2.FILLED)
    if value is not None:
        cv2.rectangle(panel, (left, top), (x_of(value), top + _BAR_PX), CURVE_BGR, cv2.FILLED)
    for limit in limits:
        cv2.line(panel, (x_of(limit), top - 2), (x_of(limit), top + _BAR_PX + 2), _LIMIT_BGR, 1)
    return y + _ROW_PX


def _draw_dial(panel: Image, y: int, state: FrameState, limits: DriverThresholds) -> int:
    """The head as a dot; the rectangle is the road. As the camera sees it: the driver's left is on the right."""
    write_text(panel, f"head   {state.zone or '-'}   away {state.away_s:.1f} s", (_MARGIN_PX, y), TEXT_BGR)
    top, left, right = y + 8, _MARGIN_PX, PANEL_PX - _MARGIN_PX

    def place(yaw_deg: float, pitch_deg: float) -> tuple[int, int]:
        across = min(max(yaw_deg / _DIAL_YAW_DEG, -1.0), 1.0)
        along = min(max(pitch_deg / _DIAL_PITCH_DEG, -1.0), 1.0)
        return round((left + right) / 2 + across * (right - left) / 2), round(top + (1 - along) * _DIAL_PX / 2)

    cv2.rectangle(panel, (left, top), (right, top + _DIAL_PX), _TRACK_BGR, 1)
    road_yaw, road_pitch = limits.road_yaw_deg, limits.road_pitch_deg
    cv2.rectangle(panel, place(-road_yaw, road_pitch), place(road_yaw, -road_pitch), FAINT_BGR, 1)
    if state.yaw_deg is not None and state.pitch_deg is not None:
        cv2.circle(panel, place(state.yaw_deg, state.pitch_deg), 5, CURVE_BGR, cv2.FILLED, cv2.LINE_AA)
    return top + _DIAL_PX + 22
