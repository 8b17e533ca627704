"""Which crops the ranges of a quantiser are measured on: training faces of every kind, framed as a detector would.

    training faces ─ kinds by their labels ─▶ a pool ─ one look at each picture ─▶ kinds by brightness too ─ allot ─▶ crops

The choice depends on the seed and on what the faces are, not on the order they are given in: faces are drawn by lots, hashes of
the seed, the photo and the labels.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from types import TracebackType

import numpy as np
import numpy.typing as npt

from lmedge.calibration.checks import TOLERATED, check_calibration, check_not_held_out
from lmedge.calibration.coverage import allot, report_coverage
from lmedge.calibration.crop_store import CropStore
from lmedge.calibration.strata import Stratum, brightness_bin, label_strata
from lmedge.data.samples import FaceSample, check_labels, is_validation
from lmedge.errors import CalibrationError
from lmedge.export.pack import photo_digest
from lmedge.preprocess import CropTransform, PreprocessSpec, check_box_in_image, check_image, square_transform, warp
from lmedge.reports import CalibrationRecord, CoverageReport

# Pictures that are looked at for their brightness: so many per crop that is asked for, and no fewer than the second number.
_LOOKS_PER_CROP, _LEAST_LOOKS = 2, 2000


@dataclass(frozen=True)
class JitterSpec:
    """How far a detector's box may lie from the reference box; each is drawn uniformly, by face.

    Attributes:
        scale: the side is multiplied by a factor between 1 / (1 + scale) and 1 + scale.
        shift: ± of the side, each axis.
        views: crops that one face may give when there are fewer faces than crops; without jitter it gives one.
    """

    scale: float = 0.10
    shift: float = 0.05
    views: int = 4

    def __post_init__(self) -> None:
        if not (0 <= self.scale <= 0.5 and 0 <= self.shift <= 0.5 and self.views >= 1):
            raise CalibrationError(
                f"Jitter takes a scale and a shift from 0 to 0.5 and at least 1 view of a face; got scale {self.scale}, "
                f"shift {self.shift}, views {self.views}. A detector's boxes lie about 0.1 and 0.05 off."
            )

    @property
    def most_views(self) -> int:
        return self.views if self.scale or self.shift else 1


JITTER = JitterSpec()


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """What a quantiser is calibrated on; the file behind the crops goes with `close`.

    Attributes:
        crops: N crops uint8 (H, W, 3) BGR, in an order that mixes all kinds.
        fractions: float32 (N, K, 2), the labels as fractions of the crop, NaN where unknown.
        coverage: which kinds of faces they show, of those there were.
        photo_digests: of the photos they were cut from, sorted (see `export.pack.photo_digest`).
        jitter: how the boxes were moved.
        checks: names of the checks that the crops passed.
    """

    crops: CropStore
    fractions: npt.NDArray[np.float32]
    coverage: CoverageReport
    photo_digests: tuple[str, ...]
    jitter: JitterSpec
    checks: tuple[str, ...]

    def complete(self, record: CalibrationRecord) -> CalibrationRecord:
        """A record of what was calibrated on these crops, with what is known of them."""
        return replace(
            record,
            photo_digests=self.photo_digests,
            jitter=asdict(self.jitter),
            coverage=self.coverage,
            checks=self.checks,
        )

    def close(self) -> None:
        self.crops.close()

    def __enter__(self) -> CalibrationImages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class _Face:
    """A training face, its lot, the name of the picture it is on, and its kind."""

    sample: FaceSample
    lot: str
    picture: str
    kind: Stratum

    def transform(self, view: int, spec: PreprocessSpec, jitter: JitterSpec) -> CropTransform:
        """The map from the picture to a view of the face; the first views are the same however many there are."""
        zoom, *shift = np.random.default_rng([int(self.lot, 16), view]).uniform(-1, 1, 3).tolist()
        box = self.sample.box()
        side = max(box.width, box.height)
        x, y = (middle + jitter.shift * side * part for middle, part in zip(box.center, shift, strict=True))
        return square_transform((x, y), spec.crop_scale * side * (1 + jitter.scale) ** zoom, spec.input_hw[0])


def calibration_images(
    samples: Sequence[FaceSample], spec: PreprocessSpec, *, count: int, seed: int, jitter: JitterSpec = JITTER
) -> CalibrationImages:
    """At most `count` crops of training faces of one schema, of all the kinds there are.

    Validation faces are left out: a quantiser must not be fitted on what it is later judged by. Every face gives one crop
    before any gives a second, and none gives more than `jitter.views`. No picture is read twice.

    Args:
        seed: another seed, other faces and other boxes.

    Raises:
        CalibrationError: `count` below 1, no training faces, faces of several schemas, no room on the disk, or crops that
            cannot calibrate anything (see `lmedge.calibration.checks`).
        DataError: an image cannot be read, or a label lies far outside it.
        InputError: a face lies outside its image altogether.
    """
    if count < 1:
        raise CalibrationError(f"Calibration needs at least 1 crop; count is {count}.")
    faces = _training_faces(samples, seed)
    views = min(jitter.most_views, math.ceil(count / len(faces)))
    pool = [face for face, _ in _choose(faces, max(_LOOKS_PER_CROP * count, _LEAST_LOOKS), views=1)]
    with CropStore(spec.input_hw, expected=len(pool) * views) as cuts:
        pool = _cut(pool, views, spec, jitter, cuts)
        chosen = _choose(pool, count, views)
        place = {face.lot: number * views for number, face in enumerate(pool)}
        crops = CropStore(spec.input_hw, expected=len(chosen))
        for face, view in chosen:
            crops.append(cuts[place[face.lot] + view])
    keys = {face.sample.photo_key for face, _ in chosen}
    check_not_held_out(keys)
    return CalibrationImages(
        crops=crops,
        fractions=np.array([f.transform(v, spec, jitter).to_fractions(f.sample.points_px) for f, v in chosen], np.float32),
        coverage=report_coverage(len(faces), [face.kind for face in pool], [face.kind for face, _ in chosen]),
        photo_digests=tuple(sorted(map(photo_digest, keys))),
        jitter=jitter,
        checks=check_calibration(crops),
    )


def _training_faces(samples: Sequence[FaceSample], seed: int) -> list[_Face]:
    """The training faces in the order of their lots, each once, with the kinds that their labels tell."""
    training = [sample for sample in samples if not is_validation(sample.photo_key)]
    if not training:
        raise CalibrationError(
            f"empty: none of the {len(samples)} faces is in the training split, so there is nothing to calibrate on. "
            "About nine photos in ten are: give more photos."
        )
    if len(schemas := sorted({sample.schema.name for sample in training})) > 1:
        raise CalibrationError(f"Calibration takes faces of one schema; got {', '.join(schemas)}.")
    faces = [
        _Face(sample, _lot(sample, seed), _picture(sample), kind)
        for sample, kind in zip(training, label_strata(training), strict=True)
    ]
    # The same labels of the same photo, in two lists or copied under two names, are one face.
    by_lot = {face.lot: face for face in sorted(faces, key=lambda face: face.picture, reverse=True)}
    if (copies := len(faces) - len(by_lot)) > TOLERATED * len(faces):
        raise CalibrationError(
            f"repeated: {copies} of {len(faces)} training faces are copies of another, photo and labels alike; at most "
            f"{TOLERATED:.0%} may be. Give each face once."
        )
    return [by_lot[lot] for lot in sorted(by_lot)]


def _lot(sample: FaceSample, seed: int) -> str:
    """Draws lots: the same faces win in whatever order they stand. The points tell the faces of one photo apart."""
    name = f"{seed}:{sample.photo_key}:".encode()
    return hashlib.sha256(name + sample.points_px.tobytes()).hexdigest()


def _picture(sample: FaceSample) -> str:
    if isinstance(sample.image, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(sample.image).tobytes()).hexdigest()
    return str(sample.image)


def _choose(faces: Sequence[_Face], count: int, views: int) -> list[tuple[_Face, int]]:
    """At most `count` views of faces, allotted to their kinds; by lots, so that all kinds are mixed, and first views first."""
    allotted = allot(Counter(face.kind for face in faces), count, views)
    queues: dict[Stratum, list[_Face]] = defaultdict(list)
    for face in sorted(faces, key=lambda face: face.lot):
        queues[face.kind].append(face)
    chosen = [
        (queues[kind][number % len(queues[kind])], number // len(queues[kind]))
        for kind, quota in allotted.items()
        for number in range(quota)
    ]
    return sorted(chosen, key=lambda pair: (pair[1], pair[0].lot))


def _cut(faces: Sequence[_Face], views: int, spec: PreprocessSpec, jitter: JitterSpec, cuts: CropStore) -> list[_Face]:
    """Writes all views of each face, one face after the other, and returns the faces in that order, their brightness known."""
    known: list[_Face] = []
    for _, group in groupby(sorted(faces, key=lambda face: (face.picture, face.lot)), key=lambda face: face.picture):
        on_picture = list(group)
        image = check_image(on_picture[0].sample.read_image())
        image_hw = (image.shape[0], image.shape[1])
        for face in on_picture:
            sample = face.sample
            check_labels(sample.points_px, image_hw, sample.origin or sample.photo_key)
            check_box_in_image(sample.box(), image_hw)
            crops = [warp(image, face.transform(view, spec, jitter), spec.border_value) for view in range(views)]
            for crop in crops:
                cuts.append(crop)
            known.append(replace(face, kind=face.kind._replace(brightness=brightness_bin(crops[0]))))
    return known
