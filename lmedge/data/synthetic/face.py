"""One rendered face with exact labels: a person, an expression, a pose, a light, what lies before the face, a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic import features, occluders, photo, scenery
from lmedge.data.synthetic.camera import HeadPose, View, draw_pose, slide_contour
from lmedge.data.synthetic.drawing import Image
from lmedge.data.synthetic.eyewear import draw_eyewear
from lmedge.data.synthetic.head_mesh import CONTOUR, PUPILS
from lmedge.data.synthetic.head_table import Floats
from lmedge.data.synthetic.light import LIGHTINGS, NEAR_INFRARED, ORDINARY, Light, draw_light, draw_lighting, plain_light
from lmedge.data.synthetic.look import Look, draw_look, infrared_look, plain_look
from lmedge.data.synthetic.modes import Expression, deform, draw_expression, draw_identity
from lmedge.data.synthetic.places import draw_place
from lmedge.data.synthetic.raster import nearest_pixels, visible_points
from lmedge.data.synthetic.surface import DrawnHead, Sitter, draw_head
from lmedge.errors import InputError
from lmedge.pose import Camera
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema, mapping_matrix

MIN_SIZE_PX, MAX_SIZE_PX = 48, 1024
GLASSES, SUNGLASSES, MASK, HAND, WHEEL, CAP, STRANDS = (
    "glasses", "sunglasses", "mask", "hand", "steering-wheel", "cap", "hair-strands",
)  # fmt: skip
# How often each is before a face, from the face outward; clear glasses hide nothing.
OCCLUDERS = {STRANDS: 0.16, GLASSES: 0.15, SUNGLASSES: 0.05, MASK: 0.04, CAP: 0.06, HAND: 0.06, WHEEL: 0.03}

# Longer side of the points' extent over the picture's side.
_FACE_PART = (0.45, 0.65)
# At the contour the surface turns away: a pixel aside it is a centimetre deeper.
_ON_SURFACE_MM, _ON_OUTLINE_MM = 3.0, 12.0


@dataclass(frozen=True)
class Scene:
    """What is chosen before a face is drawn; anything left None is random.

    Attributes:
        pose, expression, gaze: of the head.
        occluders: what lies before the face, names from `OCCLUDERS`.
        lighting: one of `LIGHTINGS`.
        plain: an average head, well lit from the front, without beard or hair over the face; a clean picture. Occluders and
            another light only where they are named.
    """

    pose: HeadPose | None = None
    expression: Expression | None = None
    gaze: features.Gaze | None = None
    occluders: tuple[str, ...] | None = None
    lighting: str | None = None
    plain: bool = False


@dataclass(frozen=True, eq=False)
class SyntheticFace:
    """A picture and everything that is known about it.

    Attributes:
        image_bgr: uint8 (size, size, 3).
        points_px: float64 (98, 2) in the order of `WFLW_98`; pixel centres at integers.
        visible: (98,) False where the head itself, its hair or an occluder hides the point.
        pose: of the head, degrees; before perspective.
        camera: that sees it.
        eye_opening: right and left: distance of the lids over the width of the eye, in 3-D.
        mouth_opening: distance of the inner lips over the width of the mouth, in 3-D.
        occluders: what lies before the face, in the order of `OCCLUDERS`.
        lighting: one of `LIGHTINGS`.
    """

    image_bgr: Image
    points_px: npt.NDArray[np.float64]
    visible: npt.NDArray[np.bool_]
    pose: HeadPose
    camera: Camera
    eye_opening: tuple[float, float]
    mouth_opening: float
    occluders: tuple[str, ...] = ()
    lighting: str = ORDINARY

    def points(self, schema: LandmarkSchema) -> npt.NDArray[np.float32]:
        """The labels in another schema, (K, 2) px.

        Raises:
            SchemaError: no conversion from WFLW_98 to that schema is known.
        """
        return (_conversion(schema) @ self.points_px).astype(np.float32)

    def visible_in(self, schema: LandmarkSchema) -> npt.NDArray[np.bool_]:
        """`visible` in another schema, (K,): False where any of the points that make up a point is hidden.

        Raises:
            SchemaError: no conversion from WFLW_98 to that schema is known.
        """
        return np.asarray(~(_conversion(schema)[:, ~self.visible] > 0).any(axis=1))


def _conversion(schema: LandmarkSchema) -> npt.NDArray[np.float64]:
    """(K, 98) weights; the five points come by way of the 68."""
    if schema == MMLAB_5:
        return np.asarray(mapping_matrix(IBUG_68, MMLAB_5) @ mapping_matrix(WFLW_98, IBUG_68))
    return mapping_matrix(WFLW_98, schema)


def render_face(rng: np.random.Generator | tuple[int, int], size_px: int = 192, scene: Scene | None = None) -> SyntheticFace:
    """Render one face.

    Args:
        rng: a generator, or a pair (seed, number of the face); the same pair gives the same bytes.
        size_px: side of the square picture.
        scene: what shall not be random.

    Raises:
        InputError: size_px is not between 48 and 1024, or the scene names an occluder or a light that does not exist.
    """
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise InputError(f"size_px must be {MIN_SIZE_PX} to {MAX_SIZE_PX}; got {size_px}.")
    scene = scene or Scene()
    _check_scene(scene)
    if not isinstance(rng, np.random.Generator):
        rng = np.random.default_rng(list(rng))
    return _render(rng, size_px, scene)


def _check_scene(scene: Scene) -> None:
    unknown = set(scene.occluders or ()) - set(OCCLUDERS)
    if unknown:
        raise InputError(f"Scene.occluders must be names from {', '.join(OCCLUDERS)}; got {', '.join(sorted(unknown))}.")
    if {GLASSES, SUNGLASSES} <= set(scene.occluders or ()):
        raise InputError("Scene.occluders: expected glasses or sunglasses, got both.")
    if scene.lighting not in (None, *LIGHTINGS):
        raise InputError(f"Scene.lighting must be one of {', '.join(LIGHTINGS)}; got {scene.lighting!r}.")


def _render(rng: np.random.Generator, size_px: int, scene: Scene) -> SyntheticFace:
    pose, expression = scene.pose or draw_pose(rng), scene.expression or draw_expression(rng)
    gaze = scene.gaze or features.Gaze(float(rng.normal(0, 9)), float(rng.normal(0, 5)))
    names, light = _draw_occluders(scene, rng), _light(scene, rng)
    look = _look(scene, names, light, rng)
    identity = draw_identity(rng) * (0 if scene.plain else 1)
    vertices = deform(identity, expression)
    vertices[list(PUPILS)] = features.pupils_mm(vertices, gaze)
    view, labels, labels_depth = _frame(vertices, pose, size_px, rng)

    canvas = draw_place(size_px, light.place, rng)
    scenery.draw_body(canvas, view, look, light, rng)
    cap = _cap_color(light, rng) if CAP in names else None
    if cap is None:
        scenery.draw_loose_hair(canvas, vertices, view, look, light, rng)
    head = draw_head(canvas, Sitter(vertices, labels, view, look, light, cap), rng)
    features.draw_eyes(canvas, head, labels_depth)
    features.draw_mouth(canvas, head, labels_depth, features.draw_teeth(expression.smile, rng))
    cover = np.zeros((size_px, size_px), np.uint8)
    for name in names:
        DRAW[name](canvas, cover, head, rng)

    row, column = nearest_pixels(labels, size_px)
    uncovered = ~head.hair_over(labels, labels_depth) & (cover[row, column] < 128)
    visible = visible_points(labels, labels_depth, head.depth_map_mm, _tolerance_mm()) & uncovered
    clean = scene.plain and light.lighting == ORDINARY
    image = photo.soften(canvas) if clean else photo.photograph(canvas, light, rng)
    return SyntheticFace(
        image_bgr=image,
        points_px=labels.astype(np.float64),
        visible=visible,
        pose=pose,
        camera=view.camera,
        eye_opening=(_opening(vertices, 62, 66, 60, 64), _opening(vertices, 70, 74, 68, 72)),
        mouth_opening=_opening(vertices, 90, 94, 88, 92),
        occluders=names,
        lighting=light.lighting,
    )


def _draw_occluders(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """Names, in the order in which they are drawn."""
    drawn = rng.random(len(OCCLUDERS)) < list(OCCLUDERS.values())
    chosen = {name for name, is_drawn in zip(OCCLUDERS, drawn.tolist(), strict=True) if is_drawn}
    if SUNGLASSES in chosen:
        chosen.discard(GLASSES)
    if scene.occluders is not None or scene.plain:
        chosen = set(scene.occluders or ())
    return tuple(name for name in OCCLUDERS if name in chosen)


def _light(scene: Scene, rng: np.random.Generator) -> Light:
    lighting = scene.lighting or (ORDINARY if scene.plain else draw_lighting(rng))
    return plain_light() if scene.plain and lighting == ORDINARY else draw_light(lighting, rng)


def _look(scene: Scene, names: tuple[str, ...], light: Light, rng: np.random.Generator) -> Look:
    look = draw_look(rng)
    look = plain_look(look) if scene.plain else look
    if STRANDS in names:
        look = replace(look, bald=False)
    return infrared_look(look, rng) if light.lighting == NEAR_INFRARED else look


def _cap_color(light: Light, rng: np.random.Generator) -> Floats:
    color = np.clip(rng.uniform(15, 220) + rng.normal(0, 30, 3), 8, 240)
    return np.full(3, color.mean()) if light.lighting == NEAR_INFRARED else color


def _frame(vertices: Floats, pose: HeadPose, size_px: int, rng: np.random.Generator) -> tuple[View, Floats, Floats]:
    """The camera that shows the labels inside the picture; the labels, (98, 2) px, and their depth, (98,) mm."""
    distance_mm = float(np.exp(rng.uniform(np.log(600), np.log(2600))))
    view = View(pose.rotation, distance_mm)
    camera_mm = view.to_camera(vertices)
    vertices_px, depth = view.project(camera_mm), camera_mm[:, 2]
    labels, labels_depth = vertices_px[: WFLW_98.num_points].copy(), depth[: WFLW_98.num_points].copy()
    labels[list(CONTOUR)], labels_depth[list(CONTOUR)] = slide_contour(vertices_px, depth, pose)
    side = rng.uniform(*_FACE_PART) * size_px
    room = 0.5 * (size_px - side) * 0.75
    center = size_px / 2 - 0.5 + rng.uniform(-room, room, 2)
    framed = view.framed(labels, float(side), (float(center[0]), float(center[1])))
    # The view so far had scale 1 and no shift.
    return framed, labels * framed.scale + np.array(framed.offset_px), labels_depth


def _tolerance_mm() -> Floats:
    """How far the head may lie in front of a point that counts as visible, (98,)."""
    tolerance = np.full(WFLW_98.num_points, _ON_SURFACE_MM)
    tolerance[list(CONTOUR)] = _ON_OUTLINE_MM
    return tolerance


def _opening(vertices: Floats, upper: int, lower: int, start: int, end: int) -> float:
    return float(np.linalg.norm(vertices[upper] - vertices[lower]) / np.linalg.norm(vertices[start] - vertices[end]))


DRAW: dict[str, Callable[[Image, Image, DrawnHead, np.random.Generator], None]] = {
    STRANDS: occluders.draw_strands,
    GLASSES: partial(draw_eyewear, dark=False),
    SUNGLASSES: partial(draw_eyewear, dark=True),
    MASK: occluders.draw_mask,
    CAP: occluders.draw_brim,
    HAND: occluders.draw_hand,
    WHEEL: occluders.draw_steering_wheel,
}
