"""The crop and the way back: exact geometry, on drawn images where every pixel is known."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lmedge import resampling
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import (
    CropTransform,
    PreprocessSpec,
    crop_face,
    crop_transform,
    square_transform,
    warp,
)
from lmedge.resampling import ResamplingMemory

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

SPEC = PreprocessSpec(border_value=0)
# The drawn image and the warp each round to whole levels.
ROUNDING = 0.5
# So does each halving, upwards where it is in doubt: up to half a level for the four of a reduction by 12 and more.
REDUCED_ROUNDING = 4 * ROUNDING

coordinates = st.floats(-2000, 2000)
transforms = st.builds(
    square_transform,
    st.tuples(coordinates, coordinates),
    st.floats(4, 4000),
    st.integers(8, 512),
    rotation_deg=st.floats(-180, 180),
    mirror=st.booleans(),
)
point_lists = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=5).map(np.array)


def gradient_image(width: int, height: int, slope: Points) -> Image:
    """Gray levels 128 + slope · (position − middle): linear, so bilinear sampling of it is exact."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    gray = 128 + slope[0] * (x - (width - 1) / 2) + slope[1] * (y - (height - 1) / 2)
    return np.repeat(np.clip(np.rint(gray), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def crop_pixels(size_px: int) -> Points:
    """Coordinates (size, size, 2) of all pixel centres of a crop."""
    return np.stack(np.meshgrid(np.arange(size_px), np.arange(size_px)), axis=-1).astype(np.float64)


def gradient_error(crop: Image, transform: CropTransform, image: Image, slope: Points) -> float:
    """Largest difference in levels between a crop and the gradient at the image positions of its pixels."""
    height, width = image.shape[:2]
    where = transform.to_image(crop_pixels(transform.size_px))
    expected = 128 + (where - [(width - 1) / 2, (height - 1) / 2]) @ slope
    inside = ((where >= 1) & (where <= [width - 2, height - 2])).all(axis=-1) & (expected > 2) & (expected < 253)
    assert inside.sum() > 50
    return float(np.abs(crop[:, :, 0].astype(float) - expected)[inside].max())


class TestGeometry:
    @given(transforms, point_lists)
    def test_there_and_back_is_the_same_point(self, transform: CropTransform, points_px: Points) -> None:
        assert transform.to_image(transform.to_crop(points_px)) == pytest.approx(points_px, abs=1e-6)
        assert transform.from_fractions(transform.to_fractions(points_px)) == pytest.approx(points_px, abs=1e-6)

    @given(transforms, point_lists)
    def test_distances_are_scaled_alike_in_all_directions(self, transform: CropTransform, points_px: Points) -> None:
        zoom = math.sqrt(abs(float(np.linalg.det(transform.matrix[:, :2]))))
        moved = transform.to_crop(points_px + [3, 4]) - transform.to_crop(points_px)
        assert np.linalg.norm(moved, axis=1) == pytest.approx(np.full(len(points_px), 5 * zoom), rel=1e-6)

    @given(transforms)
    def test_the_centre_of_pixel_i_of_n_is_the_fraction_i_plus_a_half_over_n(self, transform: CropTransform) -> None:
        size = transform.size_px
        pixels = np.array([[0, 0], [1, 2], [size - 1, size - 1]], float)
        fractions = transform.to_fractions(transform.to_image(pixels))
        assert fractions == pytest.approx((pixels + 0.5) / size, abs=1e-8)

    @pytest.mark.parametrize("size_px", [64, 112, 113])
    def test_fractions_run_over_the_square_of_the_box(self, size_px: int) -> None:
        """Fraction (u, v) is image position c − S/2 + S·(u, v), whatever the size of the crop."""
        spec = PreprocessSpec((size_px, size_px), crop_scale=1.25, whole_pixels=False)
        transform = crop_transform(FaceBox(100, 200, 180, 260), spec)  # centre (140, 230), longer side 80, S = 100
        corners = transform.from_fractions(np.array([[0, 0], [1, 1], [0.5, 0.5], [0.25, 0.75]]))
        assert corners == pytest.approx(np.array([[90, 180], [190, 280], [140, 230], [115, 255]]))

    @given(transforms)
    def test_mirroring_is_the_last_step(self, transform: CropTransform) -> None:
        size = transform.size_px
        zoom = math.sqrt(abs(float(np.linalg.det(transform.matrix[:, :2]))))
        center = transform.to_image(np.array([(size - 1) / 2] * 2))
        angle = 17.0
        plain = square_transform((center[0], center[1]), size / zoom, size, rotation_deg=angle)
        mirrored = square_transform((center[0], center[1]), size / zoom, size, rotation_deg=angle, mirror=True)
        points = np.array([[0, 0], [30, 50]], float)
        assert mirrored.to_crop(points)[:, 0] == pytest.approx(size - 1 - plain.to_crop(points)[:, 0], abs=1e-6)
        assert mirrored.to_crop(points)[:, 1] == pytest.approx(plain.to_crop(points)[:, 1], abs=1e-6)

    def test_rotation_turns_the_content_clockwise_on_the_screen(self) -> None:
        """What is right of the centre goes below it."""
        transform = square_transform((50, 50), 64, 64, rotation_deg=90)
        right_of_centre = transform.to_crop(np.array([60.0, 50]))
        assert right_of_centre == pytest.approx(np.array([31.5, 41.5]))

        image = np.zeros((101, 101, 3), np.uint8)
        image[50, 60] = 255
        crop = warp(image, square_transform((50, 50), 65, 65, rotation_deg=90))
        assert np.unravel_index(crop[:, :, 0].argmax(), crop.shape[:2]) == (42, 32)


class TestWarp:
    @given(
        st.floats(-4, 4),
        st.floats(-4, 4),
        st.floats(20, 110),
        st.floats(-40, 40),
        st.floats(-40, 40),
        st.floats(-180, 180),
        st.booleans(),
    )
    def test_every_crop_pixel_has_the_level_of_its_image_position(
        self, slope_x: float, slope_y: float, side: float, dx: float, dy: float, angle: float, mirror: bool
    ) -> None:
        """Enlarged, rotated and mirrored; the next test shows what this one can see."""
        slope = np.array([slope_x, slope_y])
        assume(np.abs(slope).max() > 1)
        image = gradient_image(120, 100, slope)
        transform = square_transform((59.5 + dx, 49.5 + dy), side, 64, rotation_deg=angle, mirror=mirror)
        where = transform.to_image(crop_pixels(64))
        visible = ((where >= 1) & (where <= [118, 98])).all(axis=-1)
        levels = 128 + (where - [59.5, 49.5]) @ slope
        assume((visible & (levels > 2) & (levels < 253)).sum() > 50)
        assert gradient_error(warp(image, transform), transform, image, slope) <= 3 * ROUNDING + 0.001

    @pytest.mark.parametrize("side_px", [60, 190, 500, 1500])
    def test_a_shift_of_half_a_crop_pixel_would_be_seen(self, side_px: float) -> None:
        """The check can fail: on crops that are reduced plainly and with averaging, by up to 62 times."""
        slope = np.array([250.0, 120.0]) / (2.2 * side_px)
        image = gradient_image(round(side_px * 1.2), round(side_px * 1.2), slope * 1.6)
        middle = (image.shape[1] - 1) / 2
        transform = square_transform((middle, middle), side_px, 24)
        crop = warp(image, transform)
        shifted = CropTransform(transform.matrix + [[0, 0, 0.5], [0, 0, 0]], 24)
        assert gradient_error(crop, transform, image, slope * 1.6) <= REDUCED_ROUNDING
        assert gradient_error(crop, shifted, image, slope * 1.6) > REDUCED_ROUNDING

    @pytest.mark.parametrize("size_px", [16, 33])
    @pytest.mark.parametrize("reduction", [1.4, 1.6, 2, 3.7, 8, 15.9, 20])
    def test_reduction_keeps_positions(self, reduction: float, size_px: int) -> None:
        """With cells and without: pixels and cells of every size agree about where a pixel is."""
        side = reduction * size_px
        slope = np.array([200.0, -90.0]) / (1.3 * side)
        image = gradient_image(round(side * 1.4), round(side * 1.4), slope)
        middle = (image.shape[1] - 1) / 2
        transform = square_transform((middle + 0.3, middle - 0.4), side, size_px)
        assert gradient_error(warp(image, transform), transform, image, slope) <= REDUCED_ROUNDING

    @pytest.mark.parametrize("reduction", [2, 4, 7.3, 16])
    def test_reduction_averages_instead_of_skipping_pixels(self, reduction: float, monkeypatch: pytest.MonkeyPatch) -> None:
        noise = np.random.default_rng(0).integers(0, 2, (800, 800, 1)).astype(np.uint8).repeat(3, axis=2) * 255
        transform = square_transform((400, 400), 32 * reduction, 32)
        averaged = warp(noise, transform)
        # The mean of r² independent pixels of 0 or 255 spreads by 127.5 / r.
        assert averaged.std() < 1.3 * 127.5 / reduction
        assert abs(averaged.mean() - 127.5) < 127.5 / 8
        monkeypatch.setattr(resampling, "_MAX_PLAIN_REDUCTION", math.inf)
        assert warp(noise, transform).std() > 1.3 * 127.5 / reduction

    def test_a_mirrored_crop_is_the_flipped_crop(self) -> None:
        image = np.random.default_rng(1).integers(0, 256, (90, 90, 3), dtype=np.uint8)
        plain = warp(image, square_transform((44.5, 44.5), 64, 64))
        mirrored = warp(image, square_transform((44.5, 44.5), 64, 64, mirror=True))
        assert np.array_equal(mirrored, plain[:, ::-1])
        assert np.array_equal(plain, image[13:77, 13:77])

    @pytest.mark.parametrize("side_px", [40.0, 400.0])
    def test_outside_the_image_is_the_border_value(self, side_px: float) -> None:
        image = np.full((50, 50, 3), 200, np.uint8)
        crop = warp(image, square_transform((0, 25), side_px, 40), border_value=7)
        assert (crop[:, 0] == 7).all()
        assert (crop[20, 21] == 200).all()

    def test_channels_stay_apart(self) -> None:
        image = np.zeros((60, 60, 3), np.uint8)
        image[:] = (10, 120, 230)
        for side in (20, 300):
            crop = warp(image, square_transform((30, 30), side, 20), border_value=0)
            assert crop[10, 10].tolist() == [10, 120, 230]


class TestCropFace:
    def test_a_dot_is_found_where_the_transform_says(self) -> None:
        image = np.zeros((300, 400, 3), np.uint8)
        cv2.circle(image, (210, 140), 2, (255, 255, 255), -1)
        crop, transform = crop_face(image, FaceBox(150, 100, 250, 220), SPEC)
        assert crop.shape == (112, 112, 3)
        assert crop.dtype == np.uint8
        ys, xs = np.nonzero(crop[:, :, 0] > 127)
        assert (xs.mean(), ys.mean()) == pytest.approx(tuple(transform.to_crop(np.array([210.0, 140]))), abs=0.3)

    def test_the_crop_is_the_box_times_the_crop_scale(self) -> None:
        _, transform = crop_face(
            np.zeros((300, 400, 3), np.uint8), FaceBox(150, 100, 250, 220), PreprocessSpec(crop_scale=1.5, whole_pixels=False)
        )
        corners = transform.from_fractions(np.array([[0.0, 0], [1, 1]]))
        assert corners == pytest.approx(np.array([[110, 70], [290, 250]]))

    @pytest.mark.parametrize("box", [(-80, -60, 20, 40), (390, 290, 480, 380), (-500, -500, 900, 900), (399, 299, 400, 300)])
    def test_a_box_that_reaches_into_the_image_is_fine(self, box: tuple[float, float, float, float]) -> None:
        crop, _ = crop_face(np.full((300, 400, 3), 9, np.uint8), FaceBox(*box), SPEC)
        assert crop.max() == 9

    @pytest.mark.parametrize("box", [(-80, 10, -1, 90), (10, -80, 90, -1), (400, 10, 480, 90), (10, 300, 90, 380)])
    def test_a_box_outside_the_image_is_refused(self, box: tuple[float, float, float, float]) -> None:
        with pytest.raises(
            InputError, match=r"lies outside the image of 400 × 300 px\. Boxes are \(x_min, y_min, x_max, y_max\)"
        ):
            crop_face(np.zeros((300, 400, 3), np.uint8), FaceBox(*box), SPEC)


class TestWhatADeviceDoesForEveryFace:
    """The short ways that a device takes lead where the long ones do."""

    @given(st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 900))
    def test_the_crop_of_a_box_is_an_upright_square(self, x: float, y: float, side: float) -> None:
        box = FaceBox(x, y, x + side, y + 0.7 * side)
        short = crop_transform(box, replace(SPEC, whole_pixels=False))
        long = square_transform(box.center, SPEC.crop_scale * box.width, SPEC.input_hw[0])
        assert np.array_equal(short.matrix, long.matrix)

    @given(st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 9000), st.integers(8, 300))
    def test_of_whole_pixels_it_is_the_nearest(self, x: float, y: float, side: float, size: int) -> None:
        """No corner moves by a pixel of the crop; where a crop enlarges, nothing moves."""
        box, spec = FaceBox(x, y, x + side, y + side), replace(SPEC, input_hw=(size, size))
        whole, exact = crop_transform(box, spec), crop_transform(box, replace(spec, whole_pixels=False))
        corners = whole.to_crop(exact.to_image(np.array([[-0.5, -0.5], [size - 0.5, size - 0.5]])))
        moved = np.abs(corners - [[-0.5, -0.5], [size - 0.5, size - 0.5]]).max()
        assert moved < 1
        if spec.crop_scale * side < size:
            assert moved < 1e-6
        elif spec.crop_scale * side < 24 * size:
            edges = whole.to_image(np.array([[-0.5, -0.5], [size - 0.5, size - 0.5]])) + 0.5
            assert edges == pytest.approx(np.round(edges), abs=1e-6)

    @given(transforms)
    def test_points_from_fractions_are_points_from_crop_pixels(self, transform: CropTransform) -> None:
        fractions = np.random.default_rng(0).uniform(-0.5, 1.5, (5, 2)).astype(np.float32)
        expected = transform.to_image(fractions.astype(np.float64) * transform.size_px - 0.5)
        np.testing.assert_allclose(transform.from_fractions(fractions), expected, rtol=1e-9, atol=1e-6)

    @pytest.mark.parametrize("side", [20.0, 200.0, 1500.0, 6000.0])
    def test_a_crop_in_given_memory_is_the_same_crop(self, side: float) -> None:
        image = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
        transform, memory = square_transform((150, 140), side, 112), ResamplingMemory()
        batch = np.full((3, 112, 112, 3), 7, np.uint8)
        for _ in range(2):
            given_memory = warp(image, transform, 128, out=batch[1], memory=memory)
            assert np.shares_memory(given_memory, batch)
            assert np.array_equal(batch[1], warp(image, transform, 128))
        assert (batch[[0, 2]] == 7).all()
