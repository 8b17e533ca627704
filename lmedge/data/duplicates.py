"""Near-duplicate photos get one photo key, so that no photo is on both sides of the split.

Published sets hold the same photo several times: re-encoded, rescaled, recoloured or cut differently, under other names
and with other labels (LFPW has one press photo eight times). File hashes miss them; hashes of whole photos miss the cuts.
So the region around each face is compared:

1. patch: the face at 64 × 64 px gray, from a reduced decode, band-passed so that light and contrast do not count;
2. candidates: pairs whose patches correlate at 16 × 16 px, by exact integer arithmetic in one matrix product;
3. check: the middle of one patch is found in the other at some shift with a high correlation;
4. keys: photos linked through any number of such pairs share the smallest of their keys.

The limits were set by looking at the pairs next to them in 300-W, WFLW and the MMLAB lists: copies lie above 0.84, other
faces below, with a few look-alikes up to 0.85. A look-alike that is merged only moves to its neighbour's side of the split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample
from lmedge.errors import DataError
from lmedge.preprocess import square_transform

CANDIDATE_CORRELATION = 0.7
SAME_PHOTO_CORRELATION = 0.82

_PATCH_PX = 64
# Labels of copies differ by a few percent of a face; the check searches this many pixels of the patch to each side.
_SEARCH_PX = 8
_SIGNATURE_PX = 16
# Faces are decoded at the largest reduction that keeps them this long.
_MIN_FACE_PX = 48
# Side of the patch over the extent of the points: points that include the outline of the face, and points inside it.
_OUTLINE_SIDE, _INNER_SIDE = 1.5, 3.0
# Standard deviations of the two Gaussians whose difference is the band-pass, in pixels of the patch.
_CHECK_BAND, _SIGNATURE_BAND = (1.0, 4.0), (2.0, 6.0)
# Unit vectors are rounded to integers of this scale: products of 256 of them stay exact in float32.
_SIGNATURE_SCALE = 512
_BLOCK_ROWS = 1024

_REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

Patches = npt.NDArray[np.float32]


def share_keys_of_duplicates(samples: Sequence[FaceSample]) -> list[FaceSample]:
    """The same faces in the same order; near-duplicate photos have the smallest of their photo keys.

    Rendered faces keep their keys.

    Raises:
        DataError: an image is missing or cannot be decoded.
    """
    shared = {key: group[0] for group in duplicate_groups(samples) for key in group[1:]}
    return [replace(sample, photo_key=shared[sample.photo_key]) if sample.photo_key in shared else sample for sample in samples]


def duplicate_groups(samples: Sequence[FaceSample]) -> list[tuple[str, ...]]:
    """Photo keys that belong to near-duplicate photos, each group sorted, groups sorted by their first key.

    Raises:
        DataError: an image is missing or cannot be decoded.
    """
    return groups_of_pairs(samples, duplicate_pairs(samples))


def groups_of_pairs(samples: Sequence[FaceSample], pairs: Iterable[tuple[int, int]]) -> list[tuple[str, ...]]:
    """The groups of photo keys that pairs of faces link, as `duplicate_groups` lists them."""
    links = _Links()
    for first, second in pairs:
        keys = samples[first].photo_key, samples[second].photo_key
        if not links.joined(*keys):
            links.join(*keys)
    return links.groups()


def duplicate_pairs(samples: Sequence[FaceSample]) -> list[tuple[int, int]]:
    """Every two faces, as indices in order, that are one face in copies of one photo.

    Rendered faces are in no pair: they have no copies.

    Raises:
        DataError: an image is missing or cannot be decoded.
    """
    indices = [index for index, sample in enumerate(samples) if not sample.rendered]
    patches = _patches([samples[index] for index in indices])
    return [
        (indices[first], indices[second])
        for first, second in _candidates(patches)
        if _same_photo(patches[first], patches[second])
    ]


class _Links:
    """Keys joined in pairs; the representative of a group is its smallest key. (A union-find structure: it changes.)"""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def joined(self, first: str, second: str) -> bool:
        return self._root(first) == self._root(second)

    def join(self, first: str, second: str) -> None:
        low, high = sorted((self._root(first), self._root(second)))
        self._parent[low] = low
        self._parent[high] = low

    def groups(self) -> list[tuple[str, ...]]:
        members: dict[str, list[str]] = defaultdict(list)
        for key in self._parent:
            members[self._root(key)].append(key)
        return sorted(tuple(sorted(keys)) for keys in members.values())

    def _root(self, key: str) -> str:
        while (parent := self._parent.get(key, key)) != key:
            key = parent
        return key


def _patches(photos: Sequence[FaceSample]) -> Patches:
    """Gray patches around the faces, float32 (N, 64, 64); a photo is decoded once per reduction."""
    readings: dict[tuple[Path, int], list[int]] = defaultdict(list)
    patches = np.zeros((len(photos), _PATCH_PX, _PATCH_PX), np.float32)
    for index, face in enumerate(photos):
        if isinstance(face.image, Path):
            readings[face.image, _reduction(face)].append(index)
        else:
            patches[index] = _patch(np.asarray(cv2.cvtColor(face.image, cv2.COLOR_BGR2GRAY), np.uint8), face, 1)
    for (path, reduction), indices in readings.items():
        image_gray = _read_reduced(path, reduction)
        for index in indices:
            patches[index] = _patch(image_gray, photos[index], reduction)
    return patches


def _reduction(face: FaceSample) -> int:
    box = face.box()
    extent = max(box.width, box.height)
    return max(reduction for reduction in _REDUCED if reduction == 1 or extent / reduction >= _MIN_FACE_PX)


def _read_reduced(path: Path, reduction: int) -> npt.NDArray[np.uint8]:
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"Cannot read the image {path}: {error.strerror or error}.") from error
    image = cv2.imdecode(raw, _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION) if raw.size else None
    if image is None:
        raise DataError(f"{path} is not an image that OpenCV can decode ({raw.size} bytes). Replace or remove the file.")
    return np.asarray(image, np.uint8)


def _patch(image_gray: npt.NDArray[np.uint8], face: FaceSample, reduction: int) -> Patches:
    box = face.box()
    side = (_OUTLINE_SIDE if "contour" in face.schema.groups else _INNER_SIDE) * max(box.width, box.height)
    center = ((box.center[0] + 0.5) / reduction - 0.5, (box.center[1] + 0.5) / reduction - 0.5)
    transform = square_transform(center, side / reduction, _PATCH_PX)
    # Repeated edges, not black ones: copies are often cut differently.
    patch = cv2.warpAffine(image_gray, transform.matrix, (_PATCH_PX, _PATCH_PX), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(patch, np.float32)


def _band(patch: Patches, sigmas: tuple[float, float]) -> Patches:
    fine, coarse = (cv2.GaussianBlur(patch, (0, 0), sigma) for sigma in sigmas)
    return np.asarray(fine - coarse, np.float32)


def _candidates(patches: Patches) -> Iterator[tuple[int, int]]:
    """Pairs of faces with similar signatures, in order."""
    signatures = np.array([_signature(patch) for patch in patches], np.float32).reshape(-1, _SIGNATURE_PX**2)
    limit = CANDIDATE_CORRELATION * _SIGNATURE_SCALE**2
    for start in range(0, len(patches), _BLOCK_ROWS):
        rows = signatures[start : start + _BLOCK_ROWS]
        above = np.argwhere(rows @ signatures[start:].T >= limit)
        yield from ((start + int(row), start + int(column)) for row, column in above if row < column)


def _signature(patch: Patches) -> Patches:
    """256 whole numbers; the product of two signatures is their correlation in units of the scale squared."""
    small = cv2.resize(_band(patch, _SIGNATURE_BAND), (_SIGNATURE_PX, _SIGNATURE_PX), interpolation=cv2.INTER_AREA)
    centered = small.ravel() - small.mean()
    # A flat patch resembles nothing: its norm is below one gray level.
    unit = centered / max(float(np.linalg.norm(centered)), 1.0)
    return np.asarray(np.clip(np.rint(unit * _SIGNATURE_SCALE), -127, 127), np.float32)


def _same_photo(first: Patches, second: Patches) -> bool:
    """Whether the middle of either patch is found in the other one."""
    one, other = _band(first, _CHECK_BAND), _band(second, _CHECK_BAND)
    middle = slice(_SEARCH_PX, _PATCH_PX - _SEARCH_PX)
    correlations = [
        cv2.matchTemplate(a, b[middle, middle], cv2.TM_CCOEFF_NORMED).max() for a, b in ((one, other), (other, one))
    ]
    return float(max(correlations)) >= SAME_PHOTO_CORRELATION
