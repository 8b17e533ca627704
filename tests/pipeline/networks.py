"""Untrained networks whose answers follow their input, as those of a trained one do."""

from __future__ import annotations

import torch
from torch import nn

BATCHES = 3


def settle_norms(network: nn.Module, input_px: int) -> nn.Module:
    """Gives the norms the statistics of some batches of noise, and their usual momentum back.

    With their start values, a network of this depth answers the same to every image.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    was_training = network.training
    network.train()
    with torch.no_grad():
        for _ in range(BATCHES):
            network(torch.randn(8, 3, input_px, input_px))
    for norm in norms:
        norm.momentum = 0.1
    return network.train(was_training)
