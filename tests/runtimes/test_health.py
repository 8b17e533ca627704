"""The health of a loop: which calls lead to which state, what is counted, and who is told."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge import FaceBox, Landmarks
from lmedge.errors import ConfigError, InputError
from lmedge.runtimes.health import HealthChange, HealthLimits, HealthMonitor, HealthState, Symptom
from lmedge.runtimes.latencies import LatencyRing
from lmedge.schemas import MMLAB_5

LIMITS = HealthLimits(window=10, late_share=0.2, least_confidence=0.5, frozen_calls=3, failed_calls=3, recover_calls=4)
NOISE = np.random.default_rng(0)


def faces(confidence: float | None = 0.9, places: npt.NDArray[np.float64] | None = None, left: float = 0.0) -> list[Landmarks]:
    """One face of 100 px, with points at fractions of its box."""
    fractions = NOISE.uniform(0, 1, (5, 2)) if places is None else places
    points_px = (fractions * 100 + [left, 0]).astype(np.float32)
    sure = None if confidence is None else np.full(5, confidence, np.float32)
    return [Landmarks(points_px, MMLAB_5, FaceBox(left, 0, left + 100, 100), sure)]


@pytest.fixture
def told() -> list[HealthChange]:
    return []


@pytest.fixture
def monitor(told: list[HealthChange]) -> HealthMonitor:
    return HealthMonitor(LIMITS, on_change=told.append)


def states(told: list[HealthChange]) -> list[str]:
    return [change.after.value for change in told]


def good(monitor: HealthMonitor, calls: int = 1) -> None:
    for _ in range(calls):
        monitor.answered(faces(), 1.0)


def test_it_starts_and_is_ready_with_the_first_good_answer(monitor: HealthMonitor, told: list[HealthChange]) -> None:
    assert monitor.state is HealthState.STARTING
    good(monitor)
    assert states(told) == ["ready"]
    assert told[0].text == "starting → ready after 1 calls: nothing is wrong"


def test_images_without_a_face_say_nothing_of_the_engine(monitor: HealthMonitor) -> None:
    for _ in range(20):
        monitor.answered([], 1.0)
    assert monitor.state is HealthState.STARTING
    assert monitor.counts.calls == 20
    assert monitor.counts.good == 0


def test_a_failed_call_degrades_and_several_in_a_row_fail(monitor: HealthMonitor, told: list[HealthChange]) -> None:
    good(monitor)
    for _ in range(3):
        monitor.failed()
    assert states(told) == ["ready", "degraded", "failed"]
    assert monitor.symptoms == {Symptom.ENGINE_ERROR}
    assert monitor.counts.engine_errors == 3


def test_an_engine_that_fails_from_the_beginning_fails(monitor: HealthMonitor, told: list[HealthChange]) -> None:
    for _ in range(3):
        monitor.failed()
    assert states(told) == ["failed"]


def test_it_recovers_step_by_step(monitor: HealthMonitor, told: list[HealthChange]) -> None:
    for _ in range(3):
        monitor.failed()
    good(monitor)
    assert states(told) == ["failed", "degraded"]
    good(monitor, 2)
    assert monitor.state is HealthState.DEGRADED
    good(monitor)
    assert states(told) == ["failed", "degraded", "ready"]


def test_a_setback_starts_the_recovery_over(monitor: HealthMonitor) -> None:
    good(monitor)
    monitor.failed()
    good(monitor, 3)
    monitor.failed()
    good(monitor, 3)
    assert monitor.state is HealthState.DEGRADED


def test_a_share_of_late_answers_degrades_and_passes_out_of_the_window(monitor: HealthMonitor) -> None:
    good(monitor)
    for late in (True, False, True, False):
        monitor.answered(faces(), 9.0, late=late)
    assert monitor.state is HealthState.READY
    monitor.answered(faces(), 9.0, late=True)
    assert monitor.state is HealthState.DEGRADED
    assert monitor.symptoms == {Symptom.LATE}
    good(monitor, 14)
    assert monitor.state is HealthState.READY
    assert monitor.counts.late == 3


@pytest.mark.parametrize("how", ["missed", "late"])
def test_answers_that_are_late_again_and_again_are_a_failure(how: str, monitor: HealthMonitor) -> None:
    good(monitor)
    for _ in range(3):
        if how == "missed":
            monitor.missed()
        else:
            monitor.answered(faces(), 9.0, late=True)
    assert monitor.state is HealthState.FAILED
    assert monitor.symptoms == {Symptom.LATE}


def test_a_network_that_is_unsure_for_a_whole_window_degrades(monitor: HealthMonitor) -> None:
    for _ in range(9):
        monitor.answered(faces(confidence=0.3), 1.0)
    assert monitor.state is HealthState.READY
    monitor.answered(faces(confidence=0.3), 1.0)
    assert monitor.state is HealthState.DEGRADED
    assert monitor.symptoms == {Symptom.UNSURE}
    for _ in range(20):
        monitor.answered(faces(confidence=0.9), 1.0)
    assert monitor.state is HealthState.READY


def test_a_network_without_confidence_is_not_unsure(monitor: HealthMonitor) -> None:
    for _ in range(30):
        monitor.answered(faces(confidence=None), 1.0)
    assert monitor.state is HealthState.READY


def test_the_same_answer_again_and_again_is_a_failure_wherever_the_box_is(monitor: HealthMonitor) -> None:
    places = NOISE.uniform(0, 1, (5, 2))
    for left in (0.0, 700.3, 41.7):
        monitor.answered(faces(places=places, left=left), 1.0)
    assert monitor.state is HealthState.READY
    monitor.answered(faces(places=places, left=1200.1), 1.0)
    assert monitor.state is HealthState.FAILED
    assert monitor.symptoms == {Symptom.FROZEN}
    assert monitor.counts.frozen == 1
    good(monitor)
    assert monitor.state is HealthState.DEGRADED


def test_a_point_that_moves_by_a_hundredth_of_a_pixel_is_not_frozen(monitor: HealthMonitor) -> None:
    places = NOISE.uniform(0, 1, (5, 2))
    for call in range(30):
        monitor.answered(faces(places=places + 1e-4 * (call % 2) * np.eye(5, 2)), 1.0)
    assert monitor.state is HealthState.READY


def test_a_still_may_be_shown_where_nobody_looks_for_frozen_answers() -> None:
    monitor = HealthMonitor(HealthLimits(frozen_calls=None))
    places = NOISE.uniform(0, 1, (5, 2))
    for _ in range(30):
        monitor.answered(faces(places=places), 1.0)
    assert monitor.state is HealthState.READY


def test_inputs_that_cannot_be_used_degrade_but_are_no_failure_of_the_engine(monitor: HealthMonitor) -> None:
    good(monitor)
    for _ in range(20):
        monitor.refused()
    assert monitor.state is HealthState.DEGRADED
    assert monitor.symptoms == {Symptom.BAD_INPUT}
    assert monitor.counts.bad_inputs == 20


@given(st.lists(st.sampled_from(["good", "late", "empty", "missed", "failed", "refused"]), max_size=60))
def test_every_call_is_counted_once_and_only_changes_are_told(events: list[str]) -> None:
    told: list[HealthChange] = []
    monitor = HealthMonitor(LIMITS, on_change=told.append)
    for event in events:
        if event in ("missed", "failed", "refused"):
            getattr(monitor, event)()
        else:
            monitor.answered([] if event == "empty" else faces(), 1.0, late=event == "late")
    counts = monitor.counts
    assert counts.calls == len(events)
    assert counts.good + counts.late + counts.engine_errors + counts.bad_inputs + events.count("empty") == len(events)
    assert all(change.before is not change.after for change in told)
    assert [change.after for change in told[:-1]] == [change.before for change in told[1:]]
    assert monitor.state is (told[-1].after if told else HealthState.STARTING)
    assert HealthState.STARTING not in [change.after for change in told]
    if events[-3:] in (["failed"] * 3, ["missed"] * 3):
        assert monitor.state is HealthState.FAILED
    if len(events) >= 14 and set(events[-14:]) == {"good"}:
        assert monitor.state is HealthState.READY


def test_an_error_of_the_callback_reaches_the_caller_and_leaves_the_state() -> None:
    def refuse(change: HealthChange) -> None:
        raise RuntimeError(change.text)

    monitor = HealthMonitor(LIMITS, on_change=refuse)
    with pytest.raises(RuntimeError, match="ready"):
        good(monitor)
    assert monitor.state is HealthState.READY
    good(monitor)
    assert monitor.counts.calls == 2


@pytest.mark.parametrize("latency_ms", [-1.0, float("nan")])
def test_a_latency_that_is_none_is_refused(monitor: HealthMonitor, latency_ms: float) -> None:
    with pytest.raises(InputError, match="at least 0 ms"):
        monitor.answered(faces(), latency_ms)


@pytest.mark.parametrize(
    "values",
    [
        {"window": 0},
        {"failed_calls": 0},
        {"recover_calls": 0},
        {"frozen_calls": 0},
        {"late_share": 1.5},
        {"least_confidence": -1},
    ],
)
def test_limits_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Health limits"):
        HealthLimits(**values)  # type: ignore[arg-type]


@given(st.integers(1, 20), st.lists(st.floats(0, 1e6), max_size=60))
def test_a_ring_keeps_the_last_latencies_in_order(room: int, latencies_ms: list[float]) -> None:
    ring = LatencyRing(room)
    for latency_ms in latencies_ms:
        ring.add(latency_ms)
    assert ring.latencies_ms().tolist() == latencies_ms[-room:]
    assert len(ring) == min(room, len(latencies_ms))


def test_a_ring_hands_out_copies_and_needs_room() -> None:
    ring = LatencyRing(2)
    ring.add(1.0)
    ring.latencies_ms()[:] = 9
    assert ring.latencies_ms().tolist() == [1.0]
    with pytest.raises(InputError, match="room"):
        LatencyRing(0)
