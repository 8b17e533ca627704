"""The parametric head: symmetric, turned the way its angles say, with a contour that follows the visible outline."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge.data.synthetic import Expression, Gaze, HeadPose, Scene, render_face
from lmedge.data.synthetic.camera import View
from lmedge.data.synthetic.head_mesh import average_head
from lmedge.data.synthetic.modes import deform, draw_expression, draw_identity
from lmedge.pose import generic_points, head_pose
from lmedge.schemas import WFLW_98

NOSE_TIP = 54
SIZE = 192


def plain(
    yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, expression: Expression | None = None, gaze: Gaze | None = None
) -> Scene:
    return Scene(HeadPose(yaw, pitch, roll), expression or Expression(), gaze or Gaze(), plain=True)


def test_the_average_head_is_its_own_mirror_image() -> None:
    points = generic_points(WFLW_98)
    np.testing.assert_array_equal(points[list(WFLW_98.flip_indices)] * (-1, 1, 1), points)


@pytest.mark.parametrize(("yaw", "roll"), [(0, 0), (25, 0), (40, 12)])
def test_a_turned_head_mirrors_to_the_head_turned_the_other_way(yaw: float, roll: float) -> None:
    one, other = render_face((0, 0), SIZE, plain(yaw, 5, roll)), render_face((0, 0), SIZE, plain(-yaw, 5, -roll))

    def centered(points: np.ndarray) -> np.ndarray:
        return points - (points.min(axis=0) + points.max(axis=0)) / 2

    mirrored = centered(one.points_px)[list(WFLW_98.flip_indices)] * (-1, 1)
    np.testing.assert_allclose(mirrored, centered(other.points_px), atol=1e-6)


def test_the_subjects_right_is_on_the_viewers_left() -> None:
    points = render_face((0, 0), SIZE, plain()).points_px
    for index, name in enumerate(WFLW_98.point_names):
        if name.startswith("right_"):
            assert points[index, 0] < points[WFLW_98.flip_indices[index], 0], name


@pytest.mark.parametrize("yaw", [-40, -20, 20, 40])
def test_positive_yaw_turns_the_nose_to_the_viewers_right(yaw: float) -> None:
    points = render_face((0, 0), SIZE, plain(yaw)).points_px
    assert np.sign(points[NOSE_TIP, 0] - (points[60, 0] + points[72, 0]) / 2) == np.sign(yaw)


def test_positive_pitch_looks_up() -> None:
    up, down = (render_face((0, 0), SIZE, plain(0, pitch)).points_px for pitch in (20, -20))
    for points, sign in ((up, -1), (down, 1)):
        level = (points[60, 1] + points[72, 1] + points[76, 1] + points[82, 1]) / 4
        frontal = render_face((0, 0), SIZE, plain()).points_px
        frontal_level = (frontal[60, 1] + frontal[72, 1] + frontal[76, 1] + frontal[82, 1]) / 4
        assert np.sign((points[NOSE_TIP, 1] - level) - (frontal[NOSE_TIP, 1] - frontal_level)) == sign


def test_positive_roll_turns_clockwise() -> None:
    points = render_face((0, 0), SIZE, plain(0, 0, 20)).points_px
    across = points[72] - points[60]
    assert np.degrees(np.arctan2(across[1], across[0])) == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("yaw", [30, 45, 60])
def test_the_far_contour_follows_the_visible_outline(yaw: float) -> None:
    """Subject's left is the far side; the physical jaw points there lie behind the cheek, the labels on its outline."""
    pose = HeadPose(yaw)
    vertices = deform(np.zeros_like(draw_identity(np.random.default_rng(0))), Expression())
    face = render_face((0, 0), SIZE, plain(yaw))
    view = View(pose.rotation, 1500.0)
    camera = view.to_camera(vertices)
    jaw, tip = view.project(camera)[list(range(24, 31))], view.project(camera)[NOSE_TIP]
    labels = face.points_px[24:31]
    scale = np.linalg.norm(face.points_px[60] - face.points_px[64]) / np.linalg.norm(
        np.diff(view.project(camera)[[60, 64]], axis=0)
    )
    assert ((labels[:, 0] - face.points_px[NOSE_TIP, 0]) > scale * (jaw[:, 0] - tip[0]) + 1).all()


@pytest.mark.parametrize("side", ["right", "left"])
def test_closing_an_eye_brings_its_lids_together(side: str) -> None:
    index = 0 if side == "right" else 1
    openings = []
    for closure in (0.0, 0.5, 1.0):
        closures = [0.0, 0.0]
        closures[index] = closure
        openings.append(
            render_face((0, 0), 96, plain(expression=Expression(eye_closure=(closures[0], closures[1])))).eye_opening
        )
    moved = [opening[index] for opening in openings]
    assert moved[0] > 0.25
    assert moved[1] == pytest.approx(moved[0] / 2, rel=0.1)
    assert moved[2] < 0.03
    assert {opening[1 - index] for opening in openings} == {openings[0][1 - index]}


def test_the_mouth_opens_by_what_is_asked() -> None:
    openings = [render_face((0, 0), 96, plain(expression=Expression(mouth_gap_mm=gap))).mouth_opening for gap in (0, 10, 25)]
    assert openings[0] < 0.1
    assert openings[1] == pytest.approx(10 / 47, rel=0.3)
    assert openings[2] > 2 * openings[1]


@pytest.mark.parametrize("seed", range(20))
def test_lids_and_lips_never_cross(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vertices = deform(draw_identity(rng), draw_expression(rng))
    for upper, lower in ((61, 67), (62, 66), (63, 65), (69, 75), (70, 74), (71, 73), (89, 95), (90, 94), (91, 93)):
        assert vertices[upper, 1] <= vertices[lower, 1] + 1e-9


def test_a_frontal_head_hides_no_point_and_a_turned_nose_hides_the_far_eye_corner() -> None:
    assert render_face((0, 0), SIZE, plain()).visible.all()
    # The inner corner lies 19 mm beside the nose's root and 15 mm behind it: from about 52 degrees on the nose hides it.
    inner = WFLW_98.point_names.index("left_eye_inner")
    assert render_face((0, 0), SIZE, plain(35)).visible[inner]
    turned = render_face((0, 0), SIZE, plain(57)).visible
    assert not turned[WFLW_98.point_names.index("left_eye_inner")]
    near_side = [index for index, name in enumerate(WFLW_98.point_names) if name.startswith(("right_eye", "right_brow"))]
    assert turned[near_side].all()


def test_every_triangle_of_the_head_is_a_triangle() -> None:
    head = average_head()
    corners = head.vertices_mm[head.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert area.min() > 0
    assert set(range(96)) <= set(head.triangles.ravel().tolist())


def test_a_view_is_a_pinhole_camera() -> None:
    """A head before `View` stands as far away as the view says, before its camera."""
    view = View(HeadPose(20, 5, -10).rotation, 900.0, 0.6, (80.0, 70.0))
    placed_mm = view.to_camera(generic_points(WFLW_98))
    np.testing.assert_allclose(view.camera.project(placed_mm + (0, 0, view.distance_mm)), view.project(placed_mm))
    assert not view.camera.assumed


def test_a_rendered_face_tells_its_camera() -> None:
    face = render_face((0, 0), SIZE, plain(25, -10, 5))
    found = head_pose(face.points_px, WFLW_98, face.camera)
    assert (found.yaw_deg, found.pitch_deg, found.roll_deg) == pytest.approx((25, -10, 5), abs=1.5)
    assert 600 < found.translation[2] < 2600
