"""What the benchmarks of the runtime share: which engines and files, and how results are written."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmedge.bundle import Artifact, Bundle, zoo_bundles
from lmedge.bundle.zoo import PREFIX
from lmedge.default_bundle import DEFAULT
from lmedge.runtimes.bench import describe_machine
from lmedge.runtimes.benchmarking.statistics import Times, block_size, figures, ratio_interval
from lmedge.runtimes.benchmarking.timing import BURST, WALL_CLOCK, Clock
from lmedge.runtimes.checks import select_here

ENGINES = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "int8")
# What passes, or what this process spends on all its threads: waiting for a turn is no part of that.
CLOCKS = {"wall": WALL_CLOCK, "processor": Clock(time.process_time_ns)}


def arguments(description: str, *, every_bundle: bool = False, iterations: int = 2000) -> argparse.Namespace:
    """Bundle, iterations, clock and folder of the results; or several bundles, all trained ones by default."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    if every_bundle:
        zoo = [f"{PREFIX}{folder.name}" for folder in zoo_bundles()]
        parser.add_argument("--bundle", nargs="+", default=zoo, help="bundle folders or zoo:NAME")
    else:
        parser.add_argument("--bundle", default=DEFAULT, help="a bundle folder or zoo:NAME")
    parser.add_argument("--iterations", type=int, default=iterations, help="timed calls of each kind")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor: where other work runs on the machine")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def contenders(bundle: Bundle) -> Iterator[tuple[str, Artifact]]:
    """Every engine with the file that it takes here for each precision."""
    for engine in ENGINES:
        for precision in PRECISIONS:
            yield engine, select_here(bundle, engine, precision)


def median_us(times_ms: Times) -> float:
    return round(1e3 * float(np.median(times_ms)), 1)


def ratio(times_ms: Times, other_ms: Times) -> tuple[float, float, float]:
    """Of two medians, with its 95 % interval; both were timed in turn in bursts."""
    ours, theirs = (figures(times, block_size(len(times), BURST)).blocks_ms for times in (times_ms, other_ms))
    low, high = ratio_interval(ours, theirs, paired=True) or (float("nan"), float("nan"))
    return round(float(np.median(times_ms) / np.median(other_ms)), 3), round(low, 3), round(high, 3)


def write_results(
    folder: Path, name: str, title: str, intro: str, rows: Sequence[dict[str, Any]], verdicts: Sequence[str] = (), **facts: Any
) -> None:
    """NAME.json and NAME.md: one table, and before it what it comes to."""
    document = {**({"verdicts": list(verdicts)} if verdicts else {}), "rows": list(rows)}
    write_document(folder, name, title, intro, [*verdicts, table(rows)], document, **facts)


def write_document(
    folder: Path, name: str, title: str, intro: str, parts: Sequence[str], document: dict[str, Any], **facts: Any
) -> None:
    """NAME.json with `document` and NAME.md with `parts`, both with the machine and the facts of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    # Of the last minute: with other work on the machine, caches are not this benchmark's own.
    facts["load"] = round(os.getloadavg()[0], 1)
    written = json.dumps({"machine": machine, **facts, **document}, indent=1)
    (folder / f"{name}.json").write_text(written + "\n", encoding="utf-8")
    versions = ", ".join(f"{tool} {machine['versions'].get(tool, 'absent')}" for tool in (*ENGINES, "opencv-python", "numpy"))
    told = "".join(f", {key} {value}" for key, value in facts.items())
    where = f"{machine['cpu']}, {machine['cores_usable']} cores, Python {machine['python']}, {versions}{told}"
    made = f"Made by `python benchmarks/{name}.py`. {intro}"
    (folder / f"{name}.md").write_text("\n\n".join([f"# {title}", made, where, *parts]) + "\n", encoding="utf-8")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, with every column that a row has."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(str(row.get(column, '–')) for column in columns)} |" for row in rows]
    return "\n".join(lines)
