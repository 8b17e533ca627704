"""What a build says in words: which precision is fastest, where int8 does not pay, and what could not be judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lmedge.pipeline.reporting.findings import (
    LISTED_LABELS,
    gate_words,
    label_findings,
    loss_notes,
    mark_fastest,
    reference_words,
    speed_notes,
    verdict,
)
from lmedge.reports import MEAN_OF_FEW, UPPER_BOUND, GateResult, ParityReport
from lmedge.schemas import IBUG_68
from tests.data.faces import points_of, sample_of, textured_image


def row(precision: str, p50_ms: float | None, backend: str = "onnxruntime", **fields: Any) -> dict[str, Any]:
    times = {"p50_ms": p50_ms, "p99_ms": p50_ms, "engine_precision": ""}
    return {"backend": backend, "precision": precision, "dialect": "", "nme": 0.05, "passed": True, **times, **fields}


def fastest_of(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{marked['backend']} {marked['precision']}" for marked in mark_fastest(rows) if marked["fastest"]]


# Which precision is fastest


def test_int8_that_is_fastest_is_said_with_what_it_gains() -> None:
    rows = [row("fp32", 2.0), row("fp16", 2.5), row("int8", None), row("int8", 1.25, dialect="x86")]
    assert speed_notes(rows) == ["ONNX Runtime: int8 is fastest with 1.25 ms, 1.60 times as fast as fp32."]
    assert mark_fastest(rows)[3]["fastest"]
    assert fastest_of(rows) == ["onnxruntime int8"]


def test_int8_that_is_slower_is_said_with_what_it_costs() -> None:
    rows = [row("fp32", 2.0), row("fp16", 2.5), row("int8", 3.0)]
    assert speed_notes(rows) == [
        "ONNX Runtime: fp32 is fastest with 2.00 ms. int8 is not: it takes 1.50 times as long on this machine."
    ]
    assert fastest_of(rows) == ["onnxruntime fp32"]


def test_fp16_may_be_fastest_too() -> None:
    (text,) = speed_notes([row("fp32", 2.0), row("fp16", 1.6), row("int8", 1.7)])
    assert text.startswith("ONNX Runtime: fp16 is fastest with 1.60 ms, 1.25 times as fast as fp32. int8 is not: it takes 1.06")


def test_every_engine_has_its_own_answer() -> None:
    rows = [row("fp32", 2.0), row("int8", 3.0), row("fp32", 2.0, "openvino"), row("int8", 1.0, "openvino")]
    texts = speed_notes(rows)
    assert [text.split(" is fastest")[0] for text in texts] == ["ONNX Runtime: fp32", "OpenVINO: int8"]
    assert fastest_of(rows) == ["onnxruntime fp32", "openvino int8"]


def test_a_fast_file_that_failed_its_gates_is_not_the_fastest_and_its_absence_is_said() -> None:
    rows = [row("fp32", 2.0), row("int8", 0.5, passed=False)]
    (text,) = speed_notes(rows)
    assert (
        text
        == "ONNX Runtime: fp32 is fastest with 2.00 ms. int8 was not timed: no int8 file for this machine passed its gates."
    )
    assert fastest_of(rows) == ["onnxruntime fp32"]


def test_where_nothing_was_timed_nothing_is_fastest() -> None:
    rows = [row("fp32", None), row("int8", None)]
    assert speed_notes(rows) == []
    assert fastest_of(rows) == []


def test_arithmetic_that_is_not_what_the_file_is_named_after_is_said() -> None:
    (text,) = speed_notes([row("fp32", 2.0, engine_precision="f32"), row("fp16", 2.1, engine_precision="f32")])
    assert text.endswith("fp16 is computed in fp32 there: its file is smaller, the arithmetic is not.")


def test_a_busy_machine_is_said() -> None:
    assert "1 of 2 rows" in speed_notes([row("fp32", 2.0), row("int8", 1.0, p99_ms=9.0)])[-1]


# What could not be judged


def report(reference: str, *gates: GateResult, precision: str = "int8") -> ParityReport:
    return ParityReport("openvino", precision, "x86", "model.xml", reference, 60, 1, 1, 1, 0, 0, None, gates)


def loss(statistic: str, faces: int) -> GateResult:
    return GateResult("nme_loss", 0.0004, 0.0005, "of the normaliser", statistic, faces)


PHOTOS = GateResult("calibration_photos", 0, 0, "photos")
GOOD = [report("pytorch", loss(UPPER_BOUND, 193)), report("golden"), report("labels", loss(UPPER_BOUND, 193), PHOTOS)]


def test_what_was_judged_well_needs_no_words() -> None:
    assert loss_notes(GOOD) == []
    assert loss_notes([replace(one, precision="fp16", gates=()) for one in GOOD]) == []


@pytest.mark.parametrize("place", [0, 2])
def test_a_mean_of_few_faces_is_said(place: int) -> None:
    reports = list(GOOD)
    reports[place] = replace(reports[place], gates=(loss(MEAN_OF_FEW, 7), PHOTOS))
    (text,) = loss_notes(reports)
    assert "7 labelled faces are too few for one, so the mean was held to the limit. It takes 20." in text
    assert text in verdict(["openvino"], [], reports)["unverified"]


def test_a_loss_that_nobody_measured_is_said() -> None:
    (text,) = loss_notes([*GOOD[:2], report("labels", PHOTOS)])
    assert (
        text == "The NME that int8 adds, on OpenVINO model.xml: there was no fp32 file, or no labelled face, to compare with."
    )


def test_calibration_photos_that_nobody_knows_are_said() -> None:
    (text,) = loss_notes([*GOOD[:2], report("labels", loss(UPPER_BOUND, 193))])
    assert "the record of calibration does not name its photos" in text


# Gates in words


def test_a_failed_bound_is_told_with_its_faces_and_both_numbers() -> None:
    broken = replace(loss(UPPER_BOUND, 193), value=0.00061)
    (text,) = verdict(["openvino"], [], [report("pytorch", broken)])["failed"]
    assert text == (
        "OpenVINO int8 (model.xml): NME added on labelled faces (upper 95 % bound, 193 faces) is +0.061 points, "
        "allowed +0.050 points"
    )


def test_gates_and_references_are_told_in_words() -> None:
    assert gate_words(GateResult("eyes_loss", 0, 0, "", UPPER_BOUND, 5)) == "NME added at the eyes (upper 95 % bound, 5 faces)"
    assert gate_words(GateResult("max_px", 0, 0, "px")) == "largest distance of a point"
    assert gate_words(GateResult("somebody_s_own", 0, 0, "px")) == "somebody_s_own"
    names = [reference_words(one) for one in (*GOOD, report("another engine"))]
    assert names == ["PyTorch, 60 crops", "golden answers, 60 frames", "labels, 60 faces", "another engine, 60 crops"]


def test_labels_tell_sizes_angles_and_what_to_look_at() -> None:
    image = textured_image(0)
    faces = [sample_of(image, points_of(IBUG_68, side_px=20 + i), photo_key=str(i)) for i in range(12)]
    wrong = points_of(IBUG_68)
    wrong[54] += [25, 0]
    found = label_findings([*faces, sample_of(image, wrong, photo_key="wrong")])
    assert [histogram["title"].split(",")[0] for histogram in found["histograms"]] == [
        "Longer side of the points",
        "Yaw",
        "Pitch",
        "Roll",
    ]
    for histogram in found["histograms"]:
        assert sum(entry["count"] for entry in histogram["bins"]) == 13
        assert max(entry["share"] for entry in histogram["bins"]) == 1
        assert histogram["bins"][0]["count"] > 0 < histogram["bins"][-1]["count"]
    assert len(found["suspicious"]) == LISTED_LABELS
    assert found["suspicious"][0].photo_key == "wrong"
