"""The index of a run's faces: labels, boxes and the digest of every photo, in one JSON file that later stages read.

Photos stay where they are; paths are relative to the root of their source, so an index does not depend on where that is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lmedge.bundle import write_atomically
from lmedge.data.pack import open_pack
from lmedge.data.samples import FaceSample, is_validation
from lmedge.data.sources import KINDS, Source, read_sources, synthetic_count
from lmedge.errors import DataError
from lmedge.landmarks import FaceBox
from lmedge.progress import Progress
from lmedge.schemas import LandmarkSchema

INDEX = "faces.json"
PICTURES = "pictures"
SYNTHETIC = "synthetic"
PACK = "pack"
# A detection that overlaps a face by this much, as intersection over union, is of that face.
_LEAST_OVERLAP = 0.3


@dataclass(frozen=True)
class SourceFaces:
    """One source and its faces."""

    source: Source
    samples: Sequence[FaceSample]


@dataclass(frozen=True)
class FaceIndex:
    """The faces of a run, with the split that the build uses.

    Rendered faces never enter validation when there are photos: `kinds[i]` is the kind of source of `samples[i]`. `schema` is
    the point set that is exported. Faces of other point sets only help to train: see `others`.
    """

    schema: LandmarkSchema
    samples: Sequence[FaceSample]
    kinds: Sequence[str]

    @property
    def training(self) -> list[FaceSample]:
        return self._sides[0]

    @property
    def validation(self) -> list[FaceSample]:
        return self._sides[1]

    @property
    def others(self) -> list[FaceSample]:
        """Training faces of other point sets; those on the other side of the split are left out."""
        pairs = zip(self.samples, self.kinds, strict=True)
        return [s for s, k in pairs if s.schema != self.schema and (_is_rendered(s, k) or not is_validation(s.photo_key))]

    @cached_property
    def _sides(self) -> tuple[list[FaceSample], list[FaceSample]]:
        """Faces of the exported point set for training and for validation."""
        own = [pair for pair in zip(self.samples, self.kinds, strict=True) if pair[0].schema == self.schema]
        only_rendered = all(_is_rendered(*pair) for pair in own)
        training: list[FaceSample] = []
        validation: list[FaceSample] = []
        for sample, kind in own:
            validates = is_validation(sample.photo_key) and (only_rendered or not _is_rendered(sample, kind))
            (validation if validates else training).append(sample)
        return training, validation


def _is_rendered(sample: FaceSample, kind: str) -> bool:
    # A crop cache may hold rendered faces too.
    return kind == SYNTHETIC or sample.rendered


def read_source(source: Source, progress: Progress | None = None) -> list[FaceSample]:
    """The faces of one source. Rendering takes a while, so it tells how far it is."""
    if source.kind != SYNTHETIC:
        return read_sources([source])
    from lmedge.data.synthetic import render_faces

    count, faces = synthetic_count(source.path), []
    for face in render_faces(count, source.schema):
        faces.append(face)
        if progress:
            progress(len(faces), count, "rendering faces")
    return faces


def source_root(source: Source, folder: Path, place: int = 0) -> Path:
    """What the photo paths of a source are relative to: its folder, or where its pictures are no files, one of the stage's.
    `place` says which of several sources of its kind it is."""
    if source.kind == SYNTHETIC:
        return folder / PICTURES
    if KINDS[source.kind].holds_pixels:
        return folder / PICTURES / f"{source.kind}{place}"
    path = Path(source.path)
    return path.parent if path.is_file() else path


def write_index(
    folder: Path, parts: Sequence[SourceFaces], digest: Callable[[Path], str], schema: LandmarkSchema | None = None
) -> None:
    """Writes `faces.json`, and the pictures of rendered faces beside it. `schema` is the point set that is exported; without
    it, that of the first source.

    Raises:
        DataError: a photo is missing.
    """
    exported = schema or parts[0].source.schema
    further = {part.source.schema.name: part.source.schema for part in parts if part.source.schema != exported}
    entries: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for part in parts:
        place = seen[part.source.kind] = seen.get(part.source.kind, -1) + 1
        root = source_root(part.source, folder, place)
        packed = _PackedFaces(part.source.path) if part.source.kind == PACK else None
        for number, sample in enumerate(part.samples):
            found = packed.place_and_digest(sample) if packed else _place_and_digest(sample, root, number, digest)
            entry = _entry(sample, part.source.kind, *found)
            # Which of several sources of one kind; paths of two folders may be equal.
            entry |= {"source": place} if place else {}
            entry |= {"schema": part.source.schema.name} if part.source.schema != exported else {}
            entries.append(entry)
    document: dict[str, Any] = {"schema": exported.to_json(), "faces": entries}
    if further:
        document["other_schemas"] = [other.to_json() for other in further.values()]
    write_atomically(folder / INDEX, json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_index(folder: Path, sources: Sequence[Source]) -> FaceIndex:
    """Reads `faces.json` of a run; `sources` say where its photos lie now."""
    document = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    schema = LandmarkSchema.from_json(document["schema"])
    others = {other["name"]: LandmarkSchema.from_json(other) for other in document.get("other_schemas", ())}
    roots: dict[str, list[Path]] = {}
    packs = [open_pack(source.path).samples for source in sources if source.kind == PACK]
    for source in sources:
        known = roots.setdefault(source.kind, [])
        known.append(source_root(source, folder, len(known)))
    samples = [
        _sample(entry, others[entry["schema"]] if "schema" in entry else schema, roots, packs) for entry in document["faces"]
    ]
    return FaceIndex(schema, samples, [entry["kind"] for entry in document["faces"]])


class _PackedFaces:
    """Which face of a crop cache a sample is: some of its faces may have been left out since it was read."""

    def __init__(self, path: str) -> None:
        self._pack = open_pack(path)
        self._places = {sample.origin: place for place, sample in enumerate(self._pack.samples)}

    def place_and_digest(self, sample: FaceSample) -> tuple[str, str]:
        place = self._places[sample.origin]
        return str(place), self._pack.digests[place]


def _place_and_digest(sample: FaceSample, root: Path, number: int, digest: Callable[[Path], str]) -> tuple[str, str]:
    path = _stored_picture(sample, root, number)
    try:
        return Path(os.path.relpath(path, root)).as_posix(), digest(path)
    except OSError as error:
        raise DataError(f"{sample.origin}: cannot read the image {path}: {error.strerror or error}.") from error


def _stored_picture(sample: FaceSample, root: Path, number: int) -> Path:
    if isinstance(sample.image, Path):
        return sample.image
    path = root / f"{number:06d}.png"
    encoded, content = cv2.imencode(".png", sample.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not encoded:
        raise DataError(f"{sample.photo_key}: the rendered picture could not be encoded as PNG.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())
    return path


def _entry(sample: FaceSample, kind: str, path: str, sha256: str) -> dict[str, Any]:
    points = [None if np.isnan(x) else round(float(x), 4) for x in sample.points_px.ravel()]
    boxes = {name: [round(float(v), 4) for v in box.xyxy] for name, box in sample.boxes.items()}
    return {
        "kind": kind,
        "image": path,
        "sha256": sha256,
        "points_px": points,
        "boxes": boxes,
        "photo_key": sample.photo_key,
        "subset": list(sample.subset),
    }


def _sample(
    entry: dict[str, Any], schema: LandmarkSchema, roots: dict[str, list[Path]], packs: Sequence[Sequence[FaceSample]]
) -> FaceSample:
    points = np.array([np.nan if v is None else v for v in entry["points_px"]], np.float32).reshape(-1, 2)
    known, place = roots.get(entry["kind"], []), entry.get("source", 0)
    if place >= len(known):
        raise DataError(f"The run has faces of {place + 1} sources of kind {entry['kind']}, but --data gave {len(known)}.")
    path = known[place] / entry["image"]
    return FaceSample(
        image=packs[place][int(entry["image"])].image if entry["kind"] == PACK else path,
        points_px=points,
        schema=schema,
        photo_key=entry["photo_key"],
        boxes={kind: FaceBox.from_xyxy(corners, kind=kind) for kind, corners in entry["boxes"].items()},
        subset=tuple(entry["subset"]),
        origin=str(path),
    )


def with_detector_boxes(
    samples: Sequence[FaceSample],
    detect: Callable[[Any], np.ndarray[Any, Any]],
    kind: str,
    progress: Progress | None = None,
) -> list[FaceSample]:
    """The samples with the detection that lies best on each face as a further box, where one does."""
    boxed: list[FaceSample] = []
    for sample in samples:
        boxed.append(replace(sample, boxes={**sample.boxes, **_best_detection(sample, detect, kind)}))
        if progress:
            progress(len(boxed), len(samples), "detecting faces")
    return boxed


def _best_detection(sample: FaceSample, detect: Callable[[Any], np.ndarray[Any, Any]], kind: str) -> dict[str, FaceBox]:
    from lmedge.runtimes.evaluate import iou

    # The extent of five points is too small for any detection; the box that came with them is not.
    own = [sample.box(), *sample.boxes.values()]

    def overlap(box: FaceBox) -> float:
        return max(iou(box, other) for other in own)

    boxes = [FaceBox.from_xyxy(row[:4], kind=kind) for row in detect(sample.read_image())]
    best = max(boxes, key=overlap, default=None)
    return {kind: best} if best is not None and overlap(best) > _LEAST_OVERLAP else {}
