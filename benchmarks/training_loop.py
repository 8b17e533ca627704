"""Time to accuracy: lmedge's training against a plain loop.

    python benchmarks/training_loop.py --data 300w:faces/300w [--target 0.05] [--limit-minutes 30]

The plain loop is what one writes first: constant crop size, every photo decoded again for every view, the same augmentation
all the time, the last weights validated, batches of 64 and one cycle of the learning rate, AdamW and the C library's memory as
they come; the same network, memory format and loss. A third loop is the plain one with small batches and a higher rate, found
here. They run one after the other, on one thread of the same core, until the validation NME reaches the target. Writes
training_loop.json and training_loop.md to `--out`.
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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.optim import AdamW

from lmedge.bundle import write_atomically
from lmedge.data.augment import AugmentSpec, make_canvas
from lmedge.data.duplicates import share_keys_of_duplicates
from lmedge.data.samples import FaceSample, split_samples
from lmedge.data.sources import parse_source, read_sources
from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.models import Architecture
from lmedge.pipeline.training import train as training
from lmedge.pipeline.training.dataset import TrainingFaces
from lmedge.pipeline.training.log import TrainingLog
from lmedge.pipeline.training.optimisation import make_optimizer
from lmedge.pipeline.training.state import EpochRecord
from lmedge.preprocess import PreprocessSpec

INPUT_PX = 112
SPEC = PreprocessSpec(input_hw=(INPUT_PX, INPUT_PX))
NETWORK = Architecture("mobilenet_v4_conv_small", 0.5, "relu6", 64, INPUT_PX, 68, "integral")
# A schedule ends where the target is near: longer ones reach it later, shorter ones not at all.
OURS = TrainOptions(
    epochs=26,
    loss="soft_wing",
    threads=1,
    batch_size=8,
    warmup_epochs=1.0,
    ema=0.999,
    small_part=0.3,
    small_px=96,
    weak_part=0.8,
)
# Batches of 64, one cycle up to 2e-3 within the first third, and down.
PLAIN = TrainOptions(
    epochs=60, loss="soft_wing", threads=1, batch_size=64, learning_rate=2e-3, warmup_epochs=18.0, ema=0.0, weak_part=0.0
)
LOOPS = {
    "lmedge": OURS,
    "plain loop": PLAIN,
    "plain loop, batches of 16, 3e-3": replace(PLAIN, epochs=44, batch_size=16, learning_rate=3e-3, warmup_epochs=2.0),
}


class ReachedError(Exception):
    """The target is reached, or the time is up."""


def main() -> None:
    options = _parse()
    if options.loop:
        os.sched_setaffinity(0, {options.core})
        with contextlib.nullcontext() if options.loop == "lmedge" else _as_it_comes():
            loop = replace(LOOPS[options.loop], seed=options.seed)
            print(json.dumps(time_to(options, loop, decoded=options.loop != "lmedge")))
        return
    document = {
        "machine": {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__},
        "target": options.target,
        "seed": options.seed,
        "schedules": {name: loop.epochs for name, loop in LOOPS.items()},
        **one_after_the_other(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "training_loop.json", json.dumps(document, indent=1) + "\n")
    write_atomically(options.out / "training_loop.md", report(document))


def one_after_the_other() -> dict[str, Any]:
    """Each loop in a process of its own, on the same core."""
    found = {}
    for name in LOOPS:
        print(f"{name}:", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, *sys.argv[1:], "--loop", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def time_to(options: argparse.Namespace, loop: TrainOptions, *, decoded: bool) -> dict[str, Any]:
    """Minutes until the validation NME is at most the target, with everything that comes before the first step."""
    faces = share_keys_of_duplicates(read_sources([parse_source(text) for text in options.data]))
    train_faces, validation_faces = split_samples(faces)
    started = time.monotonic()
    history: list[tuple[float, float]] = []

    def note(log: Any, record: EpochRecord) -> None:
        history.append((time.monotonic() - started, record.validation_nme))
        print(f"{history[-1][0]:.0f} s: epoch {len(history)}, {100 * record.validation_nme:.2f} %", file=sys.stderr, flush=True)
        if record.validation_nme <= options.target or time.monotonic() - started > 60 * options.limit_minutes:
            raise ReachedError

    replaced = _DecodingFaces if decoded else TrainingFaces
    _DecodingFaces.samples = train_faces
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(TrainingLog, "add", note),
        patch.object(training, "TrainingFaces", replaced),
        contextlib.suppress(ReachedError),
    ):
        choices: dict[str, Any] = {"architecture": NETWORK, "spec": SPEC, "augment": AugmentSpec(), "options": loop}
        training.train(Path(folder), train_faces, validation_faces, **choices)
    seconds, value = history[-1]
    return {
        "minutes": seconds / 60,
        "reached": value <= options.target,
        "nme": value,
        "epochs": len(history),
        "faces_per_s": len(history) * len(train_faces) / seconds,
        "history": history,
    }


@contextlib.contextmanager
def _as_it_comes() -> Iterator[None]:
    """The optimizer that updates one parameter after the other, and memory that goes back to the system at once."""

    def optimizer(network: nn.Module, options: TrainOptions) -> AdamW:
        groups = make_optimizer(network, options).param_groups
        for group in groups:
            del group["fused"]
        return AdamW(groups, lr=options.learning_rate)

    with patch.object(training, "make_optimizer", optimizer), patch.object(training, "keep_freed_memory", bool):
        yield


class _DecodingFaces(TrainingFaces):
    """Reads and decodes the photo for every view."""

    samples: list[FaceSample]

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        self.canvases = list(self.canvases)
        self.canvases[index] = make_canvas(sample.read_image(), sample, replace(self.spec, input_hw=(INPUT_PX, INPUT_PX)))
        return super().__getitem__(index)


def report(document: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [
        f"To a validation NME of {100 * document['target']:.1f} % on 300-W, on one core:",
        "",
        "| | minutes | epochs of the schedule | faces a second, with all that is around the steps | NME |",
        "|---|---|---|---|---|",
    ]
    for name in LOOPS:
        row = document[name]
        minutes = f"{row['minutes']:.1f}{'' if row['reached'] else ', not reached'}"
        epochs = f"{row['epochs']} of {document['schedules'][name]}"
        lines.append(f"| {name} | {minutes} | {epochs} | {row['faces_per_s']:.0f} | {100 * row['nme']:.2f} % |")
    return "\n".join(lines) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="KIND:PATH of 68-point faces, e.g. 300w:faces/300w")
    parser.add_argument("--target", type=float, default=0.05, help="validation NME, a fraction")
    parser.add_argument("--limit-minutes", type=float, default=30.0, help="of each loop")
    parser.add_argument("--loop", choices=list(LOOPS), help="only this one; its measurements go to stdout")
    parser.add_argument("--seed", type=int, default=1, help="of weights, order and views, of each loop")
    parser.add_argument("--core", type=int, default=0, help="which one")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
