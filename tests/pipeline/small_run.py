"""A whole build in under a minute: few rendered faces, a narrow network, one epoch.

As a program, `python -m tests.pipeline.small_run FOLDER STAGE` builds in FOLDER and kills itself when STAGE has written its
first file.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lmedge.bundle import Bundle, file_digest
from lmedge.pipeline import build as build_module
from lmedge.pipeline.build import BuildResult, build, make_context
from lmedge.pipeline.configuration.config import load_config
from lmedge.pipeline.runs.stages import RunContext, Stage
from lmedge.runtimes.gates import GateLimits

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
ranges = "coverage"
[parity]
crops = 6
[bench]
iterations = 3
[gates]
max_nme = 9.0
int8_p99_px = 50.0
int8_shift_px = 50.0
int8_nme_loss = 9.0
int8_group_loss = 9.0
golden_int8_px = 50.0
"""
# The same gates, for checks outside of a build.
LIMITS = GateLimits(max_nme=9, int8_p99_px=50, int8_shift_px=50, int8_nme_loss=9, int8_group_loss=9, golden_int8_px=50)
STAGES = ("faces", "train", "export", "quantize", "compile", "parity", "evaluate", "bench", "engines", "bundle", "report")


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


# Times and what is made of them differ from build to build.
_MEASURED = ("train/last.pt", "bench/", "report/", "report.html")


@dataclass(frozen=True)
class Built:
    """A finished build, the files of its run folder that each stage opened, and their digests."""

    folder: Path
    result: BuildResult
    opened: Mapping[str, set[Path]]
    digests: Mapping[str, str]

    @property
    def run(self) -> Path:
        return self.folder / "run"


class Watch:
    """Notes the files below a folder that are opened while a stage works; idle else, as no audit hook can be removed."""

    def __init__(self, root: Path) -> None:
        self.root = f"{root}/"
        self.stage = ""
        self.opened: dict[str, set[Path]] = defaultdict(set)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.stage and event == "open" and isinstance(arguments[0], str | Path):
            path = os.path.abspath(arguments[0])
            if path.startswith(self.root):
                self.opened[self.stage].add(Path(path))

    def __call__(self, stage: str, work: Callable[[], None]) -> None:
        self.stage = stage
        try:
            work()
        finally:
            self.stage = ""


def digests_of(run: Path) -> dict[str, str]:
    """sha256 of every file that a build makes, but the measured ones."""
    files = sorted(path for stage in STAGES for path in (run / stage).rglob("*") if path.is_file())
    names = {path: path.relative_to(run).as_posix() for path in files}
    return {name: file_digest(path) for path, name in names.items() if not name.startswith(_MEASURED)}


def outcomes_of(run: Path, reference: str, backend: str | None = None) -> set[tuple[str, bool]]:
    """Which precisions passed against a reference, as the bundle of a run says."""
    reports = Bundle.open(run / "bundle").manifest.parity
    chosen = [report for report in reports if report["reference"] == reference and backend in (None, report["backend"])]
    return {(report["precision"], report["passed"]) for report in chosen}


def ran(result: BuildResult) -> list[str]:
    return [stage.stage for stage in result.stages if stage.reason is not None]


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
