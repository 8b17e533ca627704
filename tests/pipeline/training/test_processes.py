"""Two processes train what one does, with the same batches shared between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lmedge.errors import ConfigError
from lmedge.pipeline.training import processes
from lmedge.pipeline.training.checkpoint import BEST, load_tensors
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.drawn_runs import run, run_options
from tests.requirements import REPOSITORY

SECONDS = 240
# Six batches of 16 in all, of narrow networks on small crops; without the mean over steps, which would hide differences.
SETTINGS = (
    *("crop.input_px=48", "model.width=0.25", "model.head_channels=16", "model.activation=relu"),
    # Of an integral head the biases change no answer: rounding alone moves them.
    *("model.trunk=mobilenet_v2", "model.head=flatten"),
    *("train.epochs=2", "train.batch_size=16", "train.warmup_epochs=1", "train.ema=0.5", "train.threads=1"),
    *("train.loss=wing", "train.learning_rate=2e-3"),
)


def train_command(out: Path, *settings: str) -> list[str]:
    chosen = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    return ["-m", "lmedge.cli", "train", "--data", "synthetic:60", "--out", str(out), *chosen]


def start(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def by_two(command: list[str]) -> subprocess.CompletedProcess[str]:
    return start(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command])


def history_of(out: Path) -> list[dict[str, float]]:
    return list(json.loads((out / "train/network.json").read_text())["history"])


def both(folder: Path, *settings: str) -> Path:
    start(train_command(folder / "one", *settings))
    by_two(train_command(folder / "two", *settings))
    return folder


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One and two processes, with norms that keep their statistics."""
    return both(tmp_path_factory.mktemp("frozen"), "train.freeze_norms=true")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One and two processes, with norms that learn their statistics."""
    return both(tmp_path_factory.mktemp("learned"))


@pytest.mark.slow
def test_with_frozen_norms_two_processes_make_the_same_weights(frozen: Path) -> None:
    one, two = (load_tensors(frozen / count / "train" / BEST)["weights"] for count in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    losses = [[row["loss"] for row in history_of(frozen / count)] for count in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_with_learned_norms_they_reach_the_same_loss(learned: Path) -> None:
    """Each process has the statistics of its own half of a batch."""
    losses = [history_of(learned / count)[-1]["loss"] for count in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]  # one process that trained alone, and another that waited


def files_of(out: Path) -> list[str]:
    """All files of a run; of TensorBoard's, whose names differ, how many there are."""
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return ["logs/events" if "tfevents" in name else name for name in names]


@pytest.mark.slow
def test_a_helper_writes_nothing(learned: Path) -> None:
    assert files_of(learned / "two") == files_of(learned / "one")
    assert len((learned / "two/logs/training.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_two_processes_with_nothing_to_do_end_at_once(learned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (learned / "two/train").iterdir()}
    done = by_two(train_command(learned / "two"))
    assert done.stderr.count("unchanged") == 2  # said by the first process alone: faces, train
    assert {path: path.stat().st_mtime_ns for path in (learned / "two/train").iterdir()} == before


# Roles


@pytest.mark.parametrize(
    ("environment", "count", "helper"),
    [({}, 1, False), ({"WORLD_SIZE": "2", "RANK": "0"}, 2, False), ({"WORLD_SIZE": "2", "RANK": "1"}, 2, True)],
)
def test_the_first_process_builds_and_the_others_help(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], count: int, helper: bool
) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (processes.process_count(), processes.is_helper()) == (count, helper)


@pytest.mark.parametrize(("batch_size", "count", "next_one"), [(8, 3, 9), (2, 2, 4), (9, 2, 10)])
def test_a_batch_that_cannot_be_shared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, count: int, next_one: int
) -> None:
    monkeypatch.setattr(processes, "process_count", lambda: count)
    with pytest.raises(ConfigError, match=f"multiple of the {count} processes.*got {batch_size}.*train.batch_size={next_one}$"):
        run(tmp_path, run_options(batch_size=batch_size), drawn_faces(16, 2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("batch_size", "count"), [(2, 1), (9, 1), (4, 2), (32, 4)])
def test_a_batch_that_can_be_shared_is_taken(monkeypatch: pytest.MonkeyPatch, batch_size: int, count: int) -> None:
    monkeypatch.setattr(processes, "process_count", lambda: count)
    processes.check_shares(batch_size)


@pytest.mark.parametrize("call", [lambda: processes.announce("folder"), processes.wait_for_announcement])
def test_processes_that_did_not_find_each_other_do_not_train_alone(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    """Each would train on whole batches, and the run look right."""
    monkeypatch.setattr("accelerate.PartialState", lambda **_: SimpleNamespace(num_processes=1))
    monkeypatch.setattr(processes, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="2 processes were started, but 1 found each other"):
        call()


def test_one_process_announces_nothing() -> None:
    processes.announce("folder")  # would wait for others
