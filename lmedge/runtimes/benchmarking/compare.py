"""Whether one measurement is faster than another: the ratio of their medians, with an interval."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmedge.errors import InputError
from lmedge.reports import LatencyReport
from lmedge.runtimes.benchmarking.statistics import LEAST_BLOCKS, ratio_interval

FASTER, SLOWER, SAME, UNDECIDED = "faster", "slower", "the same", "undecided"
# Two processes that run the same differ by this much: where memory lies is another each time, and no interval knows of it.
# An interval around 1 that stays within it is the same speed for every purpose.
MARGIN = 0.03
# What makes figures of two machines incomparable.
_MACHINE_KEYS = ("cpu", "arch", "cores_usable", "os", "python", "versions", "gpus")
PREDICT, ENGINE = "predict", "engine"


@dataclass(frozen=True)
class Comparison:
    """One row against the row of the same name in another measurement.

    Attributes:
        what: "predict" or "engine", the bare call.
        p50_ms, other_p50_ms: the medians; ratio: the first over the second, below 1 is faster.
        low, high: its 95 % interval; None where there are too few calls.
        paired: both were timed in turn in one process, so that the machine was the same for both.
        verdict: "faster" or "slower" where the interval leaves out 1 (unless paired, where it leaves out all within 3 % of 1),
            "the same" where it lies within 3 % of 1, else "undecided".
    """

    backend: str
    precision: str
    threads: int | None
    batch: int
    every_ms: float | None
    what: str
    p50_ms: float
    other_p50_ms: float
    ratio: float
    low: float | None
    high: float | None
    verdict: str
    paired: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def row_key(row: LatencyReport) -> tuple[Any, ...]:
    """What two rows must have in common to be compared."""
    return row.backend, row.precision, row.threads, row.batch, row.every_ms, row.device


def compare(
    rows: Sequence[LatencyReport], others: Sequence[LatencyReport], *, paired: bool = False
) -> tuple[list[Comparison], list[str]]:
    """Every row that both have, as `predict` and as the bare engine call; and a line for each that only one has.

    Raises:
        InputError: they have no row in common.
    """
    there = {row_key(row): row for row in others}
    here = {row_key(row) for row in rows}
    found = [
        _compared(row, there[row_key(row)], what, paired) for row in rows if row_key(row) in there for what in (PREDICT, ENGINE)
    ]
    alone = [f"{_name(row)} is only in the first" for row in rows if row_key(row) not in there]
    alone += [f"{_name(row)} is only in the second" for row in others if row_key(row) not in here]
    if not found:
        raise InputError(
            f"The two measurements have no row in common: {'; '.join(alone) or 'both are empty'}. Measure the same backends, "
            "precisions, threads and batches in both."
        )
    return found, alone


def read_rows(file: Path) -> tuple[list[LatencyReport], dict[str, Any]]:
    """The rows that `lmedge bench --json` wrote, and the machine they are of.

    Raises:
        InputError: no such file, or not one of these.
    """
    cure = f"Make it: lmedge bench BUNDLE --json > {file}"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        entries = document["rows"] if isinstance(document, dict) else document
        rows = [LatencyReport.from_json(entry) for entry in entries]
        machine = dict(entries[0]["machine"]) if entries else {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}. {cure}") from error
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{file} holds no rows of lmedge bench ({error}). {cure}") from error
    return rows, machine


def machine_differences(machine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Lines on what differs between two machines; where there are any, the verdicts are of the machines too."""
    return [f"{key}: {machine.get(key)} and {other.get(key)}" for key in _MACHINE_KEYS if machine.get(key) != other.get(key)]


def few_blocks(comparisons: Iterable[Comparison]) -> str:
    """What to do where an interval is missing; "" where none is."""
    if all(comparison.low is not None for comparison in comparisons):
        return ""
    return f"An interval needs at least {LEAST_BLOCKS} blocks of calls in both measurements: give more --iterations to both."


def _compared(row: LatencyReport, other: LatencyReport, what: str, paired: bool) -> Comparison:
    engine = what == ENGINE
    ours, theirs = (r.engine_p50_ms if engine else r.p50_ms for r in (row, other))
    blocks = [r.engine_p50_blocks_ms if engine else r.p50_blocks_ms for r in (row, other)]
    interval = ratio_interval(blocks[0], blocks[1], paired=paired)
    low, high = interval or (None, None)
    return Comparison(
        backend=row.backend,
        precision=row.precision,
        threads=row.threads,
        batch=row.batch,
        every_ms=row.every_ms,
        what=what,
        p50_ms=ours,
        other_p50_ms=theirs,
        ratio=ours / theirs,
        low=low,
        high=high,
        verdict=verdict(interval, paired=paired),
        paired=paired,
    )


def verdict(interval: tuple[float, float] | None, *, paired: bool) -> str:
    """What an interval of the ratio of two times says of the first."""
    if interval is None:
        return UNDECIDED
    low, high = interval
    margin = 0.0 if paired else MARGIN
    if high < 1 - margin:
        return FASTER
    if low > 1 + margin:
        return SLOWER
    return SAME if high - 1 <= MARGIN and 1 - low <= MARGIN else UNDECIDED


def _name(row: LatencyReport) -> str:
    threads = "default threads" if row.threads is None else f"{row.threads} threads"
    pace = "" if row.every_ms is None else f", every {row.every_ms:g} ms"
    return f"{row.backend} {row.precision}, {threads}, batch {row.batch}{pace}"
