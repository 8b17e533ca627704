"""A clock that stands still unless somebody sleeps or works, and an energy meter that follows it."""

from __future__ import annotations

from lmedge.runtimes.benchmarking.timing import Clock

IDLE_WATTS, BUSY_WATTS = 4.0, 10.0


class FakeClock:
    """`clock` is what the code under test gets; `work` lets time pass as a call does.

    Attributes:
        now_ns: the time; slept_s: every sleep that was asked for; joules: what a meter would have counted.
    """

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.slept_s: list[float] = []
        self.joules = 0.0
        self.clock = Clock(lambda: self.now_ns, self._sleep)

    def work(self, milliseconds: float) -> None:
        self._pass(milliseconds / 1e3, BUSY_WATTS)

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0, "a sleep of nothing, or into the past"
        self.slept_s.append(seconds)
        self._pass(seconds, IDLE_WATTS)

    def _pass(self, seconds: float, watts: float) -> None:
        self.now_ns += round(seconds * 1e9)
        self.joules += seconds * watts


class FakeMeter:
    """Counts what the clock says."""

    source = "fake meter"

    def __init__(self, fake: FakeClock) -> None:
        self._fake, self._begin = fake, 0.0
        self.ticks = 0

    def start(self, now_ns: int) -> None:
        self._begin = self._fake.joules

    def tick(self, now_ns: int) -> None:
        self.ticks += 1

    def joules(self, now_ns: int) -> float:
        return self._fake.joules - self._begin


class Step:
    """An action that takes `milliseconds` by the fake clock, and writes down what happens."""

    def __init__(
        self, fake: FakeClock, milliseconds: float, log: list[tuple[str, str, int]] | None = None, name: str = ""
    ) -> None:
        self._fake, self._milliseconds, self._name = fake, milliseconds, name
        self.log = [] if log is None else log

    def prepare(self, number: int) -> None:
        self._number = number
        self.log.append(("prepare", self._name, number))

    def call(self) -> int:
        self._fake.work(self._milliseconds)
        self.log.append(("call", self._name, self._number))
        return self._number

    def check(self, number: int, answer: int) -> None:
        assert answer == number
        self.log.append(("check", self._name, number))
