"""The 300-W family: one ``.pts`` file of 68 points beside each face image (AFW, Helen, LFPW, iBUG, Multi-PIE, XM2VTS).

Sagonas et al., "300 Faces In-The-Wild Challenge: database and results", IMAVIS 2016. Points are 1-based: 1 is subtracted.

    version: 1
    n_points: 68
    {
    135.596 169.625
    …
    }

The header, the braces or both may be missing. The re-annotations of databases that may not be passed on (XM2VTS, Multi-PIE,
FRGC) come without images: there a ``.pts`` belongs to the image of the same name in the nearest folder, such as
``xm2vts/landmarks/000_1_1.pts`` and ``xm2vts/images/000_1_1.ppm``. An image without ``.pts`` is not a labelled face and is
left out; a ``.pts`` without an image is an error.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.data.fields import IMAGE_SUFFIXES, data_folder, numbers, read_lines
from lmedge.data.samples import FaceSample, photo_key_of
from lmedge.errors import DataError
from lmedge.schemas import IBUG_68

# Folder names that say which database a face is from; the one nearest to the file counts.
SUBSETS = ("afw", "helen", "lfpw", "ibug", "multipie", "xm2vts", "frgc", "indoor", "outdoor")

_HEADER = re.compile(r"\s*(version|n_points)\s*:\s*(\S+)\s*", re.IGNORECASE)


def read_300w(folder: str | Path) -> list[FaceSample]:
    """Every face of a folder tree, sorted by path.

    Raises:
        DataError: no such folder, a malformed ``.pts`` (with file and line), or one without an image.
    """
    root = data_folder(folder, "a folder tree with .jpg or .png images and a .pts file beside each")
    return [_read_face(root, image, label) for image, label in _labelled_images(root)]


def files_300w(folder: str | Path) -> list[Path]:
    """The images and ``.pts`` files that `read_300w` uses, sorted."""
    root = data_folder(folder, "a folder tree with .jpg or .png images and a .pts file beside each")
    return sorted(path for pair in _labelled_images(root) for path in pair)


def read_pts(path: Path) -> npt.NDArray[np.float32]:
    """The 68 points of one file, float32 (68, 2), pixel centres at integers from 0.

    Raises:
        DataError: the file cannot be read, has another number of points, or a line that is not two finite numbers.
    """
    points: list[list[float]] = []
    for line_number, line in enumerate(read_lines(path), 1):
        text = line.strip().strip("{}").strip()
        if not text or _is_header(text, f"{path}:{line_number}"):
            continue
        fields = text.split()
        if len(fields) != 2:
            raise DataError(
                f"{path}:{line_number}: expected the two numbers of a point, got {len(fields)} fields: {text[:60]!r}."
            )
        points.append(numbers(fields, f"{path}:{line_number}"))
    if len(points) != IBUG_68.num_points:
        raise DataError(f"{path}: expected {IBUG_68.num_points} points, one per line, got {len(points)}.{_hint(len(points))}")
    return (np.array(points) - 1).astype(np.float32)


def _is_header(text: str, origin: str) -> bool:
    match = _HEADER.fullmatch(text)
    if match is None:
        return False
    if match[1].lower() == "n_points" and match[2] != str(IBUG_68.num_points):
        count = int(match[2]) if match[2].isdecimal() else 0
        raise DataError(f"{origin}: expected n_points: {IBUG_68.num_points}, got {match[2][:40]!r}.{_hint(count)}")
    return True


def _hint(points: int) -> str:
    return " Profile views of Multi-PIE and Menpo have these 39 points, another set: keep them in another folder." * (
        points == 39
    )


def _read_face(root: Path, image: Path, label: Path) -> FaceSample:
    subset = _subset_of(root, label)
    return FaceSample(
        image=image,
        points_px=read_pts(label),
        schema=IBUG_68,
        photo_key=photo_key_of(label.stem, numbered_faces=subset == "afw"),
        subset=(subset,) if subset else (),
        origin=str(label),
    )


def _subset_of(root: Path, label: Path) -> str:
    # The folder that was asked for and the one above it count too: 300w:DATA/helen/trainset is still Helen.
    parts = (*root.absolute().parts[-2:], *label.relative_to(root).parts[:-1])
    for part in reversed(parts):
        name = re.sub(r"^\d+_|[^a-z0-9]", "", part.lower())
        if name in SUBSETS:
            return name
    return ""


def _labelled_images(root: Path) -> list[tuple[Path, Path]]:
    """Pairs of image and ``.pts`` file, sorted by path."""
    images: dict[str, list[Path]] = {}
    labels: list[Path] = []
    for folder, _, names in os.walk(root):
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                images.setdefault(stem, []).append(Path(folder, name))
            # macOS leaves files such as "._face.pts" in archives.
            elif suffix.lower() == ".pts" and not name.startswith("."):
                labels.append(Path(folder, name))
    labelled = {(label.parent, label.stem) for label in labels}
    return sorted((_image_of(label, images.get(label.stem, []), labelled, root), label) for label in labels)


def _image_of(label: Path, candidates: list[Path], labelled: set[tuple[Path, str]], root: Path) -> Path:
    """The image of a label's name beside it, else the one in the nearest folder that has no label of its own beside it."""
    beside = [image for image in candidates if image.parent == label.parent]
    free = [image for image in candidates if (image.parent, image.stem) not in labelled]
    for folder in label.parents:
        found = beside or [image for image in free if image.is_relative_to(folder)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(str(image.relative_to(folder)) for image in found))
            raise DataError(f"{label}: several images share its name: {names}. Each .pts needs exactly one image.")
        if folder == root:
            break
    suffixes = ", ".join(IMAGE_SUFFIXES)
    raise DataError(
        f"{label}: no image of its name ({suffixes}) beside it or elsewhere below {root}. "
        "Complete the download, or remove the file."
    )
