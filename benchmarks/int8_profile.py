"""Where the time goes in float and in int8, by kind of layer: what keeps int8 from being faster still.

    python benchmarks/int8_profile.py RUN... [--out benchmarks/results]

A RUN is a folder of `lmedge build` or `lmedge quantize`. Both engines run one crop on one thread, fp32 and the x86 form of
int8, with their own profilers on, which adds about a microsecond per layer; whole calls are timed without them, in turns.
Writes int8_profile.json and int8_profile.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from engine_rows import ENGINES
from layer_profiles import KINDS, EngineLayer, engine_call, engine_layers

from lmedge.runtimes.bench import alternate, describe_machine

FILES = {"fp32": "export/model.fp32.onnx", "int8": "quantize/model.int8-x86.onnx"}
CALLS, PROFILED, BURST = 1200, 200, 20

Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    rows = [row for run in arguments.runs for row in _profile(run)]
    machine = describe_machine()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "int8_profile.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    (arguments.out / "int8_profile.md").write_text(_markdown(rows, machine))


def _profile(run: Path) -> list[dict[str, Any]]:
    files = {precision: run / name for precision, name in FILES.items()}
    shape = onnx.load(files["fp32"]).graph.input[0].type.tensor_type.shape.dim[1:]
    crop = np.random.default_rng(0).integers(0, 256, (1, *(dim.dim_value for dim in shape)), np.uint8)
    rows = []
    for engine in ENGINES:
        calls = [engine_call(engine, file, crop) for file in files.values()]
        whole = dict(zip(files, alternate(*calls, CALLS, time.perf_counter_ns, burst=BURST), strict=True))
        row = {
            "network": run.name,
            "engine": engine,
            "call_us": {precision: round(float(np.median(times)) * 1e3, 1) for precision, times in whole.items()},
            "kinds_us": {precision: _by_kind(engine_layers(engine, file, crop, PROFILED)) for precision, file in files.items()},
        }
        print(f"{run.name} {engine}: {row['call_us']}", flush=True)
        rows.append(row)
    return rows


# ---- what is written ----


def _by_kind(layers: Iterable[EngineLayer]) -> Times:
    """Medians of the layers, summed over each kind, in microseconds."""
    sums = dict.fromkeys(KINDS, 0.0)
    for layer in layers:
        sums[layer.kind] += layer.us
    return {kind: round(total, 1) for kind, total in sums.items()}


def _markdown(rows: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    engines = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino"))
    lines = [
        "# Where int8 gains, and where it does not",
        "",
        "Made by `python benchmarks/int8_profile.py`. Microseconds for one crop on one thread, fp32 → int8 (x86 form), and how",
        "many times faster; layers as the engine's own profiler has them, the whole call without it, both networks in turns.",
        "",
        f"{machine['cpu']}, Python {platform.python_version()}, {engines}",
        "",
        f"| | {' | '.join(row['network'] + ', ' + row['engine'] for row in rows)} |",
        f"|---|{'---|' * len(rows)}",
    ]
    lines += [f"| {kind} | {' | '.join(_cell(row['kinds_us'], kind) for row in rows)} |" for kind in KINDS]
    wholes = ({precision: {"whole": time} for precision, time in row["call_us"].items()} for row in rows)
    lines.append(f"| **whole call** | {' | '.join(_cell(times, 'whole') for times in wholes)} |")
    return "\n".join(lines) + "\n"


def _cell(times: dict[str, Times], kind: str) -> str:
    before, after = times["fp32"][kind], times["int8"][kind]
    if not before and not after:
        return "–"
    return f"{before:.0f} → {after:.0f}" + (f" ({before / after:.2f}×)" if before and after else "")


if __name__ == "__main__":
    main()
