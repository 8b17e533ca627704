"""Stages that only hash what they read: their output is a function of inputs, options and tools that tests can compute.

As a program, `python -m tests.pipeline.toy_stages FOLDER STAGE MOMENT` runs a chain of three and kills itself at that moment of
that stage.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from lmedge.pipeline.configuration.options import RunConfig
from lmedge.pipeline.runs import stages
from lmedge.pipeline.runs.lock import Lock
from lmedge.pipeline.runs.stages import RunContext, Stage, run_stages

OUTPUT = "out.txt"
MOMENTS = ("before its work", "after its work", "before its folder is in place", "before the lock knows it")


@dataclass(frozen=True)
class Toy:
    """What a toy stage depends on. `coarse`: its output tells only a little about what it was made from, so that a change
    often gives the same bytes again."""

    name: str
    files: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    coarse: bool = False


@dataclass
class World:
    """What can change between two builds, and which stages ran."""

    files: dict[str, str]
    options: dict[str, int]
    tools: dict[str, str]
    ran: list[str] = field(default_factory=list)


def content_of(toy: Toy, inputs: Mapping[str, str], option: int, tools: Mapping[str, str]) -> str:
    """What the stage writes, from the contents of what it reads."""
    text = repr((sorted(inputs.items()), option, [(name, tools[name]) for name in toy.tools]))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest if not toy.coarse else "low" if digest < "8" else "high"


def make_stage(toy: Toy, world: World, places: Mapping[str, Path]) -> Stage:
    """The stage; `places` has every source file and, for the outputs of stages, their folder."""

    def reads(context: RunContext) -> dict[str, Path]:
        files = {name: places[name] for name in toy.files}
        return files | {f"{name} output": context.file(name, OUTPUT) for name in toy.stages}

    def work(context: RunContext, folder: Path) -> None:
        world.ran.append(toy.name)
        inputs = {name: path.read_text() for name, path in reads(context).items()}
        (folder / OUTPUT).write_text(content_of(toy, inputs, world.options[toy.name], world.tools))

    return Stage(toy.name, work, reads, lambda context: {"value": world.options[toy.name]}, toy.tools)


def context_of(folder: Path) -> RunContext:
    return RunContext(folder, RunConfig(), [], Lock.read(folder))


# A chain of three that kills itself

CHAIN = (Toy("first", files=("source",)), Toy("second", stages=("first",)), Toy("third", files=("source",), stages=("second",)))


def chain(folder: Path) -> tuple[World, list[Stage]]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source").write_text("source")
    world = World({"source": "source"}, {toy.name: 1 for toy in CHAIN}, {})
    return world, [make_stage(toy, world, {"source": folder / "source"}) for toy in CHAIN]


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(folder: Path, victim: str, moment: str) -> None:
    _, every = chain(folder)
    context = context_of(folder)
    for stage in run_stages(context, _until(every, victim)):
        assert stage.reason is not None
    toy = next(stage for stage in every if stage.name == victim)

    def work(context: RunContext, folder: Path) -> None:
        if moment == MOMENTS[0]:
            die()
        toy.work(context, folder)
        if moment == MOMENTS[1]:
            die()

    replace_folder = stages.replace_folder

    def replace(new: Path, folder: Path) -> None:
        if moment == MOMENTS[2]:
            die()
        replace_folder(new, folder)
        die()

    with patch.object(stages, "replace_folder", replace):
        list(run_stages(context, [Stage(victim, work, toy.reads, toy.options)]))


def _until(every: Sequence[Stage], name: str) -> list[Stage]:
    return list(every[: [stage.name for stage in every].index(name)])


if __name__ == "__main__":
    run_and_die(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
