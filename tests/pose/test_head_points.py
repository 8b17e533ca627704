"""The generic head: the same places for every schema, mirrored, by name for own point sets."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge.pose import generic_points
from lmedge.schemas import COFW_29, IBUG_68, MMLAB_5, SCHEMAS, WFLW_98, LandmarkSchema, mapping_matrix


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_every_published_point_has_a_place_and_its_mirror_image(schema: LandmarkSchema) -> None:
    points = generic_points(schema)
    assert points.shape == (schema.num_points, 3)
    np.testing.assert_allclose(points[list(schema.flip_indices)] * (-1, 1, 1), points, atol=1e-12)


def test_axes_and_unit() -> None:
    """x to the viewer's right, y down, z away; the origin between the outer eye corners, about 90 mm apart."""
    place = dict(zip(WFLW_98.point_names, generic_points(WFLW_98), strict=True))
    assert np.linalg.norm(place["right_eye_outer"] - place["left_eye_outer"]) == pytest.approx(90, abs=2)
    np.testing.assert_allclose((place["right_eye_outer"] + place["left_eye_outer"]) / 2, 0, atol=2)
    assert place["right_eye_outer"][0] < 0
    assert place["chin"][1] > place["nose_base"][1] > place["right_brow_upper_2"][1]
    assert place["nose_ridge_3"][2] < place["right_eye_outer"][2] < place["right_contour_0"][2]


def test_schemas_agree_by_their_conversions() -> None:
    wflw, ibug = generic_points(WFLW_98), generic_points(IBUG_68)
    np.testing.assert_allclose(mapping_matrix(WFLW_98, IBUG_68) @ wflw, ibug)
    np.testing.assert_allclose(mapping_matrix(IBUG_68, MMLAB_5) @ ibug, generic_points(MMLAB_5))
    np.testing.assert_allclose(mapping_matrix(WFLW_98, COFW_29) @ wflw, generic_points(COFW_29))


def test_own_points_are_placed_by_name_and_others_are_nan() -> None:
    own = LandmarkSchema(
        "OWN_4", ("chin", "left_eye_outer", "right_eye_outer", "third_eye"), {"eyes": (1, 2)}, ((1,), (2,)), "eyes"
    )
    points = generic_points(own)
    ibug = dict(zip(IBUG_68.point_names, generic_points(IBUG_68), strict=True))
    for index, name in enumerate(own.point_names[:3]):
        np.testing.assert_array_equal(points[index], ibug[name])
    assert np.isnan(points[3]).all()


def test_a_name_that_means_different_places_places_nothing() -> None:
    """The third contour point of 17 is not the third of 33."""
    own = LandmarkSchema("OWN_2", ("right_contour_2", "left_contour_2"), {"contour": (0, 1)}, ((0,), (1,)), "width of the face")
    assert np.isnan(generic_points(own)).all()


def test_a_schema_that_only_borrows_a_published_name_is_read_by_its_points() -> None:
    borrowed = LandmarkSchema("MMLAB_5", ("left_eye", "right_eye"), {"eyes": (0, 1)}, ((0,), (1,)), "eyes")
    np.testing.assert_array_equal(generic_points(borrowed), generic_points(MMLAB_5)[[1, 0]])


def test_the_caller_owns_the_points() -> None:
    generic_points(IBUG_68)[:] = 0
    assert generic_points(IBUG_68).any()
