"""Any point set as comma-separated text: ``image,x_min,y_min,x_max,y_max,x0,y0,x1,y1,…``, one face a line.

Coordinates are pixels from 0, pixel centres at integers. A point with two empty fields is unknown; four empty box fields
mean no box. Image paths are relative to the file, or absolute.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lmedge.data.fields import labelled_box, labelled_image, numbers
from lmedge.data.samples import FaceSample, photo_key_of
from lmedge.errors import DataError
from lmedge.landmarks import FaceBox
from lmedge.schemas import LandmarkSchema

BOX_KIND = "csv"

_BOX_FIELDS = ("x_min", "y_min", "x_max", "y_max")


def header(schema: LandmarkSchema) -> list[str]:
    """The names of the columns."""
    return ["image", *_BOX_FIELDS, *(f"{axis}{index}" for index in range(schema.num_points) for axis in "xy")]


def read_csv(file: str | Path, schema: LandmarkSchema) -> list[FaceSample]:
    """The faces of a file, in its order.

    Raises:
        DataError: the file or an image is missing, the header does not fit the schema, or a line is malformed (with file,
            line and field).
    """
    path = Path(file).expanduser()
    return [_read_face(row, f"{path}:{line_number}", path, schema) for line_number, row in _rows(path, schema)]


def files_csv(file: str | Path, schema: LandmarkSchema) -> list[Path]:
    """The file and the images that `read_csv` uses, sorted."""
    path = Path(file).expanduser()
    return sorted({path, *(path.parent / row[0] for _, row in _rows(path, schema))})


def write_csv(file: str | Path, samples: Iterable[FaceSample]) -> None:
    """Writes faces that all have one schema and a box of kind `csv` or none; images must be files.

    Coordinates keep 4 decimals. Paths below the file's folder are written relative to it. The file appears whole or not at all.

    Raises:
        DataError: no faces, faces of several schemas, an image that is an array, or a file that cannot be written.
    """
    path, faces = Path(file).expanduser(), list(samples)
    if len({face.schema.name for face in faces}) != 1:
        raise DataError(
            f"{path}: a csv file holds faces of one schema; got {sorted({f.schema.name for f in faces}) or 'none'}."
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header(faces[0].schema))
    for face in faces:
        writer.writerow(_row_of(face, path.parent))
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DataError(f"Cannot write the csv file {path}: {error.strerror or error}.") from error


def _rows(path: Path, schema: LandmarkSchema) -> list[tuple[int, list[str]]]:
    """Line numbers and fields, below a header that fits the schema."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, [field.strip() for field in row]) for row in reader]
    except OSError as error:
        raise DataError(f"Cannot read the csv file {path}: {error.strerror or error}.") from error
    except csv.Error as error:
        raise DataError(f"{path}: not comma-separated text: {error}.") from error
    expected = header(schema)
    if not rows or rows[0][1] != expected:
        got = ",".join(rows[0][1])[:80] if rows else "an empty file"
        raise DataError(
            f"{path}:1: expected the {len(expected)} columns of {schema.name}, {','.join(expected[:9])},…; got {got}. "
            "Give the point set of the file with --schema."
        )
    return [(line_number, row) for line_number, row in rows[1:] if any(row)]


def _read_face(row: list[str], origin: str, path: Path, schema: LandmarkSchema) -> FaceSample:
    expected = header(schema)
    if len(row) != len(expected):
        raise DataError(f"{origin}: expected {len(expected)} fields for {schema.name}, got {len(row)}.")
    if not row[0]:
        raise DataError(f"{origin}, field 1: expected the path of an image, got an empty field.")
    image = labelled_image(path.parent / row[0], f"{origin}, field 1")
    box = _group(row, 1, 4, origin)
    points = [_group(row, first, 2, origin) or [np.nan, np.nan] for first in range(5, len(row), 2)]
    return FaceSample(
        image=image,
        points_px=np.array(points, np.float32),
        schema=schema,
        photo_key=photo_key_of(image.stem),
        boxes={BOX_KIND: labelled_box(box, BOX_KIND, origin)} if box else {},
        origin=origin,
    )


def _group(row: list[str], first: int, count: int, origin: str) -> list[float] | None:
    """Numbers that belong together, or None where all of them are empty."""
    fields = row[first : first + count]
    return numbers(fields, origin, first_field=first + 1) if any(fields) else None


def _row_of(face: FaceSample, folder: Path) -> list[str]:
    if not isinstance(face.image, Path):
        raise DataError(f"{face.origin or face.photo_key}: write the image to a file first; a csv file names images by path.")
    image = face.image.absolute()
    inside = image.is_relative_to(folder.absolute())
    box: FaceBox | None = face.boxes.get(BOX_KIND)
    corners = [_number(float(value)) for value in box.xyxy] if box else [""] * len(_BOX_FIELDS)
    points = [_number(float(value)) for value in face.points_px.ravel()]
    return [(image.relative_to(folder.absolute()) if inside else image).as_posix(), *corners, *points]


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if np.isfinite(value) else ""
