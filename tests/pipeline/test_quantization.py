"""The quantize stage: faces in three roles, the recipe by its measured error, fine-tuning, and what is written down of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.requirements import require

require("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "pydantic")

from lmedge.bundle import file_digest  # noqa: E402
from lmedge.errors import CalibrationError  # noqa: E402
from lmedge.export.pack import photo_digest  # noqa: E402
from lmedge.pipeline import quantization  # noqa: E402
from lmedge.pipeline.runs import run_files  # noqa: E402
from lmedge.pipeline.runs.stages import RunContext  # noqa: E402
from tests.pipeline.small_run import Built, small_context  # noqa: E402

FILES = ("model.int8.onnx", "model.int8-x86.onnx", "model.fp16-int8.onnx")


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.folder, tmp_path / "copy"))


def quantized(folder: Path, *settings: str) -> tuple[RunContext, Path]:
    """The stage's files under these settings, beside the run."""
    context = small_context(folder, settings)
    out = folder / "quantized"
    out.mkdir()
    quantization.quantize(context, out)
    return context, out


def test_the_best_recipe_is_the_one_whose_measured_bound_is_lowest_for_each_dialect(copy: Path) -> None:
    _, out = quantized(copy, "quantize.ranges=best")
    rows = run_files.read_json(out / run_files.RECIPES)
    for dialect in ("portable", "x86"):
        own = [row for row in rows if row["dialect"] == dialect]
        (chosen,) = [row for row in own if row["chosen"]]
        assert len({row["name"] for row in own}) == len(own) > 3
        assert chosen["loss"]["added"]["upper"] == min(row["loss"]["added"]["upper"] for row in own)
        assert f"{dialect}: {chosen['name']}" in run_files.read_json(out / run_files.CALIBRATION)["method"]


def test_one_recipe_needs_no_choice_and_says_so_in_the_record(copy: Path) -> None:
    _, out = quantized(copy)
    assert run_files.read_json(out / run_files.RECIPES) == []
    assert run_files.read_json(out / run_files.FINETUNING) == {}
    assert run_files.read_json(out / run_files.CALIBRATION)["method"] == "equalised, biases corrected, coverage 0.95 ranges"


def test_the_method_names_the_steps_that_were_left_out(copy: Path) -> None:
    _, out = quantized(copy, "quantize.equalise=false", "quantize.correct_bias=false", "quantize.ranges=min-max")
    assert run_files.read_json(out / run_files.CALIBRATION)["method"] == "min-max ranges"


def test_faces_that_calibrate_do_not_choose_and_validation_faces_do_neither(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {}
    calibrate, choose = quantization.calibration_images, quantization.choice_images

    def noted(name: str, work: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            images = work(*arguments, **options)
            seen[name] = set(images.photo_digests)
            return images

        return call

    monkeypatch.setattr(quantization, "calibration_images", noted("ranges", calibrate))
    monkeypatch.setattr(quantization, "choice_images", noted("choice", choose))
    context, _ = quantized(copy, "quantize.ranges=best")
    held_out = {photo_digest(sample.photo_key) for sample in run_files.read_faces(context).validation}
    assert all((seen["ranges"], seen["choice"], held_out))
    assert seen["ranges"].isdisjoint(seen["choice"])
    assert held_out.isdisjoint(seen["ranges"] | seen["choice"])


def test_fine_tuning_writes_other_networks_and_what_it_did(copy: Path) -> None:
    _, out = quantized(copy, "quantize.finetune_epochs=1")
    record = run_files.read_json(out / run_files.FINETUNING)
    assert set(record) == {"portable", "x86"}
    assert all(row["options"]["epochs"] == 1 and row["faces"] > 0 for row in record.values())
    stage = copy / "run" / "quantize"
    changed = [file_digest(out / name) != file_digest(stage / name) for name in FILES[:2]]
    assert changed == [record["portable"]["kept"], record["x86"]["kept"]]


def test_the_same_settings_give_the_same_bytes(copy: Path) -> None:
    _, out = quantized(copy)
    assert [file_digest(out / name) for name in FILES] == [file_digest(copy / "run" / "quantize" / name) for name in FILES]


def test_layers_cannot_be_measured_where_no_face_is_left(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_CALIBRATED_PART", 1.0)
    with pytest.raises(CalibrationError, match="none is left to measure layers or a bound on"):
        quantized(copy, "quantize.images=500", "quantize.sensitivity=true")


def test_without_faces_to_choose_on_the_first_recipe_is_taken(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_CALIBRATED_PART", 1.0)
    _, out = quantized(copy, "quantize.images=500", "quantize.ranges=best")
    assert run_files.read_json(out / run_files.RECIPES) == []
    assert "coverage 0.95" in run_files.read_json(out / run_files.CALIBRATION)["method"]
