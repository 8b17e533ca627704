"""The axes on a picture show where the head looks."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge.apps.draw_pose import FORWARD_BGR, LEFT_BGR, UP_BGR, draw_pose
from lmedge.errors import InputError
from lmedge.pose import Camera, HeadPose, rotation_matrix

SIZE = 200
CAMERA = Camera(200.0, (99.5, 99.5))
IMAGE = np.full((SIZE, SIZE, 3), 30, np.uint8)


def pose(*angles_deg: float, away_mm: float = 200.0) -> HeadPose:
    return HeadPose(*angles_deg, rotation_matrix(*angles_deg), np.array([0, 0, away_mm]), 0.0, CAMERA)


def middle_of(picture: np.ndarray, color_bgr: tuple[int, int, int]) -> np.ndarray:
    """Mean (x, y) of the pixels of one colour, from the picture's middle."""
    y, x = np.nonzero((np.abs(picture.astype(int) - color_bgr) < 10).all(axis=2))
    return np.array([x.mean(), y.mean()]) - 99.5


def draw(*angles_deg: float) -> np.ndarray:
    return draw_pose(IMAGE, pose(*angles_deg), origin_mm=(0, 0, 0))


def test_a_face_that_looks_ahead_has_its_left_on_the_right_and_its_top_up() -> None:
    picture = draw(0, 0, 0)
    left, up = middle_of(picture, LEFT_BGR), middle_of(picture, UP_BGR)
    assert left[0] > 20 > abs(left[1])
    assert up[1] < -20 < 20 > abs(up[0])


@pytest.mark.parametrize(
    ("angles", "toward"), [((40, 0, 0), (1, 0)), ((-40, 0, 0), (-1, 0)), ((0, 30, 0), (0, -1)), ((0, -30, 0), (0, 1))]
)
def test_the_blue_axis_points_where_the_face_looks(angles: tuple[float, ...], toward: tuple[int, int]) -> None:
    forward = middle_of(draw(*angles), FORWARD_BGR)
    assert forward @ toward > 15
    assert abs(forward @ toward[::-1]) < 5


def test_axes_turn_with_the_roll() -> None:
    left = middle_of(draw(0, 0, 45), LEFT_BGR)
    assert left[0] == pytest.approx(left[1], abs=3)
    assert left[0] > 10


def test_an_axis_is_as_long_as_it_is_seen() -> None:
    """70 mm at 200 mm and a focal length of 200 px."""
    _, x = np.nonzero((np.abs(draw(0, 0, 0).astype(int) - LEFT_BGR) < 10).all(axis=2))
    assert x.max() == pytest.approx(99.5 + 70, abs=3)


def test_axes_start_from_the_bridge_of_the_nose() -> None:
    """11 mm below the eyes and 28 mm before them, at 400 mm and a focal length of 200 px."""
    y, x = np.nonzero((np.abs(draw_pose(IMAGE, pose(0, 0, 0, away_mm=400.0)).astype(int) - LEFT_BGR) < 10).all(axis=2))
    assert y.mean() == pytest.approx(99.5 + 200 * 11 / (400 - 28), abs=1)
    assert x.min() == pytest.approx(99.5, abs=3)


@pytest.mark.parametrize(("yaw_deg", "nearest_bgr"), [(60, FORWARD_BGR), (-60, LEFT_BGR)])
def test_the_nearest_axis_lies_over_the_others(yaw_deg: float, nearest_bgr: tuple[int, int, int]) -> None:
    """Turned to the viewer's right, the subject's left goes away; turned to the viewer's left, it comes nearest."""
    np.testing.assert_array_equal(draw(yaw_deg, 0, 0)[99, 99], nearest_bgr)


def test_the_image_itself_is_untouched() -> None:
    draw(10, 10, 10)
    assert (IMAGE == 30).all()


def test_an_axis_behind_the_camera_is_left_out() -> None:
    picture = draw_pose(IMAGE, pose(0, 0, 0, away_mm=50.0), origin_mm=(0, 0, 0))
    assert not (np.abs(picture.astype(int) - FORWARD_BGR) < 10).all(axis=2).any()


def test_lengths_that_are_none_and_images_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="length_mm must be positive; got 0"):
        draw_pose(IMAGE, pose(0, 0, 0), length_mm=0)
    with pytest.raises(InputError, match="uint8"):
        draw_pose(IMAGE.astype(float), pose(0, 0, 0))  # type: ignore[arg-type]
