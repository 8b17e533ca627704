"""One network with ReLU and one with ReLU6, exported once, and their int8 files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmedge.reports import CalibrationRecord
from tests import requirements


@dataclass(frozen=True)
class Quantized:
    """The three files of a network, and what its ranges were measured on."""

    fp32: Path
    portable: Path
    x86: Path
    record: CalibrationRecord


@pytest.fixture(scope="session", params=["ReLU", "ReLU6"])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    requirements.require("torch", "onnx", "onnxruntime")
    from torch import nn

    from lmedge.calibration.quantize import quantize_int8
    from lmedge.export.torch_to_onnx import export_onnx
    from tests.export.networks import picture_crops, save_program, stand_in

    folder = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = save_program(stand_in(activation=getattr(nn, request.param)), folder / "model.pt2")
    fp32, portable, x86 = (folder / f"model.{name}.onnx" for name in ("fp32", "int8", "int8-x86"))
    export_onnx(program, fp32, picture_crops(4))
    record = quantize_int8(fp32, picture_crops(64), portable, x86, seed=5, sources=("pictures:64",))
    return Quantized(fp32, portable, x86, record)
