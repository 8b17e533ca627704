"""The optimizer and its schedule: AdamW with weight decay on kernels alone, linear warm-up, then half a cosine down to zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from lmedge.pipeline.configuration.options import TrainOptions


def make_optimizer(network: nn.Module, options: TrainOptions) -> AdamW:
    """AdamW over the network's parameters, in one call for all of them."""
    return AdamW(_decay_groups(network, options.weight_decay), lr=options.learning_rate, fused=True)


def make_schedule(optimizer: Any, options: TrainOptions, steps_per_epoch: int) -> LambdaLR:
    """The factor of the learning rate over all steps of a run."""
    return LambdaLR(optimizer, _warmup_cosine(options, steps_per_epoch))


def half_cosine(part: float) -> float:
    """From 1 at the start of a schedule down to 0 at its end, and after it."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


def _decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: a decayed bias or norm scale shrinks answers towards nothing."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _warmup_cosine(options: TrainOptions, steps_per_epoch: int) -> Callable[[int], float]:
    warmup = max(1.0, options.warmup_epochs * steps_per_epoch)
    total = max(warmup + 1, options.epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return half_cosine((step - warmup) / (total - warmup))

    return factor
