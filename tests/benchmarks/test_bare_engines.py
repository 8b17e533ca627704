"""The loops that lmedge is compared with are right, and read the crop anew each time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.bundles import SPEC, random_crops, tiny_answer, tiny_bundle
from tests.requirements import REPOSITORY, require


@pytest.fixture(scope="module")
def bare_engines() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bare_engines", REPOSITORY / "benchmarks" / "bare_engines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("loop", ["bare_call", "plain_call"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_loop_answers_every_crop(engine: str, loop: str, bare_engines: ModuleType, tmp_path: Path) -> None:
    require(engine)
    artifact = tiny_bundle(tmp_path).select(engine)
    crop = np.zeros((1, *SPEC.input_hw, 3), np.uint8)
    call = getattr(bare_engines, loop)(engine, artifact, crop, 1)
    first, second = random_crops(2)
    answers = []
    for wanted in (first, second):
        crop[0] = wanted
        answers.append(call()["landmarks"])
    np.testing.assert_allclose(np.concatenate(answers), tiny_answer(np.stack([first, second])), atol=1e-4)
