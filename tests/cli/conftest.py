"""A bundle, a photo and labelled faces for commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmedge.bundle import MANIFEST, Bundle
from lmedge.data.csv import write_csv
from tests import bundles, requirements
from tests.data.faces import FIVE_POINTS, sample_of, textured_image, write_image

FACES = 4


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of five points for ONNX Runtime and OpenVINO; tests do not change it."""
    requirements.require("onnxruntime")
    return bundles.tiny_bundle(tmp_path_factory.mktemp("tiny")).root


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 100 × 80 px."""
    return write_image(tmp_path_factory.mktemp("photos") / "driver.png", textured_image(0, height=80))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`KIND:PATH` of four faces of five points, without boxes, for `--data`."""
    folder = tmp_path_factory.mktemp("faces")
    samples = []
    for number in range(FACES):
        image = write_image(folder / f"face_{number}.png", textured_image(number))
        samples.append(sample_of(image, np.array(FIVE_POINTS) + number, bundles.SCHEMA))
    write_csv(folder / "faces.csv", samples)
    return f"csv:{folder / 'faces.csv'}"


def change_manifest(bundle: Bundle | Path, **fields: Any) -> Path:
    """Sets top-level fields of a bundle's manifest; its folder."""
    root = bundle if isinstance(bundle, Path) else bundle.root
    document = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    (root / MANIFEST).write_text(json.dumps({**document, **fields}), encoding="utf-8")
    return root
