"""Which session options make one call short: lmedge's own beside what could be set instead.

    python benchmarks/session_options.py [--bundle zoo:ibug68_fast] [--iterations 1000] [--out benchmarks/results]

Each row is one option changed from what the adapters set (one static crop, as many threads as said, floats in f32):

- call: median of calls without a pause, all sessions of a table in turns;
- to lmedge's: the ratio to the adapters' options with as many threads, with its 95 % interval;
- paced: median of calls that start 33 ms apart, as a camera makes them;
- busy: processor time of the whole process per paced call. Threads that spin while they wait spend it on nothing.

Answers that differ from the first session's by more than 0.5 % of the crop end the run.
Writes session_options.json and .md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from engine_rows import CLOCKS, arguments, median_us, ratio, write_results

from lmedge.bundle import LANDMARKS, Artifact, Bundle
from lmedge.runtimes.benchmarking.timing import BURST, Clock
from lmedge.runtimes.checks import select_here
from lmedge.runtimes.onnxruntime import import_onnxruntime
from lmedge.runtimes.openvino import import_openvino

Crop = npt.NDArray[np.uint8]
Call = Callable[[], npt.NDArray[np.float32]]

OWN = "as lmedge has it"
DYNAMIC = "batch left dynamic"
ONNXRUNTIME: dict[str, dict[str, Any]] = {
    OWN: {},
    DYNAMIC: {},
    "no spinning": {"session.intra_op.allow_spinning": "0"},
    "denormals are zero": {"session.set_denormal_as_zero": "1"},
    "no memory pattern": {"enable_mem_pattern": False},
}
OPENVINO: dict[str, dict[str, Any]] = {
    OWN: {},
    DYNAMIC: {},
    "one stream": {"NUM_STREAMS": 1},
    "pinned": {"ENABLE_CPU_PINNING": True},
    "not pinned": {"ENABLE_CPU_PINNING": False},
    "throughput hint": {"PERFORMANCE_HINT": "THROUGHPUT"},
    "floats in bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
}
THREADS = (1, 2)
PACE_S, PACED_CALLS = 0.033, 45
# Half a pixel of a small crop.
_SAME_FRACTION = 0.5 / 96


def main() -> None:
    given = arguments(__doc__ or "", iterations=1000)
    bundle = Bundle.open(given.bundle)
    crop = np.random.default_rng(0).integers(0, 256, (1, *bundle.manifest.preprocess.input_hw, 3), np.uint8)
    rows = []
    for engine, variants in (("onnxruntime", ONNXRUNTIME), ("openvino", OPENVINO)):
        artifact = select_here(bundle, engine, "int8")
        for threads in THREADS:
            open_session = {"onnxruntime": _onnxruntime, "openvino": _openvino}[engine]
            calls = {
                name: open_session(artifact, crop, options, threads, dynamic=name == DYNAMIC)
                for name, options in variants.items()
            }
            check_answers(calls)
            found = measured(calls, given.iterations, CLOCKS[given.clock])
            rows += [{"engine": engine, "threads": threads, **row} for row in found]
    intro = "Medians in µs of one crop in int8; the script says what each column is."
    facts = {"bundle": given.bundle, "iterations": given.iterations, "clock": given.clock}
    write_results(given.out, "session_options", "Session options", intro, rows, **facts)


def measured(calls: Mapping[str, Call], iterations: int, clock: Clock) -> list[dict[str, Any]]:
    """A row for each call; the one named `OWN` is what the others are held against."""
    times = {name: np.array(values) for name, values in _in_turns(calls, iterations, clock).items()}
    rows = []
    for name, call in calls.items():
        found, low, high = ratio(times[name], times[OWN])
        paced_us, busy_us = _paced(call)
        row = {
            "options": name,
            "call": median_us(times[name]),
            "to lmedge's": found,
            "interval": "–" if name == OWN else f"{low} to {high}",
            "paced": paced_us,
            "busy": busy_us,
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def check_answers(calls: Mapping[str, Call]) -> None:
    expected = calls[OWN]()
    for name, call in calls.items():
        apart = float(np.abs(call() - expected).max())
        if not apart <= _SAME_FRACTION:
            sys.exit(f"{name}: points move by {apart:.4f} of the crop; these options answer something else.")


def _in_turns(calls: Mapping[str, Call], iterations: int, clock: Clock) -> dict[str, list[float]]:
    """Milliseconds of every call, in bursts by turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(max(1, iterations // BURST)):
        for name, call in calls.items():
            for _ in range(BURST):
                begun = clock.now_ns()
                call()
                times[name].append((clock.now_ns() - begun) / 1e6)
    return times


def _paced(call: Call) -> tuple[float, float]:
    """Median call and processor time per call, in µs, of calls that start `PACE_S` apart."""
    times, busy = [], time.process_time_ns()
    for _ in range(PACED_CALLS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
        time.sleep(max(0.0, PACE_S - times[-1]))
    return round(1e6 * float(np.median(times)), 1), round((time.process_time_ns() - busy) / 1e3 / PACED_CALLS, 1)


def _onnxruntime(artifact: Artifact, crop: Crop, options: Mapping[str, Any], threads: int, *, dynamic: bool) -> Call:
    engine = import_onnxruntime()
    settings = engine.SessionOptions()
    settings.intra_op_num_threads = threads
    if not dynamic:
        settings.add_free_dimension_override_by_name(str(artifact.inputs[0].shape[0]), 1)
    for name, value in options.items():
        if "." in name:
            settings.add_session_config_entry(name, value)
        else:
            setattr(settings, name, value)
    session = engine.InferenceSession(str(artifact.file), settings, providers=["CPUExecutionProvider"])
    feeds = {artifact.inputs[0].name: crop}
    return lambda: np.asarray(session.run([LANDMARKS], feeds)[0])


def _openvino(artifact: Artifact, crop: Crop, options: Mapping[str, Any], threads: int, *, dynamic: bool) -> Call:
    engine = import_openvino()
    core = engine.Core()
    model = core.read_model(str(artifact.file))
    if not dynamic:
        model.reshape({artifact.inputs[0].name: list(crop.shape)})
    own = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    own |= {"NUM_STREAMS": 0} if threads == 1 and "PERFORMANCE_HINT" not in options else {}
    request = core.compile_model(model, "CPU", {**own, **options}).create_infer_request()
    request.set_tensor(artifact.inputs[0].name, engine.Tensor(crop, shared_memory=True))

    def call() -> npt.NDArray[np.float32]:
        request.infer(share_outputs=True)
        return np.array(request.get_tensor(LANDMARKS).data)

    return call


if __name__ == "__main__":
    main()
