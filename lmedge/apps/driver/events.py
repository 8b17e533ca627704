"""What the driver monitor reports: events, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from lmedge.apps.driver.thresholds import NOT_CERTIFIED, DriverThresholds
from lmedge.errors import DataError, InputError

BLINK, CLOSURE, MICROSLEEP, SLEEP = "blink", "closure", "microsleep", "sleep"
DROWSY, YAWN = "drowsy", "yawn"
LONG_DISTRACTION, SHORT_GLANCES = "long-distraction", "short-glances"
NO_FACE, DEGRADED = "no-face", "degraded"
KINDS = (BLINK, CLOSURE, MICROSLEEP, SLEEP, DROWSY, YAWN, LONG_DISTRACTION, SHORT_GLANCES, NO_FACE, DEGRADED)

RAISED, ENDED = "raised", "ended"
# Why an event ended: it was seen to be over; what it is about could no longer be seen; the clock went back; the drive ended.
OVER, LOST, CLOCK, STOPPED = "over", "lost", "clock", "stopped"


@dataclass(frozen=True)
class DriverEvent:
    """Something that began, grew worse or ended.

    Eyes that stay shut climb from closure to microsleep to sleep, each raised once; one "ended" of the highest closes them
    all. A blink is told when it is over.

    Attributes:
        kind: one of `KINDS`.
        phase: "raised" or "ended".
        time_s: of the frame in which it was told.
        start_s: when the thing began.
        seen_s: for how long it was seen; not longer than from its start to its end, for time unseen does not count. Of "drowsy"
            and "short-glances", which look back on a window, for how long they stood.
        end_s: when it ended; None while it lasts.
        reason: why it ended ("over", "lost", "clock", "stopped"), or, of a raised "degraded", what is wrong.
        value: PERCLOS of "drowsy", seconds away from the road of "short-glances".
    """

    kind: str
    phase: str
    time_s: float
    start_s: float
    seen_s: float
    end_s: float | None = None
    reason: str | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.phase not in (RAISED, ENDED) or (self.end_s is None) != (self.phase == RAISED):
            raise InputError(f"A DriverEvent is raised without an end or ended with one, its kind one of {KINDS}; got {self}.")

    def to_json(self) -> dict[str, Any]:
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: value if isinstance(value, str) else round(float(value), 4) for name, value in known.items()}


class EventLog:
    """Writes events as JSON lines; each is on disk when `write` returns, so that a killed drive loses none.

    The first line has kind "drive": the thresholds, and that this is no certified safety function.
    """

    def __init__(self, path: str | Path, thresholds: DriverThresholds) -> None:
        """
        Raises:
            DataError: the file cannot be written.
        """
        self.path = Path(path)
        try:
            self._file: TextIO = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"Cannot write events to {path}: {error.strerror}. Name a file in a folder that exists.") from error
        self._line({"kind": "drive", "statement": NOT_CERTIFIED, "thresholds": thresholds.to_json()})

    def write(self, *events: DriverEvent) -> None:
        """
        Raises:
            DataError: the disk is full, or gone.
        """
        for event in events:
            self._line(event.to_json())

    def _line(self, document: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(document) + "\n")
            self._file.flush()
        except OSError as error:
            # What is left in the buffer cannot be written either; the file is closed all the same.
            with suppress(OSError):
                self._file.close()
            raise DataError(f"Cannot write events to {self.path}: {error.strerror}. What came before is in it.") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_events(path: str | Path) -> list[DriverEvent]:
    """The events of a file that `EventLog` wrote; a last line that was cut off is left out.

    Raises:
        DataError: no such file, or a line that is no event.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read events from {path}: {error}.") from error
    events = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            document = json.loads(line)
            if document["kind"] != "drive":
                events.append(DriverEvent(**document))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number}: expected an event of the driver monitor; {error}.") from error
    return events
