"""From an fp32 file and crops to both int8 files: what they answer, what is recorded, and that calibration is repeatable."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402

from lmedge.calibration.crop_store import CropStore, crops_digest  # noqa: E402
from lmedge.calibration.place_qdq import PORTABLE, X86  # noqa: E402
from lmedge.calibration.quantize import quantize_int8, write_quantised  # noqa: E402
from lmedge.calibration.ranges import METHODS  # noqa: E402
from lmedge.calibration.recipe import Recipe, prepare  # noqa: E402
from lmedge.errors import CalibrationError  # noqa: E402
from lmedge.export.graph.compare import run_onnx  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from tests.calibration.conftest import Quantized  # noqa: E402
from tests.calibration.landmark_graph import CROP_PX as SMALL_PX  # noqa: E402
from tests.calibration.landmark_graph import landmark_graph  # noqa: E402
from tests.calibration.onnx_view import OnnxView  # noqa: E402
from tests.calibration.pictures import picture  # noqa: E402
from tests.export.networks import CROP_PX, picture_crops  # noqa: E402

TEST_CROPS = picture_crops(48, seed=9)
SMALL_CROPS = np.stack([picture(seed, side_px=SMALL_PX) for seed in range(24)])
PLAIN = Recipe(equalise=False, correct_bias=False)


@pytest.fixture(scope="module")
def small_fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network that takes no time at all."""
    file = tmp_path_factory.mktemp("small") / "model.fp32.onnx"
    onnx.save(landmark_graph(unequal=20.0), file)
    return file


def int8_files(fp32: Path, crops: Any, folder: Path, recipe: Recipe | None = None) -> tuple[Path, Path]:
    """The portable and the x86 file."""
    folder.mkdir(exist_ok=True, parents=True)
    files = folder / "portable.onnx", folder / "x86.onnx"
    quantize_int8(fp32, crops, *files, recipe=recipe)
    return files


def relative_error(answers: Any, reference: Any) -> float:
    """Root mean square difference over the spread of the reference's answers: random weights have no meaningful pixels."""
    spread = reference - reference.mean(axis=0)
    return float(np.sqrt(np.square(answers - reference).mean() / np.square(spread).mean()))


# ---- the files ----


@pytest.mark.parametrize("dialect", ["portable", "x86"])
def test_files_are_valid_small_and_keep_the_interface(quantized: Quantized, dialect: str) -> None:
    file = getattr(quantized, dialect)
    model, reference = onnx.load(file), onnx.load(quantized.fp32)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 20)}
    assert list(model.graph.input) == list(reference.graph.input)
    assert list(model.graph.output) == list(reference.graph.output)
    kinds = [tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert (kinds.count(TensorProto.INT8), kinds.count(TensorProto.FLOAT)) == (16, 1), "all but the last convolution"
    sizes = [sum(numpy_helper.to_array(t).nbytes for t in m.graph.initializer if len(t.dims) == 4) for m in (model, reference)]
    assert sizes[0] < 0.45 * sizes[1]


@pytest.mark.parametrize("dialect", ["portable", "x86"])
def test_the_head_stays_float_with_the_small_convolution_before_it(quantized: Quantized, dialect: str) -> None:
    reference, view = OnnxView(quantized.fp32), OnnxView(getattr(quantized, dialect))
    last, (head,) = reference.of("Conv")[-1], view.of("Gemm")
    (behind,) = view.readers(last.output[0])
    assert last.name not in view.int8_convolutions()
    assert behind.op_type in ("Relu", "Clip"), "nothing stands between it and its activation"
    assert {last.name, behind.name, head.name} <= set(quantized.record.excluded_nodes)
    assert view.constants[head.input[1]].dtype == np.float32
    assert not any(view.makes(name) in ("QuantizeLinear", "DequantizeLinear") for name in (head.input[0], *view.outputs))


def test_the_portable_file_is_legal_and_the_other_is_not(quantized: Quantized) -> None:
    assert lint_qdq(onnx.load(quantized.portable)) == []
    assert lint_qdq(onnx.load(quantized.x86)) != []


def test_the_x86_file_reads_every_level_of_the_image_and_nothing_else(quantized: Quantized) -> None:
    view = OnnxView(quantized.x86)
    (first,) = view.readers("image")
    assert first.op_type == "DequantizeLinear"
    assert view.constants[first.input[1]] == np.float32(1 / 64)
    assert view.constants[first.input[2]] == np.uint8(128), "the uint8 value is that of the image"
    assert not view.of("Cast", "Sub", "Div")


@pytest.mark.parametrize("dialect", ["portable", "x86"])
def test_biases_are_corrected(quantized: Quantized, dialect: str, tmp_path: Path) -> None:
    recipes = (Recipe(), Recipe(correct_bias=False))
    corrected, plain = (
        OnnxView(int8_files(quantized.fp32, picture_crops(64), tmp_path / str(recipe.correct_bias), recipe)[dialect == "x86"])
        for recipe in recipes
    )
    changed = {name for name, value in plain.constants.items() if not np.array_equal(value, corrected.constants.get(name))}
    assert len(changed) == len(plain.int8_convolutions())
    assert all("bias" in name and "scale" not in name for name in changed)


# Seen: 0.22 and 0.21 portable, 0.17 and 0.15 x86, which has twice the levels behind ReLU. A broken graph is off by 1 and more.
@pytest.mark.parametrize(("dialect", "limit"), [("portable", 0.4), ("x86", 0.25)])
def test_answers_stay_near_the_float_network(quantized: Quantized, dialect: str, limit: float) -> None:
    error = relative_error(run_onnx(getattr(quantized, dialect), TEST_CROPS), run_onnx(quantized.fp32, TEST_CROPS))
    assert 0 < error < limit


@pytest.mark.parametrize("dialect", ["portable", "x86"])
def test_openvino_agrees_with_onnxruntime(quantized: Quantized, dialect: str) -> None:
    requirements.require("openvino")
    from lmedge.runtimes.openvino import import_openvino

    core = import_openvino().Core()
    model = core.read_model(str(getattr(quantized, dialect)))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ours = run_onnx(getattr(quantized, dialect), TEST_CROPS)
    # Engines round differently, but they read the same scales.
    assert relative_error(compiled(TEST_CROPS)["landmarks"], ours) < 0.2


def test_the_record_says_what_was_measured(quantized: Quantized) -> None:
    record = quantized.record
    assert record.method == str(Recipe()) == "equalised, biases corrected, coverage 0.95 ranges"
    assert (record.count, record.seed, record.split) == (64, 5, "train")
    assert record.digest == crops_digest(picture_crops(64))
    assert record.sources == ("pictures:64",)
    assert set(record.tool_versions) == {"onnxruntime", "onnx"}


# ---- the order of the crops ----


def test_reversed_crops_and_another_folder_give_the_same_bytes(quantized: Quantized, tmp_path: Path) -> None:
    copied = tmp_path / "far" / "away.onnx"
    copied.parent.mkdir()
    copied.write_bytes(quantized.fp32.read_bytes())
    portable, x86 = int8_files(copied, picture_crops(64)[::-1], tmp_path)
    assert portable.read_bytes() == quantized.portable.read_bytes()
    assert x86.read_bytes() == quantized.x86.read_bytes()


@pytest.mark.parametrize("recipe", [*(Recipe(ranges=method) for method in METHODS), PLAIN, Recipe(base="nncf")], ids=str)
def test_any_order_of_the_crops_gives_the_same_bytes(small_fp32: Path, recipe: Recipe, tmp_path: Path) -> None:
    if recipe.base == "nncf":
        requirements.require("nncf")
    written = set()
    for seed in range(2 if recipe.base == "nncf" else 4):
        order = np.random.default_rng(seed).permutation(len(SMALL_CROPS)) if seed else slice(None)
        files = int8_files(small_fp32, SMALL_CROPS[order], tmp_path / str(seed), recipe)
        written.add(tuple(file.read_bytes() for file in files))
    assert len(written) == 1


def test_other_crops_give_other_bytes(small_fp32: Path, tmp_path: Path) -> None:
    files = [int8_files(small_fp32, crops, tmp_path / str(len(crops))) for crops in (SMALL_CROPS, SMALL_CROPS[:-4])]
    assert all(one.read_bytes() != other.read_bytes() for one, other in zip(*files, strict=True))


# ---- the crops ----


def test_crops_in_a_file_give_the_same_bytes_as_in_memory(small_fp32: Path, tmp_path: Path) -> None:
    with CropStore((SMALL_PX, SMALL_PX)) as store:
        for crop in SMALL_CROPS:
            store.append(crop)
        stored = int8_files(small_fp32, store, tmp_path / "store")
    for one, other in zip(stored, int8_files(small_fp32, SMALL_CROPS, tmp_path / "array"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_memory_does_not_grow_with_the_number_of_crops(tmp_path: Path) -> None:
    """5,000 of these crops alone are 132 MiB, more than all that a process with 500 has at its peak (seen: 123 MiB)."""
    peaks_kib = []
    for count in (500, 5000):
        folder = tmp_path / str(count)
        folder.mkdir()
        command = [sys.executable, "-m", "tests.calibration.peak_memory", str(count), str(folder), "quantize"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=requirements.REPOSITORY)
        peaks_kib.append(int(done.stdout))
    assert peaks_kib[1] < 1.2 * peaks_kib[0]


def test_an_exploding_crop_does_not_take_the_levels_from_the_others(quantized: Quantized, tmp_path: Path) -> None:
    dull = picture_crops(24) // 16 + 120
    loud = np.concatenate([dull, picture_crops(1, seed=4)])
    widest = Recipe(equalise=False, ranges="min-max")
    scales = {}
    for name, crops, recipe in (("loud", loud, PLAIN), ("dull", dull, PLAIN), ("min-max", loud, widest)):
        view = OnnxView(int8_files(quantized.fp32, crops, tmp_path, recipe)[0])
        scales[name] = math.fsum(float(view.constants[node.input[1]]) for node in view.of("QuantizeLinear"))
    assert scales["loud"] < 1.1 * scales["dull"]
    assert scales["min-max"] > 1.3 * scales["dull"]


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (picture_crops(2)[:, :32, :32], "takes crops of 64 × 64 px; the calibration crops have 32 × 32 px"),
        (picture_crops(2).astype(np.float32), "takes crops as uint8"),
        (picture_crops(2)[:0], "at least one"),
        (np.full((3, CROP_PX, CROP_PX, 3), 7, np.uint8), "of one colour each"),
        (np.repeat(picture_crops(1), 3, axis=0), "repeated: 2 of 3 calibration crops are copies"),
    ],
)
def test_useless_crops_are_refused_and_nothing_is_written(
    quantized: Quantized, crops: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CalibrationError, match=message):
        quantize_int8(quantized.fp32, crops, tmp_path / "p.onnx", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_a_portable_file_that_would_not_be_legal_is_not_written(small_fp32: Path, tmp_path: Path) -> None:
    (prepared,) = prepare(onnx.load(small_fp32), SMALL_CROPS, [PLAIN])
    with pytest.raises(CalibrationError, match=r"p\.onnx would break \d+ rules of portable Q/DQ graphs"):
        write_quantised(prepared.place(X86), PORTABLE, tmp_path / "p.onnx")
    assert not list(tmp_path.iterdir())
