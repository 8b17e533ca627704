"""The numbers of a data set as one picture: histograms of head angles and sizes, subsets and split as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from lmedge.data.drawing import BACKGROUND_BGR, FAINT_BGR, TEXT_BGR, Image, fitted_text, write_text
from lmedge.data.spreads import Histogram
from lmedge.data.statistics import DataStatistics

PANEL_WIDTH_PX, PANEL_HEIGHT_PX = 420, 230

_COLUMNS = 2
_MARGIN_PX, _TITLE_PX, _AXIS_PX, _ROW_PX, _NAME_PX = 14, 30, 26, 18, 150
_BAR_BGR, _FRAME_BGR = (200, 150, 70), (70, 70, 70)
_SMALL_TEXT = 0.33
_ANGLE_NAMES = {
    "yaw_deg": "yaw, degrees (right of the viewer > 0)",
    "pitch_deg": "pitch, degrees (up > 0)",
    "roll_deg": "roll, degrees",
}


def statistics_picture(statistics: DataStatistics, title: str) -> Image:
    """uint8 (H, W, 3) BGR: one panel for each head angle, for the size of faces, and for split and subsets."""
    panels = [_histogram(_ANGLE_NAMES[name], histogram) for name, histogram in statistics.pose.items()]
    panels.append(_histogram("longer side of the labelled points, px", statistics.face_px))
    panels.append(_bars("faces", _groups(statistics)))
    if len(panels) % _COLUMNS:
        panels.append(_panel(""))
    rows = [np.hstack(panels[start : start + _COLUMNS]) for start in range(0, len(panels), _COLUMNS)]
    head = np.full((_TITLE_PX, _COLUMNS * PANEL_WIDTH_PX, 3), BACKGROUND_BGR, np.uint8)
    text = f"{title}: {statistics.count} faces in {statistics.photos} photos, {statistics.schema}"
    write_text(head, fitted_text(text, head.shape[1] - 2 * _MARGIN_PX), (_MARGIN_PX, _TITLE_PX - 10), TEXT_BGR)
    return np.vstack([head, *rows])


def _groups(statistics: DataStatistics) -> dict[str, int]:
    flagged = {
        "with missing points": statistics.unknown_faces,
        "labels outside": statistics.outside_faces,
        "unusable": len(statistics.refused),
    }
    split = {"training": statistics.training, "validation": statistics.validation}
    return split | dict(statistics.subsets) | {name: count for name, count in flagged.items() if count}


def _panel(title: str) -> Image:
    panel = np.full((PANEL_HEIGHT_PX, PANEL_WIDTH_PX, 3), BACKGROUND_BGR, np.uint8)
    write_text(panel, title, (_MARGIN_PX, _TITLE_PX - 10), FAINT_BGR)
    return panel


def _histogram(title: str, histogram: Histogram) -> Image:
    panel = _panel(title)
    left, right = _MARGIN_PX, PANEL_WIDTH_PX - _MARGIN_PX
    top, bottom = _TITLE_PX + 10, PANEL_HEIGHT_PX - _AXIS_PX
    step = (right - left) / len(histogram.counts)
    highest = max(*histogram.counts, 1)
    for index, count in enumerate(histogram.counts):
        x = left + round(index * step)
        y = bottom - round((bottom - top) * count / highest)
        if count:
            cv2.rectangle(panel, (x + 1, y), (left + round((index + 1) * step) - 1, bottom), _BAR_BGR, cv2.FILLED)
            write_text(panel, str(count), (x + 2, y - 3), TEXT_BGR, _SMALL_TEXT)
    cv2.line(panel, (left, bottom), (right, bottom), _FRAME_BGR, 1)
    for index, edge in enumerate(histogram.edges):
        text = f"{edge:g}"
        width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _SMALL_TEXT, 1)[0][0]
        x = int(np.clip(left + round(index * step) - width // 2, 0, PANEL_WIDTH_PX - width))
        write_text(panel, text, (x, bottom + 14), FAINT_BGR, _SMALL_TEXT)
    return panel


def _bars(title: str, counts: Mapping[str, int]) -> Image:
    """Bars for the first names that fit, and how many others there are."""
    panel = _panel(title)
    names: Sequence[str] = list(counts)
    fitting = (PANEL_HEIGHT_PX - _TITLE_PX) // _ROW_PX - 1
    longest = max(*counts.values(), 1)
    room = PANEL_WIDTH_PX - _NAME_PX - 4 * _MARGIN_PX
    for row, name in enumerate(names[:fitting]):
        y = _TITLE_PX + row * _ROW_PX
        write_text(panel, fitted_text(name, _NAME_PX - _MARGIN_PX), (_MARGIN_PX, y + 12), TEXT_BGR)
        end = _NAME_PX + round(room * counts[name] / longest)
        cv2.rectangle(panel, (_NAME_PX, y + 3), (end, y + 13), _BAR_BGR, cv2.FILLED)
        write_text(panel, str(counts[name]), (end + 4, y + 12), FAINT_BGR, _SMALL_TEXT)
    if len(names) > fitting:
        write_text(panel, f"and {len(names) - fitting} more", (_MARGIN_PX, _TITLE_PX + fitting * _ROW_PX + 12), FAINT_BGR)
    return panel
