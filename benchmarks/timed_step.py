"""One training step on random crops, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from lmedge.pipeline.configuration.options import TrainOptions
from lmedge.pipeline.models import LandmarkNetwork, TrainedNetwork
from lmedge.pipeline.training.joint import JointPoints
from lmedge.pipeline.training.objective import Objective
from lmedge.pipeline.training.optimisation import make_optimizer
from lmedge.schemas import LandmarkSchema


def timed_step(
    network: LandmarkNetwork, schema: LandmarkSchema, options: TrainOptions, size_px: int, batch: int, *, bf16: bool = False
) -> Callable[[], float]:
    """A function that takes one step with the network as it is, and tells how many seconds it took."""
    trained, optimizer = TrainedNetwork(network, 128.0, 64.0), make_optimizer(network, options)
    objective = Objective(JointPoints((schema,)), options)
    crops = torch.randint(0, 256, (batch, size_px, size_px, 3), dtype=torch.uint8)
    labels = torch.rand(batch, schema.num_points, 2)

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answers = trained(crops)
        loss: Any = objective(answers.float(), labels, size_px)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - started

    return step
