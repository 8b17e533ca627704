"""Label files as text: numbers with errors that name file, line and field, and images that must be there."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from lmedge.errors import DataError, InputError
from lmedge.landmarks import FaceBox

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without line ends; bytes that are not UTF-8 become "\\ufffd" and fail as numbers later.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"Cannot read the label file {path}: {error.strerror or error}.") from error


def numbers(fields: Sequence[str], origin: str, first_field: int = 1) -> list[float]:
    """Finite numbers from the fields of one line; the first one is called field `first_field` in errors (1-based).

    Raises:
        DataError: a field is not a finite number.
    """
    values: list[float] = []
    for position, text in enumerate(fields, first_field):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # float() reads "1_000", which no data set writes.
        if not math.isfinite(value) or "_" in text:
            raise DataError(f"{origin}, field {position}: expected a finite number, got {text[:40]!r}.")
        values.append(value)
    return values


def labelled_box(xyxy: Sequence[float], kind: str, origin: str) -> FaceBox:
    """The box of a label file.

    Raises:
        DataError: it is empty or reversed.
    """
    try:
        return FaceBox(xyxy[0], xyxy[1], xyxy[2], xyxy[3], kind=kind)
    except InputError as error:
        raise DataError(f"{origin}: {error}") from error


def labelled_image(path: Path, origin: str) -> Path:
    """The path of an image that a label file names.

    Raises:
        DataError: there is no such file.
    """
    if not os.path.isfile(path):
        raise DataError(f"{origin}: the image {path} does not exist. Complete the download, or remove the line.")
    return path


def data_folder(path: str | Path, what: str) -> Path:
    """A folder that must exist.

    Raises:
        DataError: it does not.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {state}; expected {what}.")
    return folder
