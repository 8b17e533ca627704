"""What people and programs see: tables and messages through rich, one JSON document on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lmedge.errors import BackendUnavailableError, GateError, LmedgeError
from lmedge.progress import Progress

EXIT_ERROR, EXIT_GATE, EXIT_UNAVAILABLE = 1, 3, 4
_PIPE_COLUMNS = 140
_NUMBER = re.compile(r"–|[-+]?[\d.,]+(e[-+]?\d+)?( ?(%|MB|ms|px))?")


def exit_code(error: LmedgeError) -> int:
    if isinstance(error, GateError):
        return EXIT_GATE
    return EXIT_UNAVAILABLE if isinstance(error, BackendUnavailableError) else EXIT_ERROR


def print_error(error: LmedgeError) -> None:
    """The message on stderr, as it is: no markup, no wrapping that would break a path or a command."""
    kind = "gate failed" if isinstance(error, GateError) else "error"
    sys.stderr.write(f"lmedge: {kind}: {error}\n")


def say(text: str = "") -> None:
    """A line for people on stdout."""
    from rich.console import Console

    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A line for people on stderr, also where stdout belongs to a program."""
    sys.stderr.write(f"{text}\n")


def print_json(document: Any) -> None:
    """One JSON document on stdout; numbers that JSON cannot hold become null."""
    sys.stdout.write(json.dumps(_finite(document), indent=1, ensure_ascii=False) + "\n")
    sys.stdout.flush()  # a full disk is an error here, not after the exit code is fixed


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; the first column is text, the others are aligned right where they hold numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_NUMBER.fullmatch(row[index]) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:  # a pipe has no width; 80 columns would fold the figures
        console = Console(markup=False, highlight=False, width=_PIPE_COLUMNS)
    console.print(title, style="italic", soft_wrap=True)  # not the table's own title, which would fold a path
    console.print(table)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr with time left; a new description starts a new bar. Silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        total_before: int | None = -1

        def advance(done: int, total: int | None, text: str) -> None:
            nonlocal task, total_before
            if total != total_before:
                bar.remove_task(task)
                task, total_before = bar.add_task(text, total=total), total
            bar.update(task, completed=done, description=text)

        yield advance


def percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
