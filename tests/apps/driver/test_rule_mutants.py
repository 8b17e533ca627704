"""A rule that cannot be broken unseen: each mutant of the code is caught by the check that it is assigned to.

A mutant is a module with one place of its source replaced, its methods put into the classes that the monitor uses.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable

import pytest

from lmedge.apps import expression
from lmedge.apps.driver import attention, eyelids, monitor, timing
from lmedge.data.synthetic.camera import HeadPose
from tests.apps import test_expression
from tests.apps.driver import test_attention, test_eyes, test_monitor, test_rules
from tests.apps.driver.drives import SUNGLASSES, Stretch
from tests.apps.heads import Face


def rule(check: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: check(*arguments)


MUTANTS: dict[str, tuple[types.ModuleType, str, str, Callable[[], None]]] = {
    "counts whole intervals where the condition begins": (
        timing, "self._start_s = time_s - (passed_s / 2 if follows else 0.0)",
        "self._start_s = time_s - (passed_s if follows else 0.0)",
        rule(test_rules.test_as_long_as_the_threshold_is_raised_once_and_ended_once, "yawn", 10),
    ),
    "forgets the half interval at the end": (
        timing, "end_s = self._known_s + (passed_s / 2 if follows else 0.0)", "end_s = self._known_s",
        rule(test_rules.test_as_long_as_the_threshold_is_raised_once_and_ended_once, "yawn", 10),
    ),
    "raises on every frame": (
        timing, "            self._reached += 1", "            break",
        rule(test_rules.test_as_long_as_the_threshold_is_raised_once_and_ended_once, "no-face", 30),
    ),
    "counts time without frames": (
        timing, "events = self.stop(time_s, LOST) if passed_s > self._longest_gap_s else []\n        if holds is None:",
        "events = []\n        if holds is None:",
        rule(test_rules.test_a_face_lost_for_longer_ends_it_where_it_was_last_seen, "long-distraction"),
    ),
    "counts unseen time as seen": (
        timing, "follows = passed_s <= self._longest_gap_s and not self._interrupted",
        "follows = passed_s <= self._longest_gap_s",
        rule(test_rules.test_a_face_lost_for_a_moment_pauses_what_lasts, "microsleep"),
    ),
    "keeps more than the window": (
        timing, "<= time_s - self._window_s + ROUNDING_S", "<= time_s - 2 * self._window_s",
        rule(test_eyes.test_perclos_forgets_what_is_older_than_a_minute),
    ),
    "PERCLOS counts frames, not seconds": (
        timing, "self._append(time_s, passed_s, passed_s * (self._last + holds) / 2)",
        "self._append(time_s, 1 / 30, holds / 30)",
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
        monitor, "1 - max(change.right_eye, change.left_eye)", "1 - min(change.right_eye, change.left_eye)",
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
        eyelids, "elif closure < self._thresholds.half_shut:\n            self._shut = False",
        "else:\n            self._shut = False",
        rule(test_eyes.test_eyes_are_shut_from_four_fifths_until_they_are_half_open),
    ),
    "a closure is a blink too": (
        eyelids, "if not is_closure and shortest_s", "if shortest_s",
        rule(test_eyes.test_a_closure_is_no_blink_however_short),
    ),
    "blinks begin at the frame, not between frames": (
        eyelids, "self._half_shut_s = self._crossing_s(time_s, closure) if follows else time_s", "self._half_shut_s = time_s",
        rule(test_eyes.test_eyes_shut_for_a_moment_are_one_blink_of_that_length, 15, 0.1),
    ),
    "droops of any length are blinks": (
        eyelids, "<= longest_s:", "<= 99:",
        rule(test_eyes.test_lids_that_droop_for_longer_than_a_blink_are_none, 0.6, 0),
    ),
    "noise of one frame is a blink": (
        eyelids, "shortest_s <= end_s", "0 <= end_s",
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
        eyelids, "part = (self._thresholds.half_shut - self._seen_closure) / (closure - self._seen_closure)", "part = 1.0",
        rule(test_eyes.test_the_ends_of_a_blink_lie_between_frames),
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
