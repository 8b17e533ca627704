"""Hours in a car: does memory stay flat, are handles given back, how long are the longest calls, do threads disturb each other?

    python benchmarks/soak.py [--frames 200000] [--bundle zoo:ibug68_fast] [--precision int8] [--engine NAME ...] [--out DIR]

Each engine has a process of its own, one thread for engine and OpenCV. Faces appear and leave, none to six at a time; every
frame has another size, most are parts of a larger picture, some are copies, some are gray, and some boxes cannot be used.
Engines are compiled for one and for four faces.

- resident memory, open files and threads of the process, 200 times along the way. Growth is the mean of the last tenth against
  the mean of the tenth after the warm-up, which is the first tenth; it has to stay below 1 %.
- latency of `predict`: percentiles of frames with one face and of all; p99.9 where there are 10,000 frames of that kind.
- threads: the first frames once more in eight threads with a landmarker each, whose points must be those of one, bit for bit.

Writes soak.json and soak.md; ends with 1 where memory or handles grow, or a thread sees other points.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lmedge import FaceLandmarker
from lmedge.errors import InputError
from lmedge.runtimes.benchmarking.machine import describe_machine

Image = npt.NDArray[np.uint8]

ENGINES = ("onnxruntime", "openvino")
THREADS = 8
GROWTH_LIMIT = 0.01
_LEAST_FOR_P999 = 10_000
_LOOKS = 200
_MOST_FACES = 6
_PICTURE_HW, _LEAST_HW = (1080, 1920), (120, 160)
# Of 100 frames.
_COPIES, _GRAY, _BAD_BOXES = 5, 3, 2


def frames(count: int, seed: int = 0) -> Iterator[tuple[Image, npt.NDArray[np.float64]]]:
    """Images and boxes; the same for the same seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (54, 96, 3), np.uint8)
    picture = np.asarray(cv2.resize(coarse, _PICTURE_HW[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    faces = 0
    for _ in range(count):
        kind = rng.integers(0, 100)
        height, width = (int(rng.integers(least, most + 1)) for least, most in zip(_LEAST_HW, _PICTURE_HW, strict=True))
        top, left = int(rng.integers(0, _PICTURE_HW[0] - height + 1)), int(rng.integers(0, _PICTURE_HW[1] - width + 1))
        image = picture[top : top + height, left : left + width]
        if kind < _COPIES:
            image = image.copy()
        elif kind < _COPIES + _GRAY:
            image = image[:, :, 1]
        # Somebody comes or leaves every few frames.
        faces = min(_MOST_FACES, max(0, faces + int(rng.choice([-1, 0, 0, 0, 0, 1]))))
        sides = rng.uniform(30, 0.6 * min(height, width), faces)
        corners = rng.uniform(0, 1, (faces, 2)) * [width, height] - sides[:, None] / 2
        boxes = np.hstack([corners, corners + sides[:, None]])
        if faces and kind >= 100 - _BAD_BOXES:
            boxes[-1, 2] = np.nan
        yield image, boxes


def soak(engine: str, bundle: str, precision: str, count: int, threads_count: int) -> dict[str, Any]:
    """One engine's figures as plain data; to be called in a process of its own."""
    cv2.setNumThreads(1)
    times_ms, faces_seen = np.zeros(count, np.float32), np.zeros(count, np.int8)
    looks: list[tuple[int, int, int]] = []
    refused = 0
    with open_one(engine, bundle, precision) as landmarker:
        for index, (image, boxes) in enumerate(frames(count)):
            began = time.perf_counter_ns()
            try:
                landmarker.predict(image, boxes)
                times_ms[index] = (time.perf_counter_ns() - began) / 1e6
                faces_seen[index] = len(boxes)
            except InputError:
                refused += 1
            if index % max(1, count // _LOOKS) == 0:
                looks.append(look_at_process())
    return {
        "engine": engine,
        "frames": count,
        "faces": int(faces_seen.sum()),
        "refused": refused,
        "one_face_ms": percentiles(times_ms[faces_seen == 1]),
        "all_ms": percentiles(times_ms[faces_seen > 0]),
        **growth(looks),
        "threads": THREADS,
        "threads_frames": threads_count,
        "threads_alike": threads_are_alike(engine, bundle, precision, threads_count),
    }


def open_one(engine: str, bundle: str, precision: str) -> FaceLandmarker:
    return FaceLandmarker.open(bundle, backend=engine, precision=precision, threads=1, batches=(1, 4))


def look_at_process() -> tuple[int, int, int]:
    """Resident bytes, open files, and threads of this process."""
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def growth(looks: list[tuple[int, int, int]]) -> dict[str, Any]:
    """How memory and handles went from the second tenth to the last."""
    table = np.array(looks, np.float64)
    tenth = max(1, len(table) // 10)
    early, late = table[tenth : 2 * tenth].mean(axis=0), table[-tenth:].mean(axis=0)
    return {
        "resident_mib": [round(float(value) / 2**20, 2) for value in (early[0], late[0], table[:, 0].max())],
        "resident_growth": round(float(late[0] / early[0] - 1), 5),
        "files_growth": round(float(late[1] - early[1]), 2),
        "threads_growth": round(float(late[2] - early[2]), 2),
    }


def percentiles(times_ms: npt.NDArray[np.float32]) -> dict[str, Any]:
    wanted = {"p50": 50.0, "p99": 99.0, **({"p99.9": 99.9} if len(times_ms) >= _LEAST_FOR_P999 else {})}
    found = {name: round(float(np.percentile(times_ms, at)), 4) for name, at in wanted.items()} if len(times_ms) else {}
    return {**found, "max": round(float(times_ms.max(initial=0)), 4), "count": len(times_ms)}


def threads_are_alike(engine: str, bundle: str, precision: str, count: int) -> bool:
    """Whether threads that work at the same time, each with its own landmarker, see the very points that one sees alone."""

    def digest(_: int) -> str:
        points = hashlib.sha256()
        with open_one(engine, bundle, precision) as landmarker:
            for image, boxes in frames(count):
                if np.isfinite(boxes).all():
                    for face in landmarker.predict(image, boxes):
                        points.update(face.points_px.tobytes())
        return points.hexdigest()

    alone = digest(0)
    with ThreadPoolExecutor(THREADS) as pool:
        return all(found == alone for found in pool.map(digest, range(THREADS)))


def failures(row: dict[str, Any]) -> list[str]:
    """What an engine's row has against it."""
    found = []
    if row["resident_growth"] >= GROWTH_LIMIT:
        found.append(f"resident memory grew by {row['resident_growth']:.2%}")
    if row["files_growth"] > 0 or row["threads_growth"] > 0:
        found.append(f"{row['files_growth']:g} open files and {row['threads_growth']:g} threads more than at first")
    if not row["threads_alike"]:
        found.append(f"{row['threads']} threads do not see the points that one sees")
    return [f"{row['engine']}: {failure}" for failure in found]


def as_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| engine | frames | faces | one face: p50 / p99 / p99.9 / max, ms | resident early → late, MiB | growth "
        "| files, threads | 8 threads |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        one = row["one_face_ms"]
        times = " / ".join(f"{one[name]:.2f}" if name in one else "–" for name in ("p50", "p99", "p99.9", "max"))
        early, late, _ = row["resident_mib"]
        alike = f"the same bits in {row['threads_frames']} frames" if row["threads_alike"] else "DIFFERENT POINTS"
        lines.append(
            f"| {row['engine']} | {row['frames']} | {row['faces']} | {times} | {early:.1f} → {late:.1f} | "
            f"{row['resident_growth']:+.2%} | {row['files_growth']:+g}, {row['threads_growth']:+g} | {alike} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--thread-frames", type=int, default=2_000, help="frames of the comparison of threads")
    parser.add_argument("--bundle", default="zoo:ibug68_fast")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be given again; all without it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rows = []
    for engine in options.engine or ENGINES:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            asked = (engine, options.bundle, options.precision, options.frames, options.thread_frames)
            rows.append(process.submit(soak, *asked).result())
        print(as_table(rows[-1:]), flush=True)
    found = [failure for row in rows for failure in failures(row)]
    settings = {"bundle": options.bundle, "precision": options.precision}
    document = {**settings, "rows": rows, "failures": found, "machine": describe_machine()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "soak.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    machine = document["machine"]
    where = f"{options.bundle} {options.precision}, one thread, {machine['cpu']}, {machine['cores_usable']} cores\n\n"
    (options.out / "soak.md").write_text(f"# Soak\n\n{where}{as_table(rows)}", encoding="utf-8")
    print("\n".join(found) or "Memory and handles stay, and threads see the same points.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
