"""How many faces of each kind are chosen: more of the common kinds, but far from in proportion.

The share of a kind grows with the square root of how often it occurs, so that a hundred times rarer faces are chosen ten times
less often. Seats go out one by one as in Adams' method of apportionment: the next one to the kind with the highest
√available / chosen. A kind that has none yet comes first, so where there is room for all kinds, each has a face.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from lmedge.calibration.strata import BINS, UNKNOWN, Stratum
from lmedge.reports import CoverageReport, StratumCount


def allot(available: Mapping[Stratum, int], count: int, views: int = 1) -> dict[Stratum, int]:
    """How many crops of each kind of face, `count` in all or as many as there are.

    Every face is taken once before a second view of any is.

    Args:
        available: faces of each kind.
        count: crops wanted.
        views: crops that one face can give.
    """
    faces = sum(available.values())
    chosen = dict.fromkeys(available, 0) if count < faces else dict(available)
    seats = min(count, faces * views) - sum(chosen.values())
    # A face gives one crop before all faces are taken, and up to `views` then.
    each = 1 if count < faces else views
    queue = [(_claim(size, chosen[kind]), kind.order, kind) for kind, size in available.items() if chosen[kind] < size * each]
    heapq.heapify(queue)
    for _ in range(seats):
        _, order, kind = queue[0]
        chosen[kind] += 1
        if chosen[kind] < available[kind] * each:
            heapq.heapreplace(queue, (_claim(available[kind], chosen[kind]), order, kind))
        else:
            heapq.heappop(queue)
    return chosen


def report_coverage(faces: int, available: Sequence[Stratum], chosen: Sequence[Stratum]) -> CoverageReport:
    """The report on a choice.

    Args:
        faces: training faces there were.
        available: the kind of each face that could be chosen.
        chosen: the kind of the face on each crop.
    """
    stock, taken = Counter(available), Counter(chosen)
    kinds = sorted(stock, key=lambda kind: kind.order)
    attributes: dict[str, dict[str, StratumCount]] = {}
    for attribute, names in BINS.items():
        counts = {
            name: StratumCount(
                sum(stock[kind] for kind in kinds if getattr(kind, attribute) == name),
                sum(taken[kind] for kind in kinds if getattr(kind, attribute) == name),
            )
            for name in (*names, UNKNOWN)
        }
        # A known bin without faces is worth saying; that nothing is unknown is not.
        attributes[attribute] = {name: row for name, row in counts.items() if row.available or name != UNKNOWN}
    strata = {", ".join(kind): StratumCount(stock[kind], taken[kind]) for kind in kinds}
    return CoverageReport(faces, len(available), attributes, strata)


def _claim(available: int, chosen: int) -> tuple[bool, float]:
    """What the queue is sorted by, the strongest claim least: kinds without a face, then the highest √available / chosen."""
    return bool(chosen), -math.sqrt(available) / max(chosen, 1)
