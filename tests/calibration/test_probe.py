"""What a network holds inside: each tensor as the network has it, crop by crop, untouched by the crops beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.calibration.crop_store import BATCH, CropStore  # noqa: E402
from lmedge.calibration.probe import probe  # noqa: E402
from lmedge.errors import ExportError  # noqa: E402
from lmedge.export.graph.compare import OUTPUT, run_onnx  # noqa: E402
from tests.calibration.landmark_graph import constants, landmark_graph, smooth_crops  # noqa: E402

MODEL, CROPS = landmark_graph(), smooth_crops(5)
TENSORS = ["stem.out", "normal", "sum"]


def probed(tensors: list[str] = TENSORS, crops: Any = CROPS, **options: Any) -> list[list[np.ndarray]]:
    return list(probe(MODEL, tensors, crops, **options))


def test_every_crop_gives_the_named_tensors_in_the_order_asked_for() -> None:
    found = probed()
    assert len(found) == len(CROPS)
    for crop, (stem, normal, total) in zip(CROPS, found, strict=True):
        assert (stem.shape, normal.shape, total.shape) == ((1, 8, 16, 16), (1, 3, 32, 32), (1, 6, 8, 8))
        np.testing.assert_array_equal(normal[0], (crop.transpose(2, 0, 1).astype(np.float32) - 128) / 64)


def test_the_values_are_those_of_the_arithmetic() -> None:
    (skip, residual, total), *_ = probed(["project_2.out", "project_3.out", "sum"])
    np.testing.assert_array_equal(total, skip + residual)
    (before, behind), *_ = probed(["stem.out", "stem.out.clip"])
    np.testing.assert_array_equal(behind, np.clip(before, 0, 6))
    weight, bias = constants(MODEL)["project_1.weight"][:, :, 0, 0], constants(MODEL)["project_1.bias"]
    (inputs, outputs), *_ = probed(["depthwise_1.out.clip", "project_1.out"])
    expected = np.einsum("oi,ihw->ohw", weight, inputs[0]) + bias[:, None, None]
    np.testing.assert_allclose(outputs[0], expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "reduction"), [("ReduceMax", np.max), ("ReduceMin", np.min), ("ReduceMean", np.mean)])
def test_a_reduction_is_that_of_the_whole_tensor(kind: str, reduction: Any) -> None:
    for whole, (all_values,), (channels,) in zip(
        probed(["sum"]), probed(["sum"], reduce=kind), probed(["sum"], reduce=kind, over_positions=True), strict=True
    ):
        assert all_values.shape == ()
        np.testing.assert_allclose(all_values, reduction(whole[0]), rtol=1e-5)
        assert channels.shape == (1, 6)
        np.testing.assert_allclose(channels, reduction(whole[0], axis=(2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduce", ["", "ReduceMean"])
def test_the_crops_beside_a_crop_do_not_change_it(reduce: str) -> None:
    together = probed(reduce=reduce)
    for number, row in enumerate(together):
        (alone,) = probed(crops=CROPS[number : number + 1], reduce=reduce)
        for one, other in zip(row, alone, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_file_of_crops_is_read_like_an_array_and_a_file_of_the_network_like_the_network(tmp_path: Path) -> None:
    onnx.save(MODEL, tmp_path / "model.onnx")
    with CropStore((32, 32)) as store:
        for crop in CROPS:
            store.append(crop)
        for one, other in zip(probe(tmp_path / "model.onnx", TENSORS, store), probed(), strict=True):
            assert all(map(np.array_equal, one, other))


class Watched:
    """Crops that remember which of them were read."""

    def __init__(self, crops: np.ndarray) -> None:
        self.crops, self.shape, self.read = crops, crops.shape, 0

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.read = max(self.read, rows.stop)
        found: np.ndarray = self.crops[rows]
        return found


def test_crops_are_read_as_they_are_needed() -> None:
    crops = Watched(smooth_crops(3 * BATCH))
    seen = probe(MODEL, ["sum"], crops)
    assert crops.read == 0
    next(seen)
    assert crops.read == BATCH


def test_progress_counts_crops() -> None:
    seen: list[tuple[int, int, str]] = []
    probed(progress=lambda *step: seen.append(step), doing="looking")
    assert seen == [(done, 5, "looking") for done in range(1, 6)]


def test_the_given_network_is_not_changed() -> None:
    before = MODEL.SerializeToString()
    probed(reduce="ReduceMax", over_positions=True)
    assert MODEL.SerializeToString() == before


def test_the_answer_itself_can_be_asked_for() -> None:
    answers = np.concatenate([answer for (answer,) in probed([OUTPUT])])
    np.testing.assert_allclose(answers, run_onnx(MODEL, CROPS), atol=1e-5)


def test_of_no_tensor_nothing_is_given() -> None:
    assert probed([]) == [[]] * len(CROPS)
    assert probed([], reduce="ReduceMax") == [[]] * len(CROPS)


def test_a_tensor_that_the_network_does_not_have_is_an_error() -> None:
    with pytest.raises(ExportError, match="does not load the graph"):
        probed(["nothing"])
