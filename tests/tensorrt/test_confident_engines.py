"""Engines of a network with two outputs: compiled, compared at every batch, and kept out where the confidence is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

from lmedge.export.engine_options import EngineOptions  # noqa: E402
from lmedge.runtimes.engine_record import BatchProfile  # noqa: E402
from lmedge.runtimes.golden import Golden  # noqa: E402
from lmedge.runtimes.landmarker import FaceLandmarker  # noqa: E402
from tests.confident_bundles import confident_bundle  # noqa: E402
from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.raced_bundle import compiled, engines_in  # noqa: E402

pytestmark = pytest.mark.usefixtures("clock")
BATCHES = EngineOptions(batch=BatchProfile(1, 2, 5))


def test_an_engine_says_how_sure_it_is(tmp_path: Path, fake_gpu: FakeGpu, tensorrt_version: str) -> None:
    bundle = confident_bundle(tmp_path)
    outcome = compiled(bundle, ["fp32"], options=BATCHES)
    assert outcome.passed
    gates = [gate.gate for engine in outcome.engines for report in engine.parity for gate in report.gates]
    assert gates.count("golden_confidence_max") == 1 + len({1, 2, 5})
    golden = Golden.from_file(bundle.golden_file())
    assert golden.confidence is not None
    with FaceLandmarker.open(bundle.root, backend="tensorrt", device="cuda") as landmarker:
        [face] = landmarker.predict(golden.frames[0], golden.boxes_xyxy[:1])
    assert face.confidence is not None
    np.testing.assert_allclose(face.confidence, golden.confidence[0], atol=0.01)


def test_an_engine_that_is_sure_of_the_wrong_points_stays_out(tmp_path: Path, fake_gpu: FakeGpu) -> None:
    bundle = confident_bundle(tmp_path, negated=True)
    outcome = compiled(bundle, ["fp32"], options=BATCHES)
    assert not outcome.passed
    failed = {gate.gate for engine in outcome.engines for report in engine.parity for gate in report.gates if not gate.passed}
    assert failed == {"golden_confidence_max"}
    assert engines_in(bundle) == {}
