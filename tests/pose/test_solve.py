"""Head pose from the points of one face: exact on the generic head, to a few degrees on other people, refused where unclear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.synthetic import Expression, Gaze, HeadPose, Scene, SyntheticFace, render_face
from lmedge.errors import InputError
from lmedge.pose import Camera, fit_head, generic_points, head_angles, head_pose, rotation_matrix
from lmedge.schemas import AFLW_19, COFW_29, IBUG_68, MMLAB_5, SCHEMAS, WFLW_98, LandmarkSchema

CAMERA = Camera(1000.0, (639.5, 359.5))
ALL = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
FACES, SIZE = 60, 48

yaws, pitches, rolls = st.floats(-75, 75), st.floats(-50, 50), st.floats(-170, 170)


def seen(
    schema: LandmarkSchema,
    *angles_deg: float,
    place_mm: tuple[float, float, float] = (0.0, 0.0, 700.0),
    camera: Camera = CAMERA,
) -> np.ndarray:
    """The generic head before a camera, (K, 2) px."""
    return camera.project(generic_points(schema) @ rotation_matrix(*angles_deg or (0, 0, 0)).T + place_mm)


def without_roll_over(difference_deg: np.ndarray) -> np.ndarray:
    return (difference_deg + 180) % 360 - 180


# The generic head


@ALL
@given(yaw=yaws, pitch=pitches, roll=rolls, x=st.floats(-250, 250), y=st.floats(-150, 150), z=st.floats(400, 3000))
def test_the_generic_head_is_found_where_it_is(
    schema: LandmarkSchema, yaw: float, pitch: float, roll: float, x: float, y: float, z: float
) -> None:
    pose = head_pose(seen(schema, yaw, pitch, roll, place_mm=(x, y, z)), schema, CAMERA)
    found = np.array([pose.yaw_deg, pose.pitch_deg, pose.roll_deg])
    np.testing.assert_allclose(without_roll_over(found - [yaw, pitch, roll]), 0, atol=0.05)
    np.testing.assert_allclose(pose.translation, (x, y, z), rtol=1e-3, atol=0.5)
    assert pose.reprojection_px < 0.05


@ALL
def test_angles_belong_to_the_rotation(schema: LandmarkSchema) -> None:
    pose = head_pose(seen(schema, 25, -10, 15), schema, CAMERA)
    np.testing.assert_allclose(head_angles(pose.rotation), [pose.yaw_deg, pose.pitch_deg, pose.roll_deg])
    np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(pose.rotation) == pytest.approx(1)


@pytest.mark.parametrize(
    ("angles", "where"), [((30, 0, 0), (1, 0)), ((-30, 0, 0), (-1, 0)), ((0, 20, 0), (0, -1)), ((0, -20, 0), (0, 1))]
)
def test_the_nose_points_where_the_signs_say(angles: tuple[float, ...], where: tuple[int, int]) -> None:
    """Yaw > 0: the viewer's right; pitch > 0: up (y counts down)."""
    nose = WFLW_98.point_names.index("nose_ridge_3")
    moved = seen(WFLW_98, *angles)[nose] - seen(WFLW_98, 0, 0, 0)[nose]
    assert np.sign(moved[np.abs(where).argmax()]) == sum(where)


def test_positive_roll_is_clockwise_in_the_picture() -> None:
    right, left = (WFLW_98.point_names.index(f"{side}_eye_outer") for side in ("right", "left"))
    points = seen(WFLW_98, 0, 0, 20)
    # The subject's right eye is on the viewer's left: it rises, the other sinks.
    assert points[right, 1] < points[left, 1]


# Other people, with expressions and a camera of their own


@pytest.fixture(scope="module")
def faces() -> list[SyntheticFace]:
    return [render_face((21, index), SIZE) for index in range(FACES)]


def errors_deg(faces: list[SyntheticFace], schema: LandmarkSchema, *, assumed: bool) -> np.ndarray:
    """Mean absolute errors of yaw, pitch and roll where |yaw| is at most 45°."""
    errors = []
    for face in faces:
        if abs(face.pose.yaw_deg) <= 45:
            camera = Camera.assumed_for(SIZE, SIZE) if assumed else face.camera
            pose = head_pose(face.points(schema), schema, camera)
            errors.append(
                (pose.yaw_deg - face.pose.yaw_deg, pose.pitch_deg - face.pose.pitch_deg, pose.roll_deg - face.pose.roll_deg)
            )
    assert len(errors) > 40
    return np.abs(errors).mean(axis=0)


@pytest.mark.parametrize("assumed", [False, True], ids=["known camera", "assumed camera"])
@pytest.mark.parametrize("schema", [MMLAB_5, IBUG_68, WFLW_98, COFW_29, AFLW_19], ids=lambda schema: schema.name)
def test_rendered_people_are_found_to_four_degrees(faces: list[SyntheticFace], schema: LandmarkSchema, assumed: bool) -> None:
    """Identity, expression, perspective and the sliding contour: what the generic head knows nothing of."""
    error = errors_deg(faces, schema, assumed=assumed)
    assert (error <= [4, 4, 2]).all(), error


@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98], ids=lambda schema: schema.name)
def test_a_yawn_is_not_taken_for_a_nod(schema: LandmarkSchema) -> None:
    """The generic face with its mouth 3 and 30 mm open; a rigid jaw would make 6° of the difference."""
    scene = Scene(HeadPose(), Expression(mouth_gap_mm=3), Gaze(), plain=True)
    shut = render_face((0, 0), SIZE, scene)
    open_mouth = render_face((0, 0), SIZE, replace(scene, expression=Expression(mouth_gap_mm=30)))
    pitches = [head_pose(face.points(schema), schema, face.camera).pitch_deg for face in (shut, open_mouth)]
    assert abs(pitches[1] - pitches[0]) < 1.5


@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98], ids=lambda schema: schema.name)
@pytest.mark.parametrize("side", [1, -1])
def test_an_outline_that_slid_inward_on_the_far_cheek_turns_no_head(schema: LandmarkSchema, side: int) -> None:
    """By 18 mm on a head turned by 40°; as much on the near cheek would be a turn of 3° and more."""
    points, x_mm = seen(schema, side * 40, 0, 0), generic_points(schema)[:, 0]
    contour = list(schema.groups["contour"])
    turns = []
    for cheek in (side, -side):
        moved = points.copy()
        moved[[index for index in contour if cheek * x_mm[index] > 20], 0] -= cheek * 25
        turns.append(abs(head_pose(moved, schema, CAMERA).yaw_deg - side * 40))
    assert turns[0] < 0.3
    assert turns[1] > 3


def test_the_fitted_head_is_nearer_to_the_points_than_the_average_one(faces: list[SyntheticFace]) -> None:
    """Those of the contour aside, which slide."""
    inner = [index for index in range(WFLW_98.num_points) if index not in WFLW_98.groups["contour"]]
    for face in faces[:10]:
        fit = fit_head(face.points_px, WFLW_98, face.camera)
        heads_px = [
            fit.pose.camera.project(head_mm @ fit.pose.rotation.T + fit.pose.translation)
            for head_mm in (fit.points_mm, generic_points(WFLW_98))
        ]
        fitted_px, average_px = (np.linalg.norm((head - face.points_px)[inner], axis=1).mean() for head in heads_px)
        assert fitted_px < 0.8 * average_px


def test_the_reprojection_error_is_that_of_the_fitted_head(faces: list[SyntheticFace]) -> None:
    fit = fit_head(faces[0].points_px, WFLW_98, faces[0].camera)
    seen_px = fit.pose.camera.project(fit.points_mm @ fit.pose.rotation.T + fit.pose.translation)
    distances = np.linalg.norm(seen_px - faces[0].points_px, axis=1)
    assert fit.pose.reprojection_px == pytest.approx(np.sqrt((distances**2).mean()))


def test_a_mirrored_face_turns_and_tilts_the_other_way(faces: list[SyntheticFace]) -> None:
    for face in faces[:10]:
        camera = Camera(face.camera.focal_px, (0.0, 0.0))
        points = face.points_px - face.points_px.mean(axis=0)
        straight = head_pose(points, WFLW_98, camera)
        mirrored = head_pose((points * (-1, 1))[list(WFLW_98.flip_indices)], WFLW_98, camera)
        assert (mirrored.yaw_deg, mirrored.pitch_deg, mirrored.roll_deg) == pytest.approx(
            (-straight.yaw_deg, straight.pitch_deg, -straight.roll_deg), abs=0.02
        )


@given(zoom=st.floats(0.3, 20))
def test_the_size_of_the_picture_changes_nothing(zoom: float) -> None:
    points = seen(IBUG_68, 20, -15, 10) + np.random.default_rng(3).normal(0, 3, (68, 2))
    one = head_pose(points, IBUG_68, CAMERA)
    other = head_pose(points * zoom, IBUG_68, Camera(CAMERA.focal_px * zoom, (639.5 * zoom, 359.5 * zoom)))
    np.testing.assert_allclose(other.rotation, one.rotation, atol=1e-3)
    np.testing.assert_allclose(other.translation, one.translation, rtol=1e-3, atol=0.1)
    assert other.reprojection_px == pytest.approx(one.reprojection_px * zoom, rel=1e-2)


def test_hidden_points_are_done_without(faces: list[SyntheticFace]) -> None:
    for face in faces[:10]:
        points = face.points(IBUG_68)
        whole = head_pose(points, IBUG_68, face.camera)
        points[list(IBUG_68.groups["mouth"])] = np.nan
        part = head_pose(points, IBUG_68, face.camera)
        assert np.abs(head_angles(part.rotation @ whole.rotation.T)).max() < 6


# How well it went


def test_points_that_went_astray_show_in_the_reprojection_error() -> None:
    points = seen(IBUG_68, 10, 5, 0)
    extent = np.ptp(points, axis=0).max()
    scattered = points + np.random.default_rng(0).normal(0, 0.15 * extent, points.shape)
    assert head_pose(points, IBUG_68, CAMERA).reprojection_px < 0.001 * extent
    assert head_pose(scattered, IBUG_68, CAMERA).reprojection_px > 0.1 * extent


@given(st.integers(0, 1000))
def test_points_that_are_no_face_still_get_a_finite_answer(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 300, (68, 2))
    pose = head_pose(points, IBUG_68, Camera.assumed_for(480, 640))
    assert np.isfinite([pose.yaw_deg, pose.pitch_deg, pose.roll_deg, *pose.translation, pose.reprojection_px]).all()
    assert pose.reprojection_px > 30


# The camera that was assumed


def test_an_assumed_camera_gets_a_longer_lens_for_a_cut_out() -> None:
    assumed = Camera.assumed_for(720, 1280)
    points = seen(IBUG_68, place_mm=(-60, 20, 300), camera=assumed)
    near = head_pose(points, IBUG_68, assumed)
    longer = near.camera.focal_px / assumed.focal_px
    assert longer > 2
    assert near.camera.assumed
    assert near.translation[2] == pytest.approx(800, rel=0.1)
    # Its axis moves toward the middle of the face in the same measure.
    middle_px = (points.min(axis=0) + points.max(axis=0)) / 2
    aside_px = [np.linalg.norm(camera.centre_px - middle_px) for camera in (near.camera, assumed)]
    assert aside_px[0] / aside_px[1] == pytest.approx(1 / longer, rel=0.2)


def test_an_assumed_camera_stays_where_it_explains_the_picture() -> None:
    assumed = Camera.assumed_for(720, 1280)
    camera = head_pose(seen(IBUG_68, place_mm=(200, -50, 1000), camera=assumed), IBUG_68, assumed).camera
    assert (camera.focal_px, camera.assumed) == (assumed.focal_px, True)
    assert camera.centre_px == pytest.approx(assumed.centre_px)


def test_a_face_that_comes_nearer_turns_no_faster_where_the_lens_begins_to_grow() -> None:
    """Otherwise a video would jump there."""
    assumed = Camera.assumed_for(720, 1280)
    noise = np.random.default_rng(0).normal(0, 2, (68, 2))
    yaws = [
        head_pose(seen(IBUG_68, 10, 0, 0, place_mm=(150, 0, z), camera=assumed) + noise, IBUG_68, assumed).yaw_deg
        for z in np.arange(780, 840, 2)
    ]
    assert np.abs(np.diff(yaws)).max() < 0.15


def test_a_measured_camera_is_never_changed() -> None:
    camera = Camera(1280.0, (639.5, 359.5))
    pose = head_pose(seen(IBUG_68, place_mm=(0, 0, 300), camera=camera), IBUG_68, camera)
    assert pose.camera == camera
    assert pose.translation[2] == pytest.approx(300, rel=0.01)


# Refusals


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"points_px of IBUG_68 must be \(68, 2\); got \(5, 2\)"):
        head_pose(np.zeros((5, 2)), IBUG_68, CAMERA)


def test_three_points_are_too_few() -> None:
    points = seen(MMLAB_5)
    points[3:] = np.nan
    with pytest.raises(InputError, match=r"needs 4 known points .* MMLAB_5 has 3"):
        head_pose(points, MMLAB_5, CAMERA)


def test_points_in_one_plane_of_the_head_are_refused() -> None:
    """Eyes and corners of the mouth look the same when the head turns one way or the other."""
    points = seen(MMLAB_5)
    points[MMLAB_5.point_names.index("nose_tip")] = np.nan
    with pytest.raises(InputError, match=r"not lie in one plane .* Give the tip of the nose"):
        head_pose(points, MMLAB_5, CAMERA)


@pytest.mark.parametrize("points", [np.ones((68, 2)), np.arange(136.0).reshape(68, 2)], ids=["on one spot", "on a line"])
def test_points_without_an_extent_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InputError, match="lie on a line of the picture, or on one spot"):
        head_pose(points, IBUG_68, CAMERA)


def test_a_focal_length_in_millimetres_is_noticed() -> None:
    with pytest.raises(InputError, match=r"focal_px=35 would hold this head .* in pixels"):
        head_pose(seen(IBUG_68), IBUG_68, Camera(35.0, (639.5, 359.5)))


def test_an_own_point_set_has_a_pose_if_its_names_are_known() -> None:
    names = ("right_eye_outer", "left_eye_outer", "nose_tip", "nose_base", "chin", "right_ring", "left_ring")
    own = LandmarkSchema("OWN_7", names, {"eyes": (0, 1), "nose": (2, 3)}, ((0,), (1,)), "eyes")
    points = seen(own, 15, 5, -5)
    pose = head_pose(points, own, CAMERA)
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((15, 5, -5), abs=0.05)
