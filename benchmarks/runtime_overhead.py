"""What `FaceLandmarker.predict` costs beside the two calls that nobody can do without.

    python benchmarks/runtime_overhead.py [--bundle zoo:ibug68_fast] [--iterations 2000] [--out benchmarks/results]

One face in a frame of 1280 × 720 px, one thread for engine and OpenCV:

- predict: checks, crop, engine, decoding, and the result;
- engine: the bare engine call on memory that is bound once (`bare_engines.bare_call`);
- warp: one bare `cv2.warpAffine` of the same box to a crop of the same size.

The overhead is predict − engine − warp. Faces have two sizes: one that the crop makes smaller by less than 1.5, and one by
more, where lmedge halves the image first, which a single warp leaves out. predict has its turns in bursts, engine and warp
together have theirs, and every answer is compared with the first one to that crop. Memory is what tracemalloc counts, arrays of
NumPy and OpenCV included: the most that is taken at once during one call, and what of it stays with the result.
Writes runtime_overhead.json and .md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import tracemalloc
from typing import Any

import cv2
import numpy as np
from bare_engines import BareEngine, bare_call
from engine_rows import CLOCKS, arguments, contenders, median_us, write_results

from lmedge.bundle import Artifact, Bundle
from lmedge.runtimes import find_runtime
from lmedge.runtimes.answers import all_answers
from lmedge.runtimes.benchmarking.guarded_calls import SAME_PX, EngineCall, PredictCall
from lmedge.runtimes.benchmarking.scene import Scene, make_scene
from lmedge.runtimes.benchmarking.timing import Clock, measure
from lmedge.runtimes.landmarker import FaceLandmarker

THREADS = 1
BOXES_PX = (120.0, 200.0)
# What an overhead may be: the larger of the two.
LIMIT_US, LIMIT_PART = 60.0, 0.15
_COUNTED_FRAMES = 200


class WarpCall:
    """One `cv2.warpAffine` from the frame to a crop; an `Action`."""

    def __init__(self, scene: Scene, border_value: int) -> None:
        self._scene, self._border = scene, (border_value,) * 3
        size = scene.crops.shape[1]
        self._size, self._crop = (size, size), np.zeros((size, size, 3), np.uint8)
        self._matrix = scene.transforms[0].matrix

    def prepare(self, number: int) -> None:
        self._matrix = self._scene.transforms[number % len(self._scene.boxes)].matrix

    def call(self) -> Any:
        return cv2.warpAffine(
            self._scene.frame_bgr,
            self._matrix,
            self._size,
            dst=self._crop,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=self._border,
        )

    def check(self, number: int, answer: Any) -> None:
        """A part of the frame cannot be as even as an empty crop."""
        if float(np.std(answer)) < 1:
            raise RuntimeError("warpAffine gave an empty crop.")


def main() -> None:
    given = arguments(__doc__ or "")
    cv2.setNumThreads(1)
    bundle = Bundle.open(given.bundle)
    pairs = [(engine, artifact, box_px) for engine, artifact in contenders(bundle) for box_px in BOXES_PX]
    rows = [row(bundle, *pair, given.iterations, CLOCKS[given.clock]) for pair in pairs]
    intro = (
        f"Medians in µs on one thread. The overhead may be {LIMIT_US:g} µs or {100 * LIMIT_PART:g} % of engine and warp, "
        "whichever is larger. The script says what each column is."
    )
    facts = {"bundle": given.bundle, "iterations": given.iterations, "clock": given.clock}
    write_results(given.out, "runtime_overhead", "What predict costs beside the engine and one warp", intro, rows, **facts)


def row(bundle: Bundle, engine: str, artifact: Artifact, box_px: float, iterations: int, clock: Clock) -> dict[str, Any]:
    spec = bundle.manifest.preprocess
    scene = make_scene(spec, box_px)
    with find_runtime(engine).open(artifact, threads=THREADS) as runtime:
        landmarker = FaceLandmarker(bundle, runtime)
        predict = PredictCall("lmedge", scene, 1, landmarker)
        bare = EngineCall("bare", scene, 1, BareEngine(bare_call, engine, artifact, THREADS))
        expected = all_answers(runtime, scene.crops).fractions
        for call in (predict, bare):
            call.keep_answers(expected, SAME_PX)
        subjects = [[predict], [WarpCall(scene, spec.border_value), bare]]
        (ours,), (warp, engine_ms) = measure(subjects, iterations, clock=clock).times_ms
        peak, kept = allocation(predict)
    needed_us = median_us(engine_ms) + median_us(warp)
    over_us = round(median_us(ours) - needed_us, 1)
    row = {
        "engine": engine,
        "precision": artifact.precision,
        "face": f"{box_px:g} px",
        "reduction": round(float(1 / scene.transforms[0].matrix[0, 0]), 2),
        "predict": median_us(ours),
        "bare engine": median_us(engine_ms),
        "bare warp": median_us(warp),
        "overhead": over_us,
        "of both": f"{100 * over_us / needed_us:.0f} %",
        "within": "yes" if over_us <= max(LIMIT_US, LIMIT_PART * needed_us) else "no",
        "peak, bytes": peak,
        "result, bytes": kept,
    }
    print(row)
    return row


def allocation(predict: PredictCall) -> tuple[int, int]:
    """Medians over frames: bytes that are taken at most during one call, and bytes that its result holds."""
    peaks, kept = [], []
    tracemalloc.start()
    for number in range(_COUNTED_FRAMES):
        predict.prepare(number)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        faces = predict.call()
        held, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - before)
        kept.append(held - before)
        del faces
    tracemalloc.stop()
    return round(statistics.median(peaks)), round(statistics.median(kept))


if __name__ == "__main__":
    main()
