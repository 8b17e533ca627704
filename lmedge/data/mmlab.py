"""The five-point lists of the MMLAB cascade: ``path left right top bottom x1 y1 … x5 y5``, 15 fields a line.

Sun, Wang and Tang, "Deep Convolutional Network Cascade for Facial Point Detection", CVPR 2013. The box is in the unusual
order left, right, top, bottom; paths have backslashes and lines end in CRLF.
"""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import numpy as np

from lmedge.data.fields import data_folder, labelled_box, labelled_image, numbers, read_lines
from lmedge.data.samples import FaceSample, photo_key_of
from lmedge.errors import DataError
from lmedge.landmarks import FaceBox
from lmedge.schemas import MMLAB_5

LISTS = {"trainImageList.txt": "train", "testImageList.txt": "test"}
BOX_KIND = "mmlab5"

_FIELDS = 15
# Boxes are square up to rounding and hold all five points up to a fifth of their side. A box in another order is not.
_POINT_MARGIN = 0.2
_WHAT = "a folder with trainImageList.txt or testImageList.txt and the images, or one of these lists"


def read_mmlab5(path: str | Path) -> list[FaceSample]:
    """The faces of the training list and, where it is there, the test list; a path to one list reads only that one.

    Tags are "train" or "test" and the first part of the image's folder ("lfw", "net").

    Raises:
        DataError: a folder, list or image is missing, a line is malformed (with file, line and field), or the points do
            not lie in their box, as in lists whose boxes are in the order left, top, right, bottom.
    """
    faces: list[FaceSample] = []
    for listing in _find(path):
        for line_number, line in enumerate(read_lines(listing), 1):
            if line.strip():
                faces.append(_read_face(line, f"{listing}:{line_number}", listing))
    return faces


def files_mmlab5(path: str | Path) -> list[Path]:
    """The lists and images that `read_mmlab5` uses, sorted."""
    lists = _find(path)
    images = {_image_path(listing, line.split()[0]) for listing in lists for line in read_lines(listing) if line.strip()}
    return sorted([*lists, *images])


def _find(path: str | Path) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    root = data_folder(place, _WHAT)
    lists = [root / name for name in LISTS if (root / name).is_file()]
    if not lists:
        raise DataError(f"{root}: no {' or '.join(LISTS)}; expected {_WHAT}.")
    return lists


def _image_path(listing: Path, name: str) -> Path:
    return listing.parent.joinpath(*PureWindowsPath(name).parts)


def _read_face(line: str, origin: str, listing: Path) -> FaceSample:
    fields = line.split()
    if len(fields) != _FIELDS:
        raise DataError(f"{origin}: expected {_FIELDS} fields (path, left right top bottom, 5 points), got {len(fields)}.")
    image = labelled_image(_image_path(listing, fields[0]), f"{origin}, field 1")
    left, right, top, bottom, *coordinates = numbers(fields[1:], origin, first_field=2)
    points_px = np.array(coordinates, np.float32).reshape(-1, 2)
    if left >= right or top >= bottom or not _holds(FaceBox(left, top, right, bottom), points_px):
        raise DataError(
            f"{origin}: the points do not lie in the box left {left:g}, right {right:g}, top {top:g}, bottom {bottom:g}. "
            "Fields 2 to 5 must be in this order; a list in the order left, top, right, bottom has to be rewritten."
        )
    return FaceSample(
        image=image,
        points_px=points_px,
        schema=MMLAB_5,
        photo_key=photo_key_of(image.stem),
        boxes={BOX_KIND: labelled_box((left, top, right, bottom), BOX_KIND, origin)},
        subset=(LISTS.get(listing.name, "train"), image.parent.name.split("_")[0].lower()),
        origin=origin,
    )


def _holds(box: FaceBox, points_px: np.ndarray) -> bool:
    margin = _POINT_MARGIN * max(box.width, box.height)
    low, high = box.xyxy[:2] - margin, box.xyxy[2:] + margin
    return bool(((points_px >= low) & (points_px <= high)).all())
