"""How long a fresh process takes to its first answer, and what it holds then. Only a process of its own can tell: in this one
everything is loaded already."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lmedge
from lmedge.errors import LmedgeError
from lmedge.reports import ColdStart

_MODULE = "lmedge.runtimes.benchmarking.first_answer"
# An engine for a GPU may take half a minute to load its libraries.
_TIMEOUT_S = 120


class NoAnswerError(LmedgeError):
    """The process ended without an answer; the message says why."""


def cold_start(wanted: dict[str, Any], processes: int) -> ColdStart:
    """Starts as many processes, one after the other; times are medians, memory is of the last.

    Args:
        wanted: as `first_answer` takes it.

    Raises:
        NoAnswerError: one of them did not answer.
    """
    runs = [_run(wanted) for _ in range(processes)]
    last, stages = runs[-1], ("started_ns", "imported_ns", "opened_ns", "answered_ns")

    def median_ms(begin: str, end: str) -> float:
        return float(round(statistics.median((run[end] - run[begin]) / 1e6 for run in runs), 3))

    start_ms, open_ms, predict_ms = (median_ms(begin, end) for begin, end in itertools.pairwise(stages))
    before, after = last["before_mib"], last["after_mib"]
    opening = None if before is None or after is None else round(after - before, 2)
    total_ms = median_ms(stages[0], stages[-1])
    return ColdStart(processes, start_ms, open_ms, predict_ms, total_ms, before, opening, last["peak_mib"])


def _run(wanted: dict[str, Any]) -> dict[str, Any]:
    # The lmedge that runs here, wherever it was started.
    parent = str(Path(lmedge.__file__).resolve().parent.parent)
    paths = os.pathsep.join(path for path in (parent, os.environ.get("PYTHONPATH", "")) if path)
    command = [sys.executable, "-m", _MODULE, json.dumps(wanted)]
    started_ns = time.monotonic_ns()
    try:
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"a fresh process gave no answer in {_TIMEOUT_S} s") from None
    try:
        document = json.loads(done.stdout)
    except json.JSONDecodeError:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NoAnswerError(f"a fresh process ended with {done.returncode}: {said}") from None
    if "error" in document:
        raise NoAnswerError(f"a fresh process cannot open it: {document['error']}")
    return {**document, "started_ns": started_ns}
