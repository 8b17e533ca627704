"""Latency of `FaceLandmarker.predict` and of the bare engine call under it, measured in the same run.

Both alternate call by call, so that a machine that slows down slows both; their difference is what lmedge adds: checks, crop,
and the way back to image pixels.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Bundle, machine_arch
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import crop_face
from lmedge.reports import LatencyReport
from lmedge.runtimes import find_runtime
from lmedge.runtimes.checks import PlannedCheck, plan_checks
from lmedge.runtimes.cuda_driver import probe_driver
from lmedge.runtimes.landmarker import FaceLandmarker

_WARM_UP = 30
_PERCENTILES = (50, 90, 99)
# A common camera frame and a face at arm's length in it; noise, since no engine's time depends on what it sees.
_FRAME_HW = (480, 640)
_BOX_XYXY = (220.0, 140.0, 420.0, 340.0)
_PACKAGES = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "cuda-bindings",
    "tensorrt",
    "torch",
)

Progress = Callable[[int, int], None]


def bench(
    bundle: Bundle,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    iterations: int = 300,
    progress: Progress | None = None,
) -> list[LatencyReport]:
    """Measures every backend and precision of a bundle, one face per call.

    Args:
        backends: None takes every installed one that the bundle serves.
        precisions: None takes all; of several files for one precision, the one that `select_here` gives is measured.
        device: None is each engine's own default: the CPU, or its first device where it has no CPU.
        threads: of CPU engines; None leaves the engine's default.
        iterations: measured calls of each kind, after a warm-up.
        progress: called with (rows done, rows in all).

    Raises:
        BackendUnavailableError: a named backend, or every one, is missing here.
        BundleError: the bundle has nothing for a backend or precision that was named.
        InputError: iterations below 1.
    """
    if iterations < 1:
        raise InputError(f"iterations must be at least 1; got {iterations}.")
    planned, _ = plan_checks(bundle, backends, precisions, device=device)
    # The last of several files for one precision, as everywhere.
    chosen = list({(check.backend, check.artifact.precision): check for check in planned}.values())
    reports = []
    for check in chosen:
        reports.append(_bench_one(bundle, check, device, threads, iterations))
        if progress is not None:
            progress(len(reports), len(chosen))
    return reports


def describe_machine() -> dict[str, Any]:
    """What figures were measured on: processor, cores, memory, system, Python, versions of engines. Plain data.

    Where there is an NVIDIA driver, also "gpus", the names of its devices, and "cuda_driver", the newest CUDA it runs.
    """
    driver = probe_driver()
    gpus = {"gpus": [gpu.name for gpu in driver.devices], "cuda_driver": driver.version} if driver.devices else {}
    return {
        "cpu": _cpu_model(),
        "arch": machine_arch(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        **gpus,
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _bench_one(bundle: Bundle, check: PlannedCheck, device: str | None, threads: int | None, iterations: int) -> LatencyReport:
    frame = np.random.default_rng(0).integers(0, 256, (*_FRAME_HW, 3), np.uint8)
    box = FaceBox(*_BOX_XYXY)
    with find_runtime(check.backend).open(check.artifact, device=device, threads=threads) as runtime:
        landmarker = FaceLandmarker(bundle, runtime)
        crop, _ = crop_face(frame, box, landmarker.spec)
        call_engine = runtime.engine_call({runtime.inputs[0].name: crop[None]})
        predict_ms, engine_ms = alternate(lambda: landmarker.predict(frame, [box]), call_engine, iterations)
        p50, p90, p99 = np.percentile(predict_ms, _PERCENTILES)
        engine_p50, engine_p90, engine_p99 = np.percentile(engine_ms, _PERCENTILES)
        return LatencyReport(
            backend=check.backend,
            precision=check.artifact.precision,
            threads=threads,
            batch=1,
            p50_ms=float(p50),
            p90_ms=float(p90),
            p99_ms=float(p99),
            count=iterations,
            engine_p50_ms=float(engine_p50),
            engine_p90_ms=float(engine_p90),
            engine_p99_ms=float(engine_p99),
            artifact=check.artifact.path,
            engine_precision=runtime.precision_used,
            remark=runtime.remark,
        )


def alternate(
    first: Callable[[], Any],
    second: Callable[[], Any],
    iterations: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    burst: int = 1,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Milliseconds of each call of two functions, in turn, after a warm-up.

    Args:
        burst: calls of one before the other has its turn. Two networks that take turns call by call drive each other out of the
            processor's caches, which no device does to its one network.
    """
    for _ in range(_WARM_UP):
        first()
        second()
    times_ns = np.empty((2, iterations), np.int64)
    for start in range(0, iterations, burst):
        for call, row in ((first, times_ns[0]), (second, times_ns[1])):
            for index in range(start, min(start + burst, iterations)):
                began = clock_ns()
                call()
                row[index] = clock_ns() - began
    return times_ns[0] / 1e6, times_ns[1] / 1e6


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware"))]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
