"""A whole build in under a minute: few rendered faces, a narrow network, one epoch.

As a program, `python -m tests.pipeline.small_run FOLDER STAGE` builds in FOLDER and kills itself when STAGE has written its
first file.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lmedge.pipeline import build as build_module
from lmedge.pipeline.build import BuildResult, build, make_context
from lmedge.pipeline.config import load_config
from lmedge.pipeline.stages import RunContext, Stage

# One epoch teaches nothing, so the gates on accuracy are open; those on float engines are the usual ones.
CONFIG = """
name = "small"
targets = ["onnxruntime", "openvino"]
[data]
sources = ["synthetic:30"]
[crop]
input_px = 64
[model]
width = 0.25
head_channels = 16
[train]
epochs = 1
batch_size = 16
warmup_epochs = 0.5
[quantize]
images = 12
[parity]
crops = 6
[bench]
iterations = 3
[gates]
max_nme = 9.0
int8_p99_px = 50.0
int8_shift_px = 50.0
int8_nme_loss = 9.0
golden_int8_px = 50.0
"""
STAGES = ("faces", "train", "export", "quantize", "compile", "parity", "evaluate", "bench", "bundle", "report")


def write_config(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "small.toml"
    file.write_text(CONFIG, encoding="utf-8")
    return file


def small_context(folder: Path, settings: Sequence[str] = ()) -> RunContext:
    """The context of the small run in `folder / "run"`."""
    return make_context(load_config(write_config(folder), settings), folder / "run")


def small_build(folder: Path, settings: Sequence[str] = ()) -> BuildResult:
    return build(small_context(folder, settings))


@contextmanager
def around_stages(wrap: Any) -> Iterator[None]:
    """Builds inside call `wrap(stage, work)` in place of each stage's work."""

    def wrapped(stage: Stage) -> Stage:
        return replace(stage, work=lambda context, folder: wrap(stage.name, lambda: stage.work(context, folder)))

    with patch.object(build_module, "STAGES", tuple(map(wrapped, build_module.STAGES))):
        yield


def build_and_die(folder: Path, victim: str) -> None:
    rename = os.replace

    def rename_and_die(*places: Any) -> None:
        rename(*places)
        os.kill(os.getpid(), signal.SIGKILL)

    def work(stage: str, work: Any) -> None:
        if stage == victim:
            # Every file is written under another name first.
            os.replace = rename_and_die
        work()

    with around_stages(work):
        small_build(folder)


if __name__ == "__main__":
    build_and_die(Path(sys.argv[1]), sys.argv[2])
