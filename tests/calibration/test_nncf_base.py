"""NNCF as an algorithm: what it leaves in the float graph, which ranges it gives, and how quiet it is."""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime", "nncf")

import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from lmedge.calibration import nncf_base as subject  # noqa: E402
from lmedge.calibration import place_qdq as place_qdq_module  # noqa: E402
from lmedge.calibration.nncf_base import RANGE_ESTIMATORS, NncfBase, nncf_base  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, head_nodes, place_qdq, quantised_layers, quantised_tensors  # noqa: E402
from lmedge.calibration.ranges import measure_extremes  # noqa: E402
from lmedge.errors import BackendUnavailableError, CalibrationError  # noqa: E402
from lmedge.export.graph.compare import INPUT, max_distance_px, open_session, run_onnx  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX, EXPANSION, PROJECTION, constants, landmark_graph, smooth_crops  # noqa: E402
from tests.telemetry import fresh_run  # noqa: E402

CROPS = smooth_crops(32)
MODEL = landmark_graph()


@cache
def made(bias_correction: Any = "none", range_estimator: Any = "min-max", channel_alignment: bool = False) -> NncfBase:
    return nncf_base(
        MODEL,
        CROPS,
        bias_correction=bias_correction,
        range_estimator=range_estimator,
        channel_alignment=channel_alignment,
    )


def changed_constants(base: NncfBase) -> set[str]:
    after = constants(base.float_model)
    return {name for name, value in constants(MODEL).items() if not np.array_equal(value, after[name])}


def biases_of(layers: list[str]) -> set[str]:
    return {f"{layer}.bias" for layer in layers}


# ---- the float model ----


def test_the_graph_keeps_its_nodes_and_names_and_the_given_one_its_bytes() -> None:
    before = MODEL.SerializeToString()
    base = made("full", "histogram", True)
    assert MODEL.SerializeToString() == before
    assert [node.SerializeToString() for node in base.float_model.graph.node] == [
        node.SerializeToString() for node in MODEL.graph.node
    ]
    assert set(constants(base.float_model)) == set(constants(MODEL))
    assert set(base.tool_versions) == {"nncf", "onnx", "onnxruntime"}


def test_without_alignment_and_correction_nothing_changes() -> None:
    assert made().float_model.SerializeToString() == MODEL.SerializeToString()


def test_the_aligned_network_answers_what_the_original_does() -> None:
    base = made("none", "min-max", True)
    assert changed_constants(base) == {f"{layer}.{part}" for layer in (PROJECTION, EXPANSION) for part in ("weight", "bias")}
    crops = smooth_crops(8, seed=1)
    assert max_distance_px(run_onnx(base.float_model, crops), run_onnx(MODEL, crops), (CROP_PX, CROP_PX)) < 1e-3


def test_correction_changes_the_biases_of_quantised_convolutions_alone() -> None:
    layers = [node.name for node in MODEL.graph.node if node.op_type == "Conv" and node.name in quantised_layers(MODEL)]
    assert "head" in head_nodes(MODEL)
    assert changed_constants(made("full")) == biases_of(layers)
    # "fast" also gives up on a layer where a bias would more than double.
    assert biases_of([PROJECTION, EXPANSION]) <= changed_constants(made("fast"))
    assert changed_constants(made("fast")) <= biases_of([name for name in layers if not name.startswith("depthwise")])


def test_a_convolution_of_the_head_keeps_its_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_qdq_module, "_HEAD_SHARE", 0.05)
    assert head_nodes(MODEL)[0] == "last"
    base = nncf_base(MODEL, CROPS, bias_correction="full", range_estimator="min-max")
    assert "project_3.bias" in changed_constants(base)
    assert "last.bias" not in changed_constants(base)


def channel_means(model: onnx.ModelProto) -> list[np.ndarray]:
    """The mean output of each channel of each convolution, on the crops of the tests."""
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return [np.asarray(features.mean(axis=(0, 2, 3))) for features in open_session(probed).run(names, {INPUT: CROPS})]


def with_rounded_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The convolutions' weights as int8 has them, per output channel; activations stay in float."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    values = {tensor.name: tensor for tensor in rounded.graph.initializer}
    for node in rounded.graph.node:
        if node.op_type == "Conv" and node.name in quantised_layers(model):
            weight = numpy_helper.to_array(values[node.input[1]])
            scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)
            values[node.input[1]].CopyFrom(numpy_helper.from_array(np.round(weight / scale) * scale, node.input[1]))
    return rounded


def test_full_correction_makes_up_for_what_rounded_weights_shift() -> None:
    reference = channel_means(MODEL)

    def shift(base: NncfBase) -> float:
        means = channel_means(with_rounded_weights(base.float_model))
        return float(np.mean([np.abs(mean - wanted).mean() for mean, wanted in zip(means, reference, strict=True)]))

    assert shift(made("full")) < 0.5 * shift(made("none"))


# ---- the ranges ----


@pytest.mark.parametrize("estimator", RANGE_ESTIMATORS)
def test_every_tensor_that_a_dialect_quantises_has_a_range(estimator: str) -> None:
    base = made("none", estimator, True)
    assert list(base.ranges) == quantised_tensors(MODEL)
    assert all(np.isfinite(ends).all() and ends[0] <= 0 <= ends[1] and ends[0] < ends[1] for ends in base.ranges.values())
    for dialect in DIALECTS:
        answers = run_onnx(place_qdq(base.float_model, base.ranges, dialect), CROPS)
        assert np.linalg.norm((answers - run_onnx(MODEL, CROPS)) * CROP_PX, axis=2).mean() < 0.5


def test_min_max_ranges_are_the_extremes_up_to_a_level() -> None:
    base = made()
    extremes = measure_extremes(MODEL, quantised_tensors(MODEL), CROPS).ranges(1.0)
    read_off = set(base.ranges) - set(base.measured)
    assert {"normal", f"{PROJECTION}.out", "sum"} <= read_off, "these are NNCF's"
    for name, (least, greatest) in base.ranges.items():
        level = float(greatest - least) / 255
        assert least == pytest.approx(min(extremes[name][0], 0), abs=level), name
        assert greatest == pytest.approx(max(extremes[name][1], 0), abs=level), name


def test_the_estimators_differ_as_they_should() -> None:
    widths = {
        estimator: np.array([float(np.ptp(ends)) for ends in made("none", estimator, True).ranges.values()])
        for estimator in RANGE_ESTIMATORS
    }
    assert (widths["mean-min-max"] <= 1.001 * widths["min-max"]).all()
    assert widths["mean-min-max"].sum() < widths["histogram"].sum() < widths["min-max"].sum()


# ---- the crops ----


def test_the_order_of_the_crops_does_not_matter() -> None:
    base = made("full", "histogram", True)
    turned = nncf_base(MODEL, CROPS[::-1].copy(), bias_correction="full", range_estimator="histogram")
    assert turned.float_model.SerializeToString() == base.float_model.SerializeToString()
    assert turned.ranges == base.ranges


def test_of_more_crops_than_nncf_sees_the_seed_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_CROPS", 4)
    draws = [subject._draw(CROPS, seed) for seed in (0, 0, 1)]
    assert all(len(draw) == 4 and any((crop == CROPS).all(axis=(1, 2, 3)).any() for crop in draw) for draw in draws)
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias_correction": "slow"}, "none, fast, full; got 'slow'"),
        ({"range_estimator": "mse"}, "mean-min-max, min-max, histogram; got 'mse'"),
        ({"crops": CROPS[:0]}, "empty"),
        ({"crops": CROPS[:, :16]}, r"\(32, 32, 3\).*\(16, 32, 3\)"),
        ({"crops": CROPS / 255}, "uint8"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    call = {"crops": CROPS, "bias_correction": "none", "range_estimator": "min-max", **change}
    with pytest.raises(CalibrationError, match=message):
        nncf_base(MODEL, **call)


# ---- the tool ----


def test_without_nncf_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'lmedge\[export\]'"):
        nncf_base(MODEL, CROPS[:2], bias_correction="none", range_estimator="min-max")


def test_its_remarks_are_dropped_and_its_warnings_are_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    import nncf

    original = nncf.quantize

    def talks(*given: Any, **options: Any) -> Any:
        nncf.nncf_logger.info("a remark")
        nncf.nncf_logger.warning("a warning")
        return original(*given, **options)

    monkeypatch.setattr(nncf, "quantize", talks)
    handlers, level = list(nncf.nncf_logger.handlers), nncf.nncf_logger.level
    nncf_base(MODEL, CROPS[:2], bias_correction="full", range_estimator="min-max")
    assert [record.getMessage() for record in caplog.records] == ["a warning"]
    assert capsys.readouterr().out == ""
    assert (nncf.nncf_logger.handlers, nncf.nncf_logger.level) == (handlers, level), "as the program had it"
    assert logging.getLoggerClass() is logging.Logger


_QUANTISE = """
import sys
{before}
from lmedge.calibration.nncf_base import nncf_base
from tests.calibration.landmark_graph import landmark_graph, smooth_crops
nncf_base(landmark_graph(), smooth_crops(2), bias_correction="full", range_estimator="histogram")
"""
_ORDINARY = """
import nncf, openvino
from tests.calibration.landmark_graph import landmark_graph, smooth_crops
nncf.quantize(landmark_graph(), nncf.Dataset([{"image": smooth_crops(1)}]), subset_size=1)
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run in a Python without torch, which NNCF imports where it finds it, and the home folder of its user."""
    requirements.require("openvino_telemetry")
    home = tmp_path_factory.mktemp("home")
    return fresh_run(_QUANTISE.format(before="sys.modules['torch'] = None"), home), home


def test_nothing_is_sent_and_nothing_written_to_the_home_folder(
    fresh: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    run, home = fresh
    assert run.stdout.split()[-1] == "0"
    assert list(home.iterdir()) == []


def test_nothing_is_said(fresh: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    run, _ = fresh
    assert run.stdout.split() == ["0"], "the count of events, and no progress"
    assert run.stderr == ""


def test_an_ordinary_call_does_both_so_the_tests_above_can_fail(tmp_path: Path) -> None:
    requirements.require("openvino_telemetry")
    run = fresh_run(_ORDINARY, tmp_path)
    assert int(run.stdout.split()[-1]) > 0
    assert len(run.stdout.split()) > 1
