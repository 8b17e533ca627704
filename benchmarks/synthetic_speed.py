"""How fast faces are rendered on one core, and where the time goes.

    python benchmarks/synthetic_speed.py [--size 128] [--faces 400] [--out benchmarks/results]

Everything runs on one thread. Each round renders the same faces; the best round counts, since others may use the machine.
Stages are timed in rounds of their own: a stage is the calls of its functions, without those of stages inside it. Writes
synthetic_speed.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import cv2  # noqa: E402

from lmedge.data.synthetic import face, features, photo, scenery, skin, surface  # noqa: E402
from lmedge.runtimes.bench import describe_machine  # noqa: E402

ROUNDS = 5
OCCLUDERS, REST = "occluders", "person and pose"
# Stage → the functions whose time it is, as (module in which they are looked up, name).
STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "background": ((face, "draw_place"),),
    "body and hair behind": ((scenery, "draw_body"), (scenery, "draw_loose_hair")),
    "shape and expression": ((face, "deform"),),
    "labels and framing": ((face, "_frame"),),
    "head: triangles to pixels": ((surface, "rasterize"), (surface, "vertex_normals")),
    "head: colour": ((skin, "sample_maps"), (skin, "brow_texture"), (skin, "albedo")),
    "head: light": ((surface, "_lighting"),),
    "head: the rest": ((face, "draw_head"),),
    "eyes and mouth": ((features, "draw_eyes"), (features, "draw_mouth")),
    "visibility": ((face, "visible_points"),),
    "lens, sensor, file": ((photo, "photograph"),),
}


class StageClock:
    """Adds up the time of stages; a stage inside another one is taken off the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - started
                self.seconds[stage] += spent - self._inner.pop()
                self._inner[-1] += spent

        return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the pictures in px")
    parser.add_argument("--faces", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    for warm in range(20):
        face.render_face((1, warm), arguments.size)

    seconds = min(_round(arguments.size, arguments.faces) for _ in range(ROUNDS))
    clock = StageClock()
    for stage, functions in STAGES.items():
        for module, name in functions:
            setattr(module, name, clock.timed(stage, getattr(module, name)))
    for name, draw in face.DRAW.items():
        face.DRAW[name] = clock.timed(OCCLUDERS, draw)
    timed_seconds = _round(arguments.size, arguments.faces)
    stages = {stage: clock.seconds[stage] / arguments.faces for stage in (*STAGES, OCCLUDERS)}
    stages[REST] = timed_seconds / arguments.faces - sum(stages.values())

    per_second = arguments.faces / seconds
    print(f"{per_second:.0f} faces/s on one core at {arguments.size} px ({1e3 / per_second:.2f} ms each)")
    for stage, spent in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"{stage:28} {1e3 * spent:6.2f} ms {100 * spent * arguments.faces / timed_seconds:5.1f} %")
    record = {
        "faces_per_second": round(per_second, 1),
        "size_px": arguments.size,
        "faces": arguments.faces,
        "stages_ms": {stage: round(1e3 * spent, 3) for stage, spent in stages.items()},
        "machine": describe_machine(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "synthetic_speed.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _round(size_px: int, count: int) -> float:
    """Seconds of processor time for that many faces."""
    started = time.process_time()
    for number in range(count):
        face.render_face((0, number), size_px)
    return time.process_time() - started


if __name__ == "__main__":
    main()
