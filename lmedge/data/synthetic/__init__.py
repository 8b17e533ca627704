"""Rendered faces with exact labels: a parametric head, drawn by numpy and OpenCV alone.

table of the average head ▶ mesh ▶ identity and expression ▶ pose and camera ▶ shaded picture + labels
"""

from __future__ import annotations

from collections.abc import Iterator

from lmedge.data.samples import FaceSample
from lmedge.data.synthetic.camera import HeadPose
from lmedge.data.synthetic.face import Scene, SyntheticFace, render_face
from lmedge.data.synthetic.features import Gaze
from lmedge.data.synthetic.modes import Expression
from lmedge.schemas import LandmarkSchema

__all__ = ["Expression", "Gaze", "HeadPose", "Scene", "SyntheticFace", "render_face", "render_faces"]


def render_faces(count: int, schema: LandmarkSchema, *, seed: int = 0, size_px: int = 192) -> Iterator[FaceSample]:
    """Labelled faces, one after the other; face i depends on (seed, i) alone, not on count.

    Args:
        count: how many.
        schema: WFLW_98, or what the published conversions reach from it (IBUG_68, MMLAB_5).
        seed: another seed, other faces.
        size_px: side of the square pictures.

    Raises:
        SchemaError: there is no conversion to that schema.
        InputError: size_px is not between 48 and 1024.
    """
    for i in range(count):
        face = render_face((seed, i), size_px)
        yield FaceSample(
            image=face.image_bgr,
            points_px=face.points(schema),
            schema=schema,
            photo_key=f"synthetic_{seed}_{i}",
            origin=f"synthetic face {i} of seed {seed}",
        )
