"""The head itself: its surface coloured and lit, pixel by pixel, and what the parts drawn over it need to know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.synthetic import skin, skin_maps
from lmedge.data.synthetic.camera import View
from lmedge.data.synthetic.drawing import Image
from lmedge.data.synthetic.head_mesh import average_head
from lmedge.data.synthetic.head_table import HEAD_CENTER, Floats
from lmedge.data.synthetic.light import Light
from lmedge.data.synthetic.look import Look, hair_displacement_mm
from lmedge.data.synthetic.raster import Indices, Neighbourhood, RasterizedMesh, nearest_pixels, rasterize, vertex_normals
from lmedge.data.synthetic.skin import Pixels

# Ears borrow the colour of a piece of plain skin: its uv and its place on the average head.
_PLAIN_SKIN_UV, _PLAIN_SKIN_MM = (0.40, 0.56), (-29.0, 34.0, -9.0)
# Light spreads under the skin, red the farthest: how far beyond the shadow's edge each channel (BGR) is lit.
_SPREAD_UNDER_SKIN = (0.16, 0.2, 0.32)
_CAP_MM, _HIDING_HAIR_MM, _HAIR_DEPTH_MM = 9.0, 2.0, 5.0


@dataclass(frozen=True, eq=False)
class Sitter:
    """Who is drawn, and how.

    Attributes:
        vertices_mm: (V, 3) without hair, head axes.
        labels_px: (98, 2).
        view, look, light: camera, person and light.
        cap: colour (BGR) of a cap, or None.
    """

    vertices_mm: Floats
    labels_px: Floats
    view: View
    look: Look
    light: Light
    cap: Floats | None


@dataclass(frozen=True, eq=False)
class DrawnHead(Sitter):
    """A head in the picture.

    Attributes:
        depth_map_mm: float32 (H, W), camera z; infinity beside the head.
        lit_map: float32 (H, W), brightness that falls on the surface; `light.level` beside the head.
        hair_map: (H, W) True where standing hair covers the skin.
    """

    depth_map_mm: Pixels
    lit_map: Pixels
    hair_map: npt.NDArray[np.bool_]

    def level_at(self, points_px: Floats) -> Floats:
        """Brightness per channel of things near these points, (3,)."""
        row, column = nearest_pixels(points_px, len(self.lit_map))
        level = self.light.level
        return np.asarray(np.minimum(level / level.mean() * float(self.lit_map[row, column].mean()), 1.25))

    def hair_over(self, points_px: Floats, depth_mm: Floats) -> npt.NDArray[np.bool_]:
        """(K,) True where standing hair covers the point, rather than showing behind the outline on which it lies."""
        row, column = nearest_pixels(points_px, len(self.hair_map))
        return np.asarray(self.hair_map[row, column] & (self.depth_map_mm[row, column] < depth_mm + _HAIR_DEPTH_MM))

    def project(self, points_mm: Floats) -> Floats:
        """(P, 3) in head axes → (P, 2) px."""
        return self.view.project(self.view.to_camera(points_mm))

    def in_front_of(self, area: tuple[slice, slice], depth_mm: float) -> npt.NDArray[np.bool_]:
        """Where, in this part of the picture, the head is nearer than that."""
        return np.asarray(self.depth_map_mm[area] < depth_mm)


def draw_head(canvas: Image, sitter: Sitter, rng: np.random.Generator) -> DrawnHead:
    """Colour and light the mesh onto the canvas; a cap replaces the hair under it."""
    head, view, look, light = average_head(), sitter.view, sitter.look, sitter.light
    lift = hair_displacement_mm(look, head.vertices_mm, rng)
    if sitter.cap is not None:
        under_mm = skin.cap_level_mm(head.vertices_mm.T)
        lift = np.where(under_mm > 0, _CAP_MM * np.clip(under_mm / 6, 0, 1), lift)
    lift[head.is_ear] = 0
    camera_mm = view.to_camera(sitter.vertices_mm + _radial() * lift[:, None])
    triangles, around = _triangles(look.covers_ears)
    mesh = rasterize(view.project(camera_mm), camera_mm[:, 2], triangles, len(canvas))
    normals = vertex_normals(camera_mm, triangles, around)
    texel, average_mm = _fixed_attributes()
    values = mesh.interpolate(np.column_stack([texel, average_mm, normals, camera_mm[:, 2], lift]))

    texels = skin.Texels(values[:2])
    regions, noise = skin.sample_maps(texels, rng)
    brows = texels.sample(skin.brow_texture(look, rng))[0] * np.float32(1 / 255)
    albedo, hair = skin.albedo(look, regions | {"brows": brows}, noise, values[2:5], sitter.cap)
    brightness, gloss = _lighting(look, light, view, regions, values[5:8], hair)
    colored = albedo * brightness + gloss
    canvas[mesh.rows, mesh.columns] = np.clip(colored, 0, 255).T.astype(np.uint8)

    _smooth_outline(canvas, mesh)
    lit = mesh.picture(brightness.mean(axis=0), float(light.level.mean()))
    hiding = mesh.picture(hair * (values[9] > _HIDING_HAIR_MM), 0.0) > 0.5
    return DrawnHead(
        sitter.vertices_mm, sitter.labels_px, view, look, light, sitter.cap, mesh.picture(values[8], np.inf), lit, hiding
    )


def _smooth_outline(canvas: Image, mesh: RasterizedMesh) -> None:
    """Triangles are painted with hard edges; here the head's outline melts into what is behind it."""
    shown = np.zeros((mesh.size_px, mesh.size_px), np.uint8)
    shown[mesh.rows, mesh.columns] = 1
    edge = np.asarray(cv2.morphologyEx(shown, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))) > 0
    canvas[edge] = np.asarray(cv2.GaussianBlur(canvas, (3, 3), 0.8))[edge]


def _lighting(
    look: Look, light: Light, view: View, regions: dict[str, Pixels], normals: Pixels, hair: Pixels
) -> tuple[Pixels, Pixels]:
    """Brightness (3, P) and gloss (3, P) that the camera sees added to the colour."""
    x, y, z = (float(part) for part in light.direction)
    facing = normals[0] * x + normals[1] * y + normals[2] * z
    across, down = (float((view.rotation[:, axis] * light.direction).sum()) for axis in (0, 1))
    away = regions["left_of_nose"] if across < 0 else regions["right_of_nose"]
    open_to_key = 1 - min(0.75, 1.1 * abs(across)) * away - min(0.6, max(0.0, -0.8 * down)) * regions["under_parts"]
    sky = (0.8 - 0.2 * normals[1]) * (1 - 0.3 * regions["crevices"])
    brightness = np.empty((3, len(sky)), np.float32)
    for channel, spread in enumerate(_SPREAD_UNDER_SKIN):
        lit = np.maximum((facing + spread) * (1 / (1 + spread)), 0) * open_to_key
        brightness[channel] = float(light.ambient[channel]) * sky + float(light.key[channel]) * lit
    half = light.direction + np.array([0.0, 0.0, -1.0])
    half = half / np.sqrt((half**2).sum())
    mirror = np.maximum(normals[0] * float(half[0]) + normals[1] * float(half[1]) + normals[2] * float(half[2]), 0)
    mirror **= 4
    wide = mirror * mirror
    sharp = wide * wide * wide
    strength = look.shine * (1 - hair) * regions["gloss"] * (14 * wide + 52 * sharp) + 12 * hair * wide
    strength *= open_to_key
    return brightness, light.key.astype(np.float32)[:, None] * strength


@lru_cache(maxsize=1)
def _fixed_attributes() -> tuple[Floats, Floats]:
    """Of each vertex: its texel (V, 2) and its place on the average head (V, 3)."""
    head = average_head()
    uv = np.where(head.is_ear[:, None], np.array(_PLAIN_SKIN_UV) + 0.0005 * head.vertices_mm[:, :2], head.texture_uv)
    average_mm = np.where(head.is_ear[:, None], np.array(_PLAIN_SKIN_MM), head.vertices_mm)
    return np.clip(uv * skin_maps.TEXTURE_PX - 0.5, 0, skin_maps.TEXTURE_PX - 1), average_mm


@lru_cache(maxsize=1)
def _radial() -> Floats:
    away = average_head().vertices_mm - HEAD_CENTER
    return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True))


@lru_cache(maxsize=2)
def _triangles(covers_ears: bool) -> tuple[Indices, Neighbourhood]:
    """The triangles that are drawn, and those around each vertex."""
    head = average_head()
    triangles = head.triangles[~head.is_ear[head.triangles].any(axis=1)] if covers_ears else head.triangles
    return triangles, Neighbourhood.of(triangles)
