"""The clock runs during calls and at no other time; who is next, and when, is written down here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.runtimes.benchmarking.timing import Pace, alternate, measure
from tests.runtimes.benchmarking.fake_clock import FakeClock, Step


@pytest.mark.parametrize(("burst", "order"), [(1, "abababab"), (3, "aaabbbab"), (9, "aaaabbbb")])
def test_two_functions_take_turns_in_bursts(burst: int, order: str) -> None:
    called: list[str] = []
    ticks = itertools.count(step=1_000_000)
    first, second = alternate(
        lambda: called.append("a"), lambda: called.append("b"), 4, clock_ns=lambda: next(ticks), burst=burst
    )
    assert "".join(called[-8:]) == order
    np.testing.assert_array_equal([first, second], np.ones((2, 4)))


def test_the_actions_of_a_subject_alternate_and_each_answer_is_looked_at() -> None:
    fake, log = FakeClock(), list[tuple[str, str, int]]()
    pair = Step(fake, 2.0, log, "predict"), Step(fake, 1.0, log, "engine")
    timings = measure([pair], 2, warm_up=1, clock=fake.clock)
    names = ["predict", "engine"] * 3
    assert log == [(what, name, number) for number, name in enumerate(names) for what in ("prepare", "call", "check")]
    np.testing.assert_allclose(timings.times_ms, [[[2.0, 2.0], [1.0, 1.0]]])


def test_successive_calls_never_get_the_same_number() -> None:
    fake, log = FakeClock(), list[tuple[str, str, int]]()
    subjects = [[Step(fake, 1.0, log), Step(fake, 1.0, log)], [Step(fake, 1.0, log)]]
    measure(subjects, 7, warm_up=3, clock=fake.clock, burst=2)
    numbers = [number for what, _, number in log if what == "call"]
    assert len(set(numbers)) == len(numbers) == 3 * (7 + 3)


def test_subjects_take_turns_in_bursts() -> None:
    fake, log = FakeClock(), list[tuple[str, str, int]]()
    timings = measure([[Step(fake, 1.0, log, "a")], [Step(fake, 3.0, log, "b")]], 5, warm_up=0, clock=fake.clock, burst=2)
    assert "".join(name for what, name, _ in log if what == "call") == "aabbaabbab"
    np.testing.assert_allclose(timings.times_ms, [[[1.0] * 5], [[3.0] * 5]])


def test_what_is_done_around_a_call_is_not_timed() -> None:
    fake = FakeClock()

    class Slow(Step):
        def prepare(self, number: int) -> None:
            super().prepare(number)
            fake.work(50)

        def check(self, number: int, answer: int) -> None:
            super().check(number, answer)
            fake.work(50)

    ((times,),) = measure([[Slow(fake, 1.0)]], 3, warm_up=1, clock=fake.clock).times_ms
    np.testing.assert_allclose(times, 1.0)


@pytest.mark.parametrize(("work_ms", "late"), [(2.0, 0), (33.0, 0), (40.0, 9)])
def test_a_camera_gives_a_frame_every_so_often(work_ms: float, late: int) -> None:
    fake = FakeClock()
    timings = measure([[Step(fake, work_ms)]], 10, warm_up=0, every_ms=33.0, clock=fake.clock)
    assert timings.late == late
    np.testing.assert_allclose(timings.times_ms, [[[work_ms] * 10]])
    np.testing.assert_allclose(fake.slept_s, [(33.0 - work_ms) / 1e3] * (9 if work_ms < 33 else 0))


def test_without_a_pace_nobody_sleeps() -> None:
    fake = FakeClock()
    measure([[Step(fake, 1.0)]], 10, clock=fake.clock)
    assert fake.slept_s == []


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30))
def test_frames_begin_at_multiples_of_the_pace_or_as_soon_as_they_can(works_ms: list[float]) -> None:
    fake = FakeClock()
    pace, begins, ends = Pace(20.0, fake.clock), list[int](), list[int]()
    for work in works_ms:
        pace.wait()
        begins.append(fake.now_ns)
        fake.work(work)
        ends.append(fake.now_ns)
    for before, end, begin in zip(begins, ends, begins[1:], strict=False):
        assert begin == max(before + 20_000_000, end)
    assert pace.late == sum(end - begin > 20_000_000 for begin, end in zip(begins[:-1], ends, strict=False))
