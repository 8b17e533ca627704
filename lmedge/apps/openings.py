"""How far a closed curve with two corners is open: an eye, a mouth; in a picture, and on the head itself.

A turned head shows widths shortened and a nodding one heights, so the ratio of the two is wrong by both. A face is round: the
width of an eye does not lie along the head's x axis, and a turn shortens that of one eye and lengthens that of the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lmedge.errors import InputError
from lmedge.pose import rotation_matrix
from lmedge.schemas import LandmarkSchema

Floats = npt.NDArray[np.float64]

# Axes of the head: to the viewer's right, and down.
ACROSS, _DOWN = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
# Beyond this a width is foreshortened to nothing, and a ratio over it is noise.
_MOST_TURNED_DEG = 75.0


class HeadAngles(Protocol):
    """`lmedge.pose.HeadPose`, or anything else with these angles in degrees; signs and order as there."""

    @property
    def yaw_deg(self) -> float: ...
    @property
    def pitch_deg(self) -> float: ...
    @property
    def roll_deg(self) -> float: ...


@dataclass(frozen=True)
class Ring:
    """A closed curve with two corners: an eye or a mouth.

    Attributes:
        corners: indices of the two.
        pairs: indices between them, each point of one side with the one that faces it.
    """

    corners: tuple[int, int]
    pairs: tuple[tuple[int, int], ...]

    def opening(self, points_px: Floats) -> float:
        """Mean distance of the pairs over the distance of the corners, in the picture; 0 where the corners coincide."""
        width = float(np.linalg.norm(points_px[self.corners[0]] - points_px[self.corners[1]]))
        one, other = np.array(self.pairs).T
        gaps = np.linalg.norm(points_px[one] - points_px[other], axis=1)
        return float(gaps.mean()) / width if width > 0 else 0.0


def find_ring(schema: LandmarkSchema, curve_name: str, corner_names: tuple[str, str]) -> Ring:
    """The closed curve of that name, split at its corners.

    Raises:
        InputError: the schema has no such curve or corners, or not as many points above as below.
    """
    curve = next((curve for curve in schema.curves if curve.name == curve_name and curve.closed), None)
    names = [schema.point_names[index] for index in curve.indices] if curve is not None else []
    if curve is None or not set(corner_names) <= set(names):
        raise InputError(
            f"{schema.name} does not say how far an eye or the mouth is open: expected a closed curve {curve_name!r} with the "
            f"points {' and '.join(corner_names)}. Take a bundle with 68 or 98 points, e.g. zoo:ibug68."
        )
    start = names.index(corner_names[0])
    ring = curve.indices[start:] + curve.indices[:start]
    half = ring.index(schema.point_names.index(corner_names[1]))
    one, other = ring[1:half], ring[:half:-1]
    if not one or len(one) != len(other):
        raise InputError(
            f"{schema.name}: curve {curve_name!r} must have as many points above as below its corners, at least one; "
            f"got {len(one)} and {len(other)}."
        )
    return Ring((ring[0], ring[half]), tuple(zip(one, other, strict=True)))


def foreshortening(angles: HeadAngles | None, across: Floats) -> float:
    """What a height over a width, as seen from far away, is multiplied by to be that of the head itself.

    Args:
        angles: of the head; 1 without them. Roll turns both alike.
        across: (3,) unit direction of the width in head axes; the height lies along the head's y axis.
    """
    if angles is None:
        return 1.0
    yaw, pitch = (float(np.clip(angle, -_MOST_TURNED_DEG, _MOST_TURNED_DEG)) for angle in (angles.yaw_deg, angles.pitch_deg))
    seen = rotation_matrix(yaw, pitch, 0.0)[:2]
    return math.hypot(*(seen @ across)) / math.hypot(*(seen @ _DOWN))


def direction(corners_mm: Floats) -> Floats:
    """The unit direction (3,) from one corner of a head, (2, 3) mm, to the other; the x axis where they are not known."""
    line = corners_mm[1] - corners_mm[0]
    length = float(np.linalg.norm(line))
    return np.asarray(line / length) if math.isfinite(length) and length > 0 else ACROSS
