"""Random views: the labels follow the pixels, a mirrored face exchanges left and right, light changes no place."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data import augment
from lmedge.data.augment import AugmentSpec, Canvas, change_light, make_canvas, random_view
from lmedge.preprocess import CropTransform, PreprocessSpec, crop_face
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema
from tests.data.faces import points_of, sample_of, textured_image

# What lies outside a canvas is as black as the pictures with one spot.
SPEC = PreprocessSpec(input_hw=(64, 64), border_value=0)
SAME_LIGHT = {"contrast": 0.0, "brightness": 0.0, "color": 0.0, "gamma": 0.0, "gray": 0.0}
UNSPOILED = {"near_infrared": 0.0, "cover": 0.0, "blur": 0.0, "noise": 0.0, "jpeg": 0.0}
SAME_LOOK = {**SAME_LIGHT, **UNSPOILED}
# Two bilinear resamplings and rounding to gray levels move the centre of a blob by less than this.
CENTER_PX = 0.15

Fractions = npt.NDArray[np.floating]


def blob(point_px: npt.NDArray[np.floating], side_px: int, sigma_px: float) -> npt.NDArray[np.uint8]:
    """A black picture with one bright Gaussian spot."""
    x, y = np.arange(side_px) - point_px[0], np.arange(side_px) - point_px[1]
    spot = 255 * np.exp(-(x[None, :] ** 2 + y[:, None] ** 2) / (2 * sigma_px**2))
    return np.repeat(np.rint(spot).astype(np.uint8)[:, :, None], 3, axis=2)


def center_of(image_bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The centre of what is bright, (x, y) in pixels."""
    weights = image_bgr[:, :, 0].astype(np.float64)
    rows, columns = np.indices(weights.shape)
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def canvas_of(schema: LandmarkSchema, image_bgr: npt.NDArray[np.uint8] | None = None) -> Canvas:
    """A canvas as `make_canvas` gives it, with points around its middle."""
    side = round(64 * 1.6 * 1.1)
    picture = textured_image(0, side, side) if image_bgr is None else image_bgr
    return Canvas(picture, points_of(schema, 0.4 * side, 0.3 * side).astype(np.float32), side / 1.6)


def check_labels_follow_pixels(schema: LandmarkSchema, spec: AugmentSpec, seed: int) -> bool:
    """Draws one point after the other, finds it in the same view, and compares with the labels of that view.

    Whether the view is mirrored is read from the pixels: then label i must lie where the partner of point i is seen.
    """
    canvas = canvas_of(schema)
    seen, labels = [], np.empty(0)
    for point in canvas.points_px:
        picture = Canvas(blob(point, canvas.image_bgr.shape[0], 2.0), canvas.points_px, canvas.crop_side_px)
        crop, labels = random_view(picture, schema, SPEC, spec, np.random.default_rng(seed))
        seen.append(center_of(crop))
    linear, *_ = np.linalg.lstsq(np.c_[canvas.points_px, np.ones(schema.num_points)], np.array(seen), rcond=None)
    mirrored = bool(np.linalg.det(linear[:2]) < 0)
    expected = np.array(seen)[list(schema.flip_indices)] if mirrored else np.array(seen)
    np.testing.assert_allclose(labels * SPEC.input_hw[0] - 0.5, expected, atol=CENTER_PX)
    return mirrored


# Geometry


@pytest.mark.parametrize("schema", [MMLAB_5, IBUG_68, WFLW_98], ids=lambda schema: schema.name)
def test_labels_of_a_canvas_follow_its_pixels(schema: LandmarkSchema) -> None:
    points = points_of(schema, 90.0, 55.0)
    for point in points:
        sample = sample_of(blob(point, 200, 2.5), points, schema)
        canvas = make_canvas(sample.read_image(), sample, SPEC)
        index = int(np.argmin(np.linalg.norm(points - point, axis=1)))
        np.testing.assert_allclose(canvas.points_px[index], center_of(canvas.image_bgr), atol=CENTER_PX)


@given(seed=st.integers(0, 2**32 - 1))
def test_labels_of_a_view_follow_its_pixels(seed: int) -> None:
    check_labels_follow_pixels(MMLAB_5, AugmentSpec(**SAME_LOOK), seed)


@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98], ids=lambda schema: schema.name)
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_mirrored_view_exchanges_left_and_right(schema: LandmarkSchema, flip: float) -> None:
    assert check_labels_follow_pixels(schema, AugmentSpec(flip=flip, **SAME_LOOK), seed=3) == bool(flip)


def without_pair_swap(points_px: Fractions, transform: CropTransform, schema: LandmarkSchema) -> Fractions:
    return transform.to_fractions(points_px).astype(np.float32)


def swap_without_mirror(points_px: Fractions, transform: CropTransform, schema: LandmarkSchema) -> Fractions:
    return transform.to_fractions(points_px).astype(np.float32)[list(schema.flip_indices)]


def half_a_pixel_off(points_px: Fractions, transform: CropTransform, schema: LandmarkSchema) -> Fractions:
    fractions = (transform.to_crop(points_px) / transform.size_px).astype(np.float32)
    mirrored = np.linalg.det(transform.matrix[:, :2]) < 0
    return fractions[list(schema.flip_indices)] if mirrored else fractions


@pytest.mark.parametrize(
    ("mutant", "flip"), [(without_pair_swap, 1.0), (swap_without_mirror, 0.0), (half_a_pixel_off, 0.0), (half_a_pixel_off, 1.0)]
)
@pytest.mark.parametrize("schema", [MMLAB_5, IBUG_68], ids=lambda schema: schema.name)
def test_the_check_catches_mutants(
    monkeypatch: pytest.MonkeyPatch, schema: LandmarkSchema, mutant: object, flip: float
) -> None:
    monkeypatch.setattr(augment, "view_fractions", mutant)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_labels_follow_pixels(schema, AugmentSpec(flip=flip, **SAME_LOOK), seed=3)


def test_a_view_without_ranges_is_the_crop_of_the_device() -> None:
    smooth = cv2.GaussianBlur(textured_image(1, 200, 200), (0, 0), 3)
    sample = sample_of(smooth, points_of(IBUG_68, 90.0, 55.0))
    still = AugmentSpec(rotation_deg=0, scale=0, shift=0, flip=0, **SAME_LOOK)
    canvas = make_canvas(smooth, sample, SPEC)
    crop, fractions = random_view(canvas, IBUG_68, SPEC, still, np.random.default_rng(0))
    # A canvas is cut where the box is; on a device, whole pixels move the framing by up to a pixel.
    plain, transform = crop_face(smooth, sample.box(), replace(SPEC, whole_pixels=False))
    np.testing.assert_allclose(fractions, transform.to_fractions(sample.points_px), atol=1e-5)
    # Two resamplings against one, both of halved pixels; half a crop pixel off would be 15 levels and more.
    assert np.abs(crop.astype(int) - plain).max() <= 5


def test_ranges_are_kept_and_used() -> None:
    spec, side, canvas = AugmentSpec(), SPEC.input_hw[0], canvas_of(MMLAB_5)
    middle = (canvas.image_bgr.shape[0] - 1) / 2
    # Points without symmetry, so that a mirrored view differs from every view that is not.
    own = middle + np.random.default_rng(0).uniform(-20, 20, (5, 2))
    canvas = Canvas(canvas.image_bgr, own.astype(np.float32), canvas.crop_side_px)
    found = []
    for seed in range(400):
        _, fractions = random_view(canvas, MMLAB_5, SPEC, spec, np.random.default_rng(seed))
        fits = [affine_fit(own, points * side - 0.5) for points in (fractions, fractions[list(MMLAB_5.flip_indices)])]
        mirrored = int(fits[1][2] < fits[0][2])
        linear, offset, error = fits[mirrored]
        assert error < 1e-6
        center = np.linalg.solve(linear, (side - 1) / 2 - offset)
        upright = linear * [[1 - 2 * mirrored], [1]]
        angle = np.degrees(np.arctan2(upright[1, 0], upright[0, 0]))
        crop_side = side / np.sqrt(np.linalg.det(upright)) / canvas.crop_side_px
        found.append([angle, crop_side, *((center - middle) / canvas.crop_side_px), mirrored])
    *columns, mirrored_views = np.array(found).T
    limits = {"rotation": spec.rotation_deg, "shift x": spec.shift, "shift y": spec.shift}
    ranges = {name: (-limit, limit) for name, limit in limits.items()} | {"scale": (1 / (1 + spec.scale), 1 + spec.scale)}
    for name, values in zip(("rotation", "scale", "shift x", "shift y"), columns, strict=True):
        low, high = ranges[name]
        nearly = 0.1 * (high - low)
        assert low - 1e-4 * (high - low) <= values.min() < low + nearly, name
        assert high + 1e-4 * (high - low) >= values.max() > high - nearly, name
    assert abs(mirrored_views.mean() - spec.flip) < 0.1


def affine_fit(
    before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """The linear part, offset and squared error of the affine map that fits best."""
    fit, residuals, *_ = np.linalg.lstsq(np.c_[before, np.ones(len(before))], after, rcond=None)
    return fit[:2].T, fit[2], float(residuals.sum())


# Unknown points


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("unknown", [0, 2, 4])
def test_unknown_points_stay_unknown(flip: float, unknown: int) -> None:
    canvas = canvas_of(MMLAB_5)
    points = canvas.points_px.copy()
    points[unknown] = np.nan
    holed = Canvas(canvas.image_bgr, points, canvas.crop_side_px)
    spec = AugmentSpec(flip=flip)
    _, fractions = random_view(holed, MMLAB_5, SPEC, spec, np.random.default_rng(0))
    _, complete = random_view(canvas, MMLAB_5, SPEC, spec, np.random.default_rng(0))
    place = MMLAB_5.flip_indices[unknown] if flip else unknown
    assert np.isnan(fractions[place]).all()
    others = np.arange(5) != place
    np.testing.assert_array_equal(fractions[others], complete[others])


# Repeatable


def test_a_view_depends_on_the_generator_alone() -> None:
    canvas = canvas_of(IBUG_68)
    views = [random_view(canvas, IBUG_68, SPEC, AugmentSpec(), np.random.default_rng(seed)) for seed in (5, 5, 6)]
    (first, first_points), (again, again_points), (other, other_points) = views
    assert first.tobytes() == again.tobytes()
    assert first_points.tobytes() == again_points.tobytes()
    assert first.tobytes() != other.tobytes()
    assert not np.allclose(first_points, other_points)


def test_a_view_leaves_its_canvas_alone() -> None:
    canvas = canvas_of(MMLAB_5)
    before = canvas.image_bgr.tobytes(), canvas.points_px.tobytes()
    random_view(canvas, MMLAB_5, SPEC, AugmentSpec(flip=1, gray=1), np.random.default_rng(0))
    assert (canvas.image_bgr.tobytes(), canvas.points_px.tobytes()) == before


# Light


def test_light_does_not_change_the_geometry() -> None:
    canvas = canvas_of(IBUG_68)
    for seed in range(20):
        _, lit = random_view(canvas, IBUG_68, SPEC, AugmentSpec(), np.random.default_rng(seed))
        _, unlit = random_view(canvas, IBUG_68, SPEC, AugmentSpec(**SAME_LOOK), np.random.default_rng(seed))
        np.testing.assert_array_equal(lit, unlit)


@given(seed=st.integers(0, 2**32 - 1))
def test_light_changes_each_pixel_by_itself(seed: int) -> None:
    crop = textured_image(2, 24, 24)
    order = np.random.default_rng(0).permutation(24 * 24)
    shuffled = np.ascontiguousarray(crop.reshape(-1, 3)[order].reshape(crop.shape))
    lit = change_light(crop, AugmentSpec(gray=0.5), np.random.default_rng(seed))
    lit_shuffled = change_light(shuffled, AugmentSpec(gray=0.5), np.random.default_rng(seed))
    np.testing.assert_array_equal(lit.reshape(-1, 3)[order], lit_shuffled.reshape(-1, 3))


def test_no_light_ranges_no_change() -> None:
    crop = textured_image(2, 24, 24)
    np.testing.assert_array_equal(change_light(crop, AugmentSpec(**SAME_LIGHT), np.random.default_rng(0)), crop)


def test_a_gray_view_has_equal_channels() -> None:
    gray = change_light(textured_image(2, 24, 24), AugmentSpec(color=0, gray=1), np.random.default_rng(0))
    assert (gray == gray[:, :, :1]).all()


@pytest.mark.parametrize("setting", ["contrast", "brightness", "color", "gamma"])
def test_each_range_of_light_does_something(setting: str) -> None:
    crop = textured_image(2, 24, 24)
    spec = AugmentSpec(**{**SAME_LIGHT, setting: 0.3})
    views = {change_light(crop, spec, np.random.default_rng(seed)).tobytes() for seed in range(5)}
    assert len(views) == 5
