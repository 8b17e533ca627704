"""What a training run is made of, for its record: which photos its weights have seen, where they come from, how many there
are; and whether the faces can teach and judge a network at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lmedge.data.samples import FaceSample
from lmedge.errors import DataError
from lmedge.metrics import nme
from lmedge.pipeline.training.checkpoint import Checkpoint


def check_faces(training: Sequence[FaceSample], validation: Sequence[FaceSample], *learned_from: Checkpoint | None) -> None:
    """
    Raises:
        DataError: too few faces on one side of the split, no validation face with an error, or one that a checkpoint which the
            run learns from was trained on.
    """
    # Batch norm needs two faces in a batch.
    if len(training) < 2 or not validation:
        raise DataError(
            f"Training needs faces on both sides of the split; got {len(training)} for training and {len(validation)} for "
            "validation. About one photo in ten is for validation: give more photos."
        )
    if not any(np.isfinite(nme(face.points_px[None], face.points_px[None], face.schema)[0]) for face in validation):
        raise DataError(
            f"None of the {len(validation)} validation faces has the points that its error is divided by "
            f"({validation[0].schema.normalizer_name}). Give faces that have them."
        )
    known = {key for checkpoint in learned_from if checkpoint is not None for key in checkpoint.training.get("photo_keys", ())}
    seen = sorted(known.intersection(face.photo_key for face in validation))
    if seen:
        raise DataError(
            f"The checkpoint that this run starts from or is taught by was trained on {len(seen)} of its {len(validation)} "
            f"validation photos ({', '.join(seen[:3])}, …): their error would say nothing. Train that one with the same "
            "sources, whose photos then share a side of the split."
        )


def count_faces(
    training: Sequence[FaceSample], validation: Sequence[FaceSample], others: Sequence[FaceSample]
) -> dict[str, int]:
    """How many faces there are on each side of the split, and of other point sets."""
    further = {"others": len(others)} if others else {}
    return {"training": len(training), "validation": len(validation), **further}


def seen_photos(faces: Sequence[FaceSample], *learned_from: Checkpoint | None) -> list[str]:
    """The photos that the weights have seen, also by way of other checkpoints."""
    inherited = [checkpoint.training.get("photo_keys", ()) for checkpoint in learned_from if checkpoint is not None]
    return sorted({face.photo_key for face in faces}.union(*inherited))


def all_sources(own: Sequence[Mapping[str, str]], *learned_from: Checkpoint | None) -> list[dict[str, str]]:
    """Where all faces come from, with their terms."""
    unknown = {"kind": "init", "what": "a checkpoint that does not name its faces", "terms": "unknown: those of its faces"}
    inherited = [c.training.get("sources", [unknown]) for c in learned_from if c is not None]
    every = [dict(source) for sources in (own, *inherited) for source in sources]
    return [source for i, source in enumerate(every) if source not in every[:i]]
