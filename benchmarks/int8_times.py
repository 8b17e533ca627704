"""The bare engine call of int8 files of several runs, in turn, so that a machine that slows down slows all of them."""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Bundle
from lmedge.errors import BundleError
from lmedge.runtimes import find_runtime
from lmedge.runtimes.checks import select_here

ENGINES = ("onnxruntime", "openvino")
_BLOCKS, _BLOCK_CALLS = 10, 60


def int8_times_ms(runs: list[Path]) -> list[dict[str, float]]:
    """The bare engine call of each run's int8 files on one thread, in ms by engine: the median of the quietest block.

    A block is many calls of one file, so that its weights are in the caches; all files take turns.
    """
    bundles = [Bundle.open(run / "bundle") for run in runs]
    with contextlib.ExitStack() as stack:
        opened = []
        for place, bundle in enumerate(bundles):
            for engine in ENGINES:
                try:
                    artifact = select_here(bundle, engine, "int8")
                except BundleError:  # its int8 files failed a gate
                    continue
                runtime = stack.enter_context(find_runtime(engine).open(artifact, device=None, threads=1, batch=1))
                feed = {runtime.inputs[0].name: _noise((1, *bundle.manifest.preprocess.input_hw, 3))}
                opened.append((place, engine, runtime, feed))
        blocks: dict[tuple[int, str], list[float]] = {}
        for _ in range(_BLOCKS):
            for place, engine, runtime, feed in opened:
                times = []
                for _ in range(_BLOCK_CALLS):
                    started = time.perf_counter()
                    runtime.infer(feed)
                    times.append(time.perf_counter() - started)
                blocks.setdefault((place, engine), []).append(1e3 * statistics.median(times))
    return [{e: min(blocks[place, e]) for e in ENGINES if (place, e) in blocks} for place in range(len(runs))]


def _noise(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
