"""Points of several schemas in one row: where each set is, what a mirrored face becomes, how faces of other sets are framed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.samples import FaceSample
from lmedge.data.synthetic import render_faces
from lmedge.errors import DataError, SchemaError
from lmedge.landmarks import FaceBox
from lmedge.pipeline.training.joint import Frames, JointPoints, conversion
from lmedge.schemas import AFLW_19, COFW_29, IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema
from tests.data.faces import points_of

SETS = st.lists(
    st.sampled_from([MMLAB_5, IBUG_68, WFLW_98, COFW_29, AFLW_19]), min_size=1, max_size=4, unique_by=lambda s: s.name
)
joint_points = st.builds(lambda schemas, taught: JointPoints(tuple(schemas), taught), SETS, st.booleans())
# An own point set: no conversion of it is published.
OWN = LandmarkSchema.from_json({**MMLAB_5.to_json(), "name": "OWN_5", "point_names": ["a", "b", "c", "d", "e"]})


# Places


@given(points=joint_points)
def test_each_set_has_its_own_place_and_together_they_are_all_outputs(points: JointPoints) -> None:
    places = [points.place_of(schema) for schema in points.schemas]
    assert [index for place in places for index in range(place.start, place.stop)] == list(range(points.num_outputs))
    assert [place.stop - place.start for place in places] == [schema.num_points for schema in points.schemas]
    assert points.num_points - points.num_outputs == points.taught * points.schemas[0].num_points


def test_a_schema_that_the_run_has_not_is_named() -> None:
    with pytest.raises(SchemaError, match="The run has points of MMLAB_5, IBUG_68; got a face of WFLW_98"):
        JointPoints((MMLAB_5, IBUG_68)).place_of(WFLW_98)


# Mirrored


@given(points=joint_points)
def test_mirroring_twice_changes_nothing_and_no_point_leaves_its_set(points: JointPoints) -> None:
    flip = np.array(points.flip_indices)
    np.testing.assert_array_equal(flip[flip], np.arange(points.num_points))
    for schema in points.schemas:
        place = points.place_of(schema)
        np.testing.assert_array_equal(flip[place] - place.start, schema.flip_indices)


def joint_label(points: JointPoints, schema: LandmarkSchema, own: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The row of a face of one schema, as training lays it out; a teacher answers the same places here."""
    row = np.full((points.num_points, 2), np.nan)
    row[points.place_of(schema)] = own
    if points.taught and schema == points.schemas[0]:
        row[points.num_outputs :] = own
    return row


@given(points=joint_points, which=st.integers(0, 3), seed=st.integers(0, 99), side=st.integers(10, 500))
def test_a_mirrored_joint_label_is_the_joint_label_of_the_mirrored_face(
    points: JointPoints, which: int, seed: int, side: int
) -> None:
    schema = points.schemas[which % len(points.schemas)]
    own = np.random.default_rng(seed).uniform(0, side, (schema.num_points, 2))
    mirrored = (own * [-1, 1] + [side - 1, 0])[list(schema.flip_indices)]
    label = joint_label(points, schema, own)
    joint_mirrored = (label * [-1, 1] + [side - 1, 0])[list(points.flip_indices)]
    np.testing.assert_allclose(joint_mirrored, joint_label(points, schema, mirrored))


# Frames


def rendered(count: int, seed: int, schema: LandmarkSchema = IBUG_68) -> list[FaceSample]:
    return list(render_faces(count, schema, seed=seed, size_px=96))


def reduced(sample: FaceSample, schema: LandmarkSchema) -> FaceSample:
    """The same face with fewer points."""
    matrix = conversion(sample.schema, schema)
    assert matrix is not None
    return replace(sample, points_px=(matrix @ sample.points_px).astype(np.float32), schema=schema)


def side_ratios_and_shifts(
    boxes: Sequence[FaceBox], true: Sequence[FaceBox]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sides of the squares around boxes over those around the true ones, and how far their centres are apart in true sides."""
    sides = [np.array([max(box.width, box.height) for box in each]) for each in (boxes, true)]
    centers = [np.array([box.center for box in each]) for each in (boxes, true)]
    return sides[0] / sides[1], (centers[0] - centers[1]) / sides[1][:, None]


@pytest.mark.parametrize(("first", "other"), [(IBUG_68, MMLAB_5), (WFLW_98, MMLAB_5), (WFLW_98, IBUG_68)])
def test_a_face_with_fewer_points_is_framed_as_the_whole_one(first: LandmarkSchema, other: LandmarkSchema) -> None:
    """With the extent of its own 5 points, a face would be seen at about twice the scale."""
    frames = Frames(first, rendered(60, 0, first), (first, other))
    faces = rendered(40, 1, first)
    smaller = [reduced(face, other) for face in faces]
    true = [face.box() for face in faces]
    ratios, shifts = side_ratios_and_shifts([frames.box(face) for face in smaller], true)
    assert float(np.median(ratios)) == pytest.approx(1, abs=0.05)
    assert np.abs(np.median(shifts, axis=0)).max() < 0.04
    if other is MMLAB_5:
        plain, _ = side_ratios_and_shifts([face.box() for face in smaller], true)
        assert float(np.median(plain)) < 0.7


def test_faces_of_the_first_schema_keep_their_box() -> None:
    faces = rendered(4, 0)
    frames = Frames(IBUG_68, faces, (IBUG_68, MMLAB_5))
    assert [frames.box(face) for face in faces] == [face.box() for face in faces]


def test_a_larger_set_is_framed_by_the_points_that_the_smaller_one_has() -> None:
    """Framed by its own extent, a face of 68 points would be seen at half the scale of one of 5."""
    faces = rendered(4, 0)
    matrix = conversion(IBUG_68, MMLAB_5)
    assert matrix is not None
    small = [replace(face, points_px=(matrix @ face.points_px).astype(np.float32), schema=MMLAB_5) for face in faces]
    frames = Frames(MMLAB_5, small, (MMLAB_5, IBUG_68))
    ratio, shift = side_ratios_and_shifts([frames.box(face) for face in faces], [face.box() for face in small])
    np.testing.assert_allclose(ratio, 1, rtol=1e-4)
    np.testing.assert_allclose(shift, 0, atol=1e-4)


def test_sets_without_a_conversion_cannot_be_trained_together() -> None:
    with pytest.raises(SchemaError, match=r"Faces of OWN_5 cannot be trained together with IBUG_68.*Build one bundle for each"):
        Frames(IBUG_68, rendered(2, 0), (IBUG_68, OWN))


def test_framing_needs_one_complete_face() -> None:
    holed = [replace(face, points_px=np.where(np.arange(68)[:, None] == 3, np.nan, face.points_px)) for face in rendered(2, 0)]
    with pytest.raises(DataError, match="No training face has all points of IBUG_68, so faces of MMLAB_5 cannot be framed"):
        Frames(IBUG_68, holed, (IBUG_68, MMLAB_5))


# Conversions


@pytest.mark.parametrize(("source", "target"), [(IBUG_68, MMLAB_5), (WFLW_98, IBUG_68), (WFLW_98, MMLAB_5)])
def test_a_conversion_keeps_a_shifted_face_shifted(source: LandmarkSchema, target: LandmarkSchema) -> None:
    matrix = conversion(source, target)
    assert matrix is not None
    assert matrix.shape == (target.num_points, source.num_points)
    np.testing.assert_allclose(matrix.sum(1), 1)
    points = points_of(source)
    mirrored = (points * [-1, 1])[list(source.flip_indices)]
    np.testing.assert_allclose(matrix @ mirrored, ((matrix @ points) * [-1, 1])[list(target.flip_indices)], atol=1e-9)


def test_no_conversion_adds_points() -> None:
    assert conversion(MMLAB_5, IBUG_68) is None
