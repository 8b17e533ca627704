"""Engines × precisions × networks: the bare engine call and `predict`, beside MobileNetV2 as published.

    python benchmarks/engines.py [--bundle BUNDLE...] [--iterations 2000] [--clock wall] [--out benchmarks/results]

Every trained bundle, in every precision that it has, and the yardstick (`yardstick.py`: MobileNetV2 1.0 at 112 px with 98
points, fp32). One thread, one face of 120 px in a frame of 1280 × 720 px:

- bare engine: the call on memory that is bound once (`bare_engines.bare_call`);
- predict: `FaceLandmarker.predict`, which is crop, engine and decoding;
- to yardstick: predict over the bare fp32 call of the yardstick on ONNX Runtime in the same run, with a 95 % interval.

Everything takes turns in bursts, every call gets another crop, and every answer is compared with the first one to that crop.
OpenVINO computes float networks in bf16 where the processor has it, unless told otherwise, as lmedge does; that call has a row
of its own. Writes engines.json and engines.md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from bare_engines import BareEngine, bare_call, bare_call_as_it_likes, default_precision
from engine_rows import CLOCKS, ENGINES, arguments, median_us, ratio, write_results
from latency_target import LIMIT_POINTS, LIMIT_RATIO, MET, MISSED, added_points, ratio_verdict, stated_report
from layer_profiles import network_work
from yardstick import NAME, yardstick_bundle

from lmedge.bundle import Artifact, Bundle, resolve_bundle
from lmedge.default_bundle import DEFAULT
from lmedge.runtimes import find_runtime
from lmedge.runtimes.answers import all_answers
from lmedge.runtimes.benchmarking.guarded_calls import SAME_PX, EngineCall, GuardedCall, PredictCall
from lmedge.runtimes.benchmarking.scene import make_scene
from lmedge.runtimes.benchmarking.timing import Times, measure
from lmedge.runtimes.checks import select_here
from lmedge.runtimes.landmarker import FaceLandmarker

THREADS = 1
BOX_PX = 120.0
# What bf16 may move a point by on a crop; it keeps 8 bits of mantissa.
_BF16_PX = 5.0
_FLOAT32 = "f32"


@dataclass(frozen=True)
class Contender:
    """One file of a network on an engine.

    Attributes:
        computes: what the engine computes float layers in; lmedge has no `predict` for any but "f32".
    """

    bundle: Bundle
    engine: str
    artifact: Artifact
    computes: str = _FLOAT32

    @property
    def is_yardstick(self) -> bool:
        return (self.bundle.manifest.name, self.engine, self.computes) == (NAME, "onnxruntime", _FLOAT32)


def main() -> None:
    given = arguments(__doc__ or "", every_bundle=True)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        bundles = [yardstick_bundle(Path(folder)), *map(Bundle.open, given.bundle)]
        entries = [entry for bundle in bundles for entry in contenders(bundle)]
        timed = timings(entries, given.iterations, given.clock)
        yard = next(engine for entry, (engine, _) in zip(entries, timed, strict=True) if entry.is_yardstick)
        rows = [row(entry, *times, yard) for entry, times in zip(entries, timed, strict=True)]
    intro = (
        f"Medians in µs of one face of {BOX_PX:g} px in a frame of 1280 × 720 px on one thread, in turns; `to yardstick` is "
        f"predict over the bare fp32 ONNX Runtime call of {NAME}, with its 95 % interval. NME as the bundle states it. "
        "The script says what each column is."
    )
    facts = {"iterations": given.iterations, "clock": given.clock}
    write_results(given.out, "engines", "Engines, precisions, networks", intro, rows, verdicts(rows, bundles), **facts)


def contenders(bundle: Bundle) -> Iterator[Contender]:
    """Every engine with the file that it takes here for each precision of the bundle."""
    for engine in ENGINES:
        for precision in dict.fromkeys(artifact.precision for artifact in bundle.candidates(engine)):
            artifact = select_here(bundle, engine, precision)
            yield Contender(bundle, engine, artifact)
            if (engine, precision) == ("openvino", "fp32"):
                likes = default_precision(artifact, make_scene(bundle.manifest.preprocess, BOX_PX).crops[:1])
                if likes != _FLOAT32:
                    yield Contender(bundle, engine, artifact, likes)


def timings(entries: Sequence[Contender], iterations: int, clock: str) -> list[tuple[Times, Times | None]]:
    """Times in ms of the bare engine call and of `predict` of each, all in turns."""
    with ExitStack() as opened:
        calls = [guarded(entry, opened) for entry in entries]
        subjects = [[call] for pair in calls for call in pair]
        found = iter(measure(subjects, iterations, clock=CLOCKS[clock]).times_ms)
        return [(next(found)[0], next(found)[0] if len(pair) == 2 else None) for pair in calls]


def guarded(entry: Contender, opened: ExitStack) -> list[GuardedCall]:
    """The bare call, and `predict` where lmedge computes so; their answers are kept."""
    bundle, engine, artifact = entry.bundle, entry.engine, entry.artifact
    scene = make_scene(bundle.manifest.preprocess, BOX_PX)
    name = f"{bundle.manifest.name}, {engine} {artifact.label}"
    runtime = opened.enter_context(find_runtime(engine).open(artifact, threads=THREADS, batch=1))
    ours = entry.computes == _FLOAT32
    make = bare_call if ours else bare_call_as_it_likes
    calls: list[GuardedCall] = [EngineCall(name, scene, 1, BareEngine(make, engine, artifact, THREADS))]
    if ours:
        calls.append(PredictCall(name, scene, 1, FaceLandmarker(bundle, runtime)))
    expected = all_answers(runtime, scene.crops).fractions
    for call in calls:
        call.keep_answers(expected, SAME_PX if ours else _BF16_PX)
    return calls


def row(entry: Contender, engine_ms: Times, predict_ms: Times | None, yard_ms: Times) -> dict[str, Any]:
    """A line of the table."""
    bundle, artifact = entry.bundle, entry.artifact
    portable = bundle.select("onnxruntime", "fp32").file
    works = network_work(portable, (1, *bundle.manifest.preprocess.input_hw, 3)).values()
    found: dict[str, Any] = {
        "network": bundle.manifest.name,
        "parameters": f"{sum(work.weights + work.biases for work in works) / 1e6:.2f} M",
        "MACs": f"{sum(work.macs for work in works) / 1e6:.1f} M",
        "engine": entry.engine,
        "precision": artifact.label,
        "floats in": entry.computes,
        "bare engine": median_us(engine_ms),
    }
    if predict_ms is not None:
        middle, low, high = ratio(predict_ms, yard_ms)
        found |= {"predict": median_us(predict_ms), "to yardstick": middle, "interval": f"{low} to {high}"}
        report = stated_report(bundle.manifest, entry.engine, artifact)
        if report is not None:
            found["NME"] = f"{100 * report['nme']:.2f} %"
    print(found, flush=True)
    return found


def verdicts(rows: Sequence[dict[str, Any]], bundles: Sequence[Bundle]) -> list[str]:
    """Sentences on the zoo's default network in int8: its speed on each engine, and its NME."""
    root = resolve_bundle(DEFAULT)
    bundle = next((one for one in bundles if one.root == root), None)
    if bundle is None:
        return [f"The default network, {DEFAULT}, was not among those measured."]
    name, sentences = bundle.manifest.name, []
    for found in rows:
        if found["network"] == name and found["precision"].startswith("int8"):
            low, high = map(float, found["interval"].split(" to "))
            sentences.append(
                f"{name}, {found['engine']} {found['precision']}: predict takes {found['to yardstick']} of the yardstick's "
                f"time ({low} to {high}); at most {LIMIT_RATIO}: **{ratio_verdict((low, high))}**."
            )
            report = stated_report(bundle.manifest, found["engine"], select_here(bundle, found["engine"], "int8"))
            if report is not None:
                points, best = added_points(report, [one.manifest for one in bundles])
                sentences.append(
                    f"Its NME there is {100 * report['nme']:.3f} %, {points:.3f} points above the least that any of these "
                    f"networks has on the same faces ({best}); at most {LIMIT_POINTS}: "
                    f"**{MET if points <= LIMIT_POINTS else MISSED}**."
                )
    return sentences


if __name__ == "__main__":
    main()
