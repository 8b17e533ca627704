"""A build that was killed in every stage ends with the same bytes as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmedge.bundle import Bundle
from lmedge.pipeline.runs.lock import Lock
from tests.cli.command import DONE
from tests.pipeline import small_run
from tests.pipeline.small_run import STAGES, Built, digests_of
from tests.requirements import REPOSITORY, require

require("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "pydantic")

# Ten processes that load torch, one after the other.
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Killed:
    """A build in another folder that was killed in every stage in turn, each time when the stage had written its first file."""

    folder: Path
    ends: Mapping[str, subprocess.CompletedProcess[str]]
    done: Mapping[str, set[str]]
    last: subprocess.CompletedProcess[str]

    @property
    def run(self) -> Path:
        return self.folder / "run"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    ends, done = {}, {}
    for stage in STAGES:
        program = [sys.executable, "-m", small_run.__name__, str(folder), stage]
        ends[stage] = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        done[stage] = set(Lock.read(folder / "run").records)
    command = [sys.executable, "-m", "lmedge.cli", "build", "small.toml", "--out", "run", "--json"]
    paths = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    last = subprocess.run(command, cwd=folder, env=paths, capture_output=True, text=True, check=False)
    return Killed(folder, ends, done, last)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_build_keeps_what_was_done(killed: Killed, stage: str) -> None:
    assert killed.ends[stage].returncode == -signal.SIGKILL, killed.ends[stage].stderr
    assert killed.done[stage] == set(STAGES[: STAGES.index(stage)])


def test_a_build_that_was_killed_in_every_stage_ends_the_same_in_another_folder(built: Built, killed: Killed) -> None:
    assert killed.last.returncode == DONE, killed.last.stderr
    document = json.loads(killed.last.stdout)
    assert [row["stage"] for row in document["stages"] if row["action"] == "run"] == ["report"]
    assert document["bundle"] == "run/bundle"
    assert document["failure"] is None
    assert len(document["rows"]) == len(built.result.rows)
    assert digests_of(killed.run) == built.digests
    assert Bundle.open(killed.run / "bundle").verify_digests() == Bundle.open(built.run / "bundle").verify_digests()
    assert [path.name for path in killed.run.iterdir() if path.name.startswith(".")] == []
