"""The running mean of a network's weights over training steps (EMA), which is what gets validated and kept.

Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017. The early mean is short, so that it does not remember
the start: after n steps the decay is at most (1 + n) / (10 + n).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage:
    """Follows `network`; `average` is the mean. With a decay of 0 it is the network itself."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._steps = 0
        self._mean = AveragedModel(network, multi_avg_fn=self._blend, use_buffers=True) if decay else None

    @property
    def average(self) -> nn.Module:
        return self._network if self._mean is None else self._mean.module

    def update(self) -> None:
        """After each step of the optimizer."""
        if self._mean is not None:
            self._mean.update_parameters(self._network)
            self._steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Empty without a mean of its own."""
        return {} if self._mean is None else {**self._mean.state_dict(), "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self._mean is not None:
            self._steps = int(state["steps"])
            self._mean.load_state_dict({name: tensor for name, tensor in state.items() if name != "steps"})

    @torch.no_grad()
    def _blend(self, mean: Tensors, now: Tensors, count: Tensor | int) -> None:
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        floats = [(old, new) for old, new in zip(mean, now, strict=True) if old.is_floating_point()]
        if floats:
            # One call for all tensors: in a small network, calls take longer than arithmetic.
            torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], 1 - decay)
        for old, new in zip(mean, now, strict=True):
            if not old.is_floating_point():
                old.copy_(new)
