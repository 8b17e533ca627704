"""Spoiled pictures: each disturbance leaves shape and place alone, does something, and is drawn from the generator alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lmedge.data import augment as augment_module
from lmedge.data import disturb
from lmedge.data.augment import AugmentSpec, spoil
from tests.data.faces import textured_image

Image = npt.NDArray[np.uint8]
Change = Callable[[Image, np.random.Generator], Image]

CHANGES: dict[str, Change] = {
    "cover": disturb.cover,
    "near_infrared": disturb.near_infrared,
    "blur": disturb.blur,
    "noise": disturb.add_noise,
    "jpeg": disturb.compress,
}
# Those whose result depends on each pixel and those around it alone.
IN_PLACE = ("blur", "noise", "jpeg")
SIDES_PX = (32, 112, 513)
NOTHING = AugmentSpec(**dict.fromkeys(CHANGES, 0.0))

every_change = pytest.mark.parametrize("name", CHANGES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blob(center_px: tuple[float, float], side_px: int = 112) -> Image:
    """A soft bright spot on mid gray."""
    x, y = np.arange(side_px) - center_px[0], np.arange(side_px) - center_px[1]
    spot = 60 + 150 * np.exp(-(x[None, :] ** 2 + y[:, None] ** 2) / (2 * 6.0**2))
    return np.repeat(np.rint(spot).astype(np.uint8)[:, :, None], 3, axis=2)


def center_of(image_bgr: Image) -> npt.NDArray[np.float64]:
    """Where the brightest region of a smoothed picture is, (x, y)."""
    smooth = cv2.GaussianBlur(image_bgr, (0, 0), 3).astype(np.float64).sum(2)
    weight = np.clip(smooth - smooth.min() - 0.6 * np.ptp(smooth), 0, None)
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


# Each by itself


@every_change
@pytest.mark.parametrize("side_px", SIDES_PX)
def test_the_shape_stays_and_the_given_picture_too(name: str, side_px: int) -> None:
    crop = textured_image(1, side_px, side_px)
    before = crop.tobytes()
    for seed in range(12):
        changed = CHANGES[name](crop, rng(seed))
        assert (changed.shape, changed.dtype) == (crop.shape, np.uint8)
        assert changed.flags.c_contiguous
    assert crop.tobytes() == before


@every_change
def test_it_changes_the_picture_and_each_time_in_another_way(name: str) -> None:
    crop = textured_image(1, 112, 112)
    views = {CHANGES[name](crop, rng(seed)).tobytes() for seed in range(30)}
    assert crop.tobytes() not in views
    assert len(views) > 15  # there are few qualities and reductions


@every_change
def test_the_generator_alone_decides(name: str) -> None:
    crop = textured_image(1, 64, 64)
    first = CHANGES[name](crop, rng(3)).tobytes()
    CHANGES[name](textured_image(2, 64, 64), rng(9))
    np.random.seed(1)  # noqa: NPY002  (the global generator must have no influence)
    assert CHANGES[name](crop, rng(3)).tobytes() == first


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("center_px", [(40.0, 61.0), (70.5, 48.25)])
def test_what_is_seen_stays_where_it_is(name: str, center_px: tuple[float, float]) -> None:
    """A picture moved by half a pixel would teach the network places that are half a pixel off."""
    still = center_of(blob(center_px))
    shifts = np.array([center_of(CHANGES[name](blob(center_px), rng(seed))) - still for seed in range(60)])
    assert np.abs(shifts).max() < 0.5
    assert np.abs(shifts.mean(0)).max() < 0.12


def test_a_streak_is_centred_and_keeps_the_brightness() -> None:
    for length in (3, 4, 7):
        for angle in np.linspace(0, np.pi, 7):
            kernel = disturb._streak(length, float(angle))
            rows, columns = np.indices(kernel.shape) - kernel.shape[0] // 2
            assert kernel.sum() == pytest.approx(1, abs=1e-6)
            assert np.abs([(kernel * rows).sum(), (kernel * columns).sum()]).max() < 1e-5


# What each looks like


def covered_part(image: Image, seed: int) -> tuple[float, tuple[int, int]]:
    """The share of the pixels that a cover changes, and the sides of the rectangle around them."""
    changed = (disturb.cover(image, rng(seed)) != image).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return float(changed.mean()), (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)


def test_a_cover_hides_one_part_and_leaves_the_rest() -> None:
    crop = textured_image(3, 112, 112)
    parts, sides = zip(*(covered_part(crop, seed) for seed in range(200)), strict=True)
    assert max(max(pair) for pair in sides) <= round(0.45 * 112)
    assert max(parts) > 0.08
    assert 0.02 < float(np.mean(parts)) < 0.15


def test_a_cover_reaches_every_place_of_the_crop() -> None:
    crop = textured_image(3, 48, 48)
    often = np.mean([(disturb.cover(crop, rng(seed)) != crop).any(2) for seed in range(600)], axis=0)
    assert often.min() > 0.005
    assert often.max() < 0.2


def test_covers_are_rectangles_and_ellipses_of_one_colour_of_noise_and_of_picture() -> None:
    crop = textured_image(3, 112, 112)
    colours, round_ones = set(), 0
    for seed in range(60):
        changed = disturb.cover(crop, rng(seed))
        different = (changed != crop).any(2)
        inside = changed[different]
        colours.add(min(len(np.unique(inside, axis=0)), 2))
        rows, columns = np.flatnonzero(different.any(1)), np.flatnonzero(different.any(0))
        box = different[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        round_ones += int(box.mean() < 0.9)
    assert colours == {1, 2}
    assert 10 < round_ones < 50


def test_blur_removes_detail_and_keeps_the_mean() -> None:
    crop = textured_image(4, 112, 112)
    for seed in range(30):
        blurred = disturb.blur(crop, rng(seed))
        sharpness = [cv2.Laplacian(image, cv2.CV_64F).var() for image in (blurred, crop)]
        assert sharpness[0] < 0.9 * sharpness[1]
        assert float(blurred.mean()) == pytest.approx(float(crop.mean()), abs=1)


def test_noise_has_the_stated_strength_no_bias_and_sometimes_one_grain_for_all_channels() -> None:
    gray = np.full((112, 112, 3), 128, np.uint8)
    found = [disturb.add_noise(gray, rng(seed)).astype(np.float64) - 128 for seed in range(60)]
    strengths = [float(noise.std()) for noise in found]
    assert 1.5 < min(strengths) < 4
    assert 12 < max(strengths) < 15
    assert abs(float(np.mean(found))) < 0.6
    same = [bool((noise == noise[:, :, :1]).all()) for noise in found]
    assert 15 < sum(same) < 45


def test_noise_saturates_instead_of_wrapping() -> None:
    for level in (0, 255):
        noisy = disturb.add_noise(np.full((64, 64, 3), level, np.uint8), rng(1))
        assert np.abs(noisy.astype(int) - level).max() < 100


def test_compression_leaves_the_picture_recognisable() -> None:
    crop = cv2.GaussianBlur(textured_image(5, 112, 112), (0, 0), 2)
    for seed in range(20):
        assert np.abs(disturb.compress(np.asarray(crop, np.uint8), rng(seed)).astype(int) - crop).mean() < 12


def test_an_infrared_picture_is_gray_and_brightest_where_the_lamp_points() -> None:
    white = np.full((112, 112, 3), 160, np.uint8)
    for seed in range(20):
        seen = disturb.near_infrared(white, rng(seed))
        assert (seen == seen[:, :, :1]).all()
        row, column = np.unravel_index(int(seen[:, :, 0].argmax()), (112, 112))
        assert 0.15 * 112 < row < 0.85 * 112
        assert 0.15 * 112 < column < 0.85 * 112
        assert seen[0, 0, 0] < seen.max()


def test_an_infrared_picture_is_lit_where_it_was_bright() -> None:
    """Light that grows from one side moves no edge: columns keep their order within a row of rising gray."""
    dark_and_bright = np.zeros((64, 64, 3), np.uint8)
    dark_and_bright[:, 32:] = 200
    for seed in range(20):
        seen = disturb.near_infrared(dark_and_bright, rng(seed))[:, :, 0]
        assert seen[:, :32].max() == 0
        assert seen[32, 32:].min() > 20


def test_infrared_sees_red_most() -> None:
    colours = [disturb.near_infrared(np.full((32, 32, 3), colour, np.uint8), rng(0)).mean() for colour in
               ([200, 0, 0], [0, 200, 0], [0, 0, 200])]  # fmt: skip
    assert colours[2] > 2 * max(colours[:2])


# With their probabilities


@every_change
def test_probability_1_always_and_0_never(name: str) -> None:
    crop = textured_image(6, 64, 64)
    always = AugmentSpec(**{**dict.fromkeys(CHANGES, 0.0), name: 1.0})
    for seed in range(20):
        assert spoil(crop, NOTHING, rng(seed)).tobytes() == crop.tobytes()
        assert spoil(crop, always, rng(seed)).tobytes() != crop.tobytes()


@every_change
def test_a_probability_is_how_often(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(called: str) -> Change:
        def change(crop_bgr: Image, _: np.random.Generator) -> Image:
            calls.append(called)
            return crop_bgr

        return change

    functions = {"noise": "add_noise", "jpeg": "compress"}
    for each in CHANGES:
        monkeypatch.setattr(augment_module.disturb, functions.get(each, each), counted(each))
    spec = AugmentSpec(**{**dict.fromkeys(CHANGES, 0.0), name: 0.3})
    crop = textured_image(6, 16, 16)
    generator = rng(0)
    for _ in range(1000):
        spoil(crop, spec, generator)
    assert set(calls) == {name}
    assert len(calls) == pytest.approx(300, abs=45)


def test_a_weak_phase_shows_pictures_as_they_are() -> None:
    weak, crop = AugmentSpec().weak(), textured_image(6, 64, 64)
    assert {name: asdict(weak)[name] for name in CHANGES} == dict.fromkeys(CHANGES, 0.0)
    assert all(spoil(crop, weak, rng(seed)).tobytes() == crop.tobytes() for seed in range(20))


def test_a_weak_phase_turns_less_and_keeps_scale_shift_and_flip() -> None:
    """A detector's box is no better in the last epochs, and a mirrored face no less a face."""
    strong, weak = AugmentSpec(), AugmentSpec().weak()
    for name in ("rotation_deg", "contrast", "brightness", "gamma"):
        assert 0 < getattr(weak, name) < getattr(strong, name)
    same = {entry.name for entry in fields(AugmentSpec)} - set(CHANGES) - {"rotation_deg", "contrast", "brightness", "gamma"}
    assert all(getattr(weak, name) == getattr(strong, name) for name in same)
