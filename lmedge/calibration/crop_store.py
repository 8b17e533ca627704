"""Calibration crops in a file: any number of them, in the memory of a few.

The file is a temporary one without a name, so nothing is left behind when the program ends or is killed. It is read by plain
reads and not mapped, so that its pages never count as memory of the process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from lmedge.errors import CalibrationError

# Crops that are in memory at once while something goes through all of them.
BATCH = 64

CropArray = npt.NDArray[np.uint8]


class Crops(Protocol):
    """Crops uint8 (N, H, W, 3) BGR by length and slice: an array is one, and so is a `CropStore`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> CropArray: ...


def as_crops(crops: Any) -> Crops:
    """The same object, once it is known to hold crops.

    Raises:
        CalibrationError: "shape", not uint8 (N, H, W, 3); "empty", no crop.
    """
    if isinstance(crops, CropStore):
        fits = True
    else:
        fits = isinstance(crops, np.ndarray) and crops.dtype == np.uint8 and crops.ndim == 4 and crops.shape[3] == 3
    if not fits:
        came = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise CalibrationError(
            f"shape: calibration takes crops as uint8 (N, H, W, 3) BGR, an array or a CropStore; got {came}. "
            "calibration_images makes them from labelled faces."
        )
    if not len(crops):
        raise CalibrationError(
            "empty: calibration takes at least one crop; got none. calibration_images makes them from faces."
        )
    checked: Crops = crops
    return checked


def crop_batches(crops: Crops, size: int = BATCH) -> Iterator[CropArray]:
    """The crops in order, `size` at a time; the last batch may be smaller."""
    for start in range(0, len(crops), size):
        yield crops[start : start + size]


def crops_digest(crops: Crops) -> str:
    """The sha256, in hex, of the crops' bytes in order."""
    digest = hashlib.sha256()
    for batch in crop_batches(crops):
        digest.update(np.ascontiguousarray(batch).data)
    return digest.hexdigest()


class CropStore:
    """A sequence of crops uint8 (H, W, 3) BGR that lies in a temporary file.

        with CropStore((112, 112)) as store:
            store.append(crop)
            store[0], store[10:20], len(store)

    What is read is the caller's own copy. `close`, or the end of the store's life, gives the disk space back.

    Args:
        input_hw: height and width of each crop in pixels.
        expected: how many are going to be written, for the message of a full disk.
        folder: where the file lies; without it, where temporary files do (TMPDIR).

    Raises:
        CalibrationError: no temporary file can be made there.
    """

    def __init__(self, input_hw: tuple[int, int], *, expected: int = 0, folder: Path | None = None) -> None:
        self._crop_shape = (*input_hw, 3)
        self._crop_bytes = int(np.prod(self._crop_shape))
        self._count = 0
        self._expected = expected
        try:
            self._folder = str(folder or tempfile.gettempdir())
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 the store is the context manager
        except OSError as error:
            raise CalibrationError(
                f"Cannot make a temporary file for calibration crops: {error.strerror or error}. "
                "Set TMPDIR to a folder that can be written to."
            ) from error
        weakref.finalize(self, self._file.close)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3), like an array's."""
        return (self._count, *self._crop_shape)

    def __len__(self) -> int:
        return self._count

    def append(self, crop_uint8: CropArray) -> None:
        """Writes one crop (H, W, 3) behind the others.

        Raises:
            CalibrationError: a crop of another shape or kind, a disk that is full, or a store that is closed.
        """
        if crop_uint8.dtype != np.uint8 or crop_uint8.shape != self._crop_shape:
            raise CalibrationError(
                f"shape: this store takes crops as uint8 {self._crop_shape}; got {crop_uint8.dtype} {crop_uint8.shape}."
            )
        left = np.ascontiguousarray(crop_uint8).data.cast("B")
        offset = self._count * self._crop_bytes
        descriptor = self._descriptor()
        try:
            while left:
                written = os.pwrite(descriptor, left, offset)
                left, offset = left[written:], offset + written
        except OSError as error:
            raise self._no_room(error) from error
        self._count += 1

    @overload
    def __getitem__(self, rows: int | np.integer[Any], /) -> CropArray: ...

    @overload
    def __getitem__(self, rows: slice, /) -> CropArray: ...

    def __getitem__(self, rows: int | np.integer[Any] | slice, /) -> CropArray:
        """One crop (H, W, 3) by its number, or (N, H, W, 3) by a slice; both count as lists do."""
        if isinstance(rows, slice):
            return self._read(range(self._count)[rows])
        number = range(self._count)[rows]
        crop: CropArray = self._read(range(number, number + 1))[0]
        return crop

    def __iter__(self) -> Iterator[CropArray]:
        return (self[number] for number in range(self._count))

    def batches(self, size: int = BATCH) -> Iterator[CropArray]:
        """The crops in order, `size` at a time; the last batch may be smaller."""
        return crop_batches(self, size)

    def digest(self) -> str:
        """The sha256, in hex, of the crops' bytes in order."""
        return crops_digest(self)

    def close(self) -> None:
        """Gives the disk space back; nothing can be read afterwards."""
        self._file.close()

    def __enter__(self) -> CropStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _read(self, numbers: range) -> CropArray:
        crops = np.empty((len(numbers), *self._crop_shape), np.uint8)
        if numbers.step == 1:
            self._fill(crops, numbers.start)
        else:
            for crop, number in zip(crops, numbers, strict=True):
                self._fill(crop, number)
        return crops

    def _fill(self, crops: CropArray, first: int) -> None:
        """Reads as many bytes as the array has, from crop `first` on."""
        left = crops.reshape(-1).data
        offset = first * self._crop_bytes
        descriptor = self._descriptor()
        while left:
            done = os.preadv(descriptor, [left], offset)
            if not done:
                raise CalibrationError(
                    f"The temporary file of calibration crops in {self._folder} has lost its end. Start again."
                )
            left, offset = left[done:], offset + done

    def _descriptor(self) -> int:
        if self._file.closed:
            raise CalibrationError("This store of calibration crops is closed; use it inside its `with` block.")
        return self._file.fileno()

    def _no_room(self, error: OSError) -> CalibrationError:
        count = max(self._expected, self._count + 1)
        needed = count * self._crop_bytes / 2**20
        return CalibrationError(
            f"Cannot write crop {self._count + 1} of {count} to a temporary file in {self._folder}: {error.strerror or error}. "
            f"All of them need {needed:.1f} MiB; make room there, or set TMPDIR to a folder that has it."
        )
