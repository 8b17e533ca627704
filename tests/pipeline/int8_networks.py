"""Small networks that have learnt to find drawn faces, and their Q/DQ graphs: made once and shared, nobody changes them."""

from __future__ import annotations

import functools
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from lmedge.calibration.place_qdq import DIALECTS
from lmedge.calibration.recipe import Recipe, prepare
from lmedge.export.torch_to_onnx import export_onnx
from lmedge.pipeline.models import _HEADS, DeployedNetwork, LandmarkNetwork
from lmedge.pipeline.models.heads import FlattenHead, HeadPlan
from lmedge.pipeline.models.integral import IntegralHead
from lmedge.pipeline.models.mobilenet_v3 import MobileNetV3
from lmedge.pipeline.models.plain_cnn import PlainCnn
from lmedge.pipeline.training.dataset import load_crops
from lmedge.preprocess import PreprocessSpec
from tests.export.networks import CROP_PX, POINTS, save_program, stand_in
from tests.pipeline.drawn_faces import drawn_faces

SPEC = PreprocessSpec(input_hw=(CROP_PX, CROP_PX))
_FACES, _BATCH, _STEPS = 64, 8, 80


class _FewSwishes(MobileNetV3):
    """The kinds of blocks that MobileNetV3 has, one of each."""

    layout = ((3, 16, 16, True, False, 2), (3, 48, 24, False, True, 2), (5, 72, 24, True, True, 1), (5, 96, 32, True, True, 2))
    last = (1, 3, 4)


class _SwishNetwork(nn.Module):
    """uint8 (N, H, W, 3) BGR crops → float32 (N, K, 2) fractions of the crop."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _FewSwishes(1.0)
        # The excerpt halves one time less than a whole trunk, as if the crop had twice the side.
        self.head = FlattenHead(HeadPlan(self.trunk.channels, 2 * CROP_PX, POINTS, 16, "hardswish"))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.trunk((image.permute(0, 3, 1, 2).float() - 128) / 64))
        return answer


class _FewBlocks(MobileNetV3):
    """A small trunk with features of all three strides."""

    layout = (
        (3, 16, 16, False, False, 2),
        (3, 48, 24, False, False, 2),
        (3, 72, 32, False, False, 2),
        (3, 96, 40, False, False, 2),
    )
    last = (2, 3, 4)


class _HeadNetwork(nn.Module):
    """uint8 (N, H, W, 3) BGR crops → float32 (N, K, 2) fractions of the crop."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.trunk = _FewBlocks(1.0, "relu6")
        self.head = _HEADS[head](HeadPlan(self.trunk.channels, CROP_PX, POINTS, 16, "relu6"))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.trunk((image.permute(0, 3, 1, 2).float() - 128) / 64))
        return answer


class _HeatMapNetwork(nn.Module):
    """uint8 (N, H, W, 3) BGR crops → fractions of the crop (N, K, 2) and confidence (N, K), with max pooling on the way."""

    def __init__(self) -> None:
        super().__init__()
        trunk = PlainCnn(0.25, "relu6")
        head = IntegralHead(HeadPlan(trunk.channels, CROP_PX, POINTS, 16, "relu6", confident=True))
        self.deployed = DeployedNetwork(LandmarkNetwork(trunk, head), 128, 64)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points, confidence = self.deployed(image)
        return points, confidence


NETWORKS = {"residuals": stand_in, "swishes": _SwishNetwork}
HEAT_MAPS = "heat maps"
_ALL = {**NETWORKS, HEAT_MAPS: _HeatMapNetwork}


@dataclass(frozen=True)
class Int8Network:
    """`fp32`: as exported; `prepared`: what the quantisers were placed in; `int8`: the graph of each dialect."""

    fp32: onnx.ModelProto
    prepared: onnx.ModelProto
    int8: dict[str, onnx.ModelProto]


@functools.cache
def int8_network(name: str = "residuals") -> Int8Network:
    """With depthwise convolutions, residual adds and ReLU6; with HardSwish and squeeze-and-excite; with max pooling, heat maps
    and confidence; or with the named head."""
    torch.manual_seed(0)
    network = _ALL[name]() if name in _ALL else _HeadNetwork(name)
    crops, fractions = load_crops(drawn_faces(_FACES, 1)[0], SPEC)
    _teach(network, crops, fractions)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        file = Path(folder) / "model.onnx"
        export_onnx(save_program(network, file.with_suffix(".pt2")), file, crops[:4].numpy())
        fp32 = onnx.load(file)
    [prepared] = prepare(fp32, crops[:32].numpy(), [Recipe()])
    return Int8Network(fp32, prepared.float_model, {dialect: prepared.place(dialect) for dialect in DIALECTS})


def _teach(network: nn.Module, crops: torch.Tensor, fractions: torch.Tensor) -> None:
    """Enough to answer to faces: one that has learnt nothing answers every rounding by pixels."""
    optimizer = torch.optim.Adam(network.train().parameters(), lr=3e-3)
    for step in range(_STEPS):
        batch = torch.randperm(_FACES, generator=torch.Generator().manual_seed(step))[:_BATCH]
        optimizer.zero_grad()
        answers = network(crops[batch])
        points, confidence = answers if isinstance(answers, tuple) else (answers, fractions[batch, :, 0])
        # Not what a confidence means, but a number that lies in the picture.
        torch.autograd.backward((points - fractions[batch]).abs().mean() + (confidence - fractions[batch, :, 0]).abs().mean())
        optimizer.step()
    network.eval()
