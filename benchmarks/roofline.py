"""Multiply-adds per second of a network against what this machine can do, layer by layer, and what stands between.

    python benchmarks/roofline.py [--bundle zoo:ibug68_fast] [--iterations 2000] [--out benchmarks/results]

Everything on one thread in one run: the peaks in fp32, bf16 and int8, the bandwidth of each cache, and what a layer of hardly
any work costs (`measured_peaks.py`); then the bundle's fp32 and int8 files on both engines, with their profilers on for the
layers and without for the whole call, in turns. `roofline_model.py` says how a call is split. A layer's profiled time holds a
microsecond or more of the profiler's own, which a negative `between layers` gives back.

Writes roofline.json, roofline.md and roofline.png.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from engine_rows import ENGINES, PRECISIONS, arguments, table, write_document
from layer_profiles import FLOAT32, INT8, engine_call, engine_layers, network_work
from measured_peaks import bandwidths_gbs, call_costs_us, peaks_gmacs
from roofline_model import Bounded, Budget, Machine, bounded, budget

from lmedge.bundle import Bundle
from lmedge.runtimes.bench import alternate
from lmedge.runtimes.benchmarking.timing import BURST
from lmedge.runtimes.checks import select_here

# Of the timed calls, one in so many is made once more under the profiler.
_PROFILED_PART = 10
_PEAK_ROUNDS_PART = 100
_DOT_AREA = 4.0
# Ranges of the picture, in multiply-adds per byte and GMAC/s.
_INTENSITIES, _RATES, _LABEL_AT = (0.1, 300.0), (1.0, 400.0), 0.12


@dataclass(frozen=True)
class Profile:
    """A file on an engine: its layers against the roofline, and where the time of its call goes."""

    engine: str
    precision: str
    macs: int
    machine: Machine
    layers: Sequence[Bounded]
    spent: Budget

    @property
    def name(self) -> str:
        return f"{self.engine}, {self.precision}"


def main() -> None:
    given = arguments(__doc__ or "")
    bundle = Bundle.open(given.bundle)
    rounds = max(5, given.iterations // _PEAK_ROUNDS_PART)
    peaks, bandwidths = peaks_gmacs(rounds), bandwidths_gbs(rounds)
    best = {precision: max(rates.values()) for precision, rates in peaks.items()}
    profiles = []
    for engine in ENGINES:
        machine = Machine(best, bandwidths, call_costs_us(engine, rounds))
        profiles += _profiles(bundle, engine, machine, given.iterations)
    facts = {"bundle": given.bundle, "iterations": given.iterations}
    intro = "One thread. The scripts roofline.py and roofline_model.py say what each column is."
    parts = [
        *_machine_parts(peaks, profiles),
        *_budget_parts(profiles),
        *(part for one in profiles for part in _layer_parts(one)),
    ]
    title = f"{bundle.manifest.name} against the roofline of this machine"
    write_document(given.out, "roofline", title, intro, parts, _document(peaks, bandwidths, profiles), **facts)
    draw(profiles, given.out / "roofline.png")


def _profiles(bundle: Bundle, engine: str, machine: Machine, iterations: int) -> list[Profile]:
    """Both precisions on one engine, whole calls in turns."""
    crop = np.random.default_rng(0).integers(0, 256, (1, *bundle.manifest.preprocess.input_hw, 3), np.uint8)
    files = {precision: select_here(bundle, engine, precision).file for precision in PRECISIONS}
    calls = [engine_call(engine, file, crop) for file in files.values()]
    whole = dict(zip(files, alternate(*calls, iterations, time.perf_counter_ns, burst=BURST), strict=True))
    profiles = []
    for precision, file in files.items():
        layers = [bounded(layer, machine) for layer in engine_layers(engine, file, crop, max(20, iterations // _PROFILED_PART))]
        macs = sum(work.macs for work in network_work(file, crop.shape).values())
        spent = budget(layers, 1e3 * float(np.median(whole[precision])))
        profiles.append(Profile(engine, precision, macs, machine, layers, spent))
        print(f"{profiles[-1].name}: {spent.whole:.0f} us, {macs / spent.whole / 1e3:.1f} GMAC/s", flush=True)
    return profiles


# ---- what is written ----


def _machine_parts(peaks: Mapping[str, Mapping[str, float]], profiles: Sequence[Profile]) -> list[str]:
    rows: list[dict[str, Any]] = []
    for precision, rates in peaks.items():
        name = max(rates, key=lambda one: rates[one])
        rows.append({"what": f"peak, {precision}", "value": f"{rates[name]:.1f} GMAC/s", "by": name})
    for held, rate in profiles[0].machine.bandwidths.items():
        rows.append({"what": f"copy within {held // 2**10} kB", "value": f"{rate:.1f} GB/s", "by": "numpy, read and written"})
    for engine in ENGINES:
        costs = next(one.machine.call_us for one in profiles if one.engine == engine)
        rows += [{"what": f"one more layer, {kind}", "value": f"{us} µs", "by": engine} for kind, us in costs.items()]
    return ["## The machine", table(rows)]


def _budget_parts(profiles: Sequence[Profile]) -> list[str]:
    def cell(us: float, one: Profile) -> str:
        return f"{us:.0f} ({100 * us / one.spent.whole:.0f} %)"

    rows: list[dict[str, Any]] = [
        {"µs of one call": "**whole call**", **{one.name: f"{one.spent.whole:.0f}" for one in profiles}}
    ]
    rows.append(
        {"µs of one call": "all multiply-adds at the peak", **{one.name: cell(one.spent.ideal, one) for one in profiles}}
    )
    for cause in profiles[0].spent.causes:
        rows.append({"µs of one call": cause, **{one.name: cell(one.spent.causes[cause], one) for one in profiles}})
    rows.append(
        {
            "µs of one call": "between layers, less the profiler's own",
            **{one.name: cell(one.spent.between, one) for one in profiles},
        }
    )
    rows.append({"µs of one call": "GMAC/s", **{one.name: f"{one.macs / one.spent.whole / 1e3:.1f}" for one in profiles}})
    rows.append({"µs of one call": "multiply-adds seen in layers", **{one.name: _seen(one) for one in profiles}})
    return ["## What stands between", table(rows)]


def _seen(one: Profile) -> str:
    return f"{100 * sum(entry.layer.macs for entry in one.layers) / one.macs:.1f} % of {one.macs / 1e6:.1f} M"


def _layer_parts(one: Profile) -> list[str]:
    return [f"## {one.name}, layer by layer", table([_layer_row(entry) for entry in one.layers])]


def _layer_row(entry: Bounded) -> dict[str, Any]:
    layer, working = entry.layer, entry.layer.macs > 0
    return {
        "layer": f"`{layer.name}`",
        "operator": layer.operator,
        "kind": layer.kind,
        "in": _shape(layer.input_shape),
        "out": _shape(layer.output_shape),
        "kMAC": f"{layer.macs / 1e3:.0f}" if working else "",
        "weights, kB": f"{layer.weight_bytes / 1e3:.1f}",
        "activations, kB": f"{layer.activation_bytes / 1e3:.1f}",
        "µs": f"{layer.us:.0f}",
        "GMAC/s": f"{entry.gmacs:.1f}" if working else "",
        "of peak": f"{100 * entry.of_peak:.0f} % of {layer.precision}" if working else "",
        "MAC/byte": f"{entry.intensity:.1f}" if working else "",
        "bound by": entry.bound,
    }


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _document(
    peaks: Mapping[str, Mapping[str, float]], bandwidths: Mapping[int, float], profiles: Sequence[Profile]
) -> dict[str, Any]:
    return {
        "peaks_gmacs": peaks,
        "bandwidths_gbs": {str(held): rate for held, rate in bandwidths.items()},
        "rows": [
            {
                "engine": one.engine,
                "precision": one.precision,
                "macs": one.macs,
                "call_us": one.machine.call_us,
                "budget_us": asdict(one.spent),
                "layers": [{**asdict(entry), "layer": asdict(entry.layer)} for entry in one.layers],
            }
            for one in profiles
        ],
    }


def draw(profiles: Sequence[Profile], file: Path) -> None:
    """A roofline for each file: layers as dots whose area is their time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(len(ENGINES), len(PRECISIONS), sharex=True, sharey=True)
    for one, plot in zip(profiles, np.ravel(axes), strict=True):
        _draw_one(one, plot)
    for plot in axes[-1]:
        plot.set_xlabel("multiply-adds per byte")
    for plot in axes[:, 0]:
        plot.set_ylabel("GMAC/s, one thread")
    figure.savefig(file, dpi=120)


def _draw_one(one: Profile, plot: Any) -> None:
    working = [entry for entry in one.layers if entry.layer.macs]
    intensities = np.geomspace(*_INTENSITIES, 200)
    peak = one.machine.peaks[INT8 if one.precision == "int8" else FLOAT32]
    for held, rate in one.machine.bandwidths.items():
        plot.plot(intensities, np.minimum(peak, rate * intensities), color="#888888", linewidth=0.7)
        # Beside the slope, at the left edge, so that labels do not cover dots.
        plot.annotate(_size(held), (_LABEL_AT, rate * _LABEL_AT), fontsize=6, color="#555555", va="bottom")
    plot.axhline(peak, color="black", linewidth=0.9)
    for number, kind in enumerate(dict.fromkeys(entry.layer.kind for entry in working)):
        own = [entry for entry in working if entry.layer.kind == kind]
        plot.scatter(
            [entry.intensity for entry in own],
            [entry.gmacs for entry in own],
            s=[_DOT_AREA * entry.layer.us for entry in own],
            color=f"C{number}",
            alpha=0.6,
            linewidths=0,
            label=kind,
        )
    plot.set(xscale="log", yscale="log", xlim=_INTENSITIES, ylim=_RATES, title=f"{one.name}: {one.spent.whole:.0f} µs")
    plot.grid(linewidth=0.3)
    legend = plot.legend(fontsize=7, loc="lower right")
    for handle in legend.legend_handles:
        handle.set_sizes([20])


def _size(held: int) -> str:
    return f"{held // 2**20} MB" if held >= 2**20 else f"{held // 2**10} kB"


if __name__ == "__main__":
    main()
