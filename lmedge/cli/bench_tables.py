"""What `lmedge bench` shows to people: latency, start, energy, remarks, and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmedge.cli.console import number, print_table, say
from lmedge.reports import LatencyReport

Rows = Sequence[LatencyReport]


def print_rows(rows: Rows, machine: dict[str, Any]) -> None:
    """Everything that was measured, what was not and why, and the machine."""
    _print_latency(rows)
    _print_start(rows)
    _print_energy(rows)
    _print_remarks(rows)
    hardware = ", ".join([machine["cpu"], f"{machine['cores_usable']} cores", *machine.get("gpus", ())])
    say(f"{hardware}, {machine['os']}, Python {machine['python']}")


def print_comparison(comparisons: Sequence[Any], alone: Sequence[str], machines: Sequence[str]) -> None:
    """The verdicts, and what stands against them.

    Args:
        comparisons: of `lmedge.runtimes.benchmarking.compare`; alone: lines on rows that only one side has.
        machines: what differs between the machines of both.
    """
    from lmedge.runtimes.benchmarking.compare import few_blocks

    table = [
        [
            c.backend,
            c.precision,
            "default" if c.threads is None else str(c.threads),
            str(c.batch),
            c.what,
            number(c.p50_ms, 3),
            number(c.other_p50_ms, 3),
            number(c.ratio, 3),
            "–" if c.low is None or c.high is None else f"{c.low:.3f} to {c.high:.3f}",
            c.verdict,
        ]
        for c in comparisons
    ]
    columns = ["engine", "precision", "threads", "faces", "what", "p50", "other p50", "ratio", "95 % interval", "the first is"]
    paired = all(comparison.paired for comparison in comparisons)
    print_table(f"Medians in milliseconds, {'timed in turn' if paired else 'of two measurements'}", columns, table)
    for line in (*alone, few_blocks(comparisons)):
        if line:
            say(line)
    if not paired:
        say("Two processes that run the same differ by up to 3 %, which no interval knows of: less is called no difference.")
    for line in machines:
        say(f"The machines differ, and the verdict is of them too: {line}")


def _print_latency(rows: Rows) -> None:
    swept = any(row.batch > 1 for row in rows)
    table = [
        [
            row.backend,
            row.precision,
            row.engine_precision or "–",
            _threads(row),
            *([str(row.batch)] if swept else []),
            *(number(value, 3) for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.p999_ms)),
            *(number(value, 3) for value in (row.engine_p50_ms, row.engine_p90_ms, row.engine_p99_ms)),
            number(row.p50_ms - row.engine_p50_ms, 3),
        ]
        for row in rows
    ]
    columns = ["engine", "precision", "computes in", "threads", *(["faces"] if swept else []), "p50", "p90", "p99", "p99.9"]
    columns += ["engine p50", "p90", "p99", "overhead p50"]
    faces = "One or several faces" if swept else "One face"
    pace = f", one every {rows[0].every_ms:g} ms" if rows and rows[0].every_ms else ""
    print_table(f"{faces}, {rows[0].count if rows else 0} calls each{pace}, milliseconds", columns, table)


def _print_start(rows: Rows) -> None:
    starts = [(row, row.cold_start) for row in rows if row.cold_start is not None]
    if not starts:
        return
    table = [
        [
            row.backend,
            row.precision,
            _threads(row),
            *(number(value, 0) for value in (start.start_ms, start.open_ms, start.first_predict_ms, start.total_ms)),
            *(number(value, 1) for value in (start.opening_mib, start.peak_mib)),
        ]
        for row, start in starts
    ]
    columns = ["engine", "precision", "threads", "Python, ms", "open, ms", "first face, ms", "together, ms"]
    columns += ["opening adds, MiB", "peak, MiB"]
    print_table(f"From a fresh process to its first answer, median of {starts[0][1].processes}", columns, table)


def _print_energy(rows: Rows) -> None:
    table = [
        [
            row.backend,
            row.precision,
            _threads(row),
            str(row.batch),
            use.source,
            *(number(1e3 * value, 2) for value in (use.joules_per_frame, use.added_joules_per_frame)),
            *(number(value, 2) for value in (use.watts, use.idle_watts)),
        ]
        for row in rows
        for use in row.energy
    ]
    if table:
        columns = ["engine", "precision", "threads", "faces", "meter", "mJ per frame", "above idle", "W", "idle W"]
        print_table("Energy, of all that ran on the machine", columns, table)


def _print_remarks(rows: Rows) -> None:
    from lmedge.runtimes.bench import NOT_ASKED
    from lmedge.runtimes.benchmarking.cpu_state import clock_note

    for row in rows:
        if row.remark:
            say(f"{row.backend} {row.precision}: {row.remark}")
        if row.late:
            say(f"{_name(row)}: {row.late} of {2 * row.count} calls began late, after a longer one")
    for what, label in {"p999_ms": "p99.9", "energy": "energy", "cold_start": "start", "golden": "golden answers"}.items():
        # Of several faces per call the start is that of one.
        for reason in dict.fromkeys(row.not_measured.get(what, "") for row in rows if row.batch == 1 or what != "cold_start"):
            if reason not in ("", NOT_ASKED):
                say(f"Not measured: {label}: {reason}")
    interrupted = [row.interruptions for row in rows if row.interruptions is not None]
    if interrupted:
        say(f"Taken from the processor by other work: {_span(interrupted)} times per row")
    states = [state for row in rows for state in (row.cpu.get("before", {}), row.cpu.get("after", {}))]
    if states:
        say(_clock_words(states))
        remark = clock_note(states[0])
        if remark:
            say(remark)


def _clock_words(states: Sequence[dict[str, Any]]) -> str:
    loads = [state["load"] for state in states if "load" in state]
    words = f"Load {_span(loads)}. " if loads else ""
    seen = [mhz for state in states for mhz in state.get("mhz", ())]
    if not seen:
        return f"{words}Clock: not known; {states[0].get('reason', '')}"
    boost = {True: ", boost on", False: ", boost off", None: ""}[states[0].get("boost")]
    governors = ", ".join(states[0].get("governors", ())) or "not known"
    mode = f", power mode {states[0]['power_mode']}" if "power_mode" in states[0] else ""
    return f"{words}Clock: {_span(seen)} MHz, governor {governors}{boost}{mode}"


def _threads(row: LatencyReport) -> str:
    return "default" if row.threads is None else str(row.threads)


def _name(row: LatencyReport) -> str:
    threads = {None: "default threads", 1: "1 thread"}.get(row.threads, f"{row.threads} threads")
    faces = "1 face" if row.batch == 1 else f"{row.batch} faces"
    return f"{row.backend} {row.precision}, {threads}, {faces}"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
