"""A face in three dimensions from the points of one picture, as a PLY or OBJ file.

points ▶ pose and fitted head ▶ each point moved to where it is seen ▶ vertices, triangles ▶ file

One picture tells places across the line of sight; along it they are those of the fitted head (`pose.fit_head`). On rendered
people, points lie 0.8 mm from the truth in a frontal picture and 1.3 mm in one turned by 30°, those of the average head 2.7 mm,
without the contour: its points are where the outline was seen, which on a turned face is not the same skin. With the points
that a network finds it is more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.apps.triangulation import delaunay
from lmedge.bundle.files import write_atomically
from lmedge.errors import InputError
from lmedge.landmarks import Landmarks
from lmedge.pose import Camera, HeadFit, HeadPose, fit_head, generic_points
from lmedge.preprocess import check_image
from lmedge.schemas import LandmarkSchema

# How far people's points lie from the fitted head; how exactly they are where they were seen. Those of the contour slide.
_SPREAD_MM, _SEEN_MM, _SEEN_CONTOUR_MM = 2.5, 0.5, 4.0

# Files have y up and z toward the viewer, as programs for meshes expect: half a turn about x.
_FILE_AXES = np.array([1.0, -1.0, -1.0])

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class FaceShape:
    """The points of a face in three dimensions.

    Attributes:
        points_mm: (K, 3) in head axes (x to the viewer's right of a frontal face, y down, z away; the origin between the outer
            eye corners). The unit holds if the face is as large as the average one; proportions are the face's own.
        triangles: (T, 3) indices of points, counter-clockwise as seen from outside the face.
        colors_bgr: uint8 (K, 3) where the picture was given, else None.
        schema: what the points are.
        pose: of the head in the picture.
    """

    points_mm: Floats
    triangles: npt.NDArray[np.int64]
    colors_bgr: Image | None
    schema: LandmarkSchema
    pose: HeadPose

    def project(self) -> Floats:
        """The points as the picture's camera sees them, (K, 2) px."""
        return self.pose.camera.project(self.points_mm @ self.pose.rotation.T + self.pose.translation)

    def write(self, path: str | Path) -> Path:
        """Writes an ASCII .ply or .obj file, by the path's ending: millimetres, y up, z toward the viewer.

        Raises:
            InputError: another ending.
            LmedgeError: the file cannot be written.
        """
        file = Path(path)
        form = _FORMS.get(file.suffix.lower())
        if form is None:
            raise InputError(f"A face's shape is written as .ply or .obj; got {file.name!r}.")
        write_atomically(file, form(self))
        return file


def reconstruct(landmarks: Landmarks, camera: Camera, image_bgr: npt.NDArray[np.uint8] | None = None) -> FaceShape:
    """The shape of a face from its points in one picture.

    Args:
        landmarks: of the face.
        camera: that took the picture; `Camera.assumed_for(height, width)` where it was not measured.
        image_bgr: the picture, for the colours of the points.

    Raises:
        InputError: points that tell no head pose (`pose.head_pose`), points without a place on the head, or not an image.
    """
    schema = landmarks.schema
    fit = fit_head(landmarks.points_px, schema, camera)
    unplaced = [name for name, point in zip(schema.point_names, fit.points_mm, strict=True) if not np.isfinite(point).all()]
    if unplaced:
        raise InputError(
            f"Reconstruction needs the place of every point on a head; {schema.name} has {len(unplaced)} points that no "
            f"published schema names: {', '.join(unplaced[:3])}{', …' if len(unplaced) > 3 else ''}."
        )
    points_mm = _moved_to_rays(np.asarray(landmarks.points_px, np.float64), fit, schema)
    colors = None if image_bgr is None else _colors_at(check_image(image_bgr), landmarks.points_px)
    return FaceShape(points_mm, _triangles(schema), colors, schema, fit.pose)


def _moved_to_rays(points_px: Floats, fit: HeadFit, schema: LandmarkSchema) -> Floats:
    """The most likely place of each point, (K, 3) mm: on its line of sight, and there nearest to the fitted head."""
    pose = fit.pose
    across = pose.camera.rays(points_px)[:, :2, None]
    # A point p of the head is on its line of sight where rows · p = offset, in mm across that line.
    rows = pose.rotation[None, :2] - across * pose.rotation[None, 2:]
    offset = across[..., 0] * pose.translation[2] - pose.translation[:2]
    missed = offset - np.einsum("kij,kj->ki", rows, fit.points_mm)
    seen_mm = np.full(len(points_px), _SEEN_MM)
    seen_mm[list(schema.groups.get("contour", ()))] = _SEEN_CONTOUR_MM
    share = (seen_mm / _SPREAD_MM)[:, None, None] ** 2
    moves = np.linalg.solve(
        np.einsum("kij,kil->kjl", rows, rows) + share * np.eye(3), np.einsum("kij,ki->kj", rows, missed)[..., None]
    )
    return np.asarray(fit.points_mm + moves[..., 0])


def _triangles(schema: LandmarkSchema) -> npt.NDArray[np.int64]:
    """Delaunay's triangles over the average face seen from the front; the same for every face."""
    clockwise = delaunay(generic_points(schema)[:, :2])
    return np.ascontiguousarray(clockwise[:, ::-1])


def _colors_at(image_bgr: Image, points_px: npt.NDArray[np.floating]) -> Image:
    """The picture's colours at points (K, 2), (K, 3); beside the picture those of its border."""
    x, y = np.asarray(points_px, np.float32).T
    return np.asarray(cv2.remap(image_bgr, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8).reshape(-1, 3)


def _ply(shape: FaceShape) -> str:
    """The polygon file format (Turk 1994)."""
    colored = shape.colors_bgr is not None
    header = [
        "ply",
        "format ascii 1.0",
        f"comment {shape.schema.name}, millimetres, y up, z toward the viewer",
        f"element vertex {len(shape.points_mm)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {color}" for color in ("red", "green", "blue") if colored),
        f"element face {len(shape.triangles)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    colors = [""] * len(shape.points_mm)
    if shape.colors_bgr is not None:
        colors = [f" {red} {green} {blue}" for blue, green, red in shape.colors_bgr.tolist()]
    vertices = [_vertex(point) + color for point, color in zip(shape.points_mm, colors, strict=True)]
    faces = [f"3 {a} {b} {c}" for a, b, c in shape.triangles.tolist()]
    return "\n".join([*header, *vertices, *faces, ""])


def _obj(shape: FaceShape) -> str:
    """Wavefront OBJ; colours after the coordinates, in 0 to 1, as MeshLab and Blender read them."""
    colors = [""] * len(shape.points_mm)
    if shape.colors_bgr is not None:
        colors = [f" {red:.4f} {green:.4f} {blue:.4f}" for blue, green, red in (shape.colors_bgr / 255).tolist()]
    header = f"# {shape.schema.name}, millimetres, y up, z toward the viewer"
    vertices = [f"v {_vertex(point)}{color}" for point, color in zip(shape.points_mm, colors, strict=True)]
    faces = [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in shape.triangles.tolist()]
    return "\n".join([header, *vertices, *faces, ""])


def _vertex(point_mm: Floats) -> str:
    return " ".join(f"{value:.4f}" for value in (point_mm * _FILE_AXES + 0.0).tolist())


_FORMS = {".ply": _ply, ".obj": _obj}
