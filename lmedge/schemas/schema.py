"""What a set of facial points is: names, mirror pairs, groups, curves, and the distance that divides errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
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
