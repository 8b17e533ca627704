"""Landmark schemas: what each point of a face is called, and how the points belong together.

"left" and "right" are the subject's own. Mirror pairs follow from the names: `right_eye_outer` and `left_eye_outer`
change places in a mirrored image, a name without a side stays. Index orders are those of the published data sets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.errors import SchemaError

REGIONS = ("contour", "brows", "nose", "eyes", "mouth")


@dataclass(frozen=True)
class Curve:
    """A named line through points, in drawing order; a closed one returns to its first point."""

    name: str
    indices: tuple[int, ...]
    closed: bool = False


@dataclass(frozen=True)
class LandmarkSchema:
    """The definition of a set of K facial points.

    Attributes:
        name: registry name, e.g. ``IBUG_68``.
        point_names: K unique names; "left" is the subject's left.
        groups: region name → point indices (contour, brows, nose, eyes, mouth where the schema has them).
        normalizer: two groups of point indices; the distance between their means divides the error (NME).
        normalizer_name: what that distance is called in reports, e.g. "inter-ocular (outer eye corners)".
        curves: lines for drawing and for interpolating contours.
    """

    name: str
    point_names: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]
    normalizer: tuple[tuple[int, ...], tuple[int, ...]]
    normalizer_name: str
    curves: tuple[Curve, ...] = ()
    flip_indices: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.flip_indices:
            object.__setattr__(self, "flip_indices", _flip_indices_of(self.name, self.point_names))
        _check_schema(self)

    @property
    def num_points(self) -> int:
        return len(self.point_names)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs of neighbouring points, along every curve."""
        pairs: list[tuple[int, int]] = []
        for curve in self.curves:
            ring = curve.indices + curve.indices[:1] if curve.closed else curve.indices
            pairs += list(pairwise(ring))
        return tuple(pairs)

    def normalizer_px(self, points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The distance that divides the error, for points of shape (..., K, 2); in the unit of the points."""
        points = np.asarray(points_px, np.float64)
        first, second = (points[..., list(group), :].mean(axis=-2) for group in self.normalizer)
        return np.asarray(np.linalg.norm(first - second, axis=-1))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "point_names": list(self.point_names),
            "flip_indices": list(self.flip_indices),
            "groups": {name: list(indices) for name, indices in self.groups.items()},
            "normalizer": [list(group) for group in self.normalizer],
            "normalizer_name": self.normalizer_name,
            "curves": [{"name": c.name, "indices": list(c.indices), "closed": c.closed} for c in self.curves],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LandmarkSchema:
        """The inverse of `to_json`.

        Raises:
            SchemaError: a field is missing, of the wrong kind or inconsistent.
        """
        try:
            return cls(
                name=str(document["name"]),
                point_names=tuple(str(name) for name in document["point_names"]),
                groups={str(k): tuple(int(i) for i in v) for k, v in document["groups"].items()},
                normalizer=(tuple(map(int, document["normalizer"][0])), tuple(map(int, document["normalizer"][1]))),
                normalizer_name=str(document.get("normalizer_name", "the schema's own")),
                curves=tuple(
                    Curve(str(c["name"]), tuple(map(int, c["indices"])), bool(c.get("closed", False)))
                    for c in document.get("curves", ())
                ),
                flip_indices=tuple(int(i) for i in document.get("flip_indices", ())),
            )
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, SchemaError):
                raise
            raise SchemaError(
                f"A landmark schema needs name, point_names, groups and normalizer; reading it failed at {error!r}."
            ) from error


def _flip_indices_of(schema_name: str, point_names: tuple[str, ...]) -> tuple[int, ...]:
    index_of = {name: index for index, name in enumerate(point_names)}
    swap = {"left": "right", "right": "left"}
    flips: list[int] = []
    for name in point_names:
        mirrored = re.sub(r"(?<![a-z])(left|right)(?![a-z])", lambda match: swap[match.group()], name)
        if mirrored not in index_of:
            raise SchemaError(
                f"{schema_name}: point {name!r} has no mirror partner {mirrored!r}. Name both sides, or give flip_indices."
            )
        flips.append(index_of[mirrored])
    return tuple(flips)


def _check_schema(schema: LandmarkSchema) -> None:
    count = len(schema.point_names)
    if count == 0 or len(set(schema.point_names)) != count:
        raise SchemaError(f"{schema.name}: point_names must be at least one name, each different; got {count} names.")
    flips = schema.flip_indices
    if len(flips) != count or any(not 0 <= flip < count or flips[flip] != i for i, flip in enumerate(flips)):
        raise SchemaError(
            f"{schema.name}: flip_indices must be {count} indices that swap points in pairs (applied twice: unchanged)."
        )
    used = {f"group {name}": indices for name, indices in schema.groups.items()}
    used |= {f"curve {curve.name}": curve.indices for curve in schema.curves}
    used |= {"normalizer, first": schema.normalizer[0], "normalizer, second": schema.normalizer[1]}
    for what, indices in used.items():
        if not indices or any(not 0 <= index < count for index in indices):
            raise SchemaError(f"{schema.name}: {what} must name points 0 to {count - 1}; got {tuple(indices)}.")


def _sided(side: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names)


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{index}" for index in range(count))


def _mirrored_run(names: tuple[str, ...], *middle: str) -> tuple[str, ...]:
    """The subject's right side in order, the middle, then the left side in the reverse order."""
    return _sided("right", names) + middle + _sided("left", names[::-1])


_NOSE_BASE = _mirrored_run(("nostril_0", "nostril_1"), "nose_base")
_OUTER_LIP = _mirrored_run(("mouth_corner", "upper_lip_0", "upper_lip_1"), "upper_lip_top") + tuple(
    reversed(_mirrored_run(("lower_lip_0", "lower_lip_1"), "lower_lip_bottom"))
)
_INNER_LIP = _mirrored_run(("inner_mouth_corner", "inner_upper_lip"), "inner_upper_lip_middle") + tuple(
    reversed(_mirrored_run(("inner_lower_lip",), "inner_lower_lip_middle"))
)

MMLAB_5 = LandmarkSchema(
    name="MMLAB_5",
    point_names=("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner"),
    groups={"eyes": (0, 1), "nose": (2,), "mouth": (3, 4)},
    normalizer=((0,), (1,)),
    normalizer_name="inter-ocular (eye centres)",
    curves=(Curve("eyes", (0, 1)), Curve("mouth", (3, 4)), Curve("right_nose", (0, 2, 3)), Curve("left_nose", (1, 2, 4))),
)

IBUG_68 = LandmarkSchema(
    name="IBUG_68",
    point_names=(
        *_mirrored_run(_numbered("contour", 8), "chin"),
        *_mirrored_run(_numbered("brow", 5)),
        *_numbered("nose_ridge", 4),
        *_NOSE_BASE,
        *_sided("right_eye", ("outer", "upper_outer", "upper_inner", "inner", "lower_inner", "lower_outer")),
        *_sided("left_eye", ("inner", "upper_inner", "upper_outer", "outer", "lower_outer", "lower_inner")),
        *_OUTER_LIP,
        *_INNER_LIP,
    ),
    groups={
        "contour": tuple(range(17)),
        "brows": tuple(range(17, 27)),
        "nose": tuple(range(27, 36)),
        "eyes": tuple(range(36, 48)),
        "mouth": tuple(range(48, 68)),
    },
    normalizer=((36,), (45,)),
    normalizer_name="inter-ocular (outer eye corners)",
    curves=(
        Curve("contour", tuple(range(17))),
        Curve("right_brow", tuple(range(17, 22))),
        Curve("left_brow", tuple(range(22, 27))),
        Curve("nose_ridge", tuple(range(27, 31))),
        Curve("nose_base", tuple(range(31, 36))),
        Curve("right_eye", tuple(range(36, 42)), closed=True),
        Curve("left_eye", tuple(range(42, 48)), closed=True),
        Curve("outer_lip", tuple(range(48, 60)), closed=True),
        Curve("inner_lip", tuple(range(60, 68)), closed=True),
    ),
)

WFLW_98 = LandmarkSchema(
    name="WFLW_98",
    point_names=(
        *_mirrored_run(_numbered("contour", 16), "chin"),
        *_sided("right", _numbered("brow_upper", 5) + _numbered("brow_lower", 4)[::-1]),
        *_sided("left", _numbered("brow_upper", 5)[::-1] + _numbered("brow_lower", 4)),
        *_numbered("nose_ridge", 4),
        *_NOSE_BASE,
        *_sided("right_eye", ("outer", "upper_0", "upper_1", "upper_2", "inner", "lower_2", "lower_1", "lower_0")),
        *_sided("left_eye", ("inner", "upper_2", "upper_1", "upper_0", "outer", "lower_0", "lower_1", "lower_2")),
        *_OUTER_LIP,
        *_INNER_LIP,
        "right_pupil",
        "left_pupil",
    ),
    groups={
        "contour": tuple(range(33)),
        "brows": tuple(range(33, 51)),
        "nose": tuple(range(51, 60)),
        "eyes": (*range(60, 76), 96, 97),
        "mouth": tuple(range(76, 96)),
    },
    normalizer=((60,), (72,)),
    normalizer_name="inter-ocular (outer eye corners)",
    curves=(
        Curve("contour", tuple(range(33))),
        Curve("right_brow", tuple(range(33, 42)), closed=True),
        Curve("left_brow", tuple(range(42, 51)), closed=True),
        Curve("nose_ridge", tuple(range(51, 55))),
        Curve("nose_base", tuple(range(55, 60))),
        Curve("right_eye", tuple(range(60, 68)), closed=True),
        Curve("left_eye", tuple(range(68, 76)), closed=True),
        Curve("outer_lip", tuple(range(76, 88)), closed=True),
        Curve("inner_lip", tuple(range(88, 96)), closed=True),
    ),
)

SCHEMAS: dict[str, LandmarkSchema] = {schema.name: schema for schema in (MMLAB_5, IBUG_68, WFLW_98)}


def get_schema(name_or_file: str | Path) -> LandmarkSchema:
    """A published schema by name (``IBUG_68``, ``WFLW_98``, ``MMLAB_5``), or an own point set from a TOML file.

    The file has the keys of `LandmarkSchema.to_json`; flip_indices and curves may be left out.

    Raises:
        SchemaError: no such name or file, or a file that does not define a consistent schema.
    """
    text = str(name_or_file)
    if text.upper() in SCHEMAS:
        return SCHEMAS[text.upper()]
    if not text.endswith(".toml"):
        near = difflib.get_close_matches(text.upper(), SCHEMAS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SchemaError(f"No schema is called {text!r}; known: {', '.join(SCHEMAS)}, or a .toml file.{hint}")
    from lmedge.toml_file import read_toml

    return LandmarkSchema.from_json(read_toml(Path(text), SchemaError))


# Published conversions, target point → weighted source points.
# 98 → 68 follows PIPNet (Jin et al., IJCV 2021), lib/preprocess.py; the sets define some points differently, so such
# figures are "WFLW-68", not 300-W.
_THIRDS = {
    37: (61, 62), 38: (63, 62), 40: (65, 66), 41: (67, 66), 43: (69, 70), 44: (71, 70), 46: (73, 74), 47: (75, 74),
}  # fmt: skip
_HALVES = {18: (34, 41), 19: (35, 40), 20: (36, 39), 21: (37, 38), 22: (42, 50), 23: (43, 49), 24: (44, 48), 25: (45, 47)}
_SAME = {17: 33, 26: 46, 36: 60, 39: 64, 42: 68, 45: 72}
_WFLW_TO_IBUG: dict[int, dict[int, float]] = {
    **{i: {2 * i: 1.0} for i in range(17)},
    **{i: {a: 0.5, b: 0.5} for i, (a, b) in _HALVES.items()},
    **{i: {a: 2 / 3, b: 1 / 3} for i, (a, b) in _THIRDS.items()},
    **{i: {same: 1.0} for i, same in _SAME.items()},
    **{27 + i: {51 + i: 1.0} for i in range(9)},
    **{48 + i: {76 + i: 1.0} for i in range(20)},
}
_IBUG_TO_MMLAB: dict[int, dict[int, float]] = {
    0: dict.fromkeys(range(36, 42), 1 / 6),
    1: dict.fromkeys(range(42, 48), 1 / 6),
    2: {30: 1.0},
    3: {48: 1.0},
    4: {54: 1.0},
}
_MAPPINGS = {("WFLW_98", "IBUG_68"): _WFLW_TO_IBUG, ("IBUG_68", "MMLAB_5"): _IBUG_TO_MMLAB}


def mapping_matrix(source: LandmarkSchema, target: LandmarkSchema) -> npt.NDArray[np.float64]:
    """The published conversion between two schemas as a (K_target, K_source) matrix of weights; rows sum to 1.

    Raises:
        SchemaError: no conversion between the two is published.
    """
    if source == target:
        return np.eye(source.num_points)
    weights = _MAPPINGS.get((source.name, target.name))
    if weights is None:
        known = ", ".join(f"{a} → {b}" for a, b in _MAPPINGS)
        raise SchemaError(f"No published mapping from {source.name} to {target.name}; known: {known}.")
    matrix = np.zeros((target.num_points, source.num_points))
    for row, terms in weights.items():
        for column, weight in terms.items():
            matrix[row, column] = weight
    return matrix
