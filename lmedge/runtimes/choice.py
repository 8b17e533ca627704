"""``backend="auto"``: which engine and file of a bundle is fastest on this machine, of those that answer right on it.

Every file that an installed engine can run here is opened, held to the golden answers, and timed on one face, in turns, so that
a machine that slows down slows all of them. The result is remembered for this bundle, machine, and versions of the engines; a
change of any of them measures again. What is chosen is fastest within the noise of the machine, which may change its mind
about two that are nearly equal; one that is named stays.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import MANIFEST, Artifact, Bundle, file_digest
from lmedge.errors import BackendUnavailableError, DigestMismatchError, LmedgeError
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.benchmarking.machine import describe_machine
from lmedge.runtimes.checks import plan_checks
from lmedge.runtimes.choice_cache import recall, remember
from lmedge.runtimes.self_test import self_test_engine

AUTO = "auto"

# Turns of a few calls each: long enough for an engine to have the caches to itself, short against changes of the clock.
_TURNS, _CALLS_PER_TURN = 12, 8


@dataclass(frozen=True)
class Contender:
    """One file on one engine.

    Attributes:
        latency_ms: median of the bare engine call on one face; None where it was not in the race.
        reason: why it was not; else "".
    """

    backend: str
    label: str
    latency_ms: float | None
    reason: str = ""


@dataclass(frozen=True)
class EngineChoice:
    """What was chosen, and from what.

    Attributes:
        backend, artifact, device: for `find_runtime(backend).open(artifact, device=device)`.
        latency_ms: median of the bare engine call on one face, when it was measured.
        contenders: all that were looked at, fastest first; those that were not in the race last, with the reason.
        remembered: whether this was measured by an earlier call.
    """

    backend: str
    artifact: Artifact
    device: str
    latency_ms: float
    contenders: tuple[Contender, ...]
    remembered: bool

    @property
    def text(self) -> str:
        """One line for people: "openvino int8 (x86) on cpu, 0.41 ms; then onnxruntime int8 (x86) 0.62 ms (remembered)"."""
        others = [one for one in self.contenders[1:] if one.latency_ms is not None]
        then = "".join(f"; then {one.backend} {one.label} {one.latency_ms:.2f} ms" for one in others[:1])
        out = "".join(f"; not {one.backend} {one.label}: {one.reason}" for one in self.contenders if one.reason)
        when = " (remembered)" if self.remembered else " (measured now)"
        return f"{self.backend} {self.artifact.label} on {self.device}, {self.latency_ms:.2f} ms{then}{out}{when}"


def choose_engine(
    bundle: Bundle,
    *,
    precision: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    dialect: str | None = None,
) -> EngineChoice:
    """The fastest engine and file for this machine.

    Args:
        precision: None takes any that the bundle has, for the bundle's gates have passed all of them.
        device: only engines that have it; None is each engine's default.
        threads: of CPU engines, as they will be opened.
        dialect: only files of this dialect.

    Raises:
        BackendUnavailableError: no engine here can run this bundle and gives its golden answers.
        DigestMismatchError: a file was changed.
    """
    asked = {"precision": precision, "device": device, "threads": threads, "dialect": dialect}
    key = {"bundle": file_digest(bundle.root / MANIFEST), "asked": asked, "machine": describe_machine()}
    choice = _recalled(bundle, recall(key))
    if choice is None:
        choice = _race(bundle, precision, device, threads, dialect)
        remember(key, _as_plain_data(choice))
    return choice


def _race(bundle: Bundle, precision: str | None, device: str | None, threads: int | None, dialect: str | None) -> EngineChoice:
    planned, _ = plan_checks(bundle, None, None if precision is None else [precision], device=device)
    out: list[Contender] = []
    crop = np.random.default_rng(0).integers(0, 256, (1, *bundle.manifest.preprocess.input_hw, 3), np.uint8)
    with ExitStack() as opened:
        runners: list[Runtime] = []
        for check in planned:
            if dialect is not None and check.artifact.dialect != dialect:
                continue
            adapter = find_runtime(check.backend)
            if device is not None and device not in adapter.status().devices:
                out.append(Contender(check.backend, check.artifact.label, None, f"it has no device {device!r} here"))
                continue
            try:
                runtime = opened.enter_context(adapter.open(check.artifact, device=device, threads=threads, batch=1))
                tested = self_test_engine(runtime, bundle)
            except DigestMismatchError:
                raise
            except LmedgeError as error:
                out.append(Contender(check.backend, check.artifact.label, None, str(error)))
                continue
            if tested.passed:
                runners.append(runtime)
            else:
                out.append(Contender(check.backend, check.artifact.label, None, tested.remark))
        times_ms, failed = _times_ms(runners, crop)
        out += failed
        if not times_ms:
            reasons = "; ".join(f"{one.backend} {one.label}: {one.reason}" for one in out) or "nothing fits what was asked for"
            raise BackendUnavailableError(f"No engine can be chosen for {bundle.root} on this machine. {reasons}")
        ranked = sorted(times_ms, key=lambda runtime: times_ms[runtime])
        ran = [Contender(one.name, one.artifact.label, times_ms[one]) for one in ranked]
        best = ranked[0]
        return EngineChoice(best.name, best.artifact, best.device, times_ms[best], (*ran, *out), remembered=False)


def _times_ms(runners: list[Runtime], crop: npt.NDArray[np.uint8]) -> tuple[dict[Runtime, float], list[Contender]]:
    """Median time of a call of each, and those that failed on one."""
    calls = {runtime: runtime.engine_call({runtime.inputs[0].name: crop}) for runtime in runners}
    times_ns: dict[Runtime, list[int]] = {runtime: [] for runtime in runners}
    failed = []
    for turn in range(1 + _TURNS):  # the first to warm up
        for runtime in list(calls):
            try:
                for _ in range(_CALLS_PER_TURN):
                    began = time.perf_counter_ns()
                    calls[runtime]()
                    if turn:
                        times_ns[runtime].append(time.perf_counter_ns() - began)
            except Exception as error:  # engines' own exceptions share no base but Exception
                del calls[runtime]
                failed.append(Contender(runtime.name, runtime.artifact.label, None, f"it failed on a call: {error}"))
    return {runtime: float(np.median(times_ns[runtime])) / 1e6 for runtime in calls}, failed


def _as_plain_data(choice: EngineChoice) -> dict[str, Any]:
    contenders = [[one.backend, one.label, one.latency_ms, one.reason] for one in choice.contenders]
    return {
        "backend": choice.backend,
        "artifact": choice.artifact.path,
        "device": choice.device,
        "latency_ms": choice.latency_ms,
        "contenders": contenders,
    }


def _recalled(bundle: Bundle, document: dict[str, Any] | None) -> EngineChoice | None:
    """The choice that a cache file holds; None where it holds none, or one that this bundle and machine do not have."""
    if document is None:
        return None
    try:
        artifact = next(one for one in bundle.candidates(document["backend"]) if one.path == document["artifact"])
        contenders = tuple(
            Contender(str(name), str(label), None if time_ms is None else float(time_ms), str(reason))
            for name, label, time_ms, reason in document["contenders"]
        )
        backend, device = str(document["backend"]), str(document["device"])
        latency_ms = float(document["latency_ms"])
        status = find_runtime(backend).status()
    except (KeyError, TypeError, ValueError, StopIteration, BackendUnavailableError):
        return None
    if not status.installed or device not in status.devices:
        return None
    return EngineChoice(backend, artifact, device, latency_ms, contenders, remembered=True)
