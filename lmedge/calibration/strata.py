"""What kind of picture a face is, so that a choice of faces can cover all kinds: head pose, brightness, occlusion.

Pose is read off the labels, with the eyes as the frame:

    roll = angle of the line from eye to eye
    yaw  = atan(how far the tip of the nose lies beside the middle of the eyes / distance of the eyes / _NOSE_DEPTH)

The middle of the contour moves the other way and serves point sets without a nose. What the labels do not tell is "unknown":
the mouth, for one, turns so little against the eyes that nothing can be read off it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample
from lmedge.schemas import LandmarkSchema

UNKNOWN = "unknown"

# Fitted on 500 rendered faces of known pose, yaw within ±45°: the same for 5, 68 and 98 points. The mean error of yaw is then
# 3.3° by the nose and 2.0° by the contour, of roll 4.5° (standard deviation).
_NOSE_DEPTH, _CONTOUR_DEPTH = 0.68, -0.80

# Edges between the bins below; the middle bins hold most faces of 300-W, WFLW and the MMLAB lists, the outer ones a few in 100.
_YAW_EDGES_DEG = (-25.0, -10.0, 10.0, 25.0)
_ROLL_EDGES_DEG = (-10.0, 10.0)
_BRIGHTNESS_EDGES = (60.0, 100.0, 140.0)

# Sides are the viewer's; roll is positive clockwise in the picture.
BINS: dict[str, tuple[str, ...]] = {
    "yaw": ("far left", "left", "frontal", "right", "far right"),
    "roll": ("counter-clockwise", "upright", "clockwise"),
    "brightness": ("dark", "dim", "light", "bright"),
    "occlusion": ("visible", "occluded"),
}

# How data sets tag a face of which something is hidden; WFLW's attribute is the first.
_OCCLUDED_TAGS = {"occlusion", "occluded"}

Floats = npt.NDArray[np.float64]


class Stratum(NamedTuple):
    """A kind of face: the name of one of `BINS`, or "unknown", for each attribute."""

    yaw: str = UNKNOWN
    roll: str = UNKNOWN
    brightness: str = UNKNOWN
    occlusion: str = UNKNOWN

    @property
    def order(self) -> tuple[int, ...]:
        """What kinds are sorted by: the bins in the order of `BINS`, unknown last."""
        return tuple(bins.index(name) if name in bins else len(bins) for name, bins in zip(self, BINS.values(), strict=True))


def label_strata(samples: Sequence[FaceSample]) -> list[Stratum]:
    """What the labels of faces of one schema say; the brightness is left unknown."""
    if not samples:
        return []
    schema = samples[0].schema
    yaws, rolls = head_angles_deg(np.array([sample.points_px for sample in samples], np.float64), schema)
    return [
        Stratum(
            yaw=_bin(yaw, "yaw", _YAW_EDGES_DEG),
            roll=_bin(roll, "roll", _ROLL_EDGES_DEG),
            occlusion=occlusion,
        )
        for yaw, roll, occlusion in zip(yaws.tolist(), rolls.tolist(), _occlusions(samples), strict=True)
    ]


def brightness_bin(crop_uint8: npt.NDArray[np.uint8]) -> str:
    """The bin of a crop (H, W, 3) BGR by its mean gray level."""
    return _bin(float(cv2.cvtColor(crop_uint8, cv2.COLOR_BGR2GRAY).mean()), "brightness", _BRIGHTNESS_EDGES)


def head_angles_deg(points_px: Floats, schema: LandmarkSchema) -> tuple[Floats, Floats]:
    """Yaw and roll (N,) of faces (N, K, 2) in degrees, NaN where the labels do not tell; roll is between −90 and 90.

    Yaw is positive toward the viewer's right, roll clockwise in the picture.
    """
    eyes = _mirror_pairs(schema, schema.groups.get("eyes", ()))
    # Any two points that mirror each other lie on a level, but only the eyes have a known distance.
    across, _, _ = _axis(points_px, eyes or _mirror_pairs(schema, range(schema.num_points)))
    roll = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    if not eyes:
        return np.full(len(points_px), np.nan), roll
    across, middle, distance = _axis(points_px, eyes)
    beside = np.einsum("nkc,nc->nk", points_px - middle[:, None], across) / distance[:, None]
    by_nose = _tip(beside[:, _on_midline(schema, "nose")]) / _NOSE_DEPTH
    low, high = _span(beside[:, list(schema.groups.get("contour", ()))])
    by_contour = (low + high) / 2 / _CONTOUR_DEPTH
    return np.degrees(np.arctan(np.where(np.isnan(by_nose), by_contour, by_nose))), roll


def _mirror_pairs(schema: LandmarkSchema, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Points that change places in a mirrored face; in all published sets the subject's right one comes first."""
    members = set(indices)
    return [(i, flip) for i, flip in enumerate(schema.flip_indices) if i < flip and {i, flip} <= members]


def _axis(points_px: Floats, pairs: Sequence[tuple[int, int]]) -> tuple[Floats, Floats, Floats]:
    """Of faces (N, K, 2): the unit vector (N, 2) from the viewer's left to right, the middle (N, 2), the distance (N,).

    Only pairs with both points known count; without any, or where all lie in one place, the answer is NaN.
    """
    first, second = (points_px[:, [pair[side] for pair in pairs]] for side in (0, 1))
    known = np.isfinite(first + second).all(axis=2, keepdims=True)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (np.where(known, ends, 0).sum(axis=1) / count for ends in (first, second))
        vector = right - left
        distance = np.linalg.norm(vector, axis=1)
        # No data set has faces upside down; an own one may list the subject's left side first.
        across = vector * np.where(vector[:, :1] < 0, -1, 1) / distance[:, None]
    return across, (left + right) / 2, distance


def _on_midline(schema: LandmarkSchema, group: str) -> list[int]:
    return [i for i in schema.groups.get(group, ()) if schema.flip_indices[i] == i]


def _tip(beside: Floats) -> Floats:
    """Of offsets (N, M) of points on the ridge of the nose, the largest to either side: the tip is farthest from the face."""
    low, high = _span(beside)
    return np.where(high > -low, high, low)


def _span(values: Floats) -> tuple[Floats, Floats]:
    """Least and greatest of each row, NaN where one of them is unknown or there are none."""
    if not values.shape[1]:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    return values.min(axis=1), values.max(axis=1)


def _occlusions(samples: Sequence[FaceSample]) -> list[str]:
    """Whether anything hides the face: a tag of the data set, or points without a label. Where no face has either, the data
    set keeps no account of it."""
    hidden = [not sample.known.all() or not _OCCLUDED_TAGS.isdisjoint(sample.subset) for sample in samples]
    if not any(hidden):
        return [UNKNOWN] * len(samples)
    visible, occluded = BINS["occlusion"]
    return [occluded if is_hidden else visible for is_hidden in hidden]


def _bin(value: float, attribute: str, edges: tuple[float, ...]) -> str:
    return UNKNOWN if np.isnan(value) else BINS[attribute][int(np.digitize(value, edges))]
