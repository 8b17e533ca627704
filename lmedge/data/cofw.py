"""COFW: 29 points with occlusion flags, pictures and labels together in MATLAB 7.3 files (HDF5).

Burgos-Artizzu, Perona and Dollár, "Robust face landmark estimation under occlusion", ICCV 2013. Training files hold
``IsTr`` (a cell array of pictures, gray or RGB), ``bboxesTr`` (x, y, width, height) and ``phisTr`` (29 x, 29 y, 29 flags, 1 =
occluded); test files hold ``IsT``, ``bboxesT`` and ``phisT``. HDF5 shows MATLAB's arrays with their axes in reverse order.
Coordinates count from 1.

Annotators placed occluded points too, so they are known; how many are occluded is a tag. Many training photos are LFPW's,
which 300-W has as well: copies are looked for among photo files only, so do not validate on one what was trained on the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.fields import data_folder, labelled_box
from lmedge.data.samples import FaceSample
from lmedge.errors import BackendUnavailableError, DataError, LmedgeError
from lmedge.preprocess import check_image
from lmedge.schemas import COFW_29

BOX_KIND = "cofw"
# What a file of each split calls its pictures, boxes and labels.
VARIABLES = {"train": ("IsTr", "bboxesTr", "phisTr"), "test": ("IsT", "bboxesT", "phisT")}
# The share of occluded points from which a face is tagged "occluded", and from which "half occluded".
OCCLUDED, HALF_OCCLUDED = 0.1, 0.5

_POINTS = COFW_29.num_points
_WHAT = "a folder with COFW_train.mat and COFW_test.mat, or their _color variants, or one of these files"


def read_cofw(path: str | Path) -> list[FaceSample]:
    """The faces of the training file and, where it is there, the test file; a path to one file reads only that one.

    Where a folder has a colour file beside the gray one, the colour file is taken. Tags are "train" or "test", "occluded" from
    a tenth of the points and "half-occluded" from half of them. All pictures are read into memory: `data pack` makes a small
    file of them.

    Raises:
        DataError: a folder, file or variable is missing, or a label cannot be used (with file, variable, face and row).
        BackendUnavailableError: h5py is not installed.
    """
    faces: list[FaceSample] = []
    for file in files_cofw(path):
        with _open(file) as content:
            try:
                faces += _read_faces(file, content)
            except (KeyError, RuntimeError, TypeError, ValueError, OSError) as error:
                if isinstance(error, LmedgeError):
                    raise
                raise DataError(
                    f"{file}: a variable is damaged or has another form ({error}). Download the file again."
                ) from error
    return faces


def files_cofw(path: str | Path) -> list[Path]:
    """The files that `read_cofw` uses, sorted with the training file first."""
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    root = data_folder(place, _WHAT)
    found = {file.name.lower(): file for file in sorted(root.rglob("*.mat"))}
    names = [next((n for n in (f"cofw_{split}_color.mat", f"cofw_{split}.mat") if n in found), "") for split in VARIABLES]
    if not any(names):
        raise DataError(f"{root}: no COFW_train.mat, COFW_train_color.mat or their test files; expected {_WHAT}.")
    return [found[name] for name in names if name]


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise BackendUnavailableError(
            f"{file}: COFW's .mat files need h5py, which is not installed here: pip install 'lmedge[train]', or h5py alone."
        ) from error
    try:
        content = h5py.File(file, "r")
    except OSError as error:
        raise DataError(
            f"{file} is not a MATLAB 7.3 file that h5py can open ({error}). Download it again, or check that it is COFW's."
        ) from error
    with content:
        yield content


def _read_faces(file: Path, content: Any) -> list[FaceSample]:
    split = next((split for split, names in VARIABLES.items() if all(name in content for name in names)), "")
    if not split:
        needed = " or ".join(", ".join(names) for names in VARIABLES.values())
        raise DataError(f"{file}: expected the variables {needed}; the file has {', '.join(sorted(content)) or 'none'}.")
    pictures, boxes, labels = VARIABLES[split]
    references = np.asarray(content[pictures]).ravel()
    phis = _columns(content[labels], 3 * _POINTS, len(references), f"{file}, {labels}")
    corners = _columns(content[boxes], 4, len(references), f"{file}, {boxes}")
    faces = []
    for number, reference in enumerate(references, 1):
        origin = f"{file}, face {number}"
        x, y, width, height = corners[number - 1] - (1, 1, 0, 0)
        points_px, occluded = _points(phis[number - 1], f"{file}, {labels}, face {number}")
        faces.append(
            FaceSample(
                image=_picture(content, reference, f"{file}, {pictures}, face {number}"),
                points_px=points_px,
                schema=COFW_29,
                photo_key=f"cofw_{split}_{number:04d}",
                boxes={BOX_KIND: labelled_box((x, y, x + width, y + height), BOX_KIND, f"{file}, {boxes}, face {number}")},
                subset=(split, *_occlusion_tags(occluded)),
                origin=origin,
            )
        )
    return faces


def _columns(dataset: Any, rows: int, faces: int, origin: str) -> npt.NDArray[np.float64]:
    """A (faces, rows) matrix of numbers; in the file it is (rows, faces)."""
    if getattr(dataset, "shape", None) != (rows, faces) or dataset.dtype.kind not in "fiu":
        raise DataError(
            f"{origin}: expected numbers of shape {faces} × {rows} (in HDF5 {rows} × {faces}), one row per picture; got "
            f"{getattr(dataset, 'dtype', 'no array')} of shape {getattr(dataset, 'shape', ())} in HDF5."
        )
    return np.asarray(dataset, np.float64).T


def _points(row: npt.NDArray[np.float64], origin: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Points (29, 2) from 0, and which of them are occluded (29,)."""
    bad = np.flatnonzero(~np.isfinite(row))
    if len(bad):
        raise DataError(f"{origin}, field {bad[0] + 1}: expected a finite number, got {row[bad[0]]}.")
    flags = row[2 * _POINTS :]
    wrong = np.flatnonzero((flags != 0) & (flags != 1))
    if len(wrong):
        raise DataError(
            f"{origin}, field {2 * _POINTS + wrong[0] + 1}: expected an occlusion flag 0 or 1, got {flags[wrong[0]]:g}."
        )
    points = row[: 2 * _POINTS].reshape(2, _POINTS).T - 1
    return points.astype(np.float32), np.asarray(flags == 1)


def _occlusion_tags(occluded: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    share = float(occluded.mean())
    return ("occluded",) * (share >= OCCLUDED) + ("half-occluded",) * (share >= HALF_OCCLUDED)


def _picture(content: Any, reference: Any, origin: str) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3) BGR; in the file it is (W, H) gray or (3, W, H) RGB."""
    stored = np.asarray(content[reference])
    if stored.dtype != np.uint8 or stored.ndim not in (2, 3) or not stored.size or (stored.ndim == 3 and stored.shape[0] != 3):
        raise DataError(
            f"{origin}: expected a picture, uint8 of H × W or H × W × 3; got {stored.dtype} of shape {stored.shape[::-1]}."
        )
    if stored.ndim == 2:
        return check_image(np.ascontiguousarray(stored.T))
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(stored.transpose(2, 1, 0)), cv2.COLOR_RGB2BGR), np.uint8)
