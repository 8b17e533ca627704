"""Reports: what is written as JSON is read back, also where an older version wrote it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lmedge.reports import MEAN_OF_FEW, UPPER_BOUND, GateResult, ParityReport

numbers = st.floats(allow_nan=False, allow_infinity=True)
gates = st.builds(
    GateResult, st.sampled_from(["max_px", "nme_loss"]), numbers, numbers, st.just("px"), st.sampled_from(["", UPPER_BOUND])
)
reports = st.builds(
    ParityReport,
    *(st.just(text) for text in ("openvino", "int8", "x86", "model.xml", "pytorch")),
    st.integers(1, 500),
    *[numbers] * 5,
    st.none() | numbers,
    st.lists(gates).map(tuple),
    group_losses=st.dictionaries(st.sampled_from(["eyes", "mouth"]), st.fixed_dictionaries({"nme": numbers, "upper": numbers})),
    loss_faces=st.integers(0, 500),
)

# As the first version wrote it.
OLD: dict[str, Any] = {
    "backend": "onnxruntime", "precision": "int8", "dialect": "", "artifact": "model.int8.onnx", "reference": "pytorch",
    "crops": 500, "max_px": 2.1, "p99_px": 0.7, "mean_px": 0.1, "shift_x_px": 0.0, "shift_y_px": 0.0, "nme_loss": 1e-4,
    "gates": [{"gate": "nme_loss", "value": 1e-4, "limit": 0.0015, "unit": "of the normaliser", "passed": True}],
    "engine_precision": "i8", "passed": True,
}  # fmt: skip


@given(reports)
def test_a_parity_report_is_read_back_as_it_was_written(report: ParityReport) -> None:
    assert ParityReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_an_older_report_still_loads() -> None:
    report = ParityReport.from_json(OLD)
    assert (report.nme_loss, report.nme_loss_upper, report.group_losses, report.loss_faces) == (1e-4, None, {}, 0)
    assert report.gates == (GateResult("nme_loss", 1e-4, 0.0015, "of the normaliser"),)
    assert report.passed
    assert OLD.items() <= {**report.to_json(), "gates": OLD["gates"]}.items()


def test_a_gate_says_what_its_value_is_and_of_how_many_faces() -> None:
    assert GateResult("max_px", 0.1, 1, "px").basis == ""
    assert GateResult("nme_loss", 0, 1, "", UPPER_BOUND, 193).basis == "upper 95 % bound, 193 faces"
    assert GateResult("nme_loss", 0, 1, "", MEAN_OF_FEW, 1).basis == "mean, too few faces for a bound, 1 face"


def test_a_value_that_is_no_number_never_passes() -> None:
    assert GateResult("g", 1.0, 1.0, "").passed
    assert not GateResult("g", float("nan"), 1.0, "").passed
    assert not GateResult("g", float("inf"), 1.0, "").passed
