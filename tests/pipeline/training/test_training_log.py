"""What one watches: a CSV file and TensorBoard events that say what the history says, also over interrupted runs."""

from __future__ import annotations

import csv
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lmedge.pipeline.training import log as training_log
from lmedge.pipeline.training.log import CSV, TrainingLog
from lmedge.pipeline.training.state import EpochRecord
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.drawn_runs import run, run_options
from tests.pipeline.training.test_resume import Interrupted, interrupt_at
from tests.requirements import require

RECORDS = [EpochRecord(epoch, 3.0 / (epoch + 1), 0.1 / (epoch + 1), 1e-3, 2.5) for epoch in range(4)]


def rows_of(folder: Path) -> list[dict[str, float]]:
    with (folder / CSV).open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def expected(records: list[EpochRecord]) -> list[dict[str, float]]:
    return [asdict(record) for record in records]


def board_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: (epoch, value) of each curve."""
    require("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


def test_a_row_for_each_epoch(logs: Path) -> None:
    log = TrainingLog(logs, [])
    for count, record in enumerate(RECORDS, start=1):
        log.add(record)
        assert rows_of(logs) == expected(RECORDS[:count])
    log.close()


def test_a_resumed_run_goes_on_behind_its_rows(logs: Path) -> None:
    for start, stop in ((0, 2), (2, 4)):
        log = TrainingLog(logs, RECORDS[:start])
        for record in RECORDS[start:stop]:
            log.add(record)
        log.close()
    assert rows_of(logs) == expected(RECORDS)


def test_rows_of_another_run_are_gone_with_the_first_epoch(logs: Path) -> None:
    for records in (RECORDS, [replace(RECORDS[0], loss=9.0)]):
        log = TrainingLog(logs, [])
        for record in records:
            log.add(record)
        log.close()
    assert [row["loss"] for row in rows_of(logs)] == [9.0]


def test_an_epoch_that_was_kept_and_not_noted_is_noted_later(logs: Path) -> None:
    """A run killed between both, after its last epoch, notes no further one."""
    TrainingLog(logs, RECORDS[:3]).close()
    TrainingLog(logs, RECORDS).close()
    assert rows_of(logs) == expected(RECORDS)


def test_tensorboard_reads_the_same(logs: Path) -> None:
    require("tensorboard")
    for start, stop in ((0, 3), (2, 4)):  # the third epoch was noted and not kept
        log = TrainingLog(logs, RECORDS[:start])
        for record in RECORDS[start:stop]:
            log.add(record)
        log.close()
    board = board_of(logs)
    assert set(board) == {"loss", "validation_nme", "learning_rate", "seconds"}
    for name, curve in board.items():
        assert [step for step, _ in curve] == [0, 1, 2, 3]
        assert [value for _, value in curve] == pytest.approx([asdict(record)[name] for record in RECORDS])


def test_without_tensorboard_there_is_the_csv_file(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log, "find_spec", lambda name: None)
    log = TrainingLog(logs, [])
    log.add(RECORDS[0])
    log.close()
    assert [path.name for path in logs.iterdir()] == [CSV]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where TensorBoard would write without being told
    log = TrainingLog(None, RECORDS[:1])
    log.add(RECORDS[1])
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_program")
def test_a_run_logs_its_history_also_when_it_was_interrupted(tmp_path: Path, logs: Path) -> None:
    settings: dict[str, Any] = {"options": run_options(), "faces": drawn_faces(16, 2), "logs": logs}
    with pytest.raises(Interrupted):
        run(tmp_path / "run", progress=interrupt_at(5), **settings)
    assert len(rows_of(logs)) == 2
    history = run(tmp_path / "run", **settings)
    assert rows_of(logs) == expected(history)
