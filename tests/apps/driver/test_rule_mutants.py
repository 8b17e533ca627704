"""A rule that cannot be broken unseen: each mutant of the code is caught by the check that it is assigned to.

A mutant is a module with one place of its source replaced, its methods put into the classes that the monitor uses.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable

import pytest

from lmedge.apps import blinks, expression
from lmedge.apps.driver import FaceSight, attention, drive, events, eyelids, monitor, timing
from lmedge.data.synthetic.camera import HeadPose
from tests.apps import test_expression
from tests.apps.driver import test_attention, test_eyes, test_monitor, test_pictures_of_drives, test_rules
from tests.apps.driver.drives import SUNGLASSES, Stretch
from tests.apps.heads import Face


def rule(check: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: check(*arguments)


MUTANTS: dict[str, tuple[types.ModuleType, str, str, Callable[[], None]]] = {
    "counts whole intervals where the condition begins": (
        timing, "True, time_s - half_s, 0.0, 0", "True, time_s - half_s, half_s, 0",
        rule(test_rules.test_as_long_as_the_threshold_is_raised_once_and_ended_once, "yawn", 10),
    ),
    "forgets the half interval at the end": (
        timing, "self._see(half_s, self._known_s + half_s)", "self._see(0.0, self._known_s)",
        rule(test_rules.test_as_long_as_the_threshold_is_raised_once_and_ended_once, "yawn", 10),
    ),
    "raises on every frame": (
        timing, "            self._reached += 1", "            break",
        rule(test_rules.test_as_long_as_the_threshold_is_raised_once_and_ended_once, "no-face", 30),
    ),
    "counts time without frames": (
        timing, "if self._held and time_s - self._known_s > self._longest_gap_s:", "if self._held and False:",
        rule(test_rules.test_a_face_lost_for_longer_ends_it_where_it_was_last_seen, "long-distraction"),
    ),
    "counts unseen time as seen": (
        timing, "if self._held and self._known_s == self._last_s:", "if self._held:",
        rule(test_rules.test_a_face_lost_for_a_moment_pauses_what_lasts, "microsleep"),
    ),
    "keeps more than the window": (
        timing, "<= time_s - self._window_s + ROUNDING_S", "<= time_s - 2 * self._window_s",
        rule(test_eyes.test_perclos_forgets_what_is_older_than_a_minute),
    ),
    "PERCLOS counts frames, not seconds": (
        timing, "self._append(time_s, passed_s / 2 * len(known), passed_s / 2 * sum(known))",
        "self._append(time_s, 1 / 30, bool(holds) / 30)",
        rule(test_eyes.test_perclos_is_the_share_of_the_last_minute, 10, 0.2),
    ),
    "unseen eyes are shut": (
        monitor, "closure = None if reasons else self._closure(ratios)", "closure = self._closure(ratios)",
        rule(test_eyes.test_eyes_that_are_not_seen_are_never_shut, Stretch(5, Face(closure=1.0), SUNGLASSES), "sunglasses"),
    ),
    "a turned head's eyes are believed": (
        monitor, "abs(pose.yaw_deg) > limits.eyes_yaw_deg or ", "",
        rule(
            test_eyes.test_eyes_that_are_not_seen_are_never_shut,
            Stretch(5, Face(closure=1.0, pose=HeadPose(41, 0, 0))), "head-turned",
        ),
    ),
    "unsure points are believed": (
        monitor, "< limits.eye_confidence", "< 0 * limits.eye_confidence",
        rule(
            test_eyes.test_eyes_that_are_not_seen_are_never_shut,
            Stretch(5, Face(closure=1.0), confidence=0.45), "eyes-unsure",
        ),
    ),
    "the more shut eye counts": (
        expression, "1 - max(self.right_eye, self.left_eye)", "1 - min(self.right_eye, self.left_eye)",
        rule(test_eyes.test_a_wink_shuts_no_eyes),
    ),
    "the clock is not looked at": (
        monitor, "events = [] if before is None or time_s > before.time_s else self._stop(before.time_s, CLOCK)", "events = []",
        rule(test_rules.test_a_clock_set_back_ends_what_is_raised_and_says_why),
    ),
    "the same frame counts twice": (
        monitor, "time_s == before.time_s", "time_s == before.time_s + 1",
        rule(test_rules.test_the_same_frame_twice_changes_nothing),
    ),
    "the minute survives a clock set back": (
        monitor, "        self._perclos.clear()\n", "",
        rule(test_eyes.test_a_clock_that_is_set_empties_the_minute, -20.0),
    ),
    "drowsy ends where it begins": (
        monitor, "border = limits.perclos_awake if self._drowsy.kind else limits.perclos_drowsy",
        "border = limits.perclos_drowsy",
        rule(test_eyes.test_drowsy_is_over_below_the_band_of_the_awake),
    ),
    "the road is where the camera is": (
        monitor, "pose.yaw_deg - self._rest.yaw_deg", "pose.yaw_deg",
        rule(test_monitor.test_the_road_is_where_the_driver_looks_at_rest_not_where_the_camera_is),
    ),
    "shut eyes end at once below four fifths": (
        eyelids, "elif closure < self._thresholds.half_shut:", "else:",
        rule(test_eyes.test_eyes_are_shut_from_four_fifths_until_they_are_half_open),
    ),
    "a closure is a blink too": (
        eyelids, "if blink is not None and not events:", "if blink is not None:",
        rule(test_eyes.test_a_closure_is_no_blink_however_short),
    ),
    "blinks begin at the frame, not between frames": (
        blinks, "self._start_s = self._crossing_s(time_s, closure) if follows else time_s", "self._start_s = time_s",
        rule(test_eyes.test_eyes_shut_for_a_moment_are_one_blink_of_that_length, 15, 0.1),
    ),
    "droops of any length are blinks": (
        blinks, "<= self._longest_s else", "<= 99 else",
        rule(test_eyes.test_lids_that_droop_for_longer_than_a_blink_are_none, 0.6, 0),
    ),
    "noise of one frame is a blink": (
        blinks, "blink if self._shortest_s <= blink", "blink if 0 <= blink",
        rule(test_eyes.test_a_blink_of_a_single_noisy_frame_is_none),
    ),
    "left and right are the viewer's": (
        attention, "LEFT if yaw_deg > 0 else RIGHT", "RIGHT if yaw_deg > 0 else LEFT",
        rule(test_attention.test_zones_begin_at_their_angles_and_sides_are_the_drivers, 30, -19, "left"),
    ),
    "no margin on the way back": (
        attention, "margin = 0.0 if before in (None, ROAD) else thresholds.road_margin_deg", "margin = 0.0",
        rule(test_attention.test_a_head_is_back_on_the_road_only_a_little_inside),
    ),
    "glances are never forgotten": (
        attention, "            self._share.clear()\n        enough", "            pass\n        enough",
        rule(test_attention.test_two_seconds_on_the_road_make_glances_forgotten, 2.1, False),
    ),
    "a lost face looks away": (
        attention, "zone, away = None, None", "zone, away = None, True",
        rule(test_attention.test_a_face_lost_on_the_way_is_neither_away_nor_back),
    ),
    "the head's angles are not taken off": (
        expression, "self.right_eye.opening(points) * foreshortening(angles, self._right_across)",
        "self.right_eye.opening(points)",
        rule(test_expression.test_a_turn_of_the_head_leaves_an_opening_as_it_is, -40.0),
    ),
    "what a shut eye leaves is not taken off": (
        expression, "(ratios.left_eye / rest.left_eye - shut_eye_part) / (1 - shut_eye_part)",
        "ratios.left_eye / rest.left_eye",
        rule(test_monitor.test_a_network_that_never_draws_the_lids_together_is_read_by_what_it_leaves),
    ),
    "the ends of a blink are those of frames": (
        blinks, "part = (self._half_shut - self._closure) / (closure - self._closure)", "part = 1.0",
        rule(test_eyes.test_the_ends_of_a_blink_lie_between_frames),
    ),
    "a blink runs on over a gap": (
        blinks, "            self.forget()\n        if closure is None:", "            pass\n        if closure is None:",
        rule(test_eyes.test_a_blink_does_not_run_on_over_time_without_frames),
    ),
    "eyes are still shut after a gap": (
        eyelids, "            self._shut = False\n        if closure is", "            pass\n        if closure is",
        rule(test_eyes.test_eyes_that_were_shut_before_a_gap_are_looked_at_anew),
    ),
    "a frame between unseen ones counts for nothing": (
        timing, "            self._see(half_s, time_s)\n", "            self._see(0.0, time_s)\n",
        rule(test_rules.test_what_is_seen_in_every_other_frame_counts_for_half_of_the_time, "microsleep"),
    ),
    "a share knows nothing beside unseen frames": (
        timing, "if answer is not None]", "if answer is not None and None not in (self._last, holds)]",
        rule(test_eyes.test_perclos_counts_the_seen_half_of_flickering_eyes),
    ),
    "an alarm lasts over a gap": (
        timing, "time_s if follows else before_s", "time_s",
        rule(test_rules.test_an_alarm_that_a_gap_ends_is_lost_where_it_was_last_seen, 3600.0),
    ),
    "what grew old unseen is over": (
        attention, "up = None if away is None and not enough else enough", "up = enough",
        rule(test_attention.test_short_glances_that_grow_old_unseen_are_lost_and_not_over),
    ),
    "eyes that were never open are waited for in silence": (
        monitor, "reasons += (NEVER_OPEN,)", "pass",
        rule(test_monitor.test_eyes_that_are_never_open_are_told_and_not_waited_for_in_silence),
    ),
    "what is outside the picture is dark": (
        monitor, "if math.isnan(sight.cheeks):", "if False:",
        rule(
            test_eyes.test_eyes_that_are_not_seen_are_never_shut,
            Stretch(5, Face(closure=1.0), FaceSight(float("nan"), float("nan"))), "outside-picture",
        ),
    ),
    "whole seconds are no numbers": (
        events, "if value is not None}", "if isinstance(value, float | str)}",
        rule(test_monitor.test_whole_seconds_are_written_too),
    ),
    "the larger face is the driver at once": (
        drive, "(_TAKES_OVER if face.identity == self._identity else 1.0)", "1.0",
        rule(test_pictures_of_drives.test_the_driver_stays_the_driver_until_another_face_is_twice_as_large),
    ),
    "the tracker's clock runs back": (
        drive, "self._ahead_s += self.state.time_s - time_s + _STEP_S", "pass",
        rule(test_pictures_of_drives.test_a_clock_set_back_reaches_the_monitor_and_not_the_tracker),
    ),
}  # fmt: skip


def mutate(patch: pytest.MonkeyPatch, module: types.ModuleType, old: str, new: str) -> None:
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"The mutant's place occurs {source.count(old)} times in {module.__name__}."
    mutant = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__name__, "exec"), mutant.__dict__)
    for name, changed in vars(mutant).items():
        if isinstance(changed, type) and changed.__module__ == module.__name__ and not issubclass(changed, tuple):
            original = getattr(module, name)
            for attribute, value in vars(changed).items():
                if isinstance(value, types.FunctionType | property) and attribute in vars(original):
                    patch.setattr(original, attribute, value)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_caught_by_its_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, old, new, check = MUTANTS[name]
    mutate(monkeypatch, module, old, new)
    with pytest.raises((AssertionError, StopIteration, ValueError)):
        check()
