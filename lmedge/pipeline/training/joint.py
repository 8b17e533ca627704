"""Points of several schemas in one row, so that one network can learn from data sets with different points.

The first schema is the one that is validated and exported; a head that was trained for all of them then keeps its points alone
(`Head.keep_points`). Labels of the other schemas are unknown (NaN) on each face and have no influence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from lmedge.data.samples import FaceSample
from lmedge.errors import DataError, SchemaError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import BoxFit, PreprocessSpec, fit_boxes, reference_box
from lmedge.schemas import IBUG_68, LandmarkSchema, mapping_matrix


@dataclass(frozen=True)
class JointPoints:
    """The points of `schemas`, one set after the other; with `taught`, those of the first a second time, as a teacher says
    they are."""

    schemas: tuple[LandmarkSchema, ...]
    taught: bool = False

    @property
    def num_outputs(self) -> int:
        """Points that the network answers."""
        return sum(schema.num_points for schema in self.schemas)

    @property
    def num_points(self) -> int:
        """Points of a label: the network's, and the teacher's."""
        return self.num_outputs + (self.schemas[0].num_points if self.taught else 0)

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """For each point, the one whose place it takes in a mirrored picture."""
        blocks = [*self.schemas, self.schemas[0]] if self.taught else list(self.schemas)
        starts = accumulate((block.num_points for block in blocks), initial=0)
        return tuple(start + index for start, block in zip(starts, blocks, strict=False) for index in block.flip_indices)

    def place_of(self, schema: LandmarkSchema) -> slice:
        """Where the points of a schema are.

        Raises:
            SchemaError: it is none of these.
        """
        start = 0
        for known in self.schemas:
            if known == schema:
                return slice(start, start + known.num_points)
            start += known.num_points
        raise SchemaError(f"The run has points of {', '.join(s.name for s in self.schemas)}; got a face of {schema.name}.")

    def row(self, points: npt.NDArray[np.float32], schema: LandmarkSchema) -> npt.NDArray[np.float32]:
        """The points (K, 2) of one schema in their place of (num_points, 2), all others unknown (NaN).

        Raises:
            SchemaError: see `place_of`.
        """
        row = np.full((self.num_points, 2), np.nan, np.float32)
        row[self.place_of(schema)] = points
        return row


class Frames:
    """How faces of other schemas are framed: as those of the first one are.

    The extent of 5 points is about half of that of 68. A crop that is cut around it would show the network another scale.
    """

    def __init__(self, schema: LandmarkSchema, samples: Sequence[FaceSample], others: Sequence[LandmarkSchema]) -> None:
        """
        Args:
            schema: the first.
            samples: faces of it, from which the framing of the others is learned.
            others: what else occurs.

        Raises:
            SchemaError: no conversion is published in either direction.
        """
        self.schema = schema
        further = [other for other in others if other != schema]
        # A face that holds the first schema's points is framed by them; for one that does not, their place is learned.
        self._conversions = {other.name: matrix for other in further if (matrix := conversion(other, schema)) is not None}
        learned = [other for other in further if other.name not in self._conversions]
        self._spec = PreprocessSpec(box_fits={other.name: _fit(schema, samples, other) for other in learned})

    def box(self, sample: FaceSample) -> FaceBox:
        """The reference box that the face would have with the points of the first schema."""
        own = sample.box()
        if sample.schema == self.schema:
            return own
        matrix = self._conversions.get(sample.schema.name)
        if matrix is not None:
            converted = (matrix @ sample.points_px).astype(np.float32)
            known = np.isfinite(converted).all(axis=1)
            return FaceBox.around(converted) if known.sum() > 1 and np.ptp(converted[known], axis=0).all() else own
        return reference_box(FaceBox.from_xyxy(own.xyxy, kind=sample.schema.name), self._spec)


def _fit(schema: LandmarkSchema, samples: Sequence[FaceSample], other: LandmarkSchema) -> BoxFit:
    matrix = conversion(schema, other)
    if matrix is not None:
        complete = [sample for sample in samples if sample.known.all()]
        if not complete:
            raise DataError(f"No training face has all points of {schema.name}, so faces of {other.name} cannot be framed.")
        boxes = [FaceBox.around((matrix @ sample.points_px).astype(np.float32)) for sample in complete]
        return fit_boxes(boxes, [sample.box() for sample in complete])
    raise SchemaError(
        f"Faces of {other.name} cannot be trained together with {schema.name}: no conversion between them is published, so "
        "nobody knows how to frame them. Build one bundle for each."
    )


def conversion(source: LandmarkSchema, target: LandmarkSchema) -> npt.NDArray[np.float64] | None:
    """The published conversion (K target, K source), directly or by way of IBUG_68; None where there is none."""
    for path in ((source, target), (source, IBUG_68, target)):
        try:
            steps = [mapping_matrix(a, b) for a, b in pairwise(path)]
        except SchemaError:
            continue
        matrix = steps[0]
        for step in steps[1:]:
            matrix = step @ matrix
        return matrix
    return None
