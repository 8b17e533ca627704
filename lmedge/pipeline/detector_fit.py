"""A detector's boxes, for a bundle that was trained without them.

training faces of the bundle ▶ detections ▶ median scale and shift ▶ manifest, with a note of how they were found

    from lmedge.pipeline.detector_fit import add_yunet_fit
    add_yunet_fit("runs/face/bundle", [parse_source("wflw:faces/wflw")], "face_detection_yunet.onnx")

A build with `data.detector` does the same before it trains. The network and every other file stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lmedge
from lmedge.bundle import Bundle, add_box_fit, file_digest, one_writer
from lmedge.data.duplicates import share_keys_of_duplicates
from lmedge.data.samples import FaceSample
from lmedge.data.sources import Source, read_sources
from lmedge.errors import DataError, SchemaError
from lmedge.export.pack import photo_digest
from lmedge.pipeline.runs.faces import with_detector_boxes
from lmedge.preprocess import BoxFit, fit_boxes
from lmedge.progress import Progress
from lmedge.runtimes.detector import YUNET, Detector, yunet_detector

# Fewer faces tell little of how a detector frames them.
MIN_FACES = 100


@dataclass(frozen=True)
class DetectorFit:
    """How a detector's boxes map to the reference box, from how many faces, and in how many of these it found one."""

    fit: BoxFit
    faces: int
    found: int


def add_yunet_fit(
    bundle: str | Path, sources: Sequence[Source], model_file: str | Path, progress: Progress | None = None
) -> Bundle:
    """The bundle with a fit for boxes of kind "yunet"; its provenance says that it was added, from what and by what.

    Args:
        bundle: a folder, or a trained one as "zoo:NAME".
        sources: the faces that it was trained on, or some of them. Faces that it was not trained on are left out.
        model_file: the YuNet file.

    Raises:
        BundleError: no bundle there; its training gave it a fit for this detector already; another process adds to it.
        InputError: no such detector.
        DataError: fewer than 100 of the faces were in its training and are found by the detector.
        SchemaError: sources of several point sets, or of one that the bundle's network does not find.
    """
    opened = Bundle.open(bundle)
    detect = yunet_detector(model_file)
    fitted = fit_detector(opened, read_sources(sources), detect, YUNET, progress)
    made = {
        "faces": fitted.faces,
        "found": fitted.found,
        "sources": sorted({source.kind for source in sources}),
        "detector": Path(model_file).name,
        "detector_sha256": file_digest(Path(model_file)),
        "lmedge": lmedge.__version__,
    }
    with one_writer(opened.root):
        return add_box_fit(Bundle.open(opened.root), YUNET, fitted.fit, made)


def fit_detector(
    bundle: Bundle, samples: Sequence[FaceSample], detect: Detector, kind: str, progress: Progress | None = None
) -> DetectorFit:
    """The fit of a detector's boxes on those faces that a bundle was trained on.

    Raises:
        DataError: fewer than 100 of the faces were in its training and are found by the detector.
        SchemaError: the faces have other points than the bundle's network finds.
    """
    schemas = {sample.schema.name for sample in samples}
    if schemas != {bundle.manifest.schema.name}:
        raise SchemaError(
            f"A box is fitted to faces with the bundle's own points, {bundle.manifest.schema.name}; "
            f"got {', '.join(sorted(schemas)) or 'no faces'}."
        )
    trained = set(bundle.manifest.provenance.get("trained_photos", ()))
    # Copies of a photo share a key in training too.
    known = [sample for sample in share_keys_of_duplicates(samples) if photo_digest(sample.photo_key) in trained]
    found = [sample for sample in with_detector_boxes(known, detect, kind, progress) if kind in sample.boxes]
    if len(found) < MIN_FACES:
        raise DataError(
            f"A fit needs {MIN_FACES} faces that the detector finds; of {len(samples)} faces, {bundle.root} was trained on "
            f"{len(known)}, and {len(found)} of these were found. Give the faces that it was trained on."
        )
    fit = fit_boxes([sample.box(kind) for sample in found], [sample.box() for sample in found])
    return DetectorFit(fit, len(known), len(found))
