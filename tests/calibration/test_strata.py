"""What kind of face labels and crops tell of, on any set of points, and "unknown" where they do not tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.calibration.strata import BINS, UNKNOWN, Stratum, brightness_bin, head_angles_deg, label_strata
from lmedge.data.samples import FaceSample
from lmedge.data.synthetic import HeadPose, Scene, render_face
from lmedge.schemas import IBUG_68, MMLAB_5, SCHEMAS, WFLW_98, LandmarkSchema
from tests.calibration.pictures import picture, pictured_face, points_px

YAWS_DEG = (-40, -18, 0, 18, 40)
POSED = {yaw: render_face((0, 0), 64, Scene(pose=HeadPose(yaw, 0, 0), plain=True)) for yaw in YAWS_DEG}
IMAGE = picture(0)


def face(points: np.ndarray, schema: LandmarkSchema, tags: tuple[str, ...] = ()) -> FaceSample:
    return FaceSample(IMAGE, points.astype(np.float32), schema, photo_key="face", subset=tags)


def without(schema: LandmarkSchema, *groups: str) -> LandmarkSchema:
    return replace(schema, name="OWN", groups={name: points for name, points in schema.groups.items() if name not in groups})


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), without(IBUG_68, "nose")], ids=lambda schema: schema.name)
def test_yaw_is_told_by_the_nose_or_the_contour(schema: LandmarkSchema) -> None:
    points = np.array([face.points(IBUG_68 if schema.name == "OWN" else schema) for face in POSED.values()])
    yaws, rolls = head_angles_deg(points, schema)
    np.testing.assert_allclose(yaws, YAWS_DEG, atol=8)
    np.testing.assert_allclose(rolls, 0, atol=5)
    assert [kind.yaw for kind in label_strata([face(each, schema) for each in points])] == list(BINS["yaw"])


@pytest.mark.parametrize("schema", [without(IBUG_68, "nose", "contour"), without(MMLAB_5, "nose"), without(WFLW_98, "eyes")])
def test_without_eyes_or_nose_and_contour_yaw_is_unknown_and_roll_is_not(schema: LandmarkSchema) -> None:
    full = next(each for each in SCHEMAS.values() if each.num_points == schema.num_points)
    kinds = label_strata([face(each.points(full), schema) for each in POSED.values()])
    assert {(kind.yaw, kind.roll) for kind in kinds} == {(UNKNOWN, "upright")}


def test_points_without_mirror_pairs_tell_nothing() -> None:
    schema = LandmarkSchema(
        "OWN", ("chin", "nose_tip", "forehead"), {"nose": (1,)}, normalizer=((0,), (2,)), normalizer_name="height"
    )
    (kind,) = label_strata([face(np.array([[30, 60], [31, 40], [30, 10]]), schema)])
    assert (kind.yaw, kind.roll) == (UNKNOWN, UNKNOWN)


def test_unknown_points_are_worked_around_or_make_the_angle_unknown() -> None:
    points = POSED[18].points(IBUG_68).astype(np.float64)
    whole = head_angles_deg(points[None], IBUG_68)

    def angles(*missing: int) -> tuple[float, float]:
        changed = points.copy()
        changed[list(missing)] = np.nan
        yaw, roll = head_angles_deg(changed[None], IBUG_68)
        return float(yaw[0]), float(roll[0])

    np.testing.assert_allclose(angles(36), np.ravel(whole), atol=3)
    assert angles(30)[0] == pytest.approx(whole[0][0], abs=6), "the contour stands in for the tip of the nose"
    assert np.isnan(angles(30, 0)[0])
    assert np.isnan(angles(*range(36, 42))).all(), "one eye is no line"


@given(st.floats(-0.5, 0.5), st.floats(-60, 60))
def test_turning_the_picture_adds_to_roll_and_leaves_yaw(nose_beside: float, turn_deg: float) -> None:
    (yaw, turned_yaw), (roll, turned_roll) = head_angles_deg(
        np.array([points_px(0, nose_beside, 0), points_px(0, nose_beside, turn_deg)], np.float64), MMLAB_5
    )
    assert turned_roll - roll == pytest.approx(turn_deg, abs=0.01)
    assert turned_yaw == pytest.approx(yaw, abs=0.01)
    assert yaw == pytest.approx(np.degrees(np.arctan(nose_beside / 0.68)), abs=4)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
@pytest.mark.parametrize("yaw", YAWS_DEG)
def test_a_mirrored_face_turns_the_other_way(schema: LandmarkSchema, yaw: int) -> None:
    points = POSED[yaw].points(schema).astype(np.float64)
    mirrored = (np.array([63, 0]) - points * [1, -1])[list(schema.flip_indices)]
    (one, other), (roll, other_roll) = head_angles_deg(np.stack([points, mirrored]), schema)
    assert other == pytest.approx(-one)
    assert other_roll == pytest.approx(-roll)


def test_a_point_set_that_lists_left_first_has_the_same_angles() -> None:
    swapped = replace(MMLAB_5, name="OWN", point_names=("left_eye", "right_eye", *MMLAB_5.point_names[2:]), flip_indices=())
    points = points_px(0, 0.4, 20).astype(np.float64)
    np.testing.assert_allclose(
        np.ravel(head_angles_deg(points[None, [1, 0, 2, 3, 4]], swapped)), np.ravel(head_angles_deg(points[None], MMLAB_5))
    )


@pytest.mark.parametrize(("degrees", "name"), [(30, "clockwise"), (-30, "counter-clockwise"), (4, "upright")])
def test_roll_bins(degrees: float, name: str) -> None:
    assert label_strata([pictured_face(0, roll_deg=degrees)])[0].roll == name


@pytest.mark.parametrize(
    ("level", "name"), [(0, "dark"), (59, "dark"), (60, "dim"), (120, "light"), (140, "bright"), (255, "bright")]
)
def test_brightness_is_the_mean_gray_level(level: int, name: str) -> None:
    assert brightness_bin(np.full((8, 8, 3), level, np.uint8)) == name


def test_occlusion_is_a_tag_or_missing_labels() -> None:
    hidden = points_px(2)
    hidden[3] = np.nan
    samples = [pictured_face(0), pictured_face(1, tags=("train", "occlusion")), face(hidden, MMLAB_5)]
    assert [kind.occlusion for kind in label_strata(samples)] == ["visible", "occluded", "occluded"]


def test_where_no_face_is_marked_occlusion_is_unknown() -> None:
    assert {kind.occlusion for kind in label_strata([pictured_face(0), pictured_face(1, tags=("train",))])} == {UNKNOWN}


def test_no_faces_have_no_kinds() -> None:
    assert label_strata([]) == []


def test_kinds_are_ordered_as_the_bins_are_with_unknown_last() -> None:
    kinds = [Stratum(yaw, "upright", "dim") for yaw in (*BINS["yaw"], UNKNOWN)]
    shuffled = kinds[3:] + kinds[:3]
    assert sorted(shuffled, key=lambda kind: kind.order) == kinds
