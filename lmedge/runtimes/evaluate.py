"""The error of a bundle on labelled faces, on whatever engine runs it.

Where the boxes come from is part of the figure: the data set's own ("annotated", else the extent of the labels), the extent
of the labels ("landmarks"), or a face detector ("detector"), whose misses count as failures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample, check_labels, split_samples
from lmedge.errors import DataError, InputError, SchemaError
from lmedge.landmarks import FaceBox
from lmedge.metrics import auc, bootstrap_interval, failure_rate, nme
from lmedge.preprocess import REFERENCE, reference_box
from lmedge.reports import EvaluationReport
from lmedge.runtimes.detector import YUNET, Detector
from lmedge.runtimes.landmarker import FaceLandmarker, face_boxes
from lmedge.schemas import LandmarkSchema, mapping_matrix

BOXES = ("annotated", "landmarks", "detector")
SPLITS = ("validation", "train", "all")

# Below this overlap a detection is of something else; a detection that fits its face reaches 0.6 and more.
_MIN_IOU = 0.3

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class FaceResult:
    """One evaluated face.

    Attributes:
        sample: the labelled face.
        points_px: float32 (K, 2), predicted and converted to the sample's schema; None where the detector missed the face.
        nme: fraction of the normaliser; infinite for a missed face, NaN where the labels have no normaliser.
        box: what the crop was made from, or None.
    """

    sample: FaceSample
    points_px: npt.NDArray[np.float32] | None
    nme: float
    box: FaceBox | None


def evaluate(
    landmarker: FaceLandmarker,
    samples: Sequence[FaceSample],
    *,
    boxes: str = "annotated",
    detector: Detector | None = None,
    detector_kind: str = YUNET,
    split: str = "validation",
    trained_keys: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> tuple[EvaluationReport, list[FaceResult]]:
    """Runs a bundle on labelled faces.

    Args:
        samples: faces of one schema: the bundle's, or one that a published mapping leads to.
        boxes: "annotated", "landmarks" or "detector".
        detector: image → boxes (M, 5) with the score last, for boxes="detector"; see `yunet_detector`.
        detector_kind: which kind of box the detector draws.
        split: "validation", "train" or "all" of the samples.
        trained_keys: photo keys the bundle was trained on, to count faces that are no test.
        progress: called with (faces done, faces in all).

    Returns:
        The report, and one result for each face in the order of the samples.

    Raises:
        DataError: no face in this split, or none with an error to report; an unreadable image; labels far outside.
        SchemaError: faces of several schemas, or of one that no published mapping leads to.
        InputError: an unknown choice, or boxes of a kind the bundle has no fit for.
    """
    _check_choices(boxes, detector, split)
    chosen = _in_split(samples, split)
    schema = _one_schema(chosen)
    matrix = mapping_matrix(landmarker.schema, schema)
    mapped = schema != landmarker.schema
    given = [] if detector else [face.annotated_box() if boxes == "annotated" else face.box() for face in chosen]
    if mapped and any(box.kind == REFERENCE for box in given):
        _check_extent_means_the_same(landmarker.schema, schema)

    results: dict[int, FaceResult] = {}
    outside = 0
    for indices in _by_photo(chosen):
        image_bgr = chosen[indices[0]].read_image()
        faces = [chosen[index] for index in indices]
        outside += sum(check_labels(face.points_px, image_bgr.shape[:2], face.origin or face.photo_key) for face in faces)
        found: list[FaceBox | None]
        found = _detect(image_bgr, faces, detector, detector_kind, landmarker) if detector else [given[i] for i in indices]
        for index, face, box in zip(indices, faces, found, strict=True):
            results[index] = _evaluate_face(landmarker, image_bgr, face, box, matrix)
        if progress is not None:
            progress(len(results), len(chosen))

    records = [results[index] for index in range(len(chosen))]
    kinds = sorted({record.box.kind for record in records if record.box is not None})
    report = _summarise(
        records,
        schema,
        boxes=f"{boxes} ({', '.join(kinds)})" if kinds else boxes,
        split=split,
        backend=landmarker.runtime.name,
        precision=landmarker.runtime.artifact.precision,
        mapping=f"{landmarker.schema.name} → {schema.name}" if mapped else "",
        outside=outside,
        trained_on=sum(face.photo_key in trained_keys for face in chosen),
    )
    return report, records


def _check_choices(boxes: str, detector: Detector | None, split: str) -> None:
    if boxes not in BOXES or split not in SPLITS:
        raise InputError(
            f"boxes is one of {', '.join(BOXES)} and split one of {', '.join(SPLITS)}; got {boxes!r} and {split!r}."
        )
    if (boxes == "detector") != (detector is not None):
        raise InputError(
            "boxes='detector' and a detector go together. Give a YuNet file: --boxes detector --detector MODEL.onnx"
        )


def _in_split(samples: Sequence[FaceSample], split: str) -> list[FaceSample]:
    if split == "all":
        chosen = list(samples)
    else:
        train, validation = split_samples(samples)
        chosen = train if split == "train" else validation
    if not chosen:
        raise DataError(f"None of the {len(samples)} faces is in the split {split!r}. Use all of them: --split all")
    return chosen


def _one_schema(samples: Sequence[FaceSample]) -> LandmarkSchema:
    names = sorted({sample.schema.name for sample in samples})
    if len(names) != 1:
        raise SchemaError(f"Faces of one schema can be evaluated together; got {', '.join(names)}. Evaluate them one by one.")
    return samples[0].schema


def _check_extent_means_the_same(network: LandmarkSchema, labels: LandmarkSchema) -> None:
    """Boxes from labels frame a face as the network knows it only if both sets reach from brows to chin."""
    if not ({"contour", "brows"} <= set(network.groups) and {"contour", "brows"} <= set(labels.groups)):
        raise InputError(
            f"The extent of {labels.name} points is not the box that a network for {network.name} was trained with. "
            "Use a detector: --boxes detector --detector MODEL.onnx"
        )


def _by_photo(samples: Sequence[FaceSample]) -> list[list[int]]:
    """Indices of the faces of each photo, so that it is decoded and searched once."""
    photos: dict[object, list[int]] = {}
    for index, sample in enumerate(samples):
        key = id(sample.image) if isinstance(sample.image, np.ndarray) else sample.image
        photos.setdefault(key, []).append(index)
    return list(photos.values())


def _detect(
    image_bgr: npt.NDArray[np.uint8], faces: list[FaceSample], detector: Detector, kind: str, landmarker: FaceLandmarker
) -> list[FaceBox | None]:
    """For each face, of the detections that overlap it more than any other face, the one that overlaps it most."""
    candidates = face_boxes(np.asarray(detector(image_bgr), np.float64)[:, :4], kind)
    best: list[tuple[float, FaceBox | None]] = [(_MIN_IOU, None)] * len(faces)
    for candidate in candidates:
        reference = reference_box(candidate, landmarker.spec)
        overlaps = [iou(reference, face.box()) for face in faces]
        owner = int(np.argmax(overlaps))
        if overlaps[owner] > best[owner][0]:
            best[owner] = (overlaps[owner], candidate)
    return [box for _, box in best]


def iou(first: FaceBox, second: FaceBox) -> float:
    """Intersection over union of two boxes."""
    width = min(first.x_max, second.x_max) - max(first.x_min, second.x_min)
    height = min(first.y_max, second.y_max) - max(first.y_min, second.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first.width * first.height + second.width * second.height - shared)


def _evaluate_face(
    landmarker: FaceLandmarker,
    image_bgr: npt.NDArray[np.uint8],
    face: FaceSample,
    box: FaceBox | None,
    matrix: npt.NDArray[np.float64],
) -> FaceResult:
    if box is None:
        scorable = np.isfinite(nme(face.points_px[None], face.points_px[None], face.schema)[0])
        return FaceResult(face, None, float("inf") if scorable else float("nan"), None)
    try:
        predicted = landmarker.predict(image_bgr, [box])[0]
    except InputError as error:
        raise InputError(f"{face.origin or face.photo_key}: {error}") from error
    points_px = (matrix @ predicted.points_px).astype(np.float32)
    return FaceResult(face, points_px, float(nme(points_px[None], face.points_px[None], face.schema)[0]), box)


def _summarise(
    records: list[FaceResult], schema: LandmarkSchema, *, boxes: str, split: str, backend: str, precision: str,
    mapping: str, outside: int, trained_on: int,
) -> EvaluationReport:  # fmt: skip
    per_face = np.array([record.nme for record in records])
    scored = [record for record in records if np.isfinite(record.nme)]
    if not scored:
        raise DataError(
            f"None of the {len(records)} faces has an error to report: each was missed or lacks its normalising points."
        )
    predicted = np.stack([record.points_px for record in scored if record.points_px is not None])
    true = np.stack([record.sample.points_px for record in scored])
    tags = sorted({tag for record in scored for tag in record.sample.subset})
    return EvaluationReport(
        nme=float(np.mean([record.nme for record in scored])),
        nme_interval=bootstrap_interval(np.array([record.nme for record in scored])),
        auc10=auc(per_face, 0.10),
        auc08=auc(per_face, 0.08),
        fr10=failure_rate(per_face, 0.10),
        fr08=failure_rate(per_face, 0.08),
        count=len(records),
        missed=int(np.isinf(per_face).sum()),
        excluded=int(np.isnan(per_face).sum()),
        groups=_group_errors(predicted, true, schema),
        subsets={tag: _subset(scored, tag) for tag in tags},
        normalizer=schema.normalizer_name,
        boxes=boxes,
        split=split,
        backend=backend,
        precision=precision,
        schema=schema.name,
        mapping=mapping,
        outside=outside,
        trained_on=trained_on,
    )


def _subset(scored: list[FaceResult], tag: str) -> dict[str, float]:
    values = [record.nme for record in scored if tag in record.sample.subset]
    return {"nme": float(np.mean(values)), "count": len(values)}


def _group_errors(
    predicted_px: npt.NDArray[np.float32], true_px: npt.NDArray[np.float32], schema: LandmarkSchema
) -> dict[str, float]:
    """NME per region, over faces that have a labelled point in it; regions that no face has are left out."""
    errors = {name: nme(predicted_px, true_px, schema, indices) for name, indices in schema.groups.items()}
    return {name: float(np.nanmean(values)) for name, values in errors.items() if np.isfinite(values).any()}
