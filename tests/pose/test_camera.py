"""Angles and pinhole camera: signs, order, there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.synthetic import HeadPose
from lmedge.errors import InputError
from lmedge.pose import Camera, head_angles, rotation_matrix


@given(yaw=st.floats(-179, 179), pitch=st.floats(-89, 89), roll=st.floats(-179, 179))
def test_angles_come_back_from_their_rotation(yaw: float, pitch: float, roll: float) -> None:
    rotation = rotation_matrix(yaw, pitch, roll)
    np.testing.assert_allclose(head_angles(rotation), [yaw, pitch, roll], atol=1e-6)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_the_head_turns_then_nods_then_tilts() -> None:
    one_by_one = rotation_matrix(0, 0, 20) @ rotation_matrix(0, 10, 0) @ rotation_matrix(30, 0, 0)
    np.testing.assert_allclose(rotation_matrix(30, 10, 20), one_by_one, atol=1e-12)


def test_rendered_heads_have_the_same_angles() -> None:
    np.testing.assert_array_equal(HeadPose(30, 10, 20).rotation, rotation_matrix(30, 10, 20))


def test_many_rotations_at_once() -> None:
    angles = np.array([[[10, 20, 30], [-5, 0, 5]], [[0, 0, 0], [60, -30, -90]]])
    rotations = np.array([[rotation_matrix(*each) for each in row] for row in angles])
    np.testing.assert_allclose(head_angles(rotations), angles, atol=1e-9)


@given(
    x=st.floats(-500, 500), y=st.floats(-500, 500), z=st.floats(100, 5000), focal=st.floats(100, 5000), cx=st.floats(-100, 2000)
)
def test_a_ray_leads_back_to_the_point(x: float, y: float, z: float, focal: float, cx: float) -> None:
    camera = Camera(focal, (cx, 200.0))
    ray = camera.rays(camera.project(np.array([x, y, z])))
    np.testing.assert_allclose(ray * z, [x, y, z], atol=1e-6)


def test_what_lies_behind_the_camera_has_no_pixel() -> None:
    pixels = Camera(500.0, (100.0, 100.0)).project(np.array([[0, 0, 100.0], [0, 0, 0], [10, 10, -100]]))
    np.testing.assert_array_equal(pixels[0], [100, 100])
    assert np.isnan(pixels[1:]).all()


def test_the_assumed_camera_sees_53_degrees_along_the_longer_side() -> None:
    for height, width in ((720, 1280), (1280, 720)):
        camera = Camera.assumed_for(height, width)
        assert camera.assumed
        assert 2 * np.degrees(np.arctan(max(height, width) / 2 / camera.focal_px)) == pytest.approx(53.13, abs=0.01)
        assert camera.centre_px == ((width - 1) / 2, (height - 1) / 2)


@pytest.mark.parametrize("focal_px", [0, -5, float("nan"), float("inf")])
def test_a_camera_without_a_focal_length_is_refused(focal_px: float) -> None:
    with pytest.raises(InputError, match="focal_px > 0"):
        Camera(focal_px, (0.0, 0.0))


def test_a_camera_for_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 px; got 0 × 640"):
        Camera.assumed_for(0, 640)
