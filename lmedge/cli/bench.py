"""`lmedge bench`: how fast a bundle is on this machine, or which of two is faster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.bench_tables import print_comparison, print_rows
from lmedge.cli.console import note, print_json, progress_bar
from lmedge.cli.options import BackendsOption, DeviceOption, JsonOption, PrecisionsOption
from lmedge.reports import LatencyReport

_JSON = ".json"
# Rows, and the machine that they were measured on.
Measured = tuple[Sequence[LatencyReport], dict[str, Any]]


def _counts(text: str | None) -> str | None:
    """A check of "1,2": whole numbers of at least 1."""
    for part in [] if text is None else text.split(","):
        if not part.strip().isdecimal() or int(part) < 1:
            raise typer.BadParameter(f"expected whole numbers of at least 1, e.g. 1 or 1,2; got {text!r}.")
    return text


def bench(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle folder; with --compare also a file that bench --json wrote.")
    ],
    backend: BackendsOption = None,
    precision: PrecisionsOption = None,
    device: DeviceOption = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads", metavar="N[,N]", callback=_counts, help="CPU threads, a row each; the engine's default if none."
        ),
    ] = None,
    batch: Annotated[str, typer.Option("--batch", metavar="N[,N]", callback=_counts, help="Faces per call, a row each.")] = "1",
    iterations: Annotated[
        int, typer.Option("--iterations", min=1, help="Timed calls per engine and precision; p99.9 needs 10000.")
    ] = 1000,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, help="Untimed calls before them.")] = 30,
    every_ms: Annotated[
        float | None,
        typer.Option("--every-ms", min=0.001, help="Sleep between calls, as a camera makes it: 33 for 30 frames a second."),
    ] = None,
    cold_starts: Annotated[
        int, typer.Option("--cold-starts", min=0, help="Fresh processes timed to their first answer; 0 leaves that out.")
    ] = 3,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="OTHER", help="A bundle, timed in turn with this one, or a JSON file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time predict and the bare engine call in the same run, with start, memory and energy. Exit 3 if answers are wrong."""
    from lmedge.bundle import Bundle
    from lmedge.runtimes import find_runtime
    from lmedge.runtimes.bench import Conditions, bench_two, describe_machine
    from lmedge.runtimes.bench import bench as run_bench
    from lmedge.runtimes.benchmarking.compare import read_rows
    from lmedge.runtimes.checks import plan_checks

    if bundle.suffix == _JSON:
        if compare is None or compare.suffix != _JSON:
            raise typer.BadParameter(f"{bundle} is a measurement; say with --compare OTHER{_JSON} what to compare it with.")
        rows, machine = read_rows(bundle)
        _compare_with_file(rows, machine, read_rows(compare), as_json)
        return
    for name in backend or ():
        find_runtime(name)  # a name that no engine has is told as such, not as missing from the bundle
    opened = Bundle.open(bundle)
    # Read before minutes of measuring end in a file that is none.
    recorded = read_rows(compare) if compare is not None and compare.suffix == _JSON else None
    other = Bundle.open(compare) if compare is not None and recorded is None else None
    how = Conditions(
        device=device,
        threads=tuple(map(int, threads.split(","))) if threads else (None,),
        batches=tuple(map(int, batch.split(","))),
        iterations=iterations,
        warm_up=warm_up,
        every_ms=every_ms,
        cold_starts=cold_starts,
        energy=True,
    )
    with progress_bar() as progress:

        def advance(done: int, total: int) -> None:
            progress(done, total, "measuring")

        if other is not None:
            rows, others, comparisons = bench_two(opened, other, backend, precision, how, progress=advance)
        else:
            rows = run_bench(opened, backend, precision, how, progress=advance)
    for skipped in plan_checks(opened, backend, precision, device=device)[1]:
        note(f"NOT MEASURED  {skipped.backend}: {skipped.reason}")
    machine = describe_machine()
    if not as_json:
        print_rows(rows, machine)
    elif compare is None:
        print_json([{**row.to_json(), "machine": machine} for row in rows])
    if other is not None:
        _show_comparison((rows, machine), (others, machine), comparisons, as_json)
    elif recorded is not None:
        _compare_with_file(rows, machine, recorded, as_json)


def _compare_with_file(rows: Sequence[LatencyReport], machine: dict[str, Any], recorded: Measured, as_json: bool) -> None:
    from lmedge.runtimes.benchmarking.compare import compare

    comparisons, alone = compare(rows, recorded[0])
    _show_comparison((rows, machine), recorded, comparisons, as_json, alone)


def _show_comparison(
    first: Measured, second: Measured, comparisons: Sequence[Any], as_json: bool, alone: Sequence[str] = ()
) -> None:
    from lmedge.runtimes.benchmarking.compare import machine_differences

    differences = machine_differences(first[1], second[1])
    if not as_json:
        print_comparison(comparisons, alone, differences)
        return
    rows, others = ([{**row.to_json(), "machine": machine} for row in found] for found, machine in (first, second))
    compared = [comparison.to_json() for comparison in comparisons]
    print_json({"rows": rows, "other": others, "comparison": compared, "machine_differences": differences})
