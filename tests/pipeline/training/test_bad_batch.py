"""A loss that is no number stops training, and leaves what it happened with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lmedge.errors import AccuracyError
from lmedge.pipeline.models import TrainedNetwork, build_network
from lmedge.pipeline.training.joint import JointPoints
from lmedge.pipeline.training.objective import Objective
from lmedge.pipeline.training.train import BAD_BATCH
from lmedge.schemas import MMLAB_5
from tests.pipeline.drawn_faces import drawn_faces
from tests.pipeline.drawn_runs import ARCHITECTURE, SPEC, run, run_options

# The first step throws the weights out of all numbers.
WILD = run_options(learning_rate=1e30)
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(AccuracyError) as caught:
        run(folder, WILD, drawn_faces(18, 4))
    return folder, str(caught.value)


def test_the_message_names_the_file_and_what_to_type(stopped: tuple[Path, str]) -> None:
    folder, message = stopped
    assert str(folder / BAD_BATCH) in message
    assert message.startswith("The loss became nan in epoch 1")
    assert "--set train.learning_rate=2.5e+29" in message


def test_nothing_else_is_left(stopped: tuple[Path, str]) -> None:
    assert os.listdir(stopped[0]) == [BAD_BATCH]


def test_the_batch_and_its_weights_give_that_loss_again(stopped: tuple[Path, str]) -> None:
    saved = np.load(stopped[0] / BAD_BATCH)
    crops, fractions = torch.from_numpy(saved["crops"]), torch.from_numpy(saved["fractions"])
    assert (crops.shape, crops.dtype) == ((WILD.batch_size, 32, 32, 3), torch.uint8)
    assert fractions.shape == (WILD.batch_size, 5, 2)
    assert fractions.isfinite().all()
    network = build_network(ARCHITECTURE)
    names = [name for name in saved.files if name.startswith("weights/")]
    network.load_state_dict({name.removeprefix("weights/"): torch.from_numpy(saved[name]) for name in names})
    objective, points = Objective(JointPoints((MMLAB_5,)), WILD), TrainedNetwork(network, SPEC.mean, SPEC.std)
    assert not objective(points.train()(crops), fractions, 32).isfinite()
    torch.manual_seed(0)
    healthy = TrainedNetwork(build_network(ARCHITECTURE), SPEC.mean, SPEC.std)
    assert objective(healthy.train()(crops), fractions, 32).isfinite()


def test_epochs_before_it_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, compute = [0], Objective.__call__

    def fail_at_third(self: Objective, answers: torch.Tensor, labels: torch.Tensor, size_px: int) -> torch.Tensor:
        calls[0] += 1
        return compute(self, answers, labels, size_px) * (torch.nan if calls[0] == 3 else 1)

    monkeypatch.setattr(Objective, "__call__", fail_at_third)
    with pytest.raises(AccuracyError, match="in epoch 2"):
        run(tmp_path, replace(WILD, learning_rate=1e-3), drawn_faces(18, 4))
    assert sorted(os.listdir(tmp_path)) == [BAD_BATCH, "best.pt", "last.pt"]
