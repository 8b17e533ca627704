"""What reports show of layers and bounds: the most harmful ones in words, and the bounds as gates that can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lmedge.bundle import Artifact
from lmedge.calibration.report import SHOWN, bound_failures, bound_reports, describe_layers, layer_tables
from tests.calibration.landmark_graph import landmark_graph
from tests.calibration.layer_costs import PART_LAYERS, PART_SQUARES, part


def file(precision: str = "int8", dialect: str = "") -> Artifact:
    return Artifact("model.onnx", "onnx", precision, "0" * 64, (), (), dialect=dialect, root=Path())


FILES = [(file(), "onnxruntime"), (file(dialect="x86"), "onnxruntime"), (file("fp32"), "onnxruntime")]


# Words


def test_layers_are_described_by_kernel_kind_and_channels() -> None:
    words = describe_layers(landmark_graph())
    assert words["stem"] == "3×3 convolution, 3 → 8"
    assert words["depthwise_2"] == "3×3 depthwise convolution, 24"
    assert words["expand_2"] == "1×1 convolution, 6 → 24"
    assert words["add"] == "residual add"
    assert "head" not in words


def test_grouped_convolutions_count_all_their_inputs() -> None:
    weight = numpy_helper.from_array(np.zeros((8, 3, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="grouped", group=2)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    assert describe_layers(model) == {"grouped": "1×1 convolution, 6 → 8"}


# Tables


def test_a_table_shows_the_most_harmful_layers_and_sums_up_the_rest() -> None:
    (table,) = layer_tables({"portable": part(sensitivity=True), "x86": part()})
    assert table.dialect == "portable"
    assert [row["layer"] for row in table.layers] == list(PART_LAYERS[:SHOWN])
    assert table.others[0] == len(PART_LAYERS) - SHOWN
    assert table.others[1] == pytest.approx(
        sum(PART_SQUARES[layer] for layer in PART_LAYERS[SHOWN:]) / sum(PART_SQUARES.values())
    )
    assert table.points == ()


def test_a_table_of_a_bound_alone_has_its_points() -> None:
    (table,) = layer_tables({"x86": part(max_nme_loss=6e-5)})
    assert table.layers == ()
    assert [len(point["float_layers"]) for point in table.points] == [0, 1, 2]


def test_where_nobody_asked_there_is_nothing_to_show() -> None:
    assert layer_tables({}) == []
    assert layer_tables({"portable": part(), "x86": part()}) == []


# Gates


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        ({"max_nme_loss": 6e-5}, {"bounded_loss": True}),
        ({"max_nme_loss": 6e-5, "min_speedup": 2.0}, {"bounded_loss": True, "bounded_time": True}),
        ({"max_nme_loss": 6e-5, "min_speedup": 2.1}, {"bounded_loss": True, "bounded_time": False}),
        ({"min_speedup": 2.5}, {"bounded_time": True}),
    ],
)
def test_each_bound_is_a_gate_of_the_file_that_it_was_given_for(limits: dict[str, float], passed: dict[str, bool]) -> None:
    (report,) = bound_reports({"x86": part(**limits)}, FILES)
    assert (report.dialect, report.precision, report.reference, report.crops) == ("x86", "int8", "bound", 300)
    assert {gate.gate: gate.passed for gate in report.gates} == passed


def test_a_loss_that_could_not_be_had_is_a_failed_gate() -> None:
    document = {"portable": part(max_nme_loss=6e-5)}
    for point in document["portable"]["bound"]["points"]:
        point["loss"]["added"]["upper"] = 1e-3
    (report,) = bound_reports(document, FILES)
    assert not report.passed


def test_the_portable_file_is_the_one_without_a_dialect() -> None:
    (report,) = bound_reports({"portable": part(max_nme_loss=1.0)}, FILES)
    assert report.dialect == ""


def test_files_without_a_bound_have_no_report() -> None:
    assert bound_reports({"portable": part(sensitivity=True), "x86": part()}, FILES) == []
    assert bound_reports({}, FILES) == []


def test_a_failure_names_the_dialect_the_best_and_the_front() -> None:
    (text,) = bound_failures({"portable": part(max_nme_loss=1.0), "x86": part(max_nme_loss=6e-5, min_speedup=2.1)})
    assert text.startswith("x86: Asked for at most 0.006 points of NME added and 2.1 times the speed of fp32 or more")
    assert "best found" in text
