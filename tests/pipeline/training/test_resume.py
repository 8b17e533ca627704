"""An interrupted training run ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from lmedge.errors import DataError
from lmedge.pipeline.training import train as train_module
from lmedge.pipeline.training.checkpoint import BEST, LAST, PROGRAM, load_tensors
from lmedge.pipeline.training.state import TrainingState
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.drawn_runs import ARCHITECTURE, SHORT, other_faces, run, run_options, short_run, untrained
from tests.requirements import REPOSITORY


class Interrupted(BaseException):
    """Stands for a kill: no handler of the program catches it."""


def interrupt_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, text: str) -> None:
        if text.startswith("epoch") and done == step:
            raise Interrupted

    return progress


def assert_same_result(folder: Path, expected: Path) -> None:
    assert (folder / BEST).read_bytes() == (expected / BEST).read_bytes()
    ours, theirs = load_tensors(folder / LAST), load_tensors(expected / LAST)
    for part in ("network", "average", "optimizer", "schedule"):
        assert_equal_trees(ours[part], theirs[part], part)
    histories = [[{**row, "seconds": 0} for row in last["history"]] for last in (ours, theirs)]
    assert histories[0] == histories[1]


def assert_equal_trees(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in ours.items():
            assert_equal_trees(value, theirs[key], f"{where}.{key}")
    else:
        assert ours == theirs, where


@pytest.mark.usefixtures("without_program")
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_an_interrupted_run_resumes_bit_for_bit(undisturbed: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(Interrupted):
        short_run(tmp_path, progress=interrupt_at(step))
    torch.manual_seed(step)  # whatever else the process did has no influence
    history = short_run(tmp_path)
    assert len(history) == SHORT.epochs
    assert_same_result(tmp_path, undisturbed)


INTEGRAL = replace(ARCHITECTURE, head="integral")
# What else a run keeps over its epochs, or does in some of them.
OPTION_SETS: dict[str, dict[str, Any]] = {
    "short mean, weak end": {"options": run_options(ema=0.8, weak_part=0.34)},
    "no mean": {"options": run_options(ema=0.0)},
    "small crops first": {"options": run_options(small_part=0.34, small_px=24), "architecture": INTEGRAL},
    "other points": {"options": SHORT, "others": other_faces(10), "others_part": 0.4},
    "teacher, confidence": {
        "options": run_options(teacher_share=0.4, normalized=True, freeze_norms=True),
        "teacher": untrained(),
        "architecture": replace(ARCHITECTURE, confidence=True),
    },
}


@pytest.mark.usefixtures("without_program")
@pytest.mark.parametrize("settings", OPTION_SETS.values(), ids=list(OPTION_SETS))
def test_whatever_the_options_a_run_resumes_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    faces, more = drawn_faces(18, 4), {name: value for name, value in settings.items() if name != "options"}
    run(tmp_path / "whole", settings["options"], faces, **more)
    half = (10 if "others" in settings else 9) // 2  # in the second epoch
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", settings["options"], faces, progress=interrupt_at(half), **more)
    torch.manual_seed(5)
    run(tmp_path / "broken", settings["options"], faces, **more)
    assert_same_result(tmp_path / "broken", tmp_path / "whole")


def interrupt(*_: Any) -> None:
    raise Interrupted


@pytest.mark.usefixtures("without_program")
def test_a_run_interrupted_between_its_two_checkpoints_resumes_bit_for_bit(undisturbed: Path, tmp_path: Path) -> None:
    with patch.object(TrainingState, "save", interrupt), pytest.raises(Interrupted):
        short_run(tmp_path)
    assert os.listdir(tmp_path) == [BEST]
    short_run(tmp_path)
    assert_same_result(tmp_path, undisturbed)


def test_a_run_interrupted_before_its_export_resumes_there(undisturbed: Path, tmp_path: Path) -> None:
    with patch.object(train_module, "export_program", interrupt), pytest.raises(Interrupted):
        short_run(tmp_path)
    short_run(tmp_path)
    assert_same_result(tmp_path, undisturbed)
    assert (tmp_path / PROGRAM).read_bytes() == (undisturbed / PROGRAM).read_bytes()


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from tests.pipeline.drawn_runs import short_run

def progress(done, total, text):
    if text.startswith("epoch") and done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

short_run(Path(sys.argv[1]), progress=progress)
"""


@pytest.mark.usefixtures("without_program")
def test_a_killed_process_is_resumed_by_another_one_bit_for_bit(undisturbed: Path, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(os.listdir(tmp_path)) == [BEST, LAST]
    short_run(tmp_path)
    assert_same_result(tmp_path, undisturbed)


def test_a_damaged_last_checkpoint_is_named(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:5000])
    with pytest.raises(DataError, match=r"last\.pt cannot be read as a checkpoint; it may be damaged"):
        short_run(tmp_path)
