"""Time to accuracy: lmedge's training against a plain loop, and where the time of a step goes.

    python benchmarks/training_loop.py --data 300w:faces/300w [--target 0.05] [--limit-minutes 30]

The plain loop is what one writes first: constant crop size, every photo decoded again for every view, the last weights
validated; the same network, loss, augmentation and batch size. Both run at once, each on one thread and a core of its own, so
that other work on the machine slows both, until the validation NME reaches the target. Before that: faces per second of the
loader alone (one thread), of training steps under each choice of memory format, number type and activation, and a profile by
operator. Writes training_loop.json and training_loop.md to `--out`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from torch import nn

from lmedge.bundle import write_atomically
from lmedge.data.augment import AugmentSpec, Canvas, make_canvas, random_view
from lmedge.data.duplicates import share_keys_of_duplicates
from lmedge.data.samples import FaceSample, split_samples
from lmedge.data.sources import parse_source, read_sources
from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.models import Architecture, TrainedNetwork, build_network
from lmedge.pipeline.training import train as training
from lmedge.pipeline.training.dataset import TrainingFaces
from lmedge.pipeline.training.joint import JointPoints
from lmedge.pipeline.training.memory import keep_freed_memory
from lmedge.pipeline.training.objective import Objective
from lmedge.pipeline.training.optimisation import make_optimizer
from lmedge.pipeline.training.state import EpochRecord
from lmedge.preprocess import PreprocessSpec

INPUT_PX = 112
SPEC = PreprocessSpec(input_hw=(INPUT_PX, INPUT_PX))
NETWORK = Architecture("mobilenet_v4_conv_small", 1.0, "relu6", 64, INPUT_PX, 68, "integral")
# A schedule ends where the target is near: longer ones reach it later, shorter ones not at all.
OURS = TrainOptions(epochs=28, threads=1, small_part=0.5, small_px=80)
PLAIN = TrainOptions(epochs=32, threads=1, ema=0.0, weak_part=0.0)
LOOPS = {"lmedge": OURS, "plain loop": PLAIN}


class ReachedError(Exception):
    """The target is reached."""


def main() -> None:
    options = _parse()
    keep_freed_memory()
    if options.loop:
        print(json.dumps(_timed_loop(options)))
        return
    train_faces, _ = _faces(options.data)
    document: dict[str, Any] = {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "target": options.target,
        "loader": loader_speed(train_faces[:400], SPEC),
        "steps": {name: step_speed(**choice) for name, choice in CHOICES.items()},
        "profile": profile(),
        **side_by_side(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "training_loop.json", json.dumps(document, indent=1) + "\n")
    write_atomically(options.out / "training_loop.md", report(document))


def side_by_side() -> dict[str, Any]:
    """Both loops in processes of their own, at the same time."""
    cores = sorted(os.sched_getaffinity(0))
    running = {
        name: subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], "--loop", name, "--core", str(cores[place % len(cores)])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for place, name in enumerate(LOOPS)
    }
    found = {}
    for name, process in running.items():
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{name} ended with exit code {process.returncode}.")
        found[name] = json.loads(output.splitlines()[-1])
    return found


def _timed_loop(options: argparse.Namespace) -> dict[str, Any]:
    os.sched_setaffinity(0, {options.core})
    train_faces, validation_faces = _faces(options.data)
    return time_to(
        options.target,
        options.limit_minutes,
        train_faces,
        validation_faces,
        SPEC,
        options=LOOPS[options.loop],
        decoded=options.loop != "lmedge",
    )


def _faces(texts: list[str]) -> tuple[list[FaceSample], list[FaceSample]]:
    return split_samples(share_keys_of_duplicates(read_sources([parse_source(text) for text in texts])))


def time_to(
    target: float,
    limit_minutes: float,
    train_faces: list[FaceSample],
    validation_faces: list[FaceSample],
    spec: PreprocessSpec,
    *,
    options: TrainOptions,
    decoded: bool,
) -> dict[str, Any]:
    """Minutes until the validation NME is at most `target`, with everything that comes before the first step."""
    started = time.monotonic()
    history: list[tuple[float, float]] = []

    def note(log: Any, record: EpochRecord) -> None:
        history.append((time.monotonic() - started, record.validation_nme))
        if record.validation_nme <= target or time.monotonic() - started > 60 * limit_minutes:
            raise ReachedError

    replaced = _DecodingFaces if decoded else TrainingFaces
    _DecodingFaces.samples = train_faces
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(training.TrainingLog, "add", note),
        patch.object(training, "TrainingFaces", replaced),
    ):
        choices: dict[str, Any] = {"architecture": NETWORK, "spec": spec, "augment": AugmentSpec(), "options": options}
        with contextlib.suppress(ReachedError):
            training.train(Path(folder), train_faces, validation_faces, **choices)
    seconds, value = history[-1]
    return {
        "minutes": seconds / 60,
        "reached": value <= target,
        "epochs": len(history),
        "faces_per_s": len(history) * len(train_faces) / seconds,
        "history": history,
    }


class _DecodingFaces(TrainingFaces):
    """Reads and decodes the photo for every view."""

    samples: list[FaceSample]

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        self.canvases = list(self.canvases)
        self.canvases[index] = make_canvas(sample.read_image(), sample, replace(self.spec, input_hw=(INPUT_PX, INPUT_PX)))
        return super().__getitem__(index)


def loader_speed(samples: list[FaceSample], spec: PreprocessSpec) -> dict[str, float]:
    """Augmented crops per second on one core, from the cache and from the photos."""
    cv2.setNumThreads(1)
    augment, schema = AugmentSpec(), samples[0].schema
    canvases = [make_canvas(sample.read_image(), sample, spec) for sample in samples]

    def views(cut: Any) -> float:
        started = time.perf_counter()
        for number in range(len(samples)):
            canvas: Canvas = cut(number)
            random_view(canvas, schema, spec, augment, np.random.default_rng([0, number]))
        return len(samples) / (time.perf_counter() - started)

    cached = max(views(lambda number: canvases[number]) for _ in range(5))
    photos = max(views(lambda number: make_canvas(samples[number].read_image(), samples[number], spec)) for _ in range(2))
    return {"cached_per_s": cached, "decoded_per_s": photos}


CHOICES: dict[str, dict[str, Any]] = {
    "as lmedge trains (channels last, fp32, in place)": {},
    "contiguous": {"memory_format": torch.contiguous_format},
    "bf16 autocast": {"bf16": True},
    "activations not in place": {"in_place": False},
    "1 thread": {"threads": 1},
    "crops of 80 px": {"size": 80},
    "crops of 128 px": {"size": 128},
    "batches of 32": {"batch": 32},
    "batches of 64": {"batch": 64},
    "glibc returns memory at once": {"keep": False},
}


def step_speed(
    *,
    memory_format: torch.memory_format = torch.channels_last,
    bf16: bool = False,
    in_place: bool = True,
    threads: int = 0,
    size: int = INPUT_PX,
    batch: int = 16,
    keep: bool = True,
    steps: int = 16,
) -> float:
    """Faces per second of training steps on random crops: the median step."""
    if not keep:
        return _in_another_process(size, batch, steps)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads or usual)
    step = _stepper(memory_format, bf16, in_place, size, batch)
    times = []
    for _ in range(steps + 4):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    torch.set_num_threads(usual)
    return batch / float(np.median(times[4:]))


def _stepper(memory_format: torch.memory_format, bf16: bool, in_place: bool, size: int, batch: int) -> Any:
    from lmedge.schemas import IBUG_68

    torch.manual_seed(0)
    network = build_network(replace(NETWORK, input_px=size))
    network.to(memory_format=memory_format)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = in_place
    trained, optimizer = TrainedNetwork(network, 128.0, 64.0), make_optimizer(network, OURS)
    objective = Objective(JointPoints((IBUG_68,)), OURS)
    crops = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    labels = torch.rand(batch, 68, 2)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answers = trained(crops)
        loss = objective(answers.float(), labels, size)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _in_another_process(size: int, batch: int, steps: int) -> float:
    """glibc cannot be told to go back, so what it does on its own is measured in a process that was never told."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import training_loop as t; "
        f"print(t.step_speed(size={size}, batch={batch}, steps={steps}))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def profile(steps: int = 6) -> list[tuple[str, float]]:
    """The share of each operator in the time of a step, largest first."""
    step = _stepper(torch.channels_last, False, True, INPUT_PX, OURS.batch_size)
    step()
    with torch.profiler.profile() as recorded:
        for _ in range(steps):
            step()
    rows = [(row.key, row.self_cpu_time_total) for row in recorded.key_averages()]
    total = sum(value for _, value in rows)
    return sorted(((key, value / total) for key, value in rows if value / total > 0.01), key=lambda row: -row[1])


def report(document: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    ours, plain = document["lmedge"], document["plain loop"]
    loader = document["loader"]
    usual = next(iter(document["steps"].values()))
    lines = [
        f"| to a validation NME of {100 * document['target']:.1f} % | minutes | epochs | faces/s |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['minutes']:.1f}{'' if row['reached'] else ' (not reached)'} | {row['epochs']} "
            f"| {row['faces_per_s']:.0f} |"
            for name, row in (("lmedge", ours), ("plain loop", plain))
        ),
        "",
        f"Loader alone, one core: {loader['cached_per_s']:.0f} augmented crops of {INPUT_PX} px a second from the crop cache, "
        f"{loader['decoded_per_s']:.0f} when every photo is decoded.",
        "",
        "| training steps | faces/s | against the first |",
        "|---|---|---|",
        *(f"| {name} | {rate:.0f} | {rate / usual:.2f} |" for name, rate in document["steps"].items()),
        "",
        "| operator | share of a step |",
        "|---|---|",
        *(f"| `{name}` | {100 * share:.0f} % |" for name, share in document["profile"]),
    ]
    return "\n".join(lines) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="KIND:PATH of 68-point faces, e.g. 300w:faces/300w")
    parser.add_argument("--target", type=float, default=0.05, help="validation NME, a fraction")
    parser.add_argument("--limit-minutes", type=float, default=30.0, help="of each loop")
    parser.add_argument("--loop", choices=list(LOOPS), help="only this one, on `--core`; its measurements go to stdout")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
