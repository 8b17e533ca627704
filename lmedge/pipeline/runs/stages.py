"""The stages of a build in order: what each reads, which options and tools decide it, and whether it has to run.

A stage writes into a hidden folder that takes its final name when it is complete; then the lock notes its key and its
files. A build that was killed anywhere goes on there; `train` also keeps its epochs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmedge.bundle import replace_folder
from lmedge.data.sources import Source, source_files
from lmedge.errors import DataError
from lmedge.pipeline.runs.faces import INDEX, SYNTHETIC
from lmedge.pipeline.runs.lock import Components, Lock, first_difference, option_components, tool_components
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.pipeline.training.processes import announce, wait_for_announcement
from lmedge.progress import Progress
from lmedge.schemas import LandmarkSchema, get_schema

_RESUME_KEY = "stage-key.json"


@dataclass
class RunContext:
    """A run while it is built: its folder, configuration, sources, lock, and where progress goes."""

    folder: Path
    config: RunConfig
    sources: Sequence[Source]
    lock: Lock
    init: Path | None = None
    teacher: Path | None = None
    progress: Progress | None = None

    @property
    def schema(self) -> LandmarkSchema:
        """The point set that is exported: the configured one, else that of the first source."""
        wanted = get_schema(self.config.data.schema) if self.config.data.schema else None
        return wanted if wanted in [source.schema for source in self.sources] else self.sources[0].schema

    def file(self, stage: str, name: str) -> Path:
        return self.folder / stage / name


@dataclass(frozen=True)
class Stage:
    """One step of a build.

    Attributes:
        name: also of its folder in the run.
        work: writes its files into the folder it is given.
        reads: what each input file is called in the key, and where it is now.
        options: what of the configuration decides the result.
        tools: distributions whose version decides the result.
        machine: whether the result belongs to this machine.
        resumes: whether an interrupted run's files are worth keeping.
        note: what to say of it in a plan besides whether it runs.
        shared: whether other processes help with it, where there are any.
        again: why it runs although nothing changed, "" where it does not; asked only of a stage that is there whole.
    """

    name: str
    work: Callable[[RunContext, Path], None]
    reads: Callable[[RunContext], Mapping[str, Path]]
    options: Callable[[RunContext], Mapping[str, Any]] = field(default=lambda context: {})
    tools: tuple[str, ...] = ()
    machine: bool = False
    resumes: bool = False
    shared: bool = False
    note: Callable[[RunContext], str] = field(default=lambda context: "")
    again: Callable[[RunContext], str] = field(default=lambda context: "")


@dataclass(frozen=True)
class PlannedStage:
    """What a build will do with a stage, and why: `reason` is None when it is skipped. `note`: what that means here."""

    stage: str
    reason: str | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        document = {"stage": self.stage, "action": "skip" if self.reason is None else "run", "reason": self.reason}
        return {**document, "note": self.note} if self.note else document


def plan(context: RunContext, stages: Sequence[Stage]) -> list[PlannedStage]:
    """What a build would do now, without doing it. A stage behind one that runs is listed as running after it: if that
    one makes the same bytes again, the build will skip it."""
    planned: list[PlannedStage] = []
    running: set[str] = set()
    for stage in stages:
        inputs = stage.reads(context)
        behind = [name for name in running if any(path.is_relative_to(context.folder / name) for path in inputs.values())]
        if behind:
            reason: str | None = f"it reads what {', '.join(n for n in (s.name for s in stages) if n in behind)} will make"
        else:
            reason = _reason_to_run(context, stage, components_of(context, stage))
        if reason is not None:
            running.add(stage.name)
        planned.append(PlannedStage(stage.name, reason, stage.note(context)))
    return planned


def run_stages(context: RunContext, stages: Sequence[Stage]) -> Iterator[PlannedStage]:
    """Runs what has to run, in order; yields each stage when it is done or skipped.

    Raises:
        LmedgeError: whatever a stage raises; the stages before it stay done.
    """
    context.folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        components = components_of(context, stage)
        reason = _reason_to_run(context, stage, components)
        if reason is not None:
            _run(context, stage, components)
        elif stage.shared:
            announce("")
        yield PlannedStage(stage.name, reason)
    context.lock.write()


def help_stages(context: RunContext, stages: Sequence[Stage]) -> None:
    """What a process does that only helps: its part of each shared stage that the first process runs."""
    for stage in stages:
        if stage.shared and (folder := wait_for_announcement()):
            stage.work(context, Path(folder))


def components_of(context: RunContext, stage: Stage) -> Components:
    """The key of a stage, in the order in which differences are named: inputs, options, tools, machine.

    Raises:
        DataError: an input file is missing.
    """
    components: Components = {}
    for name, path in stage.reads(context).items():
        try:
            components[f"input {name}"] = context.lock.digest(path)
        except OSError as error:
            raise DataError(f"{stage.name} needs {path}: {error.strerror or error}.") from error
    components |= option_components(stage.options(context))
    components |= tool_components(("lmedge", *stage.tools))
    if stage.machine:
        from lmedge.runtimes.bench import describe_machine

        machine = describe_machine()
        components |= {f"machine {name}": str(machine[name]) for name in ("cpu", "arch", "cores_usable")}
    return components


def _reason_to_run(context: RunContext, stage: Stage, components: Components) -> str | None:
    reason = context.lock.reason_to_run(stage.name, components) or stage.again(context) or None
    if reason is None or not stage.resumes or not (interrupted := _interrupted(context, stage)):
        return reason
    difference = first_difference(interrupted, components)
    if difference is None:
        return "it was interrupted, and goes on"
    return f"it was interrupted, and starts again because {difference}"


def _interrupted(context: RunContext, stage: Stage) -> Components:
    """The key of the run of a stage that did not end; empty where there is none."""
    try:
        text = (_partial_folder(context, stage) / _RESUME_KEY).read_text(encoding="utf-8")
        return {str(name): str(value) for name, value in json.loads(text).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _partial_folder(context: RunContext, stage: Stage) -> Path:
    return context.folder / f".{stage.name}.partial"


def _run(context: RunContext, stage: Stage, components: Components) -> None:
    target, partial = context.folder / stage.name, _partial_folder(context, stage)
    marker = partial / _RESUME_KEY
    if not (stage.resumes and _interrupted(context, stage) == components):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        marker.write_text(json.dumps(components, indent=1), encoding="utf-8")
    if stage.shared:
        announce(str(partial))
    stage.work(context, partial)
    marker.unlink(missing_ok=True)  # the bundle stage replaces the folder
    replace_folder(partial, target)
    outputs = [path for path in sorted(target.rglob("*")) if path.is_file()]
    context.lock.record(stage.name, components, outputs)


def source_inputs(context: RunContext) -> dict[str, Path]:
    """Every file that the sources' bytes are in, named so that the key does not depend on where they lie."""
    inputs: dict[str, Path] = {}
    for number, source in enumerate(context.sources):
        if source.kind == SYNTHETIC:
            continue
        root = Path(source.path)
        root = root.parent if root.is_file() else root
        prefix = source.kind if number == 0 else f"{source.kind}#{number + 1}"
        for path in source_files(source):
            inputs[f"{prefix}:{Path(os.path.relpath(path, root)).as_posix()}"] = path
    return inputs


def index_input(context: RunContext) -> dict[str, Path]:
    return {INDEX: context.file("faces", INDEX)}
