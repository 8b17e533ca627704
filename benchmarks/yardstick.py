"""The network that others are timed against: MobileNetV2 1.0 as published, at 112 px with 98 points, untrained.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2: ReLU6, the last convolution to
1,280 channels, global average pooling, and one linear layer, here to coordinates. Its weights are random, for no engine's time
depends on them; they are drawn so that no layer loses the signal (He et al., ICCV 2015), and answers to different crops differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lmedge.bundle import Artifact, Bundle, Manifest, network_specs
from lmedge.export.torch_to_onnx import export_onnx
from lmedge.pipeline.models import Architecture, LandmarkNetwork
from lmedge.pipeline.models.blocks import ConvNormAct, Features
from lmedge.pipeline.models.heads import HeadPlan, LinearHead
from lmedge.pipeline.models.mobilenet_v2 import MobileNetV2
from lmedge.pipeline.training.checkpoint import PROGRAM, Checkpoint, export_program
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import WFLW_98

NAME = "MobileNetV2 1.0, 112 px, 98 points"
INPUT_PX = 112
_LAST_CHANNELS = 1280
_FILE = "model.fp32.onnx"
_SEED = 0


class PublishedHead(LinearHead):
    """A convolution to 1,280 channels, their means, and a linear layer."""

    def __init__(self, plan: HeadPlan) -> None:
        super().__init__(plan, _LAST_CHANNELS)
        self.last = ConvNormAct(plan.feature_channels[2], _LAST_CHANNELS, act=plan.activation)

    def vector(self, features: Features) -> Tensor:
        means: Tensor = self.last(features[2]).mean((2, 3))
        return means


@dataclass(frozen=True)
class _AsBuilt(Checkpoint):
    """A checkpoint of a network that no name stands for."""

    built: LandmarkNetwork

    def network(self) -> LandmarkNetwork:
        return self.built.eval()


def published_network() -> LandmarkNetwork:
    """The network in PyTorch, the same weights every time."""
    torch.manual_seed(_SEED)
    trunk = MobileNetV2(1.0, "relu6")
    plan = HeadPlan(trunk.channels, INPUT_PX, WFLW_98.num_points, _LAST_CHANNELS, "relu6")
    network = LandmarkNetwork(trunk, PublishedHead(plan))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def yardstick_bundle(folder: Path) -> Bundle:
    """Exports the network into a folder as lmedge exports any other, and gives it as a bundle with one fp32 file."""
    architecture = Architecture("mobilenet_v2", 1.0, "relu6", _LAST_CHANNELS, INPUT_PX, WFLW_98.num_points, "pooled")
    preprocess = PreprocessSpec(input_hw=(INPUT_PX, INPUT_PX), crop_scale=1.25)
    built = published_network()
    export_program(_AsBuilt(built.state_dict(), architecture, WFLW_98, preprocess, {}, built), folder / PROGRAM)
    crops = np.random.default_rng(_SEED).integers(0, 256, (2, INPUT_PX, INPUT_PX, 3), np.uint8)
    export_onnx(folder / PROGRAM, folder / _FILE, crops)
    inputs, outputs = network_specs(preprocess, WFLW_98)
    served: dict[str, tuple[str, ...]] = dict.fromkeys(("onnxruntime", "openvino"), ("any",))
    artifact = Artifact.of_file(
        folder / _FILE, folder, format="onnx", precision="fp32", inputs=inputs, outputs=outputs, serves=served
    )
    return Bundle(folder, Manifest(NAME, WFLW_98, preprocess, (artifact,)))
