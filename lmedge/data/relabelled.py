"""Copies of one photo that were labelled twice: how far apart the two labellings are.

The copies are of different sizes and cuts, so one labelling is laid over the other by a similarity first. What shift, size
and rotation the two labellings differ by is not seen then; the rest is a lower bound of the labels' own noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmedge.data.duplicates import groups_of_pairs
from lmedge.data.samples import FaceSample
from lmedge.data.shapes import align


@dataclass(frozen=True)
class Relabelled:
    """Two labellings of one face.

    Attributes:
        first, second: indices of the faces; origins: where their labels were read.
        difference: mean distance of the points over the normaliser of the first face, a fraction; 0 where labels were copied.
        worst_point: the name of the point that is farthest apart.
    """

    first: int
    second: int
    origins: tuple[str, str]
    difference: float
    worst_point: str


def relabelled_pairs(samples: Sequence[FaceSample], pairs: Sequence[tuple[int, int]]) -> list[Relabelled]:
    """Of each group of copies the two labellings that differ most, the most different first.

    Args:
        samples: faces of one schema; those without a normaliser are left out.
        pairs: indices of faces that are copies, see `duplicates.duplicate_pairs`.
    """
    compared = [entry for pair in pairs if (entry := _compare(samples, *pair)) is not None]
    group_of = {key: number for number, keys in enumerate(groups_of_pairs(samples, pairs)) for key in keys}
    worst: dict[int | str, Relabelled] = {}
    for entry in sorted(compared, key=lambda entry: -entry.difference):
        key = samples[entry.first].photo_key
        # Two labels of one face in one photo have one key and are in no group.
        worst.setdefault(group_of.get(key, key), entry)
    return list(worst.values())


def _compare(samples: Sequence[FaceSample], first: int, second: int) -> Relabelled | None:
    one, other = samples[first], samples[second]
    normalizer_px = float(one.schema.normalizer_px(one.points_px))
    distances_px = np.linalg.norm(align(other.points_px, one.points_px) - one.points_px, axis=1)
    if not normalizer_px > 0 or not np.isfinite(distances_px).any():
        return None
    difference = round(float(np.nanmean(distances_px)) / normalizer_px, 5)
    worst = one.schema.point_names[int(np.nanargmax(distances_px))]
    return Relabelled(first, second, (one.origin, other.origin), difference, worst)
