"""Small untrained networks and their Q/DQ graphs, made once and shared: nobody changes them."""

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
from lmedge.pipeline.models import Architecture, DeployedNetwork, build_network
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import MMLAB_5
from tests.export.networks import CROP_PX, picture_crops, save_program, stand_in
from tests.pipeline.networks import settle_norms

SPEC = PreprocessSpec(input_hw=(CROP_PX, CROP_PX))
TRUNKS = ("stand-in", "mobilenet_v3_small")


@dataclass(frozen=True)
class Int8Network:
    """`fp32`: as exported; `prepared`: what the quantisers were placed in; `int8`: the graph of each dialect."""

    fp32: onnx.ModelProto
    prepared: onnx.ModelProto
    int8: dict[str, onnx.ModelProto]


@functools.cache
def int8_network(trunk: str = TRUNKS[0]) -> Int8Network:
    """Depthwise convolutions, residual adds and ReLU6; or those of MobileNetV3, with HardSwish and squeeze-and-excite."""
    network: nn.Module = stand_in()
    if trunk != TRUNKS[0]:
        torch.manual_seed(0)
        network = build_network(Architecture(trunk, 0.35, "hardswish", 16, CROP_PX, MMLAB_5.num_points))
        nn.init.normal_(network.head.linear.weight, std=0.005)  # so that answers differ by pixels
        network = DeployedNetwork(settle_norms(network, CROP_PX), SPEC.mean, SPEC.std).eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        file = Path(folder) / "model.onnx"
        export_onnx(save_program(network, file.with_suffix(".pt2")), file, picture_crops(4))
        fp32 = onnx.load(file)
    [prepared] = prepare(fp32, picture_crops(32), [Recipe()])
    return Int8Network(fp32, prepared.float_model, {dialect: prepared.place(dialect) for dialect in DIALECTS})
