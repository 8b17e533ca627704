"""One exported network for all tests of this folder; exporting takes seconds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests import requirements


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt2` of the stand-in network."""
    requirements.require("torch")
    from tests.export.networks import save_program, stand_in

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        return save_program(stand_in(), tmp_path_factory.mktemp("program") / "model.pt2")


@pytest.fixture(scope="session")
def exported(program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The ONNX file of `program`, and the records of its export."""
    from lmedge.export.torch_to_onnx import export_onnx
    from tests.export.networks import picture_crops

    file = tmp_path_factory.mktemp("onnx") / "model.fp32.onnx"
    return file, export_onnx(program, file, picture_crops(8))


@pytest.fixture(scope="session")
def fp32_onnx(exported: tuple[Path, list[Any]]) -> Path:
    return exported[0]
