"""One rendered face with exact labels: a person, an expression, a pose, a light, a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic import features, scenery
from lmedge.data.synthetic.appearance import TEXTURE_PX, Image, Look, draw_look, hair_displacement_mm, head_texture
from lmedge.data.synthetic.camera import HeadPose, View, slide_contour
from lmedge.data.synthetic.head_mesh import CONTOUR, PUPILS, average_head
from lmedge.data.synthetic.head_table import HEAD_CENTER, Floats
from lmedge.data.synthetic.modes import Expression, deform, draw_expression, draw_identity
from lmedge.data.synthetic.raster import RasterizedMesh, rasterize, vertex_normals, visible_points
from lmedge.errors import InputError
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema, mapping_matrix

MIN_SIZE_PX, MAX_SIZE_PX = 48, 1024

# Longer side of the points' extent over the picture's side.
_FACE_PART = (0.45, 0.65)
_YAW_LIMIT, _PITCH_LIMIT, _ROLL_LIMIT = 45.0, 25.0, 30.0
_GLASSES = 0.16
# The uv of a piece of plain skin, which the ears borrow.
_PLAIN_SKIN = (0.40, 0.56)


@dataclass(frozen=True)
class Scene:
    """What is chosen before a face is drawn; anything left None is random.

    Attributes:
        pose, expression, gaze: of the head.
        plain: an average head, well lit from the front, without glasses, beard or hair over the brows; a clean picture.
    """

    pose: HeadPose | None = None
    expression: Expression | None = None
    gaze: features.Gaze | None = None
    plain: bool = False


@dataclass(frozen=True, eq=False)
class SyntheticFace:
    """A picture and everything that is known about it.

    Attributes:
        image_bgr: uint8 (size, size, 3).
        points_px: float64 (98, 2) in the order of `WFLW_98`; pixel centres at integers.
        visible: (98,) False where the head itself hides the point.
        pose: of the head, degrees; before perspective.
        eye_opening: right and left: distance of the lids over the width of the eye, in 3-D.
        mouth_opening: distance of the inner lips over the width of the mouth, in 3-D.
    """

    image_bgr: Image
    points_px: npt.NDArray[np.float64]
    visible: npt.NDArray[np.bool_]
    pose: HeadPose
    eye_opening: tuple[float, float]
    mouth_opening: float

    def points(self, schema: LandmarkSchema) -> npt.NDArray[np.float32]:
        """The labels in another schema, (K, 2) px, by the published conversions.

        Raises:
            SchemaError: no conversion from WFLW_98 to that schema is published.
        """
        points = self.points_px
        if schema == MMLAB_5:
            points = mapping_matrix(WFLW_98, IBUG_68) @ points
            return (mapping_matrix(IBUG_68, MMLAB_5) @ points).astype(np.float32)
        return (mapping_matrix(WFLW_98, schema) @ points).astype(np.float32)


def render_face(rng: np.random.Generator | tuple[int, int], size_px: int = 192, scene: Scene | None = None) -> SyntheticFace:
    """Render one face.

    Args:
        rng: a generator, or a pair (seed, number of the face); the same pair gives the same bytes.
        size_px: side of the square picture.
        scene: what shall not be random.

    Raises:
        InputError: size_px is not between 48 and 1024.
    """
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise InputError(f"size_px must be {MIN_SIZE_PX} to {MAX_SIZE_PX}; got {size_px}.")
    if not isinstance(rng, np.random.Generator):
        rng = np.random.default_rng(list(rng))
    return _render(rng, size_px, scene or Scene())


def draw_pose(rng: np.random.Generator) -> HeadPose:
    """Mostly near-frontal, as in photo collections, with wide tails inside the limits."""
    yaw = rng.normal(0, 13) if rng.random() < 0.6 else rng.uniform(-_YAW_LIMIT, _YAW_LIMIT)
    return HeadPose(
        yaw_deg=float(np.clip(yaw, -_YAW_LIMIT, _YAW_LIMIT)),
        pitch_deg=float(np.clip(rng.normal(0, 10), -_PITCH_LIMIT, _PITCH_LIMIT)),
        roll_deg=float(np.clip(rng.normal(0, 10), -_ROLL_LIMIT, _ROLL_LIMIT)),
    )


def _render(rng: np.random.Generator, size_px: int, scene: Scene) -> SyntheticFace:
    pose = scene.pose or draw_pose(rng)
    expression = scene.expression or draw_expression(rng)
    gaze = scene.gaze or features.Gaze(float(rng.normal(0, 9)), float(rng.normal(0, 5)))
    identity = draw_identity(rng) * (0 if scene.plain else 1)
    look = draw_look(rng)
    if scene.plain:
        look = replace(
            look, hairline_mm=0.0, beard=0.0, moustache=0.0, wrinkles=0.0, shine=0.0, eye_white=0.95, brow_strength=0.8
        )
    vertices = deform(identity, expression)
    vertices[list(PUPILS)] = features.pupils_mm(vertices, gaze)

    distance_mm = float(np.exp(rng.uniform(np.log(600), np.log(2600))))
    view = View(pose.rotation, distance_mm)
    view = view.framed(_labels(vertices, view, pose)[0], *_frame(size_px, rng))
    labels, labels_depth = _labels(vertices, view, pose)

    camera_mm = view.to_camera(vertices)
    ambient, key, direction = (0.5, 0.5, np.array([0.0, -0.3, -1.0])) if scene.plain else _draw_light(rng)
    light = float(ambient + 0.75 * key)
    canvas = scenery.draw_background(size_px, rng)
    scenery.draw_body(canvas, view, look, light, float(direction[0]), rng)
    mesh = _draw_head(canvas, vertices, view, look, (ambient, key, direction), rng)

    visible = visible_points(labels, labels_depth, mesh, camera_mm[:, 2], average_head().triangles)
    head_only, feature_light = canvas.copy(), min(light, 1.1)
    features.draw_eyes(canvas, labels, view, look, feature_light)
    teeth_mm = float(rng.choice([0.0, rng.uniform(3, 9)], p=[0.2, 0.8]))
    features.draw_mouth(canvas, labels, view, look, feature_light, teeth_mm)
    _keep_nose(canvas, head_only, mesh)
    if not scene.plain and rng.random() < _GLASSES:
        features.draw_glasses(canvas, vertices, view, rng)
    image = scenery.soften(canvas) if scene.plain else scenery.photograph(canvas, rng)
    return SyntheticFace(
        image, labels.astype(np.float64), visible, pose, _eye_openings(vertices), _opening(vertices, 90, 94, 88, 92)
    )


def _frame(size_px: int, rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
    """Side and centre of the labels' extent, which stays inside the picture."""
    side = rng.uniform(*_FACE_PART) * size_px
    room = 0.5 * (size_px - side) * 0.75
    center = size_px / 2 - 0.5 + rng.uniform(-room, room, 2)
    return float(side), (float(center[0]), float(center[1]))


def _labels(vertices: Floats, view: View, pose: HeadPose) -> tuple[Floats, Floats]:
    """The 98 points as labelled, (98, 2) px, and their depth (98,) mm."""
    camera_mm = view.to_camera(vertices)
    vertices_px, depth = view.project(camera_mm), camera_mm[:, 2]
    labels, labels_depth = vertices_px[:98].copy(), depth[:98].copy()
    labels[list(CONTOUR)], labels_depth[list(CONTOUR)] = slide_contour(vertices_px, depth, pose, view.scale)
    return labels, labels_depth


def _draw_light(rng: np.random.Generator) -> tuple[float, float, Floats]:
    """Ambient and key strength, and the direction toward the key light (camera axes)."""
    direction = np.array([rng.normal(0, 0.9), rng.normal(-0.5, 0.5), -rng.uniform(0.25, 1.2)])
    ambient = rng.uniform(0.22, 0.75)
    return float(ambient), float(rng.uniform(0.75, 1.25) - ambient), np.asarray(direction / np.linalg.norm(direction))


def _draw_head(
    canvas: features.Canvas,
    vertices: Floats,
    view: View,
    look: Look,
    lighting: tuple[float, float, Floats],
    rng: np.random.Generator,
) -> RasterizedMesh:
    """Shade the textured mesh onto the canvas."""
    head = average_head()
    lift = hair_displacement_mm(look, head.vertices_mm, rng)
    radial = head.vertices_mm - HEAD_CENTER
    radial = radial / np.linalg.norm(radial, axis=1, keepdims=True)
    camera_mm = view.to_camera(vertices + radial * np.where(head.is_ear, 0.0, lift)[:, None])
    triangles = head.triangles
    if look.covers_ears:
        triangles = triangles[~head.is_ear[triangles].any(axis=1)]
    mesh = rasterize(view.project(camera_mm), camera_mm[:, 2], triangles, canvas.shape[0])

    ambient, key, direction = lighting
    normals = vertex_normals(camera_mm, triangles)
    diffuse = np.clip((normals @ direction + 0.25) / 1.25, 0, None)
    sky = 0.8 - 0.2 * normals[:, 1]
    half = direction + np.array([0.0, 0.0, -1.0])
    gloss = np.clip(normals @ (half / np.linalg.norm(half)), 0, 1) ** 24 * look.shine * key
    uv = np.where(head.is_ear[:, None], np.array(_PLAIN_SKIN) + 0.0005 * vertices[:, :2], head.texture_uv)
    values = mesh.interpolate(np.column_stack([uv * TEXTURE_PX - 0.5, ambient * sky + key * diffuse, gloss]))
    texel_x, texel_y = np.zeros((2, *canvas.shape[:2]), np.float32)
    texel_x[mesh.rows, mesh.columns], texel_y[mesh.rows, mesh.columns] = values[:, 0], values[:, 1]
    albedo = np.asarray(cv2.remap(head_texture(look, rng), texel_x, texel_y, cv2.INTER_LINEAR))[mesh.rows, mesh.columns]
    canvas[mesh.rows, mesh.columns] = albedo * values[:, 2:3] + 255 * values[:, 3:4]
    return mesh


def _keep_nose(canvas: features.Canvas, before: features.Canvas, mesh: RasterizedMesh) -> None:
    """The nose of a turned head lies before the far eye and the mouth."""
    is_nose = np.isin(mesh.corners, _nose_vertices()).all(axis=1)
    rows, columns = mesh.rows[is_nose], mesh.columns[is_nose]
    canvas[rows, columns] = before[rows, columns]


def _nose_vertices() -> npt.NDArray[np.intp]:
    x, y, _ = average_head().vertices_mm.T
    return np.nonzero((np.abs(x) < np.interp(y, [-10, 2, 30, 46], [13, 10, 15, 17])) & (y > -12) & (y < 48))[0]


def _eye_openings(vertices: Floats) -> tuple[float, float]:
    return _opening(vertices, 62, 66, 60, 64), _opening(vertices, 70, 74, 68, 72)


def _opening(vertices: Floats, upper: int, lower: int, start: int, end: int) -> float:
    return float(np.linalg.norm(vertices[upper] - vertices[lower]) / np.linalg.norm(vertices[start] - vertices[end]))
