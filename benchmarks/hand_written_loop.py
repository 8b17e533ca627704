"""What lmedge's engine call costs beside a loop that is written by hand on the bare engine.

    python benchmarks/hand_written_loop.py [--bundle zoo:ibug68_fast] [--iterations 2000] [--out benchmarks/results]

On one thread, from a crop to an answer that the caller owns:

- lmedge: `Runtime.infer`, which checks what goes in and what comes out;
- by hand: memory bound once, the crop copied in, the answer copied out (`bare_engines.bare_call`);
- tutorial: `session.run`, or the compiled model called (`bare_engines.plain_call`).

All three take turns in bursts, every call gets another crop, and every answer is compared with the first one to that crop.
Writes hand_written_loop.json and .md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

from typing import Any

import cv2
from bare_engines import BareEngine, bare_call, plain_call
from engine_rows import CLOCKS, arguments, contenders, median_us, ratio, write_results

from lmedge.bundle import Artifact, Bundle
from lmedge.runtimes import find_runtime
from lmedge.runtimes.answers import all_answers
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.benchmarking.guarded_calls import SAME_PX, EngineCall
from lmedge.runtimes.benchmarking.scene import make_scene
from lmedge.runtimes.benchmarking.timing import Clock, measure

THREADS = 1


class CheckedCall:
    """`Runtime.infer` behind the interface that `EngineCall` times."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self.inputs = runtime, runtime.inputs

    def engine_call(self, feeds: dict[str, Any]) -> Any:
        return lambda: self._runtime.infer(feeds)


def main() -> None:
    given = arguments(__doc__ or "")
    cv2.setNumThreads(1)
    bundle = Bundle.open(given.bundle)
    rows = [row(bundle, engine, artifact, given.iterations, CLOCKS[given.clock]) for engine, artifact in contenders(bundle)]
    intro = (
        "Medians in µs of one crop on one thread; ratios of lmedge to the others, to the loop by hand with a 95 % interval. "
        "The script says what each is."
    )
    facts = {"bundle": given.bundle, "iterations": given.iterations, "clock": given.clock}
    write_results(given.out, "hand_written_loop", "The engine call against a loop written by hand", intro, rows, **facts)


def row(bundle: Bundle, engine: str, artifact: Artifact, iterations: int, clock: Clock) -> dict[str, Any]:
    scene = make_scene(bundle.manifest.preprocess)
    with find_runtime(engine).open(artifact, threads=THREADS) as runtime:
        expected = all_answers(runtime, scene.crops).fractions
        callers = (
            CheckedCall(runtime),
            BareEngine(bare_call, engine, artifact, THREADS),
            BareEngine(plain_call, engine, artifact, THREADS),
        )
        calls = [EngineCall(type(caller).__name__, scene, 1, caller) for caller in callers]
        for call in calls:
            call.keep_answers(expected, SAME_PX)
        (ours,), (bound,), (plain,) = measure([[call] for call in calls], iterations, clock=clock).times_ms
    found, low, high = ratio(ours, bound)
    row = {
        "engine": engine,
        "precision": artifact.precision,
        "lmedge": median_us(ours),
        "by hand": median_us(bound),
        "tutorial": median_us(plain),
        "to by hand": found,
        "interval": f"{low} to {high}",
        "to tutorial": ratio(ours, plain)[0],
    }
    print(row)
    return row


if __name__ == "__main__":
    main()
