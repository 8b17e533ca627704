"""Filters over the faces of an image: the far face before the near one, and on each face the layers in their order.

What a face wears is hidden by faces that are nearer, as far as their points tell their outline.

points and pose of a face ▶ places ▶ vertices of each layer's mesh ▶ what it shows, without what hides it ▶ blended over it
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lmedge.apps.filters.compositing import Texture, blend, cut_out, draw_mesh, fade, mesh_region
from lmedge.apps.filters.definition import HOLES, WARP, Binding, FaceFilter, Layer
from lmedge.apps.filters.mesh import layer_mesh, third_point
from lmedge.apps.filters.places import FacePlaces, has_pose, missing_places, pose_of, project
from lmedge.errors import InputError
from lmedge.landmarks import Landmarks
from lmedge.pose import Camera, HeadPose
from lmedge.preprocess import check_image
from lmedge.schemas import IBUG_68, LandmarkSchema

# Over these last degrees before `max_yaw_deg` a layer fades, so that it does not blink in a video.
_FADE_DEG = 10.0
# The outline of the face, for layers behind it: the jaw from ear to ear, then over the forehead back.
_OUTLINE = (
    *(IBUG_68.point_names[index] for index in IBUG_68.groups["contour"]),
    *("left_temple", "left_hairline", "hairline", "right_hairline", "right_temple"),
)
_HOLE_POINTS = {
    curve.name: tuple(IBUG_68.point_names[index] for index in curve.indices) for curve in IBUG_68.curves if curve.name in HOLES
}

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


class FilterPainter:
    """Paints filters over faces of one schema.

        painter = FilterPainter([load_filter("hat"), load_filter("moustache")], landmarker.schema)
        painted = painter.paint(image_bgr, landmarker.predict(image_bgr, boxes))

    Args:
        filters: one or several; their layers are sorted together by `Layer.order`.
        schema: of the faces.
        camera: the one that takes the pictures; without it, one is assumed for the size of each image.

    Raises:
        InputError: no filters, or a filter needs points that faces of this schema do not have.
    """

    def __init__(
        self, filters: FaceFilter | Sequence[FaceFilter], schema: LandmarkSchema, *, camera: Camera | None = None
    ) -> None:
        chosen = [filters] if isinstance(filters, FaceFilter) else list(filters)
        if not chosen:
            raise InputError("A painter needs at least one filter; got none.")
        self.schema = schema
        self._camera = camera
        self._has_pose = has_pose(schema)
        self._outline = None if missing_places(schema, _OUTLINE) else FacePlaces(schema, _OUTLINE)
        layers = [bound for one in chosen for bound in _bound_layers(one, schema)]
        self._layers = sorted(layers, key=lambda bound: bound.layer.order)

    def paint(
        self, image_bgr: Image, faces: Sequence[Landmarks], poses: Sequence[HeadPose | None] | None = None
    ) -> npt.NDArray[np.uint8]:
        """A copy of an image with the filters over its faces; without faces, a plain copy.

        Args:
            image_bgr: uint8 (H, W, 3) BGR, or gray (H, W).
            faces: of the painter's schema; a tracker's smoothed ones keep a filter steady in a video.
            poses: one per face, None where there is none; left out, they are found from the points. A layer that needs a pose
                is not drawn over a face without one.

        Raises:
            InputError: not an image, faces of another schema, or not one pose per face.
        """
        canvas = check_image(image_bgr).copy()
        for face in faces:
            if face.schema != self.schema:
                raise InputError(f"This painter was made for {self.schema.name}; got a face of {face.schema.name}.")
        if poses is None:
            camera = self._camera or Camera.assumed_for(*canvas.shape[:2])
            poses = [pose_of(face.points_px, self.schema, camera) if self._has_pose else None for face in faces]
        if len(poses) != len(faces):
            raise InputError(f"poses must be one per face, or left out; got {len(poses)} for {len(faces)} faces.")
        # The larger a face, the nearer.
        order = sorted(range(len(faces)), key=lambda index: _extent_px(faces[index]))
        outlines = [self._outline.find(faces[index].points_px, poses[index]) if self._outline else None for index in order]
        for rank, index in enumerate(order):
            nearer = [outline for outline in outlines[rank + 1 :] if outline is not None]
            for bound in self._layers:
                bound.paint(canvas, faces[index].points_px, poses[index], nearer)
        return canvas


class _BoundLayer:
    """A layer, bound to the places of one schema in the first way that this has all places of."""

    def __init__(self, layer: Layer, binding: Binding, schema: LandmarkSchema) -> None:
        self.layer = layer
        self._mesh = layer_mesh(layer, binding)
        self._places = FacePlaces(schema, tuple(binding))
        self._texture = Texture(layer.picture_bgra, self._mesh, layer.opacity)
        hiding = [_HOLE_POINTS[hole] for hole in layer.holes] + ([_OUTLINE] if layer.behind_face else [])
        self._hiding = [FacePlaces(schema, names) for names in hiding]

    def paint(
        self, canvas_bgr: Image, points_px: npt.NDArray[np.float32], pose: HeadPose | None, nearer: Sequence[Floats]
    ) -> None:
        """Draws the layer into an image, without what polygons (M, 2) px of nearer faces hide; leaves it out where the pose
        does not show it or is needed and not there."""
        opacity = self._opacity(pose)
        vertices_px = self._vertices(points_px, pose)
        if opacity <= 0 or vertices_px is None:
            return
        region = mesh_region(self._mesh, vertices_px, (canvas_bgr.shape[0], canvas_bgr.shape[1]))
        own = [place.find(points_px, pose) for place in self._hiding]
        hiding = [polygon for polygon in own if polygon is not None]
        if region is None or len(hiding) < len(own):
            return
        drawn = draw_mesh(self._texture, self._mesh, vertices_px, region, self._depth_mm(pose))
        for polygon in (*hiding, *nearer):
            cut_out(drawn, polygon, region)
        blend(canvas_bgr[region.slices], fade(drawn, opacity), self.layer.blend)

    def _opacity(self, pose: HeadPose | None) -> float:
        """1, or less near the largest turn at which the layer is shown."""
        if self.layer.max_yaw_deg is None or pose is None:
            return 1.0
        return float(np.clip((self.layer.max_yaw_deg - abs(pose.yaw_deg)) / _FADE_DEG, 0, 1))

    def _vertices(self, points_px: npt.NDArray[np.float32], pose: HeadPose | None) -> Floats | None:
        places_px = self._places.find(points_px, pose)
        if places_px is not None and len(places_px) == 2:
            places_px = np.vstack([places_px, third_point(places_px[0], places_px[1], self._down_px(pose))])
        return None if places_px is None else self._mesh.weights @ places_px

    def _down_px(self, pose: HeadPose | None) -> Floats | None:
        """The side of a square over the two bound places, parallel to the face's front, as the camera sees it."""
        if pose is None or not np.isfinite(self._places.head_mm).all():
            return None
        first, second = self._places.head_mm
        middle = (first + second) / 2
        seen = project(np.stack([middle, middle + np.cross((0.0, 0.0, 1.0), second - first)]), pose)
        return np.asarray(seen[1] - seen[0])

    def _depth_mm(self, pose: HeadPose | None) -> Floats | None:
        """How far away each vertex of a warp is."""
        if self.layer.kind != WARP or pose is None or not np.isfinite(self._places.head_mm).all():
            return None
        return np.asarray((self._mesh.weights @ self._places.head_mm @ pose.rotation.T)[:, 2])


def _bound_layers(face_filter: FaceFilter, schema: LandmarkSchema) -> list[_BoundLayer]:
    """The layers that faces of a schema can wear: all but optional ones, and at least one."""
    found = [(layer, *_usable_binding(layer, schema)) for layer in face_filter.layers]
    bound = [_BoundLayer(layer, binding, schema) for layer, binding, _ in found if binding is not None]
    refused = [missing for layer, binding, missing in found if binding is None and not (layer.optional and bound)]
    if refused:
        shown = ", ".join(refused[0][:3]) + (f" and {len(refused[0]) - 3} more" if len(refused[0]) > 3 else "")
        raise InputError(
            f"Filter {face_filter.name!r} needs points that {schema.name} does not have: {shown}. Take a bundle of 68 or 98 "
            "points (zoo:ibug68, zoo:wflw98), or another filter."
        )
    return bound


def _usable_binding(layer: Layer, schema: LandmarkSchema) -> tuple[Binding | None, list[str]]:
    """The first way of binding that a schema has all places of, or None and the places that the last way lacks."""
    also = [name for hole in layer.holes for name in _HOLE_POINTS[hole]] + (list(_OUTLINE) if layer.behind_face else [])
    missing: list[str] = []
    for binding in layer.bindings:
        missing = missing_places(schema, (*binding, *also))
        if not missing:
            return binding, []
    return None, missing


def _extent_px(face: Landmarks) -> float:
    return float(np.ptp(face.points_px, axis=0).max())
