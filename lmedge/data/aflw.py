"""AFLW-19: the 24,386 AFLW faces with 19 points of Zhu et al., in the two layouts that are in use.

Zhu, Li, Loy and Tang, "Unconstrained face alignment via cascaded compositional learning", CVPR 2016; photos from Köstinger
et al., "Annotated facial landmarks in the wild", ICCV Workshops 2011.

- ``AFLWinfo_release.mat`` (MATLAB 5): ``nameList`` (photos below ``flickr``), ``bbox`` (left, right, top, bottom), ``data``
  (19 x, 19 y), ``mask_new`` (1 = visible), ``ra`` (an order of the faces counted from 1: the first 20,000 train).
- Lists made from it by SAN and SBR (Dong et al., CVPR 2018), ``train.GTB`` and ``test.GTB``: ``photo points x_min y_min x_max
  y_max size``, where ``points`` is a file with a line ``number x y True`` for each visible point.

Points that are not visible have positions in the .mat file, which no annotator could see; they are masked in both layouts.
Coordinates are taken as they are: neither data set says whether they count from 0 or 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.data.fields import data_folder, labelled_box, labelled_image, numbers, read_lines
from lmedge.data.samples import FaceSample, photo_key_of
from lmedge.errors import BackendUnavailableError, DataError
from lmedge.schemas import AFLW_19

BOX_KIND = "aflw19"
RELEASE = "AFLWinfo_release.mat"
LISTS = {"train.GTB": "train", "test.GTB": "test"}
# The faces of `ra` from here on are the test set.
TRAINING_FACES = 20_000

_POINTS = AFLW_19.num_points
_LIST_FIELDS = 7
_WHAT = f"a folder with {RELEASE} or the lists {' and '.join(LISTS)}, and AFLW's photos, or one of these files"


@dataclass(frozen=True)
class _Label:
    """One face as a file describes it: the photo's name, the box (x_min, y_min, x_max, y_max), points with NaN."""

    photo: str
    box_xyxy: tuple[float, ...]
    points_px: npt.NDArray[np.float64]
    split: str
    origin: str


def read_aflw19(path: str | Path) -> list[FaceSample]:
    """The faces of a folder or file, in its order; points that are not visible are unknown (NaN).

    Tags are "train" or "test", and "frontal" where all 19 points are visible (the papers' AFLW-Frontal among the test faces).

    Raises:
        DataError: a folder, file or photo is missing, or a label is malformed (with file, line and field, or variable and row).
        BackendUnavailableError: the .mat file is read, and SciPy is not installed.
    """
    root, files = _find(path)
    return [_sample(label, root) for file in files for label in _labels(file, root)]


def files_aflw19(path: str | Path) -> list[Path]:
    """The label files and photos that `read_aflw19` uses, sorted."""
    root, files = _find(path)
    found = set(files)
    for file in files:
        if file.suffix != ".mat":
            found |= {_below(root, fields[1], origin) for fields, origin in _list_lines(file)}
        found |= {_photo(root, label) for label in _labels(file, root)}
    return sorted(found)


def _find(path: str | Path) -> tuple[Path, list[Path]]:
    """The folder that holds everything, and the label files."""
    place = Path(path).expanduser()
    if place.is_file():
        return place.parent, [place]
    root = data_folder(place, _WHAT)
    releases = sorted(root.rglob(RELEASE))
    if releases:
        return root, releases[:1]
    lists = [file for name in LISTS for file in sorted(root.rglob(name))]
    if not lists:
        raise DataError(f"{root}: no {RELEASE}, {' or '.join(LISTS)}; expected {_WHAT}.")
    return root, lists


def _labels(file: Path, root: Path) -> Iterator[_Label]:
    return _release_labels(file) if file.suffix == ".mat" else _list_labels(file, root)


def _release_labels(file: Path) -> Iterator[_Label]:
    names, data, mask, box, order = _load_release(file)
    training = set((order[:TRAINING_FACES] - 1).tolist())
    for row in range(len(names)):
        origin = f"{file}, face {row + 1}"
        bad = np.flatnonzero(~np.isfinite(data[row]) & (np.tile(mask[row], 2) == 1))
        if len(bad):
            raise DataError(f"{origin}, field {bad[0] + 1} of data: expected a finite number, got {data[row][bad[0]]}.")
        points = np.where(mask[row][:, None] == 1, data[row].reshape(2, _POINTS).T, np.nan)
        left, right, top, bottom = box[row].tolist()
        yield _Label(names[row], (left, top, right, bottom), points, "train" if row in training else "test", origin)


def _load_release(file: Path) -> tuple[list[str], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        loadmat = import_module("scipy.io").loadmat
    except ImportError as error:
        raise BackendUnavailableError(
            f"{file}: AFLW's .mat file needs SciPy, which is not installed here: pip install 'lmedge[train]', or scipy alone."
        ) from error
    try:
        content = loadmat(file)
    # SciPy raises whatever a damaged file leads it to.
    except Exception as error:
        raise DataError(f"{file} is not a MATLAB file that SciPy can read ({error}). Download it again.") from error
    missing = [name for name in ("nameList", "data", "mask_new", "bbox", "ra") if name not in content]
    if missing:
        raise DataError(f"{file}: no variable {', '.join(missing)}; expected {RELEASE} of Zhu et al.")
    names = [str(cell.item()) if cell.size == 1 else "" for cell in content["nameList"].ravel()]
    count = len(names)
    arrays = []
    for name, columns in (("data", 2 * _POINTS), ("mask_new", _POINTS), ("bbox", 4)):
        array = content[name]
        if array.shape != (count, columns) or array.dtype.kind not in "fiub":
            raise DataError(f"{file}: expected {name} of {count} × {columns} numbers, got {array.dtype} of {array.shape}.")
        arrays.append(np.asarray(array, np.float64))
    order = np.asarray(content["ra"]).ravel()
    if sorted(order.tolist()) != list(range(1, count + 1)):
        raise DataError(f"{file}: expected ra to be an order of the faces 1 to {count}; got {len(order)} other numbers.")
    return names, arrays[0], arrays[1], arrays[2], order.astype(np.int64)


def _list_labels(file: Path, root: Path) -> Iterator[_Label]:
    for fields, origin in _list_lines(file):
        values = numbers(fields[2:], origin, first_field=3)
        points = _read_points(_below(root, fields[1], f"{origin}, field 2"))
        yield _Label(fields[0], tuple(values[:4]), points, LISTS.get(file.name, "train"), origin)


def _list_lines(file: Path) -> Iterator[tuple[list[str], str]]:
    """The fields of each line, and where it is."""
    for number, line in enumerate(read_lines(file), 1):
        fields = line.split()
        if fields and len(fields) != _LIST_FIELDS:
            raise DataError(
                f"{file}:{number}: expected {_LIST_FIELDS} fields (photo, points, 4 of the box, size), got {len(fields)}."
            )
        if fields:
            yield fields, f"{file}:{number}"


def _read_points(file: Path) -> npt.NDArray[np.float64]:
    """(19, 2) points of a file with a line ``number x y True`` for each; those without a line, or marked False, are NaN."""
    points = np.full((_POINTS, 2), np.nan)
    seen: set[int] = set()
    for line_number, line in enumerate(read_lines(file), 1):
        fields, origin = line.split(), f"{file}:{line_number}"
        if not fields:
            continue
        if len(fields) != 4:
            raise DataError(f"{origin}: expected 4 fields (number, x, y, True or False), got {len(fields)}.")
        number = int(fields[0]) if fields[0].isascii() and fields[0].isdigit() else 0
        if not 1 <= number <= _POINTS or number in seen:
            raise DataError(f"{origin}, field 1: expected a point's number, 1 to {_POINTS} and once, got {fields[0][:40]!r}.")
        if fields[3] not in ("True", "False"):
            raise DataError(f"{origin}, field 4: expected True or False, got {fields[3][:40]!r}.")
        seen.add(number)
        position = numbers(fields[1:3], origin, first_field=2)
        if fields[3] == "True":
            points[number - 1] = position
    return points


def _sample(label: _Label, root: Path) -> FaceSample:
    image = _photo(root, label)
    frontal = bool(np.isfinite(label.points_px).all())
    return FaceSample(
        image=image,
        points_px=label.points_px.astype(np.float32),
        schema=AFLW_19,
        photo_key=photo_key_of(image.stem),
        boxes={BOX_KIND: labelled_box(label.box_xyxy, BOX_KIND, label.origin)},
        subset=(label.split, *(("frontal",) if frontal else ())),
        origin=label.origin,
    )


def _photo(root: Path, label: _Label) -> Path:
    if not label.photo:
        raise DataError(f"{label.origin}: expected the name of a photo in nameList, got an empty cell.")
    for folder in ("data/flickr", "flickr", "images", "aflw/data/flickr", "."):
        if (root / folder / label.photo).is_file():
            return root / folder / label.photo
    return _below(root, label.photo, label.origin)


def _below(root: Path, name: str, origin: str) -> Path:
    """The file that a list names: as it is, or by the longest end of its path that lies below the folder or one above it.

    Lists carry the absolute paths of the machine that made them.
    """
    if os.path.isabs(name) and os.path.isfile(name):
        return Path(name)
    parts = PurePosixPath(name).parts
    ends = [Path(*parts[start:]) for start in range(len(parts))]
    above = (root, *root.absolute().parents[:2])
    found = next((top / end for top in above for end in ends if os.path.isfile(top / end)), None)
    return found or labelled_image(root / name, origin)
