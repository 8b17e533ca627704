"""A driver monitor on landmarks and head pose: blinks, PERCLOS, microsleep, yawns, distraction; events as JSON lines.

Not a certified safety function: an example of what landmarks are for, with every threshold and its source in one place
(`DriverThresholds`). All rules are in seconds, for any camera from 10 frames per second.
"""

from __future__ import annotations

from lmedge.apps.driver.dashboard import draw_dashboard
from lmedge.apps.driver.drive import Drive
from lmedge.apps.driver.drive_picture import drive_picture
from lmedge.apps.driver.events import DriverEvent, EventLog, read_events
from lmedge.apps.driver.monitor import DriverMonitor, FrameState
from lmedge.apps.driver.network_lids import shut_eye_part_of
from lmedge.apps.driver.record import DriveRecord, DriveSummary
from lmedge.apps.driver.sight import FaceSight, SightMeter
from lmedge.apps.driver.thresholds import NOT_CERTIFIED, DriverThresholds

__all__ = [
    "NOT_CERTIFIED",
    "Drive",
    "DriveRecord",
    "DriveSummary",
    "DriverEvent",
    "DriverMonitor",
    "DriverThresholds",
    "EventLog",
    "FaceSight",
    "FrameState",
    "SightMeter",
    "draw_dashboard",
    "drive_picture",
    "read_events",
    "shut_eye_part_of",
]
