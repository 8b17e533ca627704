"""Every number that the driver monitor decides by, and where it is from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from lmedge.apps.blinks import HALF_SHUT, LONGEST_GAP_S, LONGEST_S, SHORTEST_S
from lmedge.apps.expression import LEARN_S, OPEN_EYE_LEAST
from lmedge.errors import InputError

NOT_CERTIFIED = (
    "Not a certified safety function: shown to work on rendered faces and recorded video, not developed or assessed under "
    "ISO 26262, and not approved under (EU) 2021/1341, (EU) 2023/2590 or Euro NCAP."
)


@dataclass(frozen=True)
class DriverThresholds:
    """Numbers of the rules; times in seconds, angles in degrees. "Own choice" marks what no source gives.

    Figures of Euro NCAP are as reported by others; read the protocol itself before you rely on them.

    Attributes:
        shut: an eye is shut from this closure on (0 open as at rest, 1 shut). P80: Wierwille et al., "Research on
            Vehicle-Based Driver Status/Performance Monitoring", DOT HS 808 247, 1994.
        half_shut: a blink begins and ends here, and a shut eye counts as shut until it is less closed than this. Own choice:
            lids that look down lower by a third, and a blink passes half-way even where no frame meets it shut.
        shut_eye_part: what a shut eye still shows of its opening at rest, as the landmarks tell it. Measured by
            `benchmarks/driver_monitor.py`: exact points of rendered heads leave 0.05 to 0.17 on 80 % of people. Networks
            never draw the lids together and leave far more; take `network_lids.shut_eye_part_of`, or no eye is ever shut.
        blink_shortest_s: half-closures shorter than this are noise of one frame. Own choice.
        blink_longest_s: half-closures longer than this are drooping lids. Own choice, above the 0.1 to 0.4 s of blinks.
        closure_s: eyes shut for longer than a blink, 0.1 to 0.4 s: Soukupová and Čech, CVWW 2016.
        microsleep_s, sleep_s: eyes shut for 1 to 2 s, and for 3 s: Euro NCAP, Driver Engagement protocol v1.1, 2025. A closure
            of 2 to 3 s stays a microsleep, as in the protocol of 2023.
        perclos_window_s: 1 min: Dinges and Grace, "PERCLOS: A Valid Psychophysiological Measure of Alertness",
            FHWA-MCRT-98-006, 1998.
        perclos_least_seen_s: PERCLOS is not told from fewer seconds of seen eyes in the window. Own choice.
        perclos_drowsy, perclos_awake: drowsiness is raised at the one and over below the other: the bands in use since
            Wierwille's work are awake below 0.075 and drowsy above 0.15.
        yawn_opening: of the inner lips, their distance over the width of the mouth, above that at rest. Own choice: on
            rendered faces speech stays below 0.3.
        yawn_s: wide open for this long. Own choice: yawns take 3.5 s at least and about 6 s on average, speech and laughter
            open so wide for less than a second.
        road_yaw_deg, road_pitch_deg: heads turned farther than this from their rest do not look at the road: 0.4020 and
            0.3133 rad in openpilot's driver monitoring.
        road_margin_deg: a head is back on the road when it is this far inside. Own choice.
        long_distraction_s: Euro NCAP, Safe Driving v10.4: long distraction, away for 3 s.
        distraction_window_s, distraction_sum_s, distraction_reset_s: ibid., short glances: 10 s within 30 s, forgotten after
            2 s on the road.
        no_face_s, degraded_s: told after this long. Own choice; Euro NCAP asks for 10 s at most.
        eyes_yaw_deg, eyes_pitch_deg: heads turned farther than this from the camera show too little of the eyes. Own choice:
            on rendered faces the opening of the eyes follows the truth to here.
        eye_confidence: points of the eyes with a lower mean confidence are not seen, where the network gives one. Own choice.
        sunglasses_ratio: the skin under the eyes is darker than this part of the cheeks. Measured on rendered faces: below
            0.6 with 98 % of dark lenses, 2 % of clear glasses and no bare face.
        dark_level, bright_level: gray levels (0 to 255) of the cheeks; darker or brighter, the eyes cannot be seen. Own choice.
        longest_gap_s: time without a frame, or without eyes or a face, over which nothing is concluded. Own choice: 4 frames
            may be lost at 10 per second.
        learn_s: the resting face is learnt from this much. Own choice.
        open_eye_least: opening below which a resting face is not believed; drivers have 0.257 ± 0.021. Own choice.
    """

    shut: float = 0.8
    half_shut: float = HALF_SHUT
    shut_eye_part: float = 0.15
    blink_shortest_s: float = SHORTEST_S
    blink_longest_s: float = LONGEST_S
    closure_s: float = 0.4
    microsleep_s: float = 1.0
    sleep_s: float = 3.0
    perclos_window_s: float = 60.0
    perclos_least_seen_s: float = 30.0
    perclos_drowsy: float = 0.15
    perclos_awake: float = 0.075
    yawn_opening: float = 0.5
    yawn_s: float = 2.0
    road_yaw_deg: float = 23.0
    road_pitch_deg: float = 18.0
    road_margin_deg: float = 3.0
    long_distraction_s: float = 3.0
    distraction_window_s: float = 30.0
    distraction_sum_s: float = 10.0
    distraction_reset_s: float = 2.0
    no_face_s: float = 2.0
    degraded_s: float = 3.0
    eyes_yaw_deg: float = 40.0
    eyes_pitch_deg: float = 30.0
    eye_confidence: float = 0.5
    sunglasses_ratio: float = 0.6
    dark_level: float = 25.0
    bright_level: float = 250.0
    longest_gap_s: float = LONGEST_GAP_S
    learn_s: float = LEARN_S
    open_eye_least: float = OPEN_EYE_LEAST

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            zero_is_fine = name in ("shut_eye_part", "road_margin_deg", "blink_shortest_s")
            if not math.isfinite(value) or value < 0 or (value == 0 and not zero_is_fine):
                raise InputError(f"DriverThresholds.{name} must be a positive number; got {value!r}.")
        rising = (
            ("half_shut", "shut"), ("blink_shortest_s", "blink_longest_s"), ("closure_s", "microsleep_s"),
            ("microsleep_s", "sleep_s"), ("perclos_least_seen_s", "perclos_window_s"), ("perclos_awake", "perclos_drowsy"),
            ("road_margin_deg", "road_yaw_deg"), ("road_margin_deg", "road_pitch_deg"),
            ("distraction_sum_s", "distraction_window_s"), ("dark_level", "bright_level"),
        )  # fmt: skip
        for low, high in rising:
            if getattr(self, low) > getattr(self, high):
                raise InputError(
                    f"DriverThresholds.{low} must not be above {high}; got {getattr(self, low):g} and {getattr(self, high):g}."
                )
        if self.shut > 1 or self.shut_eye_part >= 1:
            raise InputError(
                "DriverThresholds.shut must be at most 1 and shut_eye_part below 1; "
                f"got {self.shut:g} and {self.shut_eye_part:g}."
            )

    def to_json(self) -> dict[str, float]:
        return asdict(self)
