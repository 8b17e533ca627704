"""A file of crops behaves like an array of them, costs no memory, and leaves nothing behind."""

from __future__ import annotations

import gc
import hashlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.calibration.crop_store import CropStore, as_crops, crop_batches, crops_digest
from lmedge.errors import CalibrationError

CROPS = np.random.default_rng(0).integers(0, 256, (11, 6, 5, 3), np.uint8)


def stored(crops: npt.NDArray[np.uint8], folder: Path | None = None) -> CropStore:
    store = CropStore((crops.shape[1], crops.shape[2]), folder=folder)
    for crop in crops:
        store.append(crop)
    return store


@given(st.slices(len(CROPS)))
def test_a_slice_is_that_of_the_array(rows: slice) -> None:
    with stored(CROPS) as store:
        np.testing.assert_array_equal(store[rows], CROPS[rows])


@pytest.mark.parametrize("number", [0, 10, -1, -11, np.int64(3)])
def test_one_crop_by_its_number(number: int) -> None:
    with stored(CROPS) as store:
        np.testing.assert_array_equal(store[number], CROPS[number])


@pytest.mark.parametrize("number", [11, -12])
def test_a_number_out_of_range_ends_loops_as_in_a_list(number: int) -> None:
    with stored(CROPS) as store, pytest.raises(IndexError):
        store[number]


def test_length_shape_and_iteration() -> None:
    with stored(CROPS) as store:
        assert len(store) == 11
        assert store.shape == CROPS.shape
        np.testing.assert_array_equal(np.stack(list(store)), CROPS)


@pytest.mark.parametrize(("size", "lengths"), [(4, [4, 4, 3]), (11, [11]), (64, [11])])
@pytest.mark.parametrize("as_file", [True, False], ids=["file", "array"])
def test_batches_cover_everything_in_order(size: int, lengths: list[int], as_file: bool) -> None:
    crops = stored(CROPS) if as_file else CROPS
    batches = list(crop_batches(crops, size))
    assert [len(batch) for batch in batches] == lengths
    np.testing.assert_array_equal(np.concatenate(batches), CROPS)


def test_the_digest_is_the_sha256_of_the_bytes_in_order() -> None:
    with stored(CROPS) as store, stored(CROPS[::-1]) as reverse:
        assert store.digest() == crops_digest(CROPS) == hashlib.sha256(CROPS.tobytes()).hexdigest()
        assert crops_digest(CROPS[::-1]) == reverse.digest() != store.digest()
    changed = CROPS.copy()
    changed[10, 5, 4, 2] ^= 1
    assert crops_digest(changed) != crops_digest(CROPS)


def test_what_is_read_is_the_callers_own() -> None:
    with stored(CROPS) as store:
        store[0][:] = 0
        store[:][:] = 0
        np.testing.assert_array_equal(store[:], CROPS)


def test_crops_can_be_added_after_others_were_read() -> None:
    with CropStore((6, 5)) as store:
        for done, crop in enumerate(CROPS, start=1):
            store.append(crop[:, ::-1])
            np.testing.assert_array_equal(store[done - 1], crop[:, ::-1])
        assert len(store) == 11


@pytest.mark.parametrize("crop", [CROPS[0].astype(np.float32), CROPS[0, :5], CROPS[0, :, :, 0], CROPS[:1]])
def test_a_crop_of_another_shape_or_kind_is_refused(crop: npt.NDArray[np.uint8]) -> None:
    with CropStore((6, 5)) as store:
        with pytest.raises(CalibrationError, match=r"^shape: this store takes crops as uint8 \(6, 5, 3\)"):
            store.append(crop)
        assert len(store) == 0


def test_the_file_has_no_name(tmp_path: Path) -> None:
    with stored(CROPS, tmp_path) as store:
        assert list(tmp_path.iterdir()) == []
        np.testing.assert_array_equal(store[:], CROPS)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_store_that_is_forgotten_closes_its_file() -> None:
    gc.collect()
    before = open_files()
    store = stored(CROPS)
    assert open_files() == before + 1
    del store
    gc.collect()
    assert open_files() == before


def test_a_closed_store_says_so() -> None:
    store = stored(CROPS)
    store.close()
    store.close()
    for use in (lambda: store[0], lambda: store.append(CROPS[0])):
        with pytest.raises(CalibrationError, match="is closed; use it inside its `with` block"):
            use()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files of this process may not grow above so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_named_with_what_was_needed(tmp_path: Path) -> None:
    side = 512
    crop = np.full((side, side, 3), 7, np.uint8)
    with CropStore((side, side), expected=20, folder=tmp_path) as store, largest_file(round(2.5 * crop.nbytes)):
        store.append(crop)
        store.append(crop)
        with pytest.raises(CalibrationError) as raised:
            store.append(crop)
        message = str(raised.value)
        assert f"Cannot write crop 3 of 20 to a temporary file in {tmp_path}" in message
        assert "All of them need 15.0 MiB" in message
        assert "TMPDIR" in message
        assert len(store) == 2, "what was written whole is still there"
        np.testing.assert_array_equal(store[:], [crop, crop])


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="Cannot make a temporary file for calibration crops: No such file"):
        CropStore((6, 5), folder=tmp_path / "absent")


def test_arrays_and_stores_are_crops() -> None:
    assert as_crops(CROPS) is CROPS
    with stored(CROPS) as store:
        assert as_crops(store) is store


@pytest.mark.parametrize(
    ("crops", "came"),
    [
        (CROPS.astype(np.float32), r"got float32 \(11, 6, 5, 3\)"),
        (CROPS[0], r"got uint8 \(6, 5, 3\)"),
        (CROPS[..., :2], r"got uint8 \(11, 6, 5, 2\)"),
        (list(CROPS), "got list"),
        (None, "got NoneType"),
    ],
)
def test_anything_else_is_not(crops: object, came: str) -> None:
    with pytest.raises(CalibrationError, match=f"^shape: .*{came}"):
        as_crops(crops)


def test_no_crops_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"^empty: "):
        as_crops(CROPS[:0])
    with CropStore((6, 5)) as store, pytest.raises(CalibrationError, match=r"^empty: "):
        as_crops(store)
