"""The build report: it says what passed, failed and was not looked at, and it is one file that needs nothing else."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lmedge.pipeline.reporting.findings import points, px
from lmedge.pipeline.reporting.report import PICTURED, render_report
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.lock import Lock
from lmedge.pipeline.runs.stages import RunContext
from lmedge.reports import GateResult
from lmedge.runtimes.gates import GateLimits
from tests.calibration.layer_costs import part as layers_of
from tests.pipeline import runs
from tests.requirements import require

require("onnx", "onnxruntime", "jinja2", "matplotlib", "pydantic")

VOID = {"meta", "img", "br"}
MAX_BYTES = 3_000_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return runs.finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(finished: RunContext) -> str:
    return render_report(finished)


@pytest.fixture
def copied(finished: RunContext, tmp_path: Path) -> Callable[[], RunContext]:
    """The finished run in a folder of its own, to change."""

    def copy() -> RunContext:
        folder = tmp_path / "copy"
        shutil.copytree(finished.folder, folder)
        return replace(finished, folder=folder, lock=Lock(folder, dict(finished.lock.records)))

    return copy


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


# One gate on each of 4 files against PyTorch here; against labels, the error of each, and for 2 int8 files what they add,
# overall, at the eyes and the mouth, and on which photos they were calibrated.
AGAINST_LABELS = 4 + 2 * 4
GATES = 4 + AGAINST_LABELS


def test_a_run_whose_gates_hold_has_passed(page: str) -> None:
    assert f"Passed: all {GATES} gates hold" in text_of(page)
    assert "FAILED" not in page


def test_an_error_above_its_limit_is_a_failed_gate(copied: Callable[[], RunContext]) -> None:
    context = copied()
    context.config = replace(context.config, gates=GateLimits(max_nme=0.01))
    text = text_of(render_report(context))
    assert f"Failed: 4 of {GATES} gates do not hold" in text
    assert "NME on validation faces" in text


def test_a_failed_gate_is_the_headline_and_is_named_with_its_value_and_limit(copied: Callable[[], RunContext]) -> None:
    run = copied()
    broken = runs.with_gate("int8", GateResult("p99_px", 2.31, 1.5, "px"), "x86")
    runs.write_parity(run, [runs.passing("fp32"), runs.passing("fp16"), runs.passing("int8"), broken])
    text = text_of(render_report(run))
    assert f"Failed: 1 of {GATES} gates do not hold" in text
    assert "model.int8-x86.onnx): distance of the worst point, 99th percentile is 2.31 px, allowed 1.50 px" in text
    assert "Passed:" not in text
    assert text.count("✗ FAILED") == 2  # in the table of engines and in that of gates


def test_a_measurement_that_is_no_number_has_failed(copied: Callable[[], RunContext]) -> None:
    run = copied()
    runs.write_parity(run, [runs.with_gate("fp32", GateResult("max_px", float("nan"), 0.01, "px"))])
    text = text_of(render_report(run))
    assert f"Failed: 1 of {1 + AGAINST_LABELS} gates do not hold" in text
    assert "is no number, allowed 0.0100 px" in text


def test_the_file_for_tensorrt_is_listed_as_not_verified_and_never_as_passed(page: str) -> None:
    text = text_of(page)
    assert "model.fp16-int8.onnx: made for TensorRT, and compared with the int8 file it was made from only." in text
    assert re.search(r"model\.fp16-int8\.onnx not verified here [0-9a-f]{64}", text)
    assert "no point of 34 crops moves by more than 0.7000 px from it" in text


def test_engines_on_the_same_int8_file_are_compared_layer_by_layer(copied: Callable[[], RunContext]) -> None:
    run = copied()
    steps = {"mean": 0.1597, "max": 1.0}
    layers = [
        {
            "tensor": name,
            "layer": f"Add {name}",
            "engines": steps if name == "b" else {"mean": 0.0, "max": 0.0},
            "from_written": {"onnxruntime": {"mean": 0.0, "max": 0.0}, "openvino": steps},
            "disturbed": ["openvino"] if name == "a" else [],
        }
        for name in "ab"
    ]
    found = {
        "file": "model.int8.onnx",
        "engines": {"onnxruntime": "1.2", "openvino": "3.4"},
        "crops": 500,
        "mean_px": 0.123,
        "max_px": 0.984,
        "worst": 17,
        "start": "b",
        "layers": layers,
    }
    runs.write_agreement(run, [found, {**found, "file": "model.int8-x86.onnx", "start": None}])
    text = text_of(render_report(run))
    assert "on 500 crops, rounded by ONNX Runtime and by OpenVINO" in text
    assert "model.int8.onnx 0.1230 0.9840 17 Add b" in text
    assert "model.int8-x86.onnx 0.1230 0.9840 17 nowhere" in text
    assert "Add b 0.1597 / 1 0.0000 / 0 0.1597 / 1 starts here" in text
    assert "looking at it changes what OpenVINO computes" in text


def test_without_two_engines_nothing_is_said_of_their_agreement(page: str) -> None:
    assert "Engines on the same int8 file" not in text_of(page)


def test_a_file_without_gates_has_not_passed(copied: Callable[[], RunContext]) -> None:
    run = copied()
    runs.write_parity(run, [runs.passing("fp32"), replace(runs.passing("fp16"), gates=())])
    text = text_of(render_report(run))
    assert "Failed: a file was held to no gate" in text
    assert "fp16 (model.fp16.onnx): no gate was checked" in text
    assert "Passed:" not in text


def test_a_target_that_was_not_compared_is_not_verified(copied: Callable[[], RunContext]) -> None:
    run = copied()
    text = text_of(render_report(replace(run, config=replace(run.config, targets=("onnxruntime", "tensorrt")))))
    assert f"Passed as far as checked: {GATES} gates hold, TensorRT was not verified" in text
    assert "TensorRT not verified" in text


def test_a_run_for_no_engine_of_this_machine_says_that_nothing_was_compared(copied: Callable[[], RunContext]) -> None:
    run = copied()
    run = replace(run, config=replace(run.config, targets=("tensorrt",)))
    runs.write_parity(run, [])
    runs.write_latency(run, {})
    for name in (run_files.EVALUATION, run_files.PER_FACE):
        run.file("evaluate", name).write_text("[]", encoding="utf-8")
    page = render_report(run)
    assert "Not verified: no engine was compared with PyTorch" in text_of(page)
    assert "<img" not in page


@pytest.mark.parametrize(
    ("int8_ms", "expected"),
    [
        (1.0, "ONNX Runtime: int8 is fastest with 1.00 ms, 2.00 times as fast as fp32."),
        (3.0, "int8 is not: it takes 1.50 times as long on this machine."),
    ],
)
def test_it_says_which_precision_is_fastest_above_all_where_int8_is_not(
    copied: Callable[[], RunContext], int8_ms: float, expected: str
) -> None:
    run = copied()
    runs.write_latency(run, {**runs.P50_MS, "int8": int8_ms})
    text = text_of(render_report(run))
    assert expected in text
    assert ("int8 is not:" in text) == (int8_ms > 2)
    assert re.search(r"int8 \(x86\) fastest" if int8_ms < 2 else "fp32 fastest", text)


def test_every_gate_stands_with_its_value_what_it_was_held_against_and_over_how_many_faces(page: str) -> None:
    text = text_of(page)
    for words in ("NME added on labelled faces", "NME added at the eyes", "NME added at the mouth"):
        assert text.count(f"{words} (upper 95 % bound, {runs.VALIDATION} faces)") == 2  # both int8 files
    assert text.count(f"labels, {runs.VALIDATION} faces") == text.count("PyTorch, 60 crops") == 4


def test_a_file_that_another_replaces_on_this_machine_is_listed_as_untimed(page: str) -> None:
    assert "Latency of ONNX Runtime int8 (model.int8.onnx): the engine takes another file" in text_of(page)


def test_recipes_stand_with_what_each_added_and_fine_tuning_with_what_it_did(page: str) -> None:
    text = text_of(page)
    assert "x86 min-max ranges +0.030 (+0.060) 0.2500 x86 mse ranges +0.010 (+0.020) 0.2500 chosen" in text
    assert "Fine-tuning of the x86 file, 3 epochs over 41 training faces" in text
    assert "were 0.5000 px from the float network's on other training faces, and are 0.2000 px from them now" in text


def test_a_file_for_tensorrt_that_was_left_out_is_explained(copied: Callable[[], RunContext]) -> None:
    context = copied()
    left_out = {"name": "int8 to fp16-int8", "left_out": "a point lies 3.8 px off"}
    run_files.write_json(context.file("quantize", run_files.PASSES), left_out)
    context.file("quantize", "model.fp16-int8.onnx").unlink()
    text = text_of(render_report(context))
    assert "left out. a point lies 3.8 px off" in text
    assert "model.fp16-int8.onnx: made for TensorRT" not in text


def test_the_page_loads_nothing(page: str) -> None:
    assert not re.search(r"https?://|<script|<link|@import|<iframe", page)
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_the_page_is_well_formed_and_every_reference_leads_somewhere(page: str) -> None:
    parser = Tags()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(parser.ids)


def test_the_page_tells_nothing_of_the_machine_s_folders(finished: RunContext) -> None:
    home = finished.folder.parent / "home of somebody"
    data = replace(finished.config.data, sources=(f"csv:{home}/faces.csv",), detector=str(home / "yunet.onnx"))
    config = replace(finished.config, init=str(home / "best.pt"), data=data)
    page = render_report(replace(finished, config=config))
    assert str(finished.folder) not in page
    assert str(home) not in page
    assert "csv:PATH/faces.csv" in page


def test_names_are_text_and_never_markup(finished: RunContext) -> None:
    page = render_report(replace(finished, config=replace(finished.config, name="<b>&amp")))
    assert "<h1>&lt;b&gt;&amp;amp</h1>" in page


def test_the_same_run_gives_the_same_page_wherever_it_lies(page: str, copied: Callable[[], RunContext]) -> None:
    assert render_report(copied()) == page


def test_pictures_show_the_worst_faces_and_a_spread_of_the_others(page: str) -> None:
    text = text_of(page)
    assert f"The {PICTURED} worst of {runs.VALIDATION} faces" in text
    assert f"{PICTURED} of the other {runs.VALIDATION - PICTURED}, from the best to the worst of them" in text
    sheets = [base64.b64decode(data) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    pictures = [cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR) for sheet in sheets]
    assert len(pictures) == 2
    for picture in pictures:
        assert picture is not None
        blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
        assert ((red > 180) & (green < 110) & (blue < 110)).any()  # labels
        assert ((green > 170) & (red < 130) & (blue < 130)).any()  # predictions
    assert len(page.encode()) < MAX_BYTES


def test_errors_per_face_lie_beside_the_evaluation_and_agree_with_it(finished: RunContext) -> None:
    reports = json.loads(finished.file("evaluate", run_files.EVALUATION).read_text())
    per_face = json.loads(finished.file("evaluate", run_files.PER_FACE).read_text())
    assert [(row["artifact"], row["backend"]) for row in per_face] == [(row["artifact"], row["backend"]) for row in reports]
    for report, row in zip(reports, per_face, strict=True):
        assert len(row["nme"]) == report["count"] == runs.VALIDATION
        assert np.mean(row["nme"]) == pytest.approx(report["nme"], abs=1e-6)
        assert not any(isinstance(value, list) and len(value) > 2 for value in report.values())  # it goes into the manifest


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0015, "+0.150"), (-0.0015, "−0.150"), (-1e-9, "+0.000"), (0.0, "+0.000"), (None, "–"), (float("nan"), "no number")],
)
def test_a_difference_of_errors_is_written_in_points_with_its_sign(value: float | None, written: str) -> None:
    assert points(value) == written


@pytest.mark.parametrize(
    ("value", "written"), [(0.0, "0.0000"), (2e-5, "< 0.0001"), (0.25, "0.2500"), (1.5, "1.50"), (float("inf"), "no number")]
)
def test_a_distance_is_written_so_that_small_is_not_read_as_none(value: float, written: str) -> None:
    assert px(value) == written


class Tags(HTMLParser):
    """Open tags and all ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# Layers of int8 files


@pytest.fixture
def layers_page(copied: Callable[[], RunContext]) -> Callable[[dict[str, Any]], str]:
    def render(document: dict[str, Any]) -> str:
        run = copied()
        runs.write_layers(run, document)
        return render_report(run)

    return render


def test_layers_are_shown_where_somebody_asked(layers_page: Callable[[dict[str, Any]], str], page: str) -> None:
    document = {"portable": layers_of(sensitivity=True), "x86": layers_of(max_nme_loss=6e-5)}
    shown = layers_page(document)
    text = text_of(shown)
    assert "int8, layer by layer" in text
    assert "layer00" in text
    assert "Asked for: at most 0.006 points added, for the upper 95 % bound on 300 faces. ✓ passed" in text
    assert "In float: layer00, layer01 ." in text
    assert shown.count("<svg") == page.count("<svg") + 2
    assert "layer by layer" not in text_of(page)


def test_a_bound_that_could_not_be_met_is_a_failed_gate_with_its_front(layers_page: Callable[[dict[str, Any]], str]) -> None:
    text = text_of(layers_page({"x86": layers_of(max_nme_loss=6e-5, min_speedup=2.1)}))
    assert f"Failed: 1 of {GATES + 2} gates do not hold" in text
    assert "time, bounded by min_speedup is 0.5 of the time of fp32, allowed 0.4762 of the time of fp32" in text
    assert "at least 2.1 times as fast as fp32 on ONNX Runtime, one thread. ✗ FAILED" in text


def test_numbers_that_are_infinite_break_no_page(layers_page: Callable[[dict[str, Any]], str]) -> None:
    document = {"x86": layers_of(max_nme_loss=6e-5, sensitivity=True)}
    document["x86"]["bound"]["points"][0]["loss"]["added"]["upper"] = float("inf")
    document["x86"]["sensitivity"]["layers"][0]["part"] = float("inf")
    assert "no number" in text_of(layers_page(document))
