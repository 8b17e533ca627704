"""Cutting out of a part of the image: the same crop as out of the whole, whatever lies around, and at any size."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge import resampling
from lmedge.preprocess import CropTransform, square_transform, warp
from lmedge.resampling import ResamplingMemory

Image = npt.NDArray[np.uint8]

NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
BORDER = 77
SIZE = 32
# Parts of images begin elsewhere, so positions are rounded elsewhere.
TOLERANCE = 1

# From three times larger to forty times smaller, across every edge of the image and beyond.
transforms = st.builds(
    square_transform,
    st.tuples(st.floats(-60, 180), st.floats(-60, 150)),
    st.floats(10, 1300),
    st.just(SIZE),
    rotation_deg=st.floats(-180, 180),
    mirror=st.booleans(),
)


def levels_apart(one: Image, other: Image) -> int:
    return int(np.abs(one.astype(int) - other).max())


def whole_image_warp(image: Image, transform: CropTransform) -> Image:
    """The bilinear crop out of the whole image at once."""
    size = (transform.size_px, transform.size_px)
    border = (BORDER,) * 3
    return np.asarray(
        cv2.warpAffine(image, transform.matrix, size, borderMode=cv2.BORDER_CONSTANT, borderValue=border), np.uint8
    )


def surrounded(image: Image, pixels: int) -> Image:
    """The image with that many pixels of the border's value on every side."""
    around = (pixels,) * 4
    return np.asarray(cv2.copyMakeBorder(image, *around, cv2.BORDER_CONSTANT, value=(BORDER,) * 3), np.uint8)


def moved(transform: CropTransform, pixels: int) -> CropTransform:
    """The same crop, its content so many pixels to the right and below in the image."""
    matrix = transform.matrix.copy()
    matrix[:, 2] -= matrix[:, :2] @ [pixels, pixels]
    return CropTransform(matrix, transform.size_px)


class TestThePartThatIsRead:
    @given(
        st.floats(-60, 180),
        st.floats(-60, 150),
        st.floats(0.05, resampling._MAX_PLAIN_REDUCTION - 0.01),
        st.floats(-180, 180),
        st.booleans(),
    )
    def test_without_a_reduction_it_gives_what_the_whole_image_gives(
        self, x: float, y: float, reduction: float, angle: float, mirror: bool
    ) -> None:
        transform = square_transform((x, y), SIZE * reduction, SIZE, rotation_deg=angle, mirror=mirror)
        # Positions are rounded elsewhere: one step of 1/32 pixel between neighbours up to 255 levels apart.
        smooth = cv2.GaussianBlur(NOISE, (0, 0), 2.0)
        assert levels_apart(warp(smooth, transform, BORDER), whole_image_warp(smooth, transform)) <= 8

    @given(transforms, st.integers(1, 40))
    def test_the_crop_does_not_depend_on_where_the_image_begins(self, transform: CropTransform, pixels: int) -> None:
        """Pixels of the border's value are what every image is surrounded by."""
        plain = warp(NOISE, transform, BORDER)
        assert levels_apart(warp(surrounded(NOISE, pixels), moved(transform, pixels), BORDER), plain) <= TOLERANCE

    @given(st.floats(0, 1), st.floats(0, 1), st.floats(20, 80), st.floats(-180, 180))
    def test_its_edge_is_never_taken_for_the_border(self, x: float, y: float, side: float, angle: float) -> None:
        """A white image around the crop: the border's black would be seen."""
        white = np.full((200, 200, 3), 255, np.uint8)
        for size in (8, SIZE, 100):
            crop = warp(white, square_transform((100 + x, 100 + y), side, size, rotation_deg=angle), 0)
            assert crop.min() == 255

    @pytest.mark.parametrize("margin", [-1, 0])
    def test_a_smaller_margin_would_be_seen(self, margin: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a margin what is read just suffices; with less, the border reaches into the crop."""
        monkeypatch.setattr(resampling, "_MARGIN_CELLS", margin)
        white = np.full((200, 200, 3), 255, np.uint8)
        crop = warp(white, square_transform((100.3, 100.3), 60, SIZE), 0)
        assert (crop.min() == 255) == (margin == 0)

    @pytest.mark.parametrize("center", [(-1e6, 40), (40, 1e6), (1e5, -1e5), (-200.0, -200.0)])
    @pytest.mark.parametrize("side", [5.0, 40.0, 200.0])
    def test_beside_the_image_there_is_only_border(self, center: tuple[float, float], side: float) -> None:
        crop = np.zeros((SIZE, SIZE, 3), np.uint8)
        assert warp(NOISE, square_transform(center, side, SIZE), BORDER, out=crop) is crop
        assert (crop == BORDER).all()
        assert (warp(NOISE, square_transform(center, side, SIZE), BORDER) == BORDER).all()


class TestASquareOfWholePixels:
    """The short way, for upright crops that shrink the image: the same crop as the long way gives."""

    squares = st.builds(
        resampling.whole_square, st.tuples(st.floats(-60, 180), st.floats(-60, 150)), st.floats(SIZE, 24 * SIZE), st.just(SIZE)
    ).filter(lambda square: square is not None)

    @staticmethod
    def transform(square: resampling.Square) -> CropTransform:
        x, y, side = square
        return square_transform((x + (side - 1) / 2, y + (side - 1) / 2), side, SIZE)

    @given(squares)
    def test_it_gives_what_a_warp_gives(self, square: resampling.Square) -> None:
        """A turn by less than a thousandth of a pixel is not upright, and goes the long way."""
        transform = self.transform(square)
        turned = transform.matrix.copy()
        turned[0, 1] += 1e-9
        # A warp knows only 32 places between two pixels, and has its cells elsewhere.
        smooth = cv2.GaussianBlur(NOISE, (0, 0), 2.0)
        limit = 8 if square[2] <= resampling._MAX_PLAIN_REDUCTION * SIZE else 40
        short, long = warp(smooth, transform, BORDER), warp(smooth, CropTransform(turned, SIZE), BORDER)
        assert levels_apart(short, long) <= limit
        assert np.abs(short.astype(int) - long).mean() < 2

    @given(squares)
    def test_it_is_found_again_in_the_map(self, square: resampling.Square) -> None:
        zoom, _, shift_x, _, _, shift_y = self.transform(square).matrix.ravel().tolist()
        assert resampling._square_of(zoom, shift_x, shift_y, SIZE) == square

    @pytest.mark.parametrize("change", [(1e-4, 0, 0), (0, 0.01, 0), (0, 0, 0.01)], ids=["side", "x", "y"])
    def test_another_square_is_not(self, change: tuple[float, float, float]) -> None:
        zoom, shift_x, shift_y = (value + more for value, more in zip((0.5, -3.25, 7.75), change, strict=True))
        assert resampling._square_of(zoom, shift_x, shift_y, SIZE) is None
        assert resampling._square_of(0.5, -3.25, 7.75, SIZE) == (6, -16, 64)

    def test_half_a_pixel_off_would_be_seen(self) -> None:
        """What a resize does that takes pixel centres for corners."""
        ramp = np.repeat(np.arange(0, 240, 2, np.uint8)[None, :, None].repeat(90, 0), 3, axis=2)
        crop = warp(ramp, self.transform((10, 5, 64)), BORDER)
        assert crop[0, :, 0].tolist() == [2 * (10 + 2 * u) + 1 for u in range(SIZE)]

    @pytest.mark.parametrize("side", [SIZE - 0.5, 24.1 * SIZE])
    def test_none_is_offered_where_it_would_not_pay(self, side: float) -> None:
        assert resampling.whole_square((50.0, 50.0), side, SIZE) is None


class TestReduction:
    @pytest.mark.parametrize(
        ("reduction", "cell"), [(0.01, 1), (1.49, 1), (1.51, 2), (2.99, 2), (3.01, 4), (6.01, 8), (12.01, 16), (1e6, 16)]
    )
    def test_cells_leave_at_most_the_plain_reduction(self, reduction: float, cell: int) -> None:
        assert resampling._cell_px(reduction) == cell

    @pytest.mark.parametrize("reduction", [1.7, 2.3, 3.6, 5.0])
    def test_a_dot_moves_with_the_image_by_parts_of_a_pixel(self, reduction: float) -> None:
        """The centroid of a soft dot stays within a twentieth of a crop pixel, wherever it lies between the cells."""
        transform = square_transform((100, 100), SIZE * reduction, SIZE)
        y, x = np.mgrid[0:201, 0:201].astype(float)
        errors = []
        for step in np.linspace(0, 4, 33):
            at = np.array([98 + step, 99 + 0.37 * step])
            dot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * (1.5 * reduction) ** 2))
            crop = warp(np.repeat(np.rint(250 * dot)[:, :, None], 3, axis=2).astype(np.uint8), transform)[:, :, 0].astype(float)
            v, u = np.mgrid[0:SIZE, 0:SIZE]
            centroid = np.array([(crop * u).sum(), (crop * v).sum()]) / crop.sum()
            errors.append(centroid - transform.to_crop(at))
        assert np.abs(errors).max() < 0.05

    @pytest.mark.parametrize("reduction", [1.8, 2.5, 4.0, 7.0])
    def test_stripes_finer_than_the_crop_can_show_become_gray(self, reduction: float) -> None:
        """Stripes of two image pixels a period: a crop that skipped pixels would show false ones."""
        side = math.ceil(SIZE * reduction * 1.3)
        stripes = np.zeros((side, side, 3), np.uint8)
        stripes[:, ::2] = 255
        middle = (side - 1) / 2
        crop = warp(stripes, square_transform((middle, middle), SIZE * reduction, SIZE))
        assert crop.std() < 3


class TestMemory:
    @given(transforms)
    def test_given_memory_changes_no_bit(self, transform: CropTransform) -> None:
        plain = warp(NOISE, transform, BORDER)
        memory, out = ResamplingMemory(), np.empty((SIZE, SIZE, 3), np.uint8)
        for other in (400.0, 30.0):
            warp(NOISE[::-1], square_transform((50, 50), other, SIZE), 0, out=out, memory=memory)
            assert warp(NOISE, transform, BORDER, out=out, memory=memory) is not None
            assert np.array_equal(out, plain)

    @given(transforms)
    def test_rows_may_lie_apart(self, transform: CropTransform) -> None:
        part = np.zeros((90, 140, 3), np.uint8)[:, 7:127]
        part[:] = NOISE
        assert np.array_equal(warp(part, transform, BORDER), warp(NOISE, transform, BORDER))

    @given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-3, 1e6), st.floats(-180, 180))
    def test_images_and_boxes_of_any_size(self, width: int, height: int, side: float, angle: float) -> None:
        image = np.full((height, width, 3), 200, np.uint8)
        crop = warp(image, square_transform(((width - 1) / 2, (height - 1) / 2), side, 16, rotation_deg=angle), 100)
        assert crop.shape == (16, 16, 3)
        assert 99 <= crop.min() <= crop.max() <= 200
        if side < min(width, height) / 2:
            assert crop.min() >= (199 if min(width, height) > 2 else 100)

    def test_an_array_is_new_only_if_it_is_larger_than_the_next_power_of_2(self) -> None:
        memory = ResamplingMemory()
        first = memory.array("a", 10, 10, 3)
        assert np.shares_memory(first, memory.array("a", 5, 6, 4))
        assert not np.shares_memory(first, memory.array("b", 5, 6, 4))
        assert np.shares_memory(first, memory.array("a", 16, 8, 4)), "512 bytes"
        assert not np.shares_memory(first, memory.array("a", 19, 9, 3))
