"""Training as one can watch it: a CSV file, and TensorBoard's event files where TensorBoard is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmedge.bundle import write_atomically
from lmedge.pipeline.training.state import EpochRecord

CSV = "training.csv"


class TrainingLog:
    """Writes one row per epoch below `folder`; None writes nothing. A resumed run goes on behind the rows that are there."""

    def __init__(self, folder: Path | None, history: Sequence[EpochRecord]) -> None:
        self._folder = folder
        self._rows = [asdict(record) for record in history]
        self._board: Any = None
        if folder is not None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            # Events of epochs that a killed run noted but did not keep are dropped.
            self._board = SummaryWriter(str(folder), purge_step=len(self._rows))
        # A run may have been killed between the epoch that it kept and this file.
        self._write_csv()

    def add(self, record: EpochRecord) -> None:
        """One further epoch."""
        row = asdict(record)
        self._rows.append(row)
        self._write_csv()
        if self._board is not None:
            for name, value in row.items():
                if name != "epoch":
                    self._board.add_scalar(name, value, record.epoch)
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _write_csv(self) -> None:
        if self._folder is None or not self._rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self._rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._folder / CSV, text.getvalue())
