"""Two engines on one int8 file: how far apart, from which layer on, and whether looking changes what is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime", "openvino")

import onnx  # noqa: E402

from lmedge.calibration.agreement import ENGINES, START_STEPS, Disagreement, disagreement, layer_table  # noqa: E402
from lmedge.calibration.finish_qdq import finish_qdq  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, Dialect  # noqa: E402
from lmedge.errors import CalibrationError  # noqa: E402
from lmedge.runtimes import find_runtime  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, landmark_graph, smooth_crops  # noqa: E402
from tests.export.quantised import quantised  # noqa: E402

CROPS = smooth_crops(12, seed=8)


def write(folder: Path, dialect: Dialect, *, finished: bool) -> Path:
    model = quantised(landmark_graph(), dialect, smooth_crops(32))
    file = folder / f"{dialect}-{finished}.onnx"
    onnx.save(finish_qdq(model, dialect) if finished else model, file)
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Dialect, bool], Path]:
    folder = tmp_path_factory.mktemp("int8")
    return {
        (dialect, finished): write(folder, dialect, finished=finished) for dialect in DIALECTS for finished in (True, False)
    }


@pytest.fixture(scope="module")
def unfinished_x86(files: dict[tuple[Dialect, bool], Path]) -> Disagreement:
    return disagreement(files[X86, False], CROPS)


# Points


def test_distances_are_those_of_the_two_engines(files: dict[tuple[Dialect, bool], Path], unfinished_x86: Disagreement) -> None:
    import onnxruntime

    from lmedge.runtimes.openvino import import_openvino

    file = str(files[X86, False])
    core = import_openvino().Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(file)
    one = session.run(["landmarks"], {"image": CROPS})[0]
    distance_px = np.linalg.norm((compiled(CROPS)["landmarks"] - one) * CROP_PX, axis=2)
    found = unfinished_x86
    assert (found.file, found.crops) == (files[X86, False].name, len(CROPS))
    assert set(found.engines) == set(ENGINES)
    assert found.mean_px == pytest.approx(distance_px.mean(), abs=1e-4)
    assert found.max_px == pytest.approx(distance_px.max(), abs=1e-4)
    assert found.crop_max_px[found.worst] == found.max_px
    np.testing.assert_allclose(found.crop_mean_px, distance_px.mean(axis=1), atol=1e-4)


def test_an_engine_that_answers_elsewhere_is_seen(
    files: dict[tuple[Dialect, bool], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two pixels in x, on every crop."""
    adapter: Any = find_runtime("openvino")
    honest = adapter._infer

    def infer(runtime: Any, feeds: Any) -> Any:
        results = honest(runtime, feeds)
        results["landmarks"] = results["landmarks"] + np.array([2 / CROP_PX, 0], np.float32)
        return results

    before = disagreement(files[X86, True], CROPS, layers=False)
    monkeypatch.setattr(adapter, "_infer", infer)
    after = disagreement(files[X86, True], CROPS, layers=False)
    assert after.mean_px == pytest.approx(2, abs=before.max_px)
    assert before.mean_px < 0.2
    assert after.layers == ()
    assert after.start is None


# Layers


def test_every_quantised_tensor_is_compared_in_graph_order(unfinished_x86: Disagreement) -> None:
    layers = [layer.layer for layer in unfinished_x86.layers]
    assert layers[:4] == ["Div div", "Conv stem", "Conv depthwise_1", "Conv project_1"]
    assert "Add add" in layers
    for layer in unfinished_x86.layers:
        assert 0 <= layer.engines.mean <= layer.engines.max
        assert set(layer.from_written) == set(ENGINES)


def test_an_activation_is_named_with_its_layer(files: dict[tuple[Dialect, bool], Path]) -> None:
    found = disagreement(files[PORTABLE, False], CROPS)
    assert "Conv stem and Clip" in [layer.layer for layer in found.layers]


def test_where_it_starts_is_found(unfinished_x86: Disagreement) -> None:
    """OpenVINO leaves out the rounding between a convolution and an add, and nothing else."""
    start = unfinished_x86.start
    assert start is not None
    assert start.layer == "Add add"
    assert start.from_written["openvino"].mean > START_STEPS > start.from_written["onnxruntime"].mean
    before = unfinished_x86.layers[: unfinished_x86.layers.index(start)]
    assert max(layer.engines.mean for layer in before) < START_STEPS


def test_what_cannot_be_seen_without_changing_it_is_marked(unfinished_x86: Disagreement) -> None:
    """Asked for one of the two numbers that it adds, OpenVINO rounds it, which it leaves out when nobody looks."""
    marked = {layer.layer: layer.disturbed for layer in unfinished_x86.layers if layer.disturbed}
    assert marked == {"Conv project_2": ("openvino",), "Conv project_3": ("openvino",)}


def test_a_finished_file_has_no_such_layer(files: dict[tuple[Dialect, bool], Path], unfinished_x86: Disagreement) -> None:
    finished = disagreement(files[X86, True], CROPS)
    assert finished.mean_px < 0.5 * unfinished_x86.mean_px
    assert [layer.disturbed for layer in finished.layers if layer.disturbed] == []
    assert finished.start is None


# Reports


def test_it_is_written_as_plain_data(unfinished_x86: Disagreement) -> None:
    document = json.loads(json.dumps(unfinished_x86.to_json()))
    assert document["crops"] == len(document["crop_max_px"]) == len(CROPS)
    assert document["start"] == unfinished_x86.start.tensor if unfinished_x86.start else None
    assert document["layers"][0]["engines"].keys() == {"mean", "max"}


def test_the_table_has_a_row_for_each_layer_and_says_where_it_starts(unfinished_x86: Disagreement) -> None:
    rows = {row[0]: row[-1] for row in layer_table(unfinished_x86)}
    assert len(rows) == len(unfinished_x86.layers)
    assert rows["Add add"] == "starts here"
    assert rows["Conv project_3"] == "seen only by disturbing openvino"
    assert rows["Conv stem"] == ""


# What is refused


def test_a_float_file_is_refused(tmp_path: Path) -> None:
    onnx.save(landmark_graph(), tmp_path / "model.onnx")
    with pytest.raises(CalibrationError, match="quantises nothing"):
        disagreement(tmp_path / "model.onnx", CROPS)


def test_crops_that_are_none_are_refused(files: dict[tuple[Dialect, bool], Path]) -> None:
    with pytest.raises(CalibrationError, match="takes at least one crop"):
        disagreement(files[X86, True], CROPS[:0])
