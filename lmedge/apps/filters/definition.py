"""What a filter is: pictures, the places of the face that points of them are bound to, and how they are laid over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmedge.apps.filters.places import check_place
from lmedge.errors import DataError
from lmedge.schemas import IBUG_68

STICKER, WARP = "sticker", "warp"
KINDS = (STICKER, WARP)
NORMAL, MULTIPLY = "normal", "multiply"
BLENDS = (NORMAL, MULTIPLY)
# What can be cut out of a layer: the closed curves of the 68 points.
HOLES = tuple(curve.name for curve in IBUG_68.curves if curve.closed)

MAX_PICTURE_PX = 4096
# The narrow extent of three and more points over their wide one: flatter, the picture would shear at the least noise.
_LEAST_BREADTH = 0.1
_MIN_WARP_POINTS = 8

# Pixels of the layer's picture, centres at integers, by place.
Binding = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Layer:
    """One picture of a filter.

    Attributes:
        kind: "sticker": the picture keeps its shape as far as its points let it; "warp": it is cut into triangles between its
            points and contours, and each follows the face.
        picture_bgra: uint8 (H, W, 4), alpha not premultiplied.
        bindings: of points of the picture to places of the face; the first is taken that a face's schema has all places of.
            Two points fix place, size and roll (with the head's pose also the turn); three and more the shape too.
        order: layers of higher order lie over those of lower order.
        blend: "normal", or "multiply" as paint that lets the skin's light and shade through.
        opacity: 0 to 1.
        behind_face: shown outside the outline of the face alone.
        holes: closed curves of the face (eyes, lips) that the layer does not cover.
        max_yaw_deg: a head turned farther does not show the layer; it fades over the last 10°.
        optional: left out, not refused, on faces of a schema that lacks its points.
    """

    kind: str
    picture_bgra: npt.NDArray[np.uint8]
    bindings: tuple[Binding, ...]
    order: int = 0
    blend: str = NORMAL
    opacity: float = 1.0
    behind_face: bool = False
    holes: tuple[str, ...] = ()
    max_yaw_deg: float | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, KINDS)
        _check_choice("blend", self.blend, BLENDS)
        for hole in self.holes:
            _check_choice("holes", hole, HOLES)
        if not 0 <= self.opacity <= 1:
            raise DataError(f"opacity must be 0 to 1; got {self.opacity:g}.")
        if self.max_yaw_deg is not None and not 0 < self.max_yaw_deg <= 90:
            raise DataError(f"max_yaw_deg must be above 0 and at most 90; got {self.max_yaw_deg:g}.")
        shape = self.picture_bgra.shape
        if self.picture_bgra.dtype != np.uint8 or len(shape) != 3 or shape[2] != 4 or max(shape[:2]) > MAX_PICTURE_PX:
            raise DataError(
                f"a picture must be uint8 with blue, green, red and alpha, at most {MAX_PICTURE_PX} px long; "
                f"got {self.picture_bgra.dtype} of shape {shape}."
            )
        if not self.bindings:
            raise DataError("bindings must be at least one set of named points; got none.")
        for binding in self.bindings:
            _check_binding(self.kind, binding, (shape[0], shape[1]))


@dataclass(frozen=True, eq=False)
class FaceFilter:
    """A named stack of layers, lowest first.

    Raises:
        DataError: it has no layers.
    """

    name: str
    layers: tuple[Layer, ...]
    about: str = ""

    def __post_init__(self) -> None:
        if not self.layers:
            raise DataError(f"filter {self.name!r} has no layers.")
        object.__setattr__(self, "layers", tuple(sorted(self.layers, key=lambda layer: layer.order)))


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DataError(f"{what} must be one of {', '.join(choices)}; got {value!r}.")


def _check_binding(kind: str, binding: Binding, picture_hw: tuple[int, int]) -> None:
    for name in binding:
        check_place(name)
    least = 2 if kind == STICKER else _MIN_WARP_POINTS
    if len(binding) < least:
        raise DataError(f"a {kind} is bound at {least} or more points; got {len(binding)}: {', '.join(binding)}.")
    points_px = np.array(list(binding.values()), np.float64)
    height, width = picture_hw
    # A point outside the picture is fine, one far outside is a slip of the pen.
    near = (points_px >= (-width, -height)) & (points_px <= (2 * width, 2 * height))
    if not near.all():
        name = list(binding)[int(np.flatnonzero(~near.all(axis=1))[0])]
        raise DataError(f"point {name!r} at {binding[name]} is far outside the picture of {width} × {height} px.")
    wide, narrow = np.linalg.svd(points_px - points_px.mean(axis=0), compute_uv=False)
    if wide < 1 or (len(points_px) > 2 and narrow < _LEAST_BREADTH * wide):
        raise DataError(
            f"the points {', '.join(binding)} lie on one spot or nearly on a line of the picture. Take two of them, or add one "
            "apart from the line."
        )
