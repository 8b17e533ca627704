"""A small stand-in for a trained landmark network: inverted residuals, ReLU6 or ReLU, preprocessing inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

POINTS, CROP_PX = 5, 64


class InvertedResidual(nn.Module):
    """Expand, filter per channel, project; added to its input where the shapes allow."""

    def __init__(self, inside: int, outside: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        hidden = inside * 4
        self.adds = stride == 1 and inside == outside
        self.body = nn.Sequential(
            nn.Conv2d(inside, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            activation(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            activation(),
            nn.Conv2d(hidden, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.body(features)
        return features + answer if self.adds else answer


class StandIn(nn.Module):
    """uint8 (N, H, W, 3) BGR crops → float32 (N, K, 2) fractions of the crop."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU6, mean: float = 128.0) -> None:
        super().__init__()
        self.mean = mean
        layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), activation()]
        channels = 8
        for outside, stride in ((8, 2), (16, 2), (16, 1), (24, 2), (24, 1)):
            layers.append(InvertedResidual(channels, outside, stride, activation))
            channels = outside
        layers += [nn.Conv2d(channels, 16, 1, bias=False), nn.BatchNorm2d(16), activation()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(16 * (CROP_PX // 16) ** 2, POINTS * 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.features((image.permute(0, 3, 1, 2).float() - self.mean) / 64)
        answer: torch.Tensor = self.head(features.flatten(1))
        return answer.view(-1, POINTS, 2)


def stand_in(seed: int = 0, **options: Any) -> StandIn:
    """A network with the batch statistics of `picture_crops` and answers that spread over the crop as faces do."""
    torch.manual_seed(seed)
    network = StandIn(**options).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
    with torch.no_grad():
        for batch in range(4):
            network(torch.from_numpy(picture_crops(16, seed=100 + batch)))
        network.head.weight.mul_(0.3)
        network.head.bias.copy_(torch.rand(POINTS * 2) * 0.6 + 0.2)
    return network.eval()


def picture_crops(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Soft patches of colour with some grain, uint8 (N, 64, 64, 3): more like photographs than noise is."""
    random = np.random.default_rng(seed)
    crops = []
    for _ in range(count):
        patches = random.normal(random.uniform(60, 190), random.uniform(20, 60), (8, 8, 3)).astype(np.float32)
        grain = random.normal(0, 6, (CROP_PX, CROP_PX, 3))
        crops.append(np.clip(cv2.resize(patches, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC) + grain, 0, 255))
    return np.stack(crops).astype(np.uint8)


def save_program(network: nn.Module, file: Path, *, dynamic: bool = True, dtype: torch.dtype = torch.uint8) -> Path:
    """Writes `model.pt2` as training does, from a batch-2 example."""
    example = torch.zeros(2, CROP_PX, CROP_PX, 3, dtype=dtype)
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, file)
    return file
