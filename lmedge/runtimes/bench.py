"""Latency of `FaceLandmarker.predict` and of the bare engine call under it, measured in the same run.

Both alternate call by call, so that a machine that slows down slows both; their difference is what lmedge adds: checks, crop,
and the way back to image pixels. Every call gets another crop and every answer is looked at: see
`lmedge.runtimes.benchmarking.guarded_calls`. Two bundles are measured in turn in one process, and compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import cv2

from lmedge.bundle import Bundle
from lmedge.errors import InputError
from lmedge.reports import ColdStart, EnergyUse, LatencyReport
from lmedge.runtimes.benchmarking.cold_start import NoAnswerError, cold_start
from lmedge.runtimes.benchmarking.compare import Comparison, compare
from lmedge.runtimes.benchmarking.cpu_state import cpu_state
from lmedge.runtimes.benchmarking.energy import measure_energy
from lmedge.runtimes.benchmarking.interruptions import count_interruptions
from lmedge.runtimes.benchmarking.machine import describe_machine
from lmedge.runtimes.benchmarking.meters import find_meters
from lmedge.runtimes.benchmarking.statistics import Times, block_size, few_calls, figures
from lmedge.runtimes.benchmarking.subject import Subject
from lmedge.runtimes.benchmarking.timing import BURST, WALL_CLOCK, WARM_UP, Clock, alternate, measure
from lmedge.runtimes.checks import PlannedCheck, plan_checks
from lmedge.runtimes.gates import GateLimits

__all__ = ["NOT_ASKED", "Conditions", "alternate", "bench", "bench_two", "describe_machine"]

Progress = Callable[[int, int], None]
NOT_ASKED = "not asked for"


@dataclass(frozen=True)
class Conditions:
    """How `bench` measures; checked when made.

    Attributes:
        device: None is each engine's own default: the CPU, or its first device where it has no CPU.
        threads: of CPU engines, one row each; None leaves the engine's default.
        batches: faces per call, one row each.
        iterations: timed calls of `predict` and of the engine each; warm_up: untimed calls before them.
        every_ms: pause between the starts of two calls, as a camera makes it; None is none.
        cold_starts: fresh processes that are timed to their first answer; 0 leaves that out.
        energy: whether meters are read, which takes some seconds per row.
        limits: how far from the golden answers an engine may be; None is lmedge's own limits.
    """

    device: str | None = None
    threads: tuple[int | None, ...] = (None,)
    batches: tuple[int, ...] = (1,)
    iterations: int = 300
    warm_up: int = WARM_UP
    every_ms: float | None = None
    cold_starts: int = 0
    energy: bool = False
    limits: GateLimits | None = None

    def __post_init__(self) -> None:
        least = {"iterations": (self.iterations, 1), "warm_up": (self.warm_up, 0), "cold_starts": (self.cold_starts, 0)}
        for name, (value, limit) in least.items():
            if value < limit:
                raise InputError(f"{name} must be at least {limit}; got {value}.")
        counts = (*self.batches, *self.threads)
        if not self.batches or not self.threads or any(count is not None and count < 1 for count in counts):
            raise InputError(f"batches and threads must be at least 1; got {self.batches} and {self.threads}.")
        if self.every_ms is not None and not 0 < self.every_ms < float("inf"):
            raise InputError(f"every_ms must be above 0; got {self.every_ms}.")


def bench(
    bundle: Bundle,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    conditions: Conditions | None = None,
    *,
    clock: Clock = WALL_CLOCK,
    progress: Progress | None = None,
) -> list[LatencyReport]:
    """Measures every backend and precision of a bundle.

    Args:
        backends: None takes every installed one that the bundle serves.
        precisions: None takes all; of several files for one precision, the one that `select_here` gives is measured.
        conditions: how; the defaults of `Conditions` without them.
        progress: called with (rows done, rows in all).

    Raises:
        ParityError: an engine does not answer as the golden vectors say, or under the clock other than before.
        BackendUnavailableError: a named backend, or every one, is missing here.
        BundleError: the bundle has nothing for a backend or precision that was named.
    """
    how = conditions or Conditions()
    setups = list(_setups(_planned(bundle, backends, precisions, how), how))
    reports: list[LatencyReport] = []
    for check, count, batch in setups:
        reports += _rows([bundle], [check], count, batch, how, clock)
        if progress is not None:
            progress(len(reports), len(setups))
    return reports


def bench_two(
    bundle: Bundle,
    other: Bundle,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    conditions: Conditions | None = None,
    *,
    clock: Clock = WALL_CLOCK,
    progress: Progress | None = None,
) -> tuple[list[LatencyReport], list[LatencyReport], list[Comparison]]:
    """Measures what two bundles have in common, both in turn, and compares them.

    Returns:
        The rows of the first, those of the second, and the first against the second.

    Raises:
        InputError: they have no backend and precision in common.
        ParityError, BackendUnavailableError, BundleError: as `bench`.
    """
    how = conditions or Conditions()
    there = {_name(check): check for check in _planned(other, backends, precisions, how)}
    planned = _planned(bundle, backends, precisions, how)
    common = [check for check in planned if _name(check) in there]
    if not common:
        names = [" ".join(map(" ".join, sorted(found))) for found in ({_name(check) for check in planned}, set(there))]
        raise InputError(f"{bundle.root} can be measured with {names[0]}, {other.root} with {names[1]}: nothing in common.")
    rows: list[LatencyReport] = []
    others: list[LatencyReport] = []
    setups = list(_setups(common, how))
    for check, count, batch in setups:
        ours, theirs = _rows([bundle, other], [check, there[_name(check)]], count, batch, how, clock)
        rows.append(ours)
        others.append(theirs)
        if progress is not None:
            progress(len(rows), len(setups))
    return rows, others, compare(rows, others, paired=True)[0]


def _planned(
    bundle: Bundle, backends: Sequence[str] | None, precisions: Sequence[str] | None, how: Conditions
) -> list[PlannedCheck]:
    planned, _ = plan_checks(bundle, backends, precisions, device=how.device)
    # The last of several files for one precision, as everywhere.
    return list({_name(check): check for check in planned}.values())


def _name(check: PlannedCheck) -> tuple[str, str]:
    return check.backend, check.artifact.precision


def _setups(planned: Sequence[PlannedCheck], how: Conditions) -> Iterator[tuple[PlannedCheck, int | None, int]]:
    return itertools.product(planned, how.threads, how.batches)


def _rows(
    bundles: Sequence[Bundle], checks: Sequence[PlannedCheck], threads: int | None, batch: int, how: Conditions, clock: Clock
) -> list[LatencyReport]:
    """One row per bundle; all are timed in turn."""
    with ExitStack() as opened:
        subjects = [
            opened.enter_context(Subject(bundle, check, device=how.device, threads=threads, batch=batch, limits=how.limits))
            for bundle, check in zip(bundles, checks, strict=True)
        ]
        before = cpu_state()
        with count_interruptions() as interruptions:
            timings = measure(
                [subject.calls for subject in subjects],
                how.iterations,
                warm_up=how.warm_up,
                every_ms=how.every_ms,
                clock=clock,
            )
        cpu = {"before": before, "after": cpu_state(), "opencv_threads": cv2.getNumThreads()}
        return [
            _row(subject, bundle, times, how, clock, late=timings.late, interruptions=interruptions.count, cpu=cpu)
            for subject, bundle, times in zip(subjects, bundles, timings.times_ms, strict=True)
        ]


def _row(
    subject: Subject,
    bundle: Bundle,
    times_ms: tuple[Times, ...],
    how: Conditions,
    clock: Clock,
    *,
    late: int,
    interruptions: int | None,
    cpu: Mapping[str, Any],
) -> LatencyReport:
    block = block_size(how.iterations, BURST)
    predict, engine = (figures(times, block) for times in times_ms)
    missing = {"p999_ms": few_calls(how.iterations)}
    missing["golden"] = subject.unguarded
    start, missing["cold_start"] = _cold_start(subject, bundle, how)
    energy, missing["energy"] = _energy(subject, how, clock)
    return LatencyReport(
        backend=subject.backend,
        precision=subject.artifact.precision,
        threads=subject.threads,
        batch=subject.batch,
        p50_ms=predict.p50_ms,
        p90_ms=predict.p90_ms,
        p99_ms=predict.p99_ms,
        count=how.iterations,
        engine_p50_ms=engine.p50_ms,
        engine_p90_ms=engine.p90_ms,
        engine_p99_ms=engine.p99_ms,
        artifact=subject.artifact.path,
        engine_precision=subject.runtime.precision_used,
        remark=subject.runtime.remark,
        device=subject.runtime.device,
        every_ms=how.every_ms,
        late=late,
        p999_ms=predict.p999_ms,
        engine_p999_ms=engine.p999_ms,
        block=block,
        p50_blocks_ms=predict.blocks_ms,
        engine_p50_blocks_ms=engine.blocks_ms,
        interruptions=interruptions,
        cold_start=start,
        energy=energy,
        cpu=cpu,
        not_measured={what: why for what, why in missing.items() if why},
    )


def _cold_start(subject: Subject, bundle: Bundle, how: Conditions) -> tuple[ColdStart | None, str]:
    if not how.cold_starts:
        return None, NOT_ASKED
    if subject.batch > 1:
        return None, "measured for one face per call"
    wanted = {
        "bundle": str(bundle.root.resolve()),
        "backend": subject.backend,
        "precision": subject.artifact.precision,
        "device": subject.runtime.device,
        "threads": subject.threads,
    }
    try:
        return cold_start(wanted, how.cold_starts), ""
    except NoAnswerError as error:
        return None, str(error)


def _energy(subject: Subject, how: Conditions, clock: Clock) -> tuple[tuple[EnergyUse, ...], str]:
    if not how.energy:
        return (), NOT_ASKED
    meters, reason = find_meters(subject.runtime.device)
    if not meters:
        return (), reason
    return measure_energy(subject.calls[0], meters, every_ms=how.every_ms, clock=clock), ""
