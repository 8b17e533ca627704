"""`--json`: exactly one document on stdout, with the keys that are promised, and nothing that JSON does not know."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lmedge.cli.console import print_json
from tests import requirements
from tests.cli.command import DONE, lmedge
from tests.cli.conftest import FACES

ROW = {"backend", "precision", "threads", "batch", "p50_ms", "p90_ms", "p99_ms", "count", "engine_p50_ms", "machine"}
EVALUATION = {"nme", "auc10", "fr10", "count", "missed", "groups", "normalizer", "boxes"}
MACHINE = {"cpu", "arch", "cores", "memory_gib", "os", "python", "versions"}


def test_bench_is_a_list_of_rows_that_carry_their_machine(bundle: Path) -> None:
    outcome = lmedge("bench", bundle, "--backend", "onnxruntime", "--iterations", "3", "--threads", "1", "--json")
    assert (outcome.code, outcome.stderr) == (DONE, "")
    (row,) = outcome.json
    assert set(row) >= ROW
    assert set(row["machine"]) >= MACHINE
    assert (row["backend"], row["precision"], row["threads"], row["batch"], row["count"]) == ("onnxruntime", "fp32", 1, 1, 3)
    assert 0 < row["engine_p50_ms"] <= row["engine_p90_ms"] <= row["engine_p99_ms"]
    assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]


def test_bench_measures_every_engine_of_the_bundle(bundle: Path) -> None:
    requirements.require("openvino")
    rows = lmedge("bench", bundle, "--iterations", "1", "--json").json
    assert [row["backend"] for row in rows] == ["onnxruntime", "openvino"]


def test_people_get_the_same_figures_as_a_table(bundle: Path) -> None:
    outcome = lmedge("bench", bundle, "--backend", "onnxruntime", "--iterations", "3")
    assert "One face, 3 calls each, milliseconds" in outcome.stdout
    assert "overhead p50" in outcome.stdout


def test_evaluate(bundle: Path, faces: str) -> None:
    document = lmedge("evaluate", bundle, "--data", faces, "--schema", "MMLAB_5", "--split", "all", "--json").json
    assert set(document) >= EVALUATION
    assert document["count"] == FACES


def test_predict(bundle: Path, photo: Path) -> None:
    outcome = lmedge("predict", bundle, photo, "--json")
    (document,) = outcome.json
    assert set(document) == {"image", "faces"}
    assert set(document["faces"][0]) == {"schema", "points_px", "confidence", "box_xyxy", "box_kind"}
    assert outcome.stderr, "what is said to people goes to stderr"


def test_verify(bundle: Path) -> None:
    document = lmedge("verify", bundle, "--backend", "onnxruntime", "--json").json
    assert set(document) == {"passed", "files", "parity", "evaluations", "not_verified"}
    assert document["passed"] is True


def test_doctor() -> None:
    document = lmedge("doctor", "--json").json
    assert set(document) == {"lmedge", "machine", "engines", "tensorrt"}
    assert set(document["machine"]) >= MACHINE
    for engine in document["engines"].values():
        assert set(engine) == {"installed", "version", "devices", "reason", "extra"}


def test_inspect_of_a_bundle_is_its_manifest(bundle: Path) -> None:
    assert lmedge("inspect", bundle, "--json").json == json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


def test_inspect_of_a_file(bundle: Path) -> None:
    requirements.require("onnx")
    document = lmedge("inspect", bundle / "model.fp32.onnx", "--json").json
    assert document["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["batch", 32, 32, 3]}]
    assert "lint" not in document


def test_data_stats(faces: str) -> None:
    document = lmedge("data", "stats", faces, "--schema", "MMLAB_5", "--json").json
    assert document["count"] == FACES
    assert {"duplicates", "suspicious"} <= set(document)


def test_a_plan_is_a_list_of_stages(tmp_path: Path) -> None:
    requirements.require("torch", "onnx", "pydantic")
    outcome = lmedge("build", "--data", "synthetic:12", "--out", tmp_path / "run", "--plan", "--json")
    assert outcome.code == DONE
    stages = outcome.json
    assert stages[0]["reason"], "a stage that will run says why"
    assert "train" in [stage["stage"] for stage in stages]
    assert not (tmp_path / "run").exists()


def test_numbers_that_json_does_not_know_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [math.inf, -math.inf, (1.5, math.nan)], 3: "ä"})
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": None, "b": [None, None, [1.5, None]], "3": "ä"}
    assert "ä" in text
