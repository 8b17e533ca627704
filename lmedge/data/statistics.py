"""What a set of labelled faces is like, and which labels deserve a look: the numbers of `lmedge data stats`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.data.duplicates import duplicate_pairs, groups_of_pairs
from lmedge.data.relabelled import Relabelled, relabelled_pairs
from lmedge.data.samples import FaceSample, check_labels, is_validation
from lmedge.data.shapes import point_deviations
from lmedge.data.spreads import Histogram, Spread
from lmedge.errors import DataError, SchemaError
from lmedge.landmarks import FaceBox
from lmedge.pose import head_poses
from lmedge.preprocess import REFERENCE, BoxFit, fit_boxes
from lmedge.schemas import LandmarkSchema

# How many faces the list of suspicious labels holds.
SUSPICIOUS_COUNT = 24
ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")
# Edges of the bins of head angles; angles beyond them count in the outermost bins.
ANGLE_EDGES_DEG = tuple(range(-90, 91, 15))

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspicion:
    """A face whose labels are unusual.

    Attributes:
        deviation: root of the mean squared distance from the nearest usual shape, in parts of a face's longer side.
        reason: the region that is farthest off, by how much, and its worst point.
        index: which of the faces it is.
    """

    photo_key: str
    origin: str
    deviation: float
    reason: str
    index: int


@dataclass(frozen=True)
class DataStatistics:
    """What a set of labelled faces is like.

    Attributes:
        schema: name of the point set; count: faces; photos: photo keys, where near-duplicates share one.
        training, validation: faces on each side of the split.
        subsets: tag → faces; a face has any number of tags.
        box_side_px: kind of box → spread of the longer side.
        box_fits: kind of box → how it maps to the reference box (see `preprocess.fit_boxes`).
        face_px: histogram of the longer side of the reference box.
        normalizer_px: spread of the distance that divides errors; normalizer: its name.
        pose: yaw, pitch and roll in degrees as histograms, estimated from the points (see `pose.weak_perspective`); empty for
            point sets whose places on a head are not known.
        unknown_points, unknown_faces: labels that are missing, and the faces that miss some; unknown_by_point: name of a
            point → faces without it.
        outside_points, outside_faces: labels outside their image, and the faces they belong to.
        duplicates: groups of photo keys of near-duplicate photos.
        relabelled: of each group of copies the two labellings that differ most, the most different first.
        refused: a message per face whose image cannot be read or whose labels lie too far outside it.
        suspicious: the faces with the most unusual shapes, worst first.
    """

    schema: str
    count: int
    photos: int
    training: int
    validation: int
    subsets: Mapping[str, int]
    box_side_px: Mapping[str, Spread | None]
    box_fits: Mapping[str, BoxFit]
    face_px: Histogram
    normalizer: str
    normalizer_px: Spread | None
    pose: Mapping[str, Histogram]
    unknown_points: int
    unknown_faces: int
    unknown_by_point: Mapping[str, int]
    outside_points: int
    outside_faces: int
    duplicates: tuple[tuple[str, ...], ...]
    relabelled: tuple[Relabelled, ...]
    refused: tuple[str, ...]
    suspicious: tuple[Suspicion, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def data_statistics(samples: Sequence[FaceSample]) -> DataStatistics:
    """Statistics of faces of one schema; every image is decoded once, near-duplicates are looked for.

    Raises:
        DataError: no faces.
        SchemaError: faces of several schemas.
    """
    points_px = _stacked_points(samples)
    schema = samples[0].schema
    outside, refused = _check_images(samples)
    readable = [index for index in range(len(samples)) if index not in refused]
    pairs = [(readable[a], readable[b]) for a, b in duplicate_pairs([samples[index] for index in readable])]
    groups = groups_of_pairs(samples, pairs)
    shared = {key: group[0] for group in groups for key in group}
    keys = [shared.get(sample.photo_key, sample.photo_key) for sample in samples]
    validation = sum(map(is_validation, keys))
    unknown = np.asarray(~np.isfinite(points_px).all(axis=2))
    missing = unknown.sum(axis=0)
    return DataStatistics(
        schema=schema.name,
        count=len(samples),
        photos=len(set(keys)),
        training=len(samples) - validation,
        validation=validation,
        subsets=dict(sorted(Counter(tag for sample in samples for tag in sample.subset).items())),
        box_side_px=_box_sides(samples),
        box_fits=_box_fits(samples),
        face_px=Histogram.of(_extents(points_px)),
        normalizer=schema.normalizer_name,
        normalizer_px=Spread.of(schema.normalizer_px(points_px)),
        pose=pose_histograms(samples),
        unknown_points=int(unknown.sum()),
        unknown_faces=int(np.any(unknown, axis=1).sum()),
        unknown_by_point={schema.point_names[i]: int(missing[i]) for i in np.flatnonzero(missing)},
        outside_points=sum(outside),
        outside_faces=sum(count > 0 for count in outside),
        duplicates=tuple(groups),
        relabelled=tuple(relabelled_pairs(samples, pairs)),
        refused=tuple(refused.values()),
        suspicious=tuple(suspicious_labels(samples)[:SUSPICIOUS_COUNT]),
    )


def suspicious_labels(samples: Sequence[FaceSample]) -> list[Suspicion]:
    """All faces, the most unusual first: those whose points are farthest from what the other faces show is a usual shape.

    Misplaced points come first, and so do dolls, grimaces and extreme views: the ranking says where to look, not what is wrong.

    Raises:
        DataError: no faces.
        SchemaError: faces of several schemas.
    """
    distances = point_deviations(_stacked_points(samples))
    schema = samples[0].schema
    deviations = np.sqrt(np.nanmean(distances**2, axis=1))
    order = np.argsort(-deviations, kind="stable").tolist()
    return [
        Suspicion(samples[i].photo_key, samples[i].origin, round(float(deviations[i]), 4), _reason(distances[i], schema), i)
        for i in order
    ]


def pose_histograms(samples: Sequence[FaceSample]) -> dict[str, Histogram]:
    """Angle → histogram over faces of one schema; empty where nothing is known of its points on a head.

    Raises:
        DataError: no faces.
        SchemaError: faces of several schemas.
    """
    points_px = _stacked_points(samples)
    try:
        poses = head_poses(points_px, samples[0].schema)
    except SchemaError:
        return {}
    return {name: Histogram.of(poses[:, axis], ANGLE_EDGES_DEG) for axis, name in enumerate(ANGLES)}


def size_histogram(samples: Sequence[FaceSample]) -> Histogram:
    """The longer sides of the reference boxes, in pixels of the photos.

    Raises:
        DataError: no faces.
        SchemaError: faces of several schemas.
    """
    return Histogram.of(_extents(_stacked_points(samples)))


def _reason(distances: Floats, schema: LandmarkSchema) -> str:
    """The region whose known points are farthest off, in % of a face's longer side, and the worst of them."""
    regions = {name: list(indices) for name, indices in schema.groups.items() if np.isfinite(distances[list(indices)]).any()}
    if not regions:
        return f"{schema.point_names[int(np.nanargmax(distances))]} is off"
    worst = max(regions, key=lambda name: float(np.nanmean(distances[regions[name]] ** 2)))
    inside = distances[regions[worst]]
    point = schema.point_names[regions[worst][int(np.nanargmax(inside))]]
    return f"{worst} off by {100 * float(np.sqrt(np.nanmean(inside**2))):.0f} %: {point}"


def _extents(points_px: Floats) -> Floats:
    """(N,) longer sides of the extents of points (N, K, 2)."""
    return np.asarray((np.nanmax(points_px, axis=1) - np.nanmin(points_px, axis=1)).max(axis=1))


def _stacked_points(samples: Sequence[FaceSample]) -> Floats:
    if not samples:
        raise DataError("Statistics need at least one labelled face; got none.")
    names = sorted({sample.schema.name for sample in samples})
    if len(names) > 1:
        raise SchemaError(f"Statistics are of faces of one schema; got {', '.join(names)}.")
    return np.array([sample.points_px for sample in samples], np.float64)


def _check_images(samples: Sequence[FaceSample]) -> tuple[list[int], dict[int, str]]:
    """Labels outside the image of each usable face, and index → message of the faces that cannot be used."""
    outside: list[int] = []
    refused: dict[int, str] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for index, sample in enumerate(samples):
        try:
            outside.append(check_labels(sample.points_px, _image_hw(sample, sizes), sample.origin or sample.photo_key))
        except DataError as error:
            refused[index] = str(error)
    return outside, refused


def _image_hw(sample: FaceSample, known: dict[Path, tuple[int, int]]) -> tuple[int, int]:
    """Height and width; a photo with several faces is decoded once."""
    if isinstance(sample.image, np.ndarray):
        return sample.image.shape[0], sample.image.shape[1]
    if sample.image not in known:
        image = sample.read_image()
        known[sample.image] = (image.shape[0], image.shape[1])
    return known[sample.image]


def _boxes_of(sample: FaceSample) -> dict[str, FaceBox]:
    return {REFERENCE: sample.box(), **sample.boxes}


def _box_sides(samples: Sequence[FaceSample]) -> dict[str, Spread | None]:
    sides: dict[str, list[float]] = {}
    for sample in samples:
        for kind, box in _boxes_of(sample).items():
            sides.setdefault(kind, []).append(max(box.width, box.height))
    return {kind: Spread.of(np.array(values)) for kind, values in sides.items()}


def _box_fits(samples: Sequence[FaceSample]) -> dict[str, BoxFit]:
    kinds = sorted({kind for sample in samples for kind in sample.boxes})
    faces = {kind: [sample for sample in samples if kind in sample.boxes] for kind in kinds}
    return {kind: fit_boxes([f.box(kind) for f in having], [f.box() for f in having]) for kind, having in faces.items()}
