"""RealTimeLandmarker: calls end by their deadline, and the policy says with what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from lmedge import Bundle, FaceLandmarker
from lmedge.errors import BundleError, DeadlineError, EngineError, InputError, OwnershipError
from lmedge.runtimes.base import Results
from lmedge.runtimes.health import HealthLimits, HealthMonitor, HealthState
from lmedge.runtimes.real_time import RealTimeLandmarker
from tests.runtimes.engines_for_tests import BOX, IMAGE, Gate, Troubled, open_troubled, soon

LONG_MS, SHORT_MS = 20_000.0, 20.0
LIMITS = HealthLimits(failed_calls=3, recover_calls=2, frozen_calls=None)

Open = Callable[..., RealTimeLandmarker]


@pytest.fixture
def open_one(fake_faces: Bundle) -> Open:
    def open_it(trouble: Callable[[Results], Results] | None = None, **options: object) -> RealTimeLandmarker:
        values = {"deadline_ms": LONG_MS, "health": HealthMonitor(LIMITS), **options}
        return RealTimeLandmarker(lambda: open_troubled(fake_faces, trouble), **values)  # type: ignore[arg-type]

    return open_it


def engine_of(landmarker: RealTimeLandmarker) -> Troubled:
    assert isinstance(landmarker.landmarker.runtime, Troubled)
    return landmarker.landmarker.runtime


def test_in_time_it_answers_as_a_landmarker_does(fake_faces: Bundle, open_one: Open) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as plain:
        expected = plain.predict(IMAGE, [BOX, [50.0, 40.0, 110.0, 120.0]])
    with open_one() as landmarker:
        answer = landmarker.predict(IMAGE, [BOX, [50.0, 40.0, 110.0, 120.0]])
        assert (answer.late, answer.held) == (False, False)
        assert answer.age_ms == answer.latency_ms > 0
        for here, there in zip(answer.faces, expected, strict=True):
            np.testing.assert_array_equal(here.points_px, there.points_px)
        assert landmarker.health.state is HealthState.READY
        assert landmarker.health.latencies.latencies_ms().tolist() == [answer.latency_ms]
        assert landmarker.predict(IMAGE, []).faces == ()


@pytest.mark.parametrize("policy", ["hold_last", "drop", "raise"])
def test_a_call_ends_at_its_deadline_with_what_the_policy_says(policy: str, open_one: Open) -> None:
    gate = Gate()
    with open_one(policy=policy, hold_ms=60_000) as landmarker:
        before = landmarker.predict(IMAGE, [BOX])
        engine_of(landmarker).trouble = gate
        began = time.monotonic()
        if policy == "raise":
            with pytest.raises(DeadlineError, match="the deadline was 20 ms"):
                landmarker.predict(IMAGE[::-1], [BOX], deadline_ms=SHORT_MS)
        else:
            answer = landmarker.predict(IMAGE[::-1], [BOX], deadline_ms=SHORT_MS)
            assert answer.late
            assert answer.held == (policy == "hold_last")
            assert answer.faces == (before.faces if policy == "hold_last" else ())
        assert 0.02 <= time.monotonic() - began < 10
        assert landmarker.health.counts.late == 1
        assert landmarker.abandoned == 1
        gate.open.set()
        engine_of(landmarker).trouble = None
        after = landmarker.predict(IMAGE, [BOX])
        assert not after.late
        np.testing.assert_array_equal(after.faces[0].points_px, before.faces[0].points_px)


def test_what_came_too_late_is_held_next_since_it_is_newer(open_one: Open) -> None:
    gate = Gate()
    with open_one(hold_ms=60_000) as landmarker:
        old = landmarker.predict(IMAGE, [BOX]).faces[0].points_px
        engine_of(landmarker).trouble = gate
        landmarker.predict(IMAGE[::-1], [BOX], deadline_ms=SHORT_MS)
        gate.open.set()
        assert soon(lambda: not landmarker._outcomes.empty())
        again = Gate()
        engine_of(landmarker).trouble = again
        held = landmarker.predict(IMAGE, [BOX], deadline_ms=SHORT_MS)
        assert held.held
        assert not np.array_equal(held.faces[0].points_px, old)
        again.open.set()


def test_an_old_answer_is_not_held(open_one: Open) -> None:
    gate = Gate()
    with open_one(hold_ms=30.0) as landmarker:
        landmarker.predict(IMAGE, [BOX])
        engine_of(landmarker).trouble = gate
        time.sleep(0.05)
        answer = landmarker.predict(IMAGE, [BOX], deadline_ms=SHORT_MS)
        assert (answer.faces, answer.late, answer.held, answer.age_ms) == ((), True, False, None)
        gate.open.set()


def test_an_engine_that_hangs_is_a_failure_and_calls_still_end(open_one: Open) -> None:
    gate = Gate()
    with open_one(gate, policy="drop") as landmarker:
        for _ in range(3):
            assert landmarker.predict(IMAGE, [BOX], deadline_ms=SHORT_MS).late
        assert landmarker.health.state is HealthState.FAILED
        assert landmarker.abandoned == 1, "the engine gets no second image while it hangs"
        gate.open.set()
        assert soon(lambda: not landmarker._outcomes.empty())
        for state in (HealthState.DEGRADED, HealthState.READY):
            assert not landmarker.predict(IMAGE, [BOX]).late
            assert landmarker.health.state is state


def test_the_image_may_change_when_a_late_call_has_ended(open_one: Open) -> None:
    gate = Gate()
    image = IMAGE.copy()
    with open_one() as landmarker:
        expected = landmarker.predict(image, [BOX]).faces[0].points_px
        seen: list[Results] = []
        engine_of(landmarker).trouble = lambda results: seen.append(results) or gate(results)
        landmarker.predict(image, [BOX], deadline_ms=SHORT_MS)
        image[:] = 0
        gate.open.set()
        assert soon(lambda: not landmarker._outcomes.empty())
        [outcome] = [landmarker._outcomes.get()]
        landmarker._in_work_since_s = None
        np.testing.assert_array_equal(outcome.faces[0].points_px, expected)


def test_an_engine_that_fails_is_an_error_and_a_symptom_and_then_forgotten(open_one: Open) -> None:
    def fail(_: Results) -> Results:
        raise RuntimeError("device lost")

    with open_one() as landmarker:
        landmarker.predict(IMAGE, [BOX])
        engine_of(landmarker).trouble = fail
        with pytest.raises(EngineError, match="device lost"):
            landmarker.predict(IMAGE, [BOX])
        assert landmarker.health.state is HealthState.DEGRADED
        engine_of(landmarker).trouble = None
        for _ in range(2):
            landmarker.predict(IMAGE, [BOX])
        assert landmarker.health.state is HealthState.READY


def test_a_failure_after_the_deadline_is_counted_though_nobody_waits_for_it(open_one: Open) -> None:
    gate = Gate()

    def fail_late(results: Results) -> Results:
        gate(results)
        raise RuntimeError("device lost")

    with open_one(fail_late) as landmarker:
        landmarker.predict(IMAGE, [BOX], deadline_ms=SHORT_MS)
        engine_of(landmarker).trouble = None
        gate.open.set()
        assert len(landmarker.predict(IMAGE, [BOX]).faces) == 1
        counts = landmarker.health.counts
        assert (counts.calls, counts.late, counts.engine_errors) == (2, 1, 1), "the late call is one call, though it failed too"


def test_an_input_that_cannot_be_used_never_reaches_the_engine(open_one: Open) -> None:
    with open_one() as landmarker:
        landmarker.predict(IMAGE, [BOX])
        with pytest.raises(InputError, match="outside"):
            landmarker.predict(IMAGE, [[400.0, 30.0, 500.0, 110.0]])
        assert landmarker.health.counts.bad_inputs == 1
        assert landmarker.health.state is HealthState.DEGRADED
        assert len(landmarker.predict(IMAGE, [BOX]).faces) == 1


def test_it_belongs_to_one_thread(open_one: Open) -> None:
    with open_one() as landmarker:
        caught: list[Exception] = []

        def use() -> None:
            try:
                landmarker.predict(IMAGE, [BOX])
            except OwnershipError as error:
                caught.append(error)

        thread = threading.Thread(target=use, name="second")
        thread.start()
        thread.join()
        assert "'second'" in str(caught[0])


def test_a_landmarker_that_does_not_open_leaves_no_thread(fake_faces: Bundle) -> None:
    before = threading.active_count()
    with pytest.raises(BundleError, match="no int8"):
        RealTimeLandmarker(fake_faces, deadline_ms=10, backend="fake", precision="int8")
    assert soon(lambda: threading.active_count() == before)


def test_closing_ends_the_thread_and_then_it_answers_no_more(fake_faces: Bundle) -> None:
    before = threading.active_count()
    landmarker = RealTimeLandmarker(fake_faces.root, deadline_ms=LONG_MS, backend="fake")
    landmarker.predict(IMAGE, [BOX])
    landmarker.close()
    landmarker.close()
    assert threading.active_count() == before
    with pytest.raises(InputError, match="closed"):
        landmarker.predict(IMAGE, [BOX])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline_ms": 0.0}, "above 0"),
        ({"deadline_ms": float("nan")}, "above 0"),
        ({"deadline_ms": float("inf")}, "above 0"),
        ({"policy": "hold"}, "known: hold_last, drop, raise"),
        ({"hold_ms": -1.0}, "at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(open_one: Open, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_one(**options)


def test_a_deadline_of_a_call_is_checked_too(open_one: Open) -> None:
    with open_one() as landmarker, pytest.raises(InputError, match="above 0"):
        landmarker.predict(IMAGE, [BOX], deadline_ms=-1)
