"""`last.pt`: everything that a resumed run needs to end where an undisturbed one would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lmedge.pipeline.training.averaging import WeightAverage
from lmedge.pipeline.training.checkpoint import load_tensors, save_tensors


@dataclass(frozen=True)
class EpochRecord:
    """One line of the training history; NME is a fraction of the normaliser."""

    epoch: int
    loss: float
    validation_nme: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class TrainingState:
    """The parts of a run that change with every step."""

    network: nn.Module
    average: WeightAverage
    optimizer: Any
    schedule: LambdaLR

    def save(self, path: Path, history: Sequence[EpochRecord]) -> None:
        """Writes them with the history of the epochs that led to them, atomically."""
        save_tensors(
            path,
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "history": [asdict(record) for record in history],
            },
        )

    def resume(self, path: Path) -> list[EpochRecord]:
        """Reads them back, if the file is there; the history.

        Raises:
            DataError: the file is damaged.
        """
        if not path.is_file():
            return []
        state = load_tensors(path)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return [EpochRecord(**record) for record in state["history"]]
