"""How sure a network is of its points, from the engine to the user: the same on every engine, and held to what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx")

from typer.testing import CliRunner  # noqa: E402

from lmedge.bundle import Bundle  # noqa: E402
from lmedge.cli import app  # noqa: E402
from lmedge.data.samples import FaceSample  # noqa: E402
from lmedge.errors import InputError  # noqa: E402
from lmedge.runtimes import find_runtime  # noqa: E402
from lmedge.runtimes.answers import Answers, all_answers  # noqa: E402
from lmedge.runtimes.evaluate import evaluate  # noqa: E402
from lmedge.runtimes.golden import Golden  # noqa: E402
from lmedge.runtimes.landmarker import FaceLandmarker  # noqa: E402
from lmedge.runtimes.parity import compare  # noqa: E402
from lmedge.runtimes.verify import verify_bundle  # noqa: E402
from tests.bundles import SCHEMA, random_crops  # noqa: E402
from tests.confident_bundles import confident_answers, confident_bundle  # noqa: E402

ENGINES = ("onnxruntime", "openvino")
every_engine = pytest.mark.parametrize("backend", ENGINES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return confident_bundle(tmp_path_factory.mktemp("sure"))


@every_engine
@pytest.mark.parametrize("batch", [None, 1, 4])
def test_an_engine_answers_both_in_any_batch(bundle: Bundle, backend: str, batch: int | None) -> None:
    requirements.require(backend)
    crops = random_crops(6)
    with find_runtime(backend).open(bundle.select(backend), batch=batch) as runtime:
        answers = all_answers(runtime, crops)
    expected = confident_answers(crops)
    np.testing.assert_allclose(answers.fractions, expected.fractions, atol=1e-5)
    assert answers.confidence is not None
    assert expected.confidence is not None
    np.testing.assert_allclose(answers.confidence, expected.confidence, atol=1e-4)


@every_engine
def test_predict_gives_the_confidence_of_each_face(bundle: Bundle, backend: str) -> None:
    requirements.require(backend)
    golden = Golden.from_file(bundle.golden_file())
    assert golden.confidence is not None
    with FaceLandmarker.open(bundle, backend=backend) as landmarker:
        for frame, box, expected in zip(golden.frames, golden.boxes_xyxy, golden.confidence, strict=True):
            [face] = landmarker.predict(frame, box[None])
            assert face.confidence is not None
            np.testing.assert_allclose(face.confidence, expected, atol=0.01)  # a crop may differ by a gray level
            assert face.to_json()["confidence"] == [round(float(one), 4) for one in face.confidence]


@every_engine
def test_the_self_test_checks_it(bundle: Bundle, backend: str, tmp_path: Path) -> None:
    requirements.require(backend)
    [report] = verify_bundle(bundle, backends=[backend]).parity
    assert report.passed
    assert [gate.gate for gate in report.gates][-1] == "golden_confidence_max"
    [report] = verify_bundle(confident_bundle(tmp_path, negated=True), backends=[backend]).parity
    assert [gate.gate for gate in report.gates if not gate.passed] == ["golden_confidence_max"]


def test_evaluation_measures_the_points_of_a_confident_network(bundle: Bundle) -> None:
    requirements.require("onnxruntime")
    golden = Golden.from_file(bundle.golden_file())
    samples = [
        FaceSample(frame, points, SCHEMA, str(number))
        for number, (frame, points) in enumerate(zip(golden.frames, golden.points_px, strict=True))
    ]
    with FaceLandmarker.open(bundle) as landmarker:
        report, results = evaluate(landmarker, samples, boxes="landmarks", split="all")
    assert report.count == len(results) == len(samples)


def test_a_user_sees_both_outputs_and_the_gate(bundle: Bundle) -> None:
    requirements.require("onnxruntime")
    shown = CliRunner().invoke(app, ["inspect", str(bundle.root)])
    assert shown.exit_code == 0
    assert "confidence" in shown.output
    verified = CliRunner().invoke(app, ["verify", str(bundle.root), "--backend", "onnxruntime", "--json"])
    assert verified.exit_code == 0
    gates = {gate["gate"] for report in json.loads(verified.stdout)["parity"] for gate in report["gates"]}
    assert "golden_confidence_max" in gates


def test_answers_that_do_not_belong_together_are_refused(bundle: Bundle) -> None:
    requirements.require("onnxruntime")
    crops = random_crops(2)
    right = confident_answers(crops)
    assert right.confidence is not None
    broken = right.confidence.copy()
    broken[0, 0] = np.nan
    with find_runtime("onnxruntime").open(bundle.select("onnxruntime")) as runtime:
        with pytest.raises(InputError, match=r"confidence \(2, 5\); got \(2, 5, 2\), and \(2, 4\)"):
            compare(runtime, crops, Answers(right.fractions, right.confidence[:, :4]), schema=SCHEMA)
        with pytest.raises(InputError, match="not all finite"):
            compare(runtime, crops, Answers(right.fractions, broken), schema=SCHEMA)
