"""Which face is which: from boxes and points of one frame to the identities of the frame before.

Faces overlap little with each other and much with themselves one frame later, so overlap decides; a face that was lost is
taken up again near the place where it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from lmedge.landmarks import FaceBox, Landmarks
from lmedge.runtimes.evaluate import iou

# A detection that overlaps a known face by this much is of that face; one that fits reaches 0.6 and more.
_SAME_PLACE = 0.3
# Two sets of points whose extents overlap by this much lie on one face.
_SAME_FACE = 0.5


def extent(landmarks: Landmarks) -> FaceBox:
    """The box around the points: where the face is looked for in the next frame."""
    return FaceBox.around(landmarks.points_px)


def is_on_one_of(landmarks: Landmarks, others: Iterable[Landmarks]) -> bool:
    """Whether the points lie on a face that is followed already."""
    box = extent(landmarks)
    return any(iou(box, extent(other)) > _SAME_FACE for other in others)


def one_for_each_face(
    seen: Mapping[int, Landmarks], boxes_before: Mapping[int, FaceBox], lost: Collection[int] = ()
) -> dict[int, Landmarks]:
    """Identities without those that ended up on another one's face.

    It belongs to one that was followed rather than to one that was lost; then to the one that moved less to get there; of two
    that moved alike, to the older.
    """
    if len(seen) < 2:
        return dict(seen)
    order = sorted(seen, key=lambda one: (one in lost, -iou(boxes_before[one], extent(seen[one])), one))
    kept: dict[int, Landmarks] = {}
    for identity in order:
        if not is_on_one_of(seen[identity], kept.values()):
            kept[identity] = seen[identity]
    return kept


def seen_at(box: FaceBox, seen: Mapping[int, Landmarks]) -> int | None:
    """The identity that a detection confirms: the one with the largest overlap, if that is large enough."""
    overlaps = {identity: iou(box, extent(landmarks)) for identity, landmarks in seen.items()}
    best = max(overlaps, key=overlaps.__getitem__, default=None)
    return best if best is not None and overlaps[best] >= _SAME_PLACE else None


def missed_near(box: FaceBox, missed: Mapping[int, FaceBox], sides: float) -> int | None:
    """The lost identity nearest to a detection, if it was lost within that many sides of its box."""
    nearest = min(missed, key=lambda identity: math.dist(missed[identity].center, box.center), default=None)
    if nearest is None:
        return None
    last = missed[nearest]
    reach_px = sides * max(last.width, last.height)
    return nearest if math.dist(last.center, box.center) <= reach_px else None
