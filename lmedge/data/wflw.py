"""WFLW: lists of 98 points, a box, six attributes and an image name, 207 fields a line; several faces per photo.

Wu et al., "Look at Boundary: A Boundary-Aware Face Alignment Algorithm", CVPR 2018. Fields 1 to 196 are x and y of the
points, 197 to 200 the box (x_min, y_min, x_max, y_max), 201 to 206 the attributes (0 or 1), 207 the image below
``WFLW_images``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lmedge.data.fields import data_folder, labelled_box, labelled_image, numbers, read_lines
from lmedge.data.samples import FaceSample, photo_key_of
from lmedge.errors import DataError
from lmedge.schemas import WFLW_98

ATTRIBUTES = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")
BOX_KIND = "wflw"

_FIELDS = 207
_COORDINATES = 2 * WFLW_98.num_points
_WHAT = "WFLW's folder with WFLW_annotations and WFLW_images, or one of its list_98pt_rect_attr_*.txt files"


def read_wflw(path: str | Path) -> list[FaceSample]:
    """The faces of the training list and, where it is there, the test list; a path to one list reads only that one.

    Tags are "train" or "test" and the attributes that are set.

    Raises:
        DataError: a folder, list or image is missing, or a line is malformed (with file, line and field).
    """
    images, lists = _find(path)
    faces: list[FaceSample] = []
    for listing in lists:
        for line_number, line in enumerate(read_lines(listing), 1):
            if line.strip():
                faces.append(_read_face(line, f"{listing}:{line_number}", images, _split_of(listing)))
    return faces


def files_wflw(path: str | Path) -> list[Path]:
    """The lists and images that `read_wflw` uses, sorted."""
    images, lists = _find(path)
    names = {line.split()[-1] for listing in lists for line in read_lines(listing) if line.strip()}
    return sorted([*lists, *(images / name for name in names)])


def _find(path: str | Path) -> tuple[Path, list[Path]]:
    place = Path(path).expanduser()
    if place.is_file():
        above = [folder / "WFLW_images" for folder in place.absolute().parents if (folder / "WFLW_images").is_dir()]
        if not above:
            raise DataError(f"{place}: no folder WFLW_images beside or above this list.")
        return above[0], [place]
    root = data_folder(place, _WHAT)
    lists = sorted((root / "WFLW_annotations").rglob("list_98pt_rect_attr_*.txt"), reverse=True)
    if not lists:
        raise DataError(f"{root}: no list_98pt_rect_attr_train.txt below WFLW_annotations; expected {_WHAT}.")
    return data_folder(root / "WFLW_images", _WHAT), lists


def _split_of(listing: Path) -> str:
    return "test" if listing.stem.startswith("list_98pt_rect_attr_test") else "train"


def _read_face(line: str, origin: str, images: Path, split: str) -> FaceSample:
    fields = line.split()
    if len(fields) != _FIELDS:
        raise DataError(f"{origin}: expected {_FIELDS} fields (98 points, box, 6 attributes, image), got {len(fields)}.")
    values = numbers(fields[:-1], origin)
    flags = values[_COORDINATES + 4 :]
    for position, flag in enumerate(flags, _COORDINATES + 5):
        if flag not in (0, 1):
            raise DataError(f"{origin}, field {position}: expected an attribute of 0 or 1, got {fields[position - 1]!r}.")
    image = labelled_image(images / fields[-1], f"{origin}, field {_FIELDS}")
    return FaceSample(
        image=image,
        points_px=np.array(values[:_COORDINATES], np.float32).reshape(-1, 2),
        schema=WFLW_98,
        photo_key=photo_key_of(image.stem),
        boxes={BOX_KIND: labelled_box(values[_COORDINATES : _COORDINATES + 4], BOX_KIND, origin)},
        subset=(split, *(name for name, flag in zip(ATTRIBUTES, flags, strict=True) if flag)),
        origin=origin,
    )
