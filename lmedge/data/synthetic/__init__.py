"""Rendered faces with exact labels: a parametric head, drawn by numpy and OpenCV alone.

table of the average head ▶ mesh ▶ identity and expression ▶ pose, camera, light ▶ head, features, occluders ▶ photo + labels
"""

from __future__ import annotations

from collections.abc import Iterator

from lmedge.data.samples import RENDERED, FaceSample
from lmedge.data.synthetic.camera import HeadPose
from lmedge.data.synthetic.face import OCCLUDERS, Scene, SyntheticFace, render_face
from lmedge.data.synthetic.features import Gaze
from lmedge.data.synthetic.light import LIGHTINGS, ORDINARY
from lmedge.data.synthetic.modes import Expression
from lmedge.schemas import LandmarkSchema

__all__ = [
    "LIGHTINGS",
    "OCCLUDERS",
    "Expression",
    "Gaze",
    "HeadPose",
    "Scene",
    "SyntheticFace",
    "render_face",
    "render_faces",
]


def render_faces(count: int, schema: LandmarkSchema, *, seed: int = 0, size_px: int = 192) -> Iterator[FaceSample]:
    """Labelled faces, one after the other; face i depends on (seed, i) alone, not on count.

    Tags name what lies before the face and a light that is not ordinary: "sunglasses", "near-infrared".

    Args:
        count: how many.
        schema: WFLW_98, or what the conversions reach from it (IBUG_68, MMLAB_5, COFW_29, AFLW_19).
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
            subset=face.occluders if face.lighting == ORDINARY else (*face.occluders, face.lighting),
            photo_key=f"{RENDERED}{seed}_{i}",
            origin=f"synthetic face {i} of seed {seed}",
        )
