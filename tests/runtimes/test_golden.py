"""Golden vectors: equal arrays are equal bytes, and nothing else is read."""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.errors import BundleFormatError, InputError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import crop_transform
from lmedge.runtimes.golden import Golden
from tests.bundles import SPEC, tiny_answer, tiny_golden
from tests.parity.mutants import confident_answers, tiny_confidence


def test_they_come_back_as_they_went(tmp_path: Path) -> None:
    golden = tiny_golden()
    (tmp_path / "golden.npz").write_bytes(golden.to_bytes())
    read = Golden.from_file(tmp_path / "golden.npz")
    for field in fields(Golden):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(golden, field.name))
    assert read.to_bytes() == golden.to_bytes()


def test_confidence_comes_back_too(tmp_path: Path) -> None:
    golden = Golden.record(tiny_golden().frames, tiny_golden().boxes_xyxy, SPEC, confident_answers)
    (tmp_path / "golden.npz").write_bytes(golden.to_bytes())
    read = Golden.from_file(tmp_path / "golden.npz")
    assert read.answers.confidence is not None
    np.testing.assert_array_equal(read.answers.confidence, tiny_confidence(golden.crops))
    assert read.to_bytes() == golden.to_bytes()


def test_a_file_without_confidence_is_as_it_always_was() -> None:
    with zipfile.ZipFile(io.BytesIO(tiny_golden().to_bytes())) as archive:
        names = archive.namelist()
    assert names == ["frames.npy", "boxes_xyxy.npy", "crops.npy", "fractions.npy", "points_px.npy"]


@pytest.mark.parametrize("confidence", [np.zeros((3, 4), np.float32), np.zeros((2, 5), np.float32), np.zeros((3, 5))])
def test_confidence_of_other_points_is_refused(confidence: npt.NDArray[np.floating]) -> None:
    with pytest.raises(InputError, match=r"do not fit together.*'confidence'"):
        replace(tiny_golden(), confidence=confidence)


def test_the_bytes_hold_no_time_and_no_compression() -> None:
    with zipfile.ZipFile(io.BytesIO(tiny_golden().to_bytes())) as archive:
        entries = archive.infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_points_belong_to_the_frame() -> None:
    golden = tiny_golden()
    transform = crop_transform(FaceBox(*golden.boxes_xyxy[1].tolist()), SPEC)
    np.testing.assert_allclose(transform.to_fractions(golden.points_px[1]), golden.fractions[1], atol=1e-5)
    np.testing.assert_array_equal(golden.fractions, tiny_answer(golden.crops))


@pytest.mark.parametrize(
    "change",
    [
        {"fractions": np.zeros((3, 5, 3), np.float32)},
        {"fractions": np.zeros((2, 5, 2), np.float32)},
        {"points_px": np.zeros((3, 5, 2))},
        {"boxes_xyxy": np.zeros((3, 5))},
        {"crops": np.zeros((3, 32, 32), np.uint8)},
        {"frames": np.zeros((0, 32, 32, 3), np.uint8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_arrays_that_do_not_fit_together_are_refused(change: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="do not fit together"):
        replace(tiny_golden(), **change)


def save_pickled(path: Path) -> None:
    np.savez(path, frames=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: None, id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"not a zip"), id="garbage"),
        pytest.param(lambda path: path.write_bytes(tiny_golden().to_bytes()[:-100]), id="cut"),
        pytest.param(lambda path: np.savez(path, frames=np.zeros(1)), id="other arrays"),
        pytest.param(save_pickled, id="pickled"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, write: object) -> None:
    write(tmp_path / "golden.npz")  # type: ignore[operator]
    with pytest.raises(BundleFormatError, match="no golden vectors"):
        Golden.from_file(tmp_path / "golden.npz")
