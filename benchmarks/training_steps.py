"""Where the time of training goes: the loader alone, a step under each choice, and a step by operator.

    python benchmarks/training_steps.py --data 300w:faces/300w

Loader: augmented crops per second on one core, from the crop cache and with every photo decoded. Steps: each choice of memory
format, number type, threads, crop size and batch takes turns with the usual one, so that a machine that slows down slows both.
Writes training_steps.json and training_steps.md to `--out`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from timed_step import timed_step
from torch import nn

from lmedge.bundle import write_atomically
from lmedge.data.augment import AugmentSpec, Canvas, make_canvas, random_view
from lmedge.data.duplicates import share_keys_of_duplicates
from lmedge.data.samples import FaceSample, split_samples
from lmedge.data.sources import parse_source, read_sources
from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.models import Architecture, build_network
from lmedge.pipeline.training.memory import keep_freed_memory
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import IBUG_68


@dataclass(frozen=True)
class Choice:
    """How a step is computed. `threads` 0 is torch's default."""

    channels_last: bool = True
    bf16: bool = False
    in_place: bool = True
    threads: int = 0
    size_px: int = 112
    batch: int = 16


USUAL = Choice()
CHOICES = {
    "contiguous memory": Choice(channels_last=False),
    "bf16 autocast": Choice(bf16=True),
    "activations not in place": Choice(in_place=False),
    "1 thread": Choice(threads=1),
    "crops of 80 px": Choice(size_px=80),
    "crops of 128 px": Choice(size_px=128),
    "batches of 32": Choice(batch=32),
    "batches of 64": Choice(batch=64),
}
NETWORK = Architecture("mobilenet_v4_conv_small", 1.0, "relu6", 64, USUAL.size_px, 68, "integral")
OPTIONS = TrainOptions()
LOADER_FACES = 400
_WARM, _STEPS, _PROFILED = 3, 12, 6


def main() -> None:
    options = _parse()
    if options.freed:  # in a process that has not told glibc to keep freed memory, and nobody can tell it to stop
        print(statistics.median(_seconds(stepper(USUAL))))
        return
    own = Path(__file__)
    freed = subprocess.run([sys.executable, own, "--data", "", "--freed"], check=True, capture_output=True, text=True)
    keep_freed_memory()
    faces, _ = split_samples(share_keys_of_duplicates(read_sources([parse_source(text) for text in options.data])))
    usual = statistics.median(_seconds(stepper(USUAL)))
    document: dict[str, Any] = {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "loader": loader_speed(faces[:LOADER_FACES]),
        "faces_per_s": USUAL.batch / usual,
        "ratios": {
            **{name: ratio(choice) for name, choice in CHOICES.items()},
            "freed memory returned": usual / float(freed.stdout),
        },
        "profile": profile(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "training_steps.json", json.dumps(document, indent=1) + "\n")
    write_atomically(options.out / "training_steps.md", report(document))


def loader_speed(samples: list[FaceSample]) -> dict[str, float]:
    """Augmented crops per second on one core: the fastest of a few passes."""
    cv2.setNumThreads(1)
    augment, schema, spec = AugmentSpec(), samples[0].schema, PreprocessSpec(input_hw=(USUAL.size_px, USUAL.size_px))
    canvases = [make_canvas(sample.read_image(), sample, spec) for sample in samples]

    def pass_over(cut: Callable[[int], Canvas]) -> float:
        started = time.perf_counter()
        for number in range(len(samples)):
            random_view(cut(number), schema, spec, augment, np.random.default_rng([0, number]))
        return len(samples) / (time.perf_counter() - started)

    return {
        "cached_per_s": max(pass_over(lambda number: canvases[number]) for _ in range(5)),
        "decoded_per_s": max(pass_over(lambda n: make_canvas(samples[n].read_image(), samples[n], spec)) for _ in range(2)),
    }


def ratio(choice: Choice) -> float:
    """Faces per second under a choice, over those of the usual one."""
    usual, other = stepper(USUAL), stepper(choice)
    pairs = [(usual(), other()) for _ in range(_WARM + _STEPS)][_WARM:]
    one, another = (statistics.median(times) for times in zip(*pairs, strict=True))
    return float((choice.batch / another) / (USUAL.batch / one))


def stepper(choice: Choice) -> Callable[[], float]:
    """A function that takes one training step on random crops, and tells how long it took."""
    torch.manual_seed(0)
    network: Any = build_network(replace(NETWORK, input_px=choice.size_px))
    network.to(memory_format=torch.channels_last if choice.channels_last else torch.contiguous_format)
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = choice.in_place
    timed = timed_step(network, IBUG_68, OPTIONS, choice.size_px, choice.batch, bf16=choice.bf16)
    threads = choice.threads or torch.get_num_threads()

    def step() -> float:
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        seconds = timed()
        torch.set_num_threads(usual)
        return seconds

    return step


def profile() -> list[tuple[str, float]]:
    """The share of each operator in the time of a step, largest first."""
    step = stepper(USUAL)
    step()
    with torch.profiler.profile() as recorded:
        for _ in range(_PROFILED):
            step()
    rows = [(row.key, row.self_cpu_time_total) for row in recorded.key_averages()]
    total = sum(value for _, value in rows)
    return sorted(((key, value / total) for key, value in rows if value / total > 0.01), key=lambda row: -row[1])


def report(document: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    loader = document["loader"]
    lines = [
        f"Loader alone, one core: {loader['cached_per_s']:.0f} augmented crops of {USUAL.size_px} px a second from the crop "
        f"cache, {loader['decoded_per_s']:.0f} when every photo is decoded.",
        "",
        f"Training steps of a MobileNetV4 conv-small, {document['machine']['threads']} threads: {document['faces_per_s']:.0f} "
        f"faces a second (channels last, fp32, in place, {USUAL.size_px} px, batches of {USUAL.batch}).",
        "",
        "| instead | faces a second, against that |",
        "|---|---|",
        *(f"| {name} | {value:.2f} |" for name, value in document["ratios"].items()),
        "",
        "| operator | share of a step |",
        "|---|---|",
        *(f"| `{name}` | {100 * share:.0f} % |" for name, share in document["profile"]),
    ]
    return "\n".join(lines) + "\n"


def _seconds(step: Callable[[], float]) -> list[float]:
    return [step() for _ in range(_WARM + _STEPS)][_WARM:]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="KIND:PATH of 68-point faces, e.g. 300w:faces/300w")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--freed", action="store_true", help="only the time of a usual step, with glibc as it is")
    return parser.parse_args()


if __name__ == "__main__":
    main()
