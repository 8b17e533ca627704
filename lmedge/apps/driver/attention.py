"""Where the driver looks, by the head alone: zones, long distraction, many short glances.

Eyes that leave the road under a head that stays ("lizard" glances) are not seen by this; heads that turn ("owl") are.
"""

from __future__ import annotations

from lmedge.apps.driver.events import LONG_DISTRACTION, SHORT_GLANCES, DriverEvent
from lmedge.apps.driver.thresholds import DriverThresholds
from lmedge.apps.driver.timing import ROUNDING_S, LastingCondition, StandingAlarm, TimeShare

ROAD, LEFT, RIGHT, UP, DOWN = "road", "left", "right", "up", "down"
ZONES = (ROAD, LEFT, RIGHT, UP, DOWN)


def attention_zone(yaw_deg: float, pitch_deg: float, before: str | None, thresholds: DriverThresholds) -> str:
    """The zone of a head: the road, or the side that it is turned to most; left and right are the driver's.

    Args:
        yaw_deg, pitch_deg: against the driver's own rest; yaw > 0 to the viewer's right, pitch > 0 up.
        before: zone of the last frame; from outside, the road begins `road_margin_deg` farther in.
        thresholds: the borders.
    """
    margin = 0.0 if before in (None, ROAD) else thresholds.road_margin_deg
    across = abs(yaw_deg) / (thresholds.road_yaw_deg - margin)
    along = abs(pitch_deg) / (thresholds.road_pitch_deg - margin)
    if max(across, along) <= 1:
        return ROAD
    if across >= along:
        # The camera faces the driver: its right is the driver's left.
        return LEFT if yaw_deg > 0 else RIGHT
    return UP if pitch_deg > 0 else DOWN


class AttentionWatch:
    """Events about a head that is turned away from the road.

    Where it turns so far that no face is found, they end as lost, and "no-face" is raised instead.
    """

    def __init__(self, thresholds: DriverThresholds) -> None:
        gap_s = thresholds.longest_gap_s
        self._thresholds = thresholds
        self._away = LastingCondition(((thresholds.long_distraction_s, LONG_DISTRACTION),), gap_s)
        self._back = LastingCondition((), gap_s)
        self._share = TimeShare(thresholds.distraction_window_s, gap_s)
        self._glances = StandingAlarm(SHORT_GLANCES, gap_s)
        self._zone: str | None = None

    @property
    def away_s(self) -> float:
        """Seconds away from the road that count at present."""
        return self._share.held_s

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is raised at present."""
        return tuple(kind for kind in (self._away.kind, self._glances.kind) if kind)

    def update(self, time_s: float, angles_deg: tuple[float, float] | None) -> tuple[str | None, list[DriverEvent]]:
        """Takes a frame in; the zone and events.

        Args:
            time_s: of the frame; times rise.
            angles_deg: yaw and pitch of the head against its rest, None where they are not known.
        """
        if angles_deg is None:
            zone, away = None, None
        else:
            self._zone = zone = attention_zone(*angles_deg, self._zone, self._thresholds)
            away = zone != ROAD
        events = self._away.update(time_s, away)
        self._share.update(time_s, away)
        self._back.update(time_s, None if away is None else not away)
        if self._back.lasted_s >= self._thresholds.distraction_reset_s - ROUNDING_S:
            self._share.clear()
        enough = self._share.held_s >= self._thresholds.distraction_sum_s - ROUNDING_S
        # Glances that grow old while nobody sees the head have not been seen to be over.
        up = None if away is None and not enough else enough
        return zone, events + self._glances.update(time_s, up, self._share.held_s)

    def stop(self, time_s: float, reason: str) -> list[DriverEvent]:
        """Ends what is raised, and forgets all."""
        self._back.stop(time_s, reason)
        self._share.clear()
        self._zone = None
        return self._away.stop(time_s, reason) + self._glances.stop(time_s, reason)
