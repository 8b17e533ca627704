"""Stages behind the lock: a change runs exactly the stages that depend on it, and a killed build goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.errors import DataError
from lmedge.pipeline.runs import lock as lock_module
from lmedge.pipeline.runs.stages import PlannedStage, RunContext, Stage, plan, run_stages
from tests.pipeline import toy_stages
from tests.pipeline.toy_stages import CHAIN, MOMENTS, OUTPUT, Toy, World, chain, content_of, context_of, make_stage
from tests.requirements import REPOSITORY

FILES = ("a.txt", "b.txt", "c.txt")
TOOLS = ("hammer", "saw")


@dataclass(frozen=True)
class Change:
    """One difference between two builds: of a file, an option, a tool or a stage's output, "delete" or "touch" included."""

    kind: str
    name: str

    def apply(self, world: World, folder: Path) -> None:
        if self.kind == "file":
            world.files[self.name] += "!"
            (folder / self.name).write_text(world.files[self.name])
        elif self.kind == "touch":
            (folder / self.name).write_text(world.files[self.name])
        elif self.kind == "option":
            world.options[self.name] += 1
        elif self.kind == "tool":
            world.tools[self.name] += ".1"
        else:
            output = folder / "run" / self.name / OUTPUT
            output.unlink() if self.kind == "delete" else output.write_text("something else")

    def reason(self, toy: Toy, world: World) -> str | None:
        """Why the stage has to run, if this change concerns it."""
        if self.kind == "file" and self.name in toy.files:
            return f"input {self.name} has other bytes"
        if self.kind == "option" and self.name == toy.name:
            value = world.options[toy.name]
            return f"option value was {value - 1}, is {value}"
        if self.kind == "tool" and self.name in toy.tools:
            version = world.tools[self.name]
            return f"tool {self.name} was {version.removesuffix('.1')}, is {version}"
        if self.kind in ("output", "delete") and self.name == toy.name:
            return f"its output {toy.name}/{OUTPUT} " + ("is gone" if self.kind == "delete" else "was changed")
        return None


@st.composite
def graphs(draw: st.DrawFn) -> list[Toy]:
    """Two to six stages in order; each reads some files and some of the stages before it."""
    toys: list[Toy] = []
    for index in range(draw(st.integers(2, 6))):
        before = [toy.name for toy in toys]
        toys.append(
            Toy(
                f"stage{index}",
                files=tuple(draw(st.sets(st.sampled_from(FILES)))),
                stages=tuple(draw(st.sets(st.sampled_from(before)))) if before else (),
                tools=tuple(draw(st.sets(st.sampled_from(TOOLS)))),
                coarse=draw(st.booleans()),
            )
        )
    return toys


@st.composite
def changes(draw: st.DrawFn, toys: list[Toy]) -> Change:
    kind = draw(st.sampled_from(["file", "touch", "option", "tool", "output", "delete"]))
    names = {"file": FILES, "touch": FILES, "tool": TOOLS}.get(kind, tuple(toy.name for toy in toys))
    return Change(kind, draw(st.sampled_from(names)))


@contextmanager
def toy_run(toys: list[Toy]) -> Iterator[tuple[Path, World, list[Stage]]]:
    """A folder with source files, and the stages over it, with tools whose versions the world decides."""
    world = World({name: name for name in FILES}, {toy.name: 1 for toy in toys}, dict.fromkeys(TOOLS, "1"))
    with tempfile.TemporaryDirectory() as name, patch.object(lock_module, "version", lambda tool: world.tools[tool]):
        folder = Path(name)
        for file, content in world.files.items():
            (folder / file).write_text(content)
        places = {file: folder / file for file in FILES}
        yield folder, world, [make_stage(toy, world, places) for toy in toys]


def build(folder: Path, world: World, stages: list[Stage]) -> list[PlannedStage]:
    """A build in a process that knows nothing but the lock."""
    world.ran.clear()
    return list(run_stages(context_of(folder / "run"), stages))


def contents(toys: list[Toy], world: World) -> dict[str, str]:
    """What every stage's output has to be, computed without any lock."""
    made: dict[str, str] = {}
    for toy in toys:
        inputs = {name: world.files[name] for name in toy.files} | {f"{name} output": made[name] for name in toy.stages}
        made[toy.name] = content_of(toy, inputs, world.options[toy.name], world.tools)
    return made


def outputs(toys: list[Toy], folder: Path) -> dict[str, str]:
    return {toy.name: (folder / "run" / toy.name / OUTPUT).read_text() for toy in toys}


@given(data=st.data(), toys=graphs())
def test_a_change_runs_exactly_the_stages_that_depend_on_it(data: st.DataObject, toys: list[Toy]) -> None:
    with toy_run(toys) as (folder, world, stages):
        assert build(folder, world, stages) == [PlannedStage(toy.name, "it has not run yet") for toy in toys]
        assert outputs(toys, folder) == contents(toys, world)
        for _ in range(data.draw(st.integers(1, 3))):
            before = contents(toys, world)
            change = data.draw(changes(toys))
            change.apply(world, folder)
            after = contents(toys, world)
            depends = [
                toy.name for toy in toys if change.reason(toy, world) or any(before[name] != after[name] for name in toy.stages)
            ]
            planned = plan(context_of(folder / "run"), stages)
            done = build(folder, world, stages)

            assert world.ran == depends
            assert outputs(toys, folder) == after
            for toy, stage in zip(toys, done, strict=True):
                if reason := change.reason(toy, world):
                    assert stage.reason is not None
                    assert stage.reason == reason or stage.reason.endswith("output has other bytes")
                elif toy.name in depends:
                    assert stage.reason is not None
                    assert stage.reason.endswith("output has other bytes")
            check_plan(toys, planned, done)


def check_plan(toys: list[Toy], planned: list[PlannedStage], done: list[PlannedStage]) -> None:
    """What the plan skips is skipped; what it runs is run, unless the stages before it made the same bytes again."""
    will_run = {stage.stage for stage in planned if stage.reason is not None}
    for toy, said, happened in zip(toys, planned, done, strict=True):
        behind = [name for name in toy.stages if name in will_run]
        if behind:
            assert said.reason == f"it reads what {', '.join(sorted(behind))} will make"
        else:
            assert said == happened


@given(toys=graphs())
def test_without_a_change_nothing_runs_and_nothing_is_written(toys: list[Toy]) -> None:
    with toy_run(toys) as (folder, world, stages):
        build(folder, world, stages)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob(OUTPUT)}
        assert build(folder, world, stages) == [PlannedStage(toy.name, None) for toy in toys]
        assert world.ran == []
        assert {path: path.stat().st_mtime_ns for path in folder.rglob(OUTPUT)} == before


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    world, stages = chain(tmp_path)
    planned = plan(context_of(tmp_path / "run"), stages)
    assert [stage.reason for stage in planned] == [
        "it has not run yet",
        "it reads what first will make",
        "it reads what second will make",
    ]
    assert world.ran == []
    assert not (tmp_path / "run").exists()


def test_another_version_of_lmedge_runs_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, stages = chain(tmp_path)
    build(tmp_path, world, stages)
    before = lock_module.__version__
    monkeypatch.setattr(lock_module, "__version__", "99")
    assert build(tmp_path, world, stages) == [PlannedStage(toy.name, f"tool lmedge was {before}, is 99") for toy in CHAIN]


def test_a_plan_is_plain_data() -> None:
    assert PlannedStage("export", None).to_json() == {"stage": "export", "action": "skip", "reason": None}
    assert PlannedStage("export", "why").to_json() == {"stage": "export", "action": "run", "reason": "why"}


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    world, stages = chain(tmp_path)
    (tmp_path / "source").unlink()
    with pytest.raises(DataError, match=rf"first needs {tmp_path}/source: No such file"):
        build(tmp_path, world, stages)


# A stage that fails


def failing(stage: Stage) -> Stage:
    def work(context: RunContext, folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise DataError("no")

    return replace(stage, work=work)


def test_a_stage_that_fails_leaves_the_stages_before_it_done(tmp_path: Path) -> None:
    world, stages = chain(tmp_path)
    with pytest.raises(DataError):
        build(tmp_path, world, [stages[0], failing(stages[1]), stages[2]])
    assert not (tmp_path / "run/second").exists()
    build(tmp_path, world, stages)
    assert world.ran == ["second", "third"]
    assert not list(tmp_path.rglob("half.txt"))


def test_a_stage_that_fails_keeps_its_last_result_in_place(tmp_path: Path) -> None:
    world, stages = chain(tmp_path)
    build(tmp_path, world, stages)
    before = (tmp_path / "run/second" / OUTPUT).read_text()
    world.options["second"] += 1
    with pytest.raises(DataError):
        build(tmp_path, world, [stages[0], failing(stages[1]), stages[2]])
    assert (tmp_path / "run/second" / OUTPUT).read_text() == before
    world.options["second"] -= 1
    build(tmp_path, world, stages)
    assert world.ran == []


# Resuming


def resuming(work: Callable[[RunContext, Path], None], stage: Stage, resumes: bool = True) -> Stage:
    return replace(stage, work=work, resumes=resumes)


@pytest.mark.parametrize(
    ("resumes", "changed", "kept", "reason"),
    [
        (True, False, True, "it was interrupted, and goes on"),
        (True, True, False, "it was interrupted, and starts again because option value was 1, is 2"),
        (False, False, False, ""),
    ],
)
def test_what_an_interrupted_stage_made_is_kept_only_for_the_same_key(
    tmp_path: Path, resumes: bool, changed: bool, kept: bool, reason: str
) -> None:
    world, stages = chain(tmp_path)
    seen: list[bool] = []

    def interrupted(context: RunContext, folder: Path) -> None:
        (folder / "epoch.txt").write_text("1")
        raise KeyboardInterrupt

    def resumed(context: RunContext, folder: Path) -> None:
        seen.append((folder / "epoch.txt").exists())
        (folder / OUTPUT).write_text("done")

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, world, [resuming(interrupted, stages[0], resumes)])
    world.options["first"] += changed
    (done,) = build(tmp_path, world, [resuming(resumed, stages[0], resumes)])
    assert seen == [kept]
    assert done.reason == (reason if resumes else "it has not run yet")
    assert sorted(path.name for path in (tmp_path / "run/first").iterdir()) == (["epoch.txt"] if kept else []) + [OUTPUT]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("victim", [toy.name for toy in CHAIN])
def test_a_killed_build_goes_on_and_ends_the_same(tmp_path: Path, victim: str, moment: str) -> None:
    program = [sys.executable, "-m", toy_stages.__name__, str(tmp_path), victim, moment]
    killed = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    world, stages = chain(tmp_path)
    (tmp_path / "run").mkdir(exist_ok=True)
    list(run_stages(context_of(tmp_path), stages))
    names = [toy.name for toy in CHAIN]
    assert world.ran == names[names.index(victim) :]
    made = {name: (tmp_path / name / OUTPUT).read_text() for name in names}
    assert made == contents(list(CHAIN), world)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
