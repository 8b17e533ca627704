"""Quantisation-aware fine-tuning: it comes closer to the float network, or leaves what was there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86  # noqa: E402
from lmedge.calibration.sensitivity import Judge  # noqa: E402
from lmedge.data.augment import AugmentSpec  # noqa: E402
from lmedge.errors import AccuracyError, CalibrationError  # noqa: E402
from lmedge.export.graph.compare import run_onnx  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from lmedge.pipeline.finetuning.finetune_int8 import FinetuneOptions, FinetuneRecord, finetune_int8  # noqa: E402
from lmedge.pipeline.finetuning.graph_module import GraphModule  # noqa: E402
from lmedge.pipeline.training.dataset import load_canvases, load_crops  # noqa: E402
from lmedge.schemas import MMLAB_5  # noqa: E402
from tests.pipeline.drawn_faces import drawn_faces  # noqa: E402
from tests.pipeline.int8_networks import SPEC, int8_network  # noqa: E402

TRAINING, OTHERS = drawn_faces(40, 16)
CANVASES = load_canvases(TRAINING, SPEC)
CROPS, LABELS = (tensor.numpy() for tensor in load_crops(OTHERS, SPEC))
IMAGE_SCALE = np.float32(1 / 64)  # of the network's normalisation
# The network has learnt plain crops only.
MILD = AugmentSpec(rotation_deg=3, scale=0.02, shift=0.02, flip=0, contrast=0.05, brightness=0.02, color=0.02, gray=0)
SHORT = FinetuneOptions(epochs=2, batch_size=8)

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def finetune(
    model: onnx.ModelProto, options: FinetuneOptions = SHORT, teacher: onnx.ModelProto | None = None, **changes: Any
) -> tuple[onnx.ModelProto, FinetuneRecord]:
    """The call as a build makes it, on drawn faces."""
    network = int8_network()
    teacher = teacher or network.fp32
    settings: dict[str, Any] = {"schema": MMLAB_5, "spec": SPEC, "augment": MILD, "prepared": network.prepared}
    canvases = changes.pop("canvases", CANVASES)
    judge = changes.pop("judge", None) or Judge(teacher, CROPS, LABELS, MMLAB_5)
    return finetune_int8(model, teacher, canvases, judge, options=options, **{**settings, **changes})


def with_narrow_ranges(dialect: str) -> onnx.ModelProto:
    """An int8 network that cuts its activations off at half of what they need."""
    model = onnx.ModelProto()
    model.CopyFrom(int8_network().int8[dialect])
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in scales and array != IMAGE_SCALE:
            tensor.CopyFrom(numpy_helper.from_array(array * np.float32(0.5), tensor.name))
    # The module brings the scales of int32 biases, which are products, in line.
    return GraphModule(model).write_back()


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


# What it is for


@every_dialect
def test_it_halves_the_distance_of_a_badly_quantised_network(dialect: str) -> None:
    start = with_narrow_ranges(dialect)
    before = start.SerializeToString(deterministic=True)
    result, record = finetune(start, FinetuneOptions(epochs=6, batch_size=8, scale_learning_rate=0.1))
    assert start.SerializeToString(deterministic=True) == before
    assert record.kept
    assert record.after.mean_px < 0.5 * record.before.mean_px
    measured = Judge(int8_network().fp32, CROPS, LABELS, MMLAB_5)
    assert measured(result).mean_px == pytest.approx(record.after.mean_px)
    assert measured(start).mean_px == pytest.approx(record.before.mean_px)


@every_dialect
def test_weights_alone_help_too(dialect: str) -> None:
    start = with_narrow_ranges(dialect)
    result, record = finetune(start, replace(SHORT, epochs=6, scale_learning_rate=0.0))
    assert record.kept
    assert record.after.mean_px < 0.95 * record.before.mean_px
    scales = {node.input[1] for node in start.graph.node if node.op_type == "QuantizeLinear"}
    after = {tensor.name: tensor for tensor in result.graph.initializer}
    assert all(
        np.array_equal(numpy_helper.to_array(after[t.name]), numpy_helper.to_array(t))
        for t in start.graph.initializer
        if t.name in scales
    )


@every_dialect
def test_only_numbers_change(dialect: str) -> None:
    start = with_narrow_ranges(dialect)
    result, record = finetune(start)
    assert record.kept
    assert result.graph.node == start.graph.node
    assert not same(result, start)
    onnx.checker.check_model(result, full_check=True)


def test_the_portable_graph_stays_legal_everywhere() -> None:
    start = with_narrow_ranges(PORTABLE)
    assert not lint_qdq(start)
    result, record = finetune(start)
    assert record.kept
    assert not lint_qdq(result)


def test_a_graph_that_is_legal_on_fewer_engines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write_back = GraphModule.write_back

    def with_zero_points(module: GraphModule) -> onnx.ModelProto:
        model = write_back(module)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("zero_point"):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(3), tensor.name))
        return model

    monkeypatch.setattr(GraphModule, "write_back", with_zero_points)
    with pytest.raises(CalibrationError, match="After fine-tuning, the int8 graph would break"):
        finetune(int8_network().int8[PORTABLE])


# What it must not do


@every_dialect
def test_a_worse_result_is_thrown_away_and_the_record_says_so(dialect: str) -> None:
    start = int8_network().int8[dialect]
    result, record = finetune(start, replace(SHORT, epochs=1, learning_rate=30.0))
    assert not record.kept
    assert record.after.mean_px > record.before.mean_px
    assert same(result, start)


@pytest.mark.parametrize(
    ("mean", "rms", "kept"),
    [(0.9, 0.9, True), (0.9, 1.1, False), (1.1, 0.9, False), (1.0, 0.9, False), (float("nan"), float("nan"), False)],
    ids=["better", "worse on odd faces", "worse on most faces", "no better", "no number"],
)
def test_a_result_is_taken_when_it_is_nearer_on_the_usual_face_and_on_odd_ones(mean: float, rms: float, kept: bool) -> None:
    start = int8_network().int8[PORTABLE]
    measured = Judge(int8_network().fp32, CROPS, LABELS, MMLAB_5)

    def judge(model: onnx.ModelProto) -> Any:
        one, other = (1.0, 1.0) if model is start else (mean, rms)
        return replace(measured(start), mean_px=one, rms_px=other)

    result, record = finetune(start, replace(SHORT, epochs=1), judge=judge)
    assert record.kept == kept
    assert (result is start) != kept


def test_a_distance_that_is_no_number_stops_the_training() -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(int8_network().fp32)
    bias = next(tensor for tensor in broken.graph.initializer if tensor.name == broken.graph.node[-2].input[2])
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, np.nan, np.float32), bias.name))
    with pytest.raises(AccuracyError, match=r"distance to the float network became nan in epoch 1.*finetune_epochs=0"):
        finetune(int8_network().int8[PORTABLE], teacher=broken, judge=Judge(int8_network().fp32, CROPS, LABELS, MMLAB_5))


def test_without_faces_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(CalibrationError, match="needs training faces; got none"):
        finetune(int8_network().int8[PORTABLE], canvases=[])


def test_a_float_network_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no QuantizeLinear"):
        finetune(int8_network().fp32)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CalibrationError, match="at least 1 epoch"):
        FinetuneOptions(**wrong)


# The same again


def test_the_seed_decides() -> None:
    start = with_narrow_ranges(X86)
    (one, _), (again, _), (other, _) = (finetune(start, replace(SHORT, seed=seed)) for seed in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)


# The labels


def mean_error(model: onnx.ModelProto, crops: npt.NDArray[np.uint8], labels: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(run_onnx(model, crops) - labels, axis=2).mean())


def test_labels_pull_where_they_are_asked_to() -> None:
    start = int8_network().int8[PORTABLE]
    # Whatever it leads to is taken.
    measured = Judge(int8_network().fp32, CROPS, LABELS, MMLAB_5)
    judge = lambda model: replace(measured(model), mean_px=float(model is start), rms_px=float(model is start))  # noqa: E731
    plain, labelled = (finetune(start, replace(SHORT, epochs=4, label_weight=weight), judge=judge)[0] for weight in (0.0, 10.0))
    crops, labels = (tensor.numpy() for tensor in load_crops(TRAINING, SPEC))
    assert mean_error(labelled, crops, labels) < 0.97 * mean_error(plain, crops, labels)


def test_unknown_points_do_no_harm() -> None:
    faces = [replace(face, points_px=np.where(np.arange(5)[:, None] == 2, np.nan, face.points_px)) for face in TRAINING[:16]]
    _, record = finetune(
        int8_network().int8[PORTABLE], replace(SHORT, epochs=1, label_weight=1.0), canvases=load_canvases(faces, SPEC)
    )
    assert np.isfinite(record.after.mean_px)


# What it says


def test_the_record_tells_what_was_done() -> None:
    steps: list[tuple[int, int, str]] = []
    _, record = finetune(with_narrow_ranges(PORTABLE), progress=lambda *report: steps.append(report))
    assert [done for done, _, _ in steps] == list(range(1, 11))
    assert {total for _, total, _ in steps} == {10}
    assert all("px from float" in text for _, _, text in steps)
    assert len(record.distance_px) == SHORT.epochs
    assert record.distance_px[-1] < record.distance_px[0]
    written = json.loads(json.dumps(record.to_json()))
    assert written["kept"] is True
    assert written["faces"] == len(TRAINING)
    assert written["options"]["epochs"] == SHORT.epochs
    assert written["before"]["mean_px"] > written["after"]["mean_px"]
    assert written["seconds"] > 0
