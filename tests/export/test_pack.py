"""Which files a bundle lists, for which engines, and which of them stay when gates fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lmedge.bundle import Artifact
from lmedge.export.pack import OPENVINO_VARIANTS, VARIANTS, ir_name, keep_passing, list_artifacts, onnx_name
from lmedge.reports import GateResult, ParityReport
from tests.bundles import SCHEMA, SPEC

PROGRAM = "p" * 64
INT8, FOR_TENSORRT = "model.int8.onnx", "model.fp16-int8.onnx"
INT8_IR = "openvino/model.int8.xml"


@pytest.fixture
def listed(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Artifact]:
    """The artifacts of a run by path; the parameter names its engines."""
    engines: tuple[str, ...] = getattr(request, "param", ("onnxruntime", "openvino"))
    for variant in VARIANTS:
        (tmp_path / onnx_name(variant)).write_text(variant.stem)
    (tmp_path / "openvino").mkdir()
    for variant in OPENVINO_VARIANTS:
        for suffix in (".xml", ".bin"):
            (tmp_path / ir_name(variant)).with_suffix(suffix).write_text(variant.stem + suffix)
    artifacts = list_artifacts(
        {variant.precision: tmp_path for variant in VARIANTS},
        tmp_path if "openvino" in engines else None,
        targets=engines,
        spec=SPEC,
        schema=SCHEMA,
        confidence=False,
        program_sha256=PROGRAM,
        tool_versions={},
    )
    return {artifact.path: artifact for artifact in artifacts}


def reports(artifacts: dict[str, Artifact], failing: tuple[str, ...] = ()) -> list[ParityReport]:
    """One gate for every file and engine, which holds but for the named files."""
    return [
        ParityReport(backend, a.precision, a.dialect, a.path, "pytorch", 1, 1, 1, 1, 0, 0, None, (gate,))
        for a in artifacts.values()
        for backend in a.serves
        for gate in [GateResult("max_px", 2.0 if a.path in failing else 0.5, 1.0, "px")]
    ]


def kept(artifacts: dict[str, Artifact], *failing: str) -> dict[str, Artifact]:
    return {a.path: a for a in keep_passing(artifacts.values(), reports(artifacts, failing))}


def test_every_file_names_what_it_was_made_from(listed: dict[str, Artifact]) -> None:
    sha256 = {path: artifact.sha256 for path, artifact in listed.items()}
    fp32 = sha256["model.fp32.onnx"]
    assert {path: listed[path].made_from for path in map(onnx_name, VARIANTS)} == {
        "model.fp32.onnx": PROGRAM,
        "model.fp16.onnx": fp32,
        INT8: fp32,
        "model.int8-x86.onnx": fp32,
        FOR_TENSORRT: sha256[INT8],
    }
    assert listed[INT8_IR].made_from == sha256[INT8]


def test_the_file_for_tensorrt_serves_no_engine_and_is_compiled_for_none(listed: dict[str, Artifact]) -> None:
    assert listed[FOR_TENSORRT].precision == "fp16-int8"
    assert dict(listed[FOR_TENSORRT].serves) == {}
    assert "openvino/model.fp16-int8.xml" not in listed
    assert all(artifact.serves for path, artifact in listed.items() if path != FOR_TENSORRT)


def test_where_all_gates_hold_everything_stays(listed: dict[str, Artifact]) -> None:
    assert kept(listed) == listed


@pytest.mark.parametrize("listed", [(), ("onnxruntime",), ("openvino",)], indirect=True)
def test_also_on_any_engine_alone(listed: dict[str, Artifact]) -> None:
    assert kept(listed) == listed


def test_the_file_for_tensorrt_goes_with_the_int8_file_it_was_made_from(listed: dict[str, Artifact]) -> None:
    assert kept(listed).keys() - kept(listed, INT8, INT8_IR).keys() == {INT8, INT8_IR, FOR_TENSORRT}


@pytest.mark.parametrize(("listed", "failing"), [(("onnxruntime",), INT8), (("openvino",), INT8_IR)], indirect=["listed"])
def test_also_where_only_one_engine_measured_it(listed: dict[str, Artifact], failing: str) -> None:
    left = kept(listed, failing)
    assert failing not in left
    assert FOR_TENSORRT not in left


def test_it_stays_where_another_dialect_fails(listed: dict[str, Artifact]) -> None:
    x86 = {"model.int8-x86.onnx", "openvino/model.int8-x86.xml"}
    assert kept(listed).keys() - kept(listed, *x86).keys() == x86


def test_it_stays_where_the_int8_file_passes_on_one_engine(listed: dict[str, Artifact]) -> None:
    assert {INT8, FOR_TENSORRT} <= kept(listed, INT8_IR).keys()


def test_a_gate_on_labels_takes_it_out_in_a_second_round(listed: dict[str, Artifact]) -> None:
    """The bundle is filtered twice: by parity, and by the error on validation faces."""
    first = kept(listed, INT8_IR)
    assert FOR_TENSORRT in first
    assert FOR_TENSORRT not in kept(first, INT8)


def test_what_was_not_checked_is_not_served(listed: dict[str, Artifact]) -> None:
    unchecked = [report for report in reports(listed) if report.artifact != INT8]
    held = {a.path for a in keep_passing(listed.values(), unchecked)}
    assert INT8 not in held
    without_gates = [replace(report, gates=()) if report.artifact == INT8 else report for report in reports(listed)]
    assert INT8 not in {a.path for a in keep_passing(listed.values(), without_gates)}
