"""Red labels and green predictions, where they belong."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.pictures import (
    LABEL_BGR,
    PREDICTION_BGR,
    UNSURE_BGR,
    contact_sheet,
    draw_faces,
    draw_points,
    face_tile,
    save_picture,
)
from lmedge.errors import DataError, InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import IBUG_68, MMLAB_5, Curve
from tests.data.faces import FIVE_POINTS, points_of, sample_of, textured_image

GRAY = np.full((100, 120, 3), 90, np.uint8)


def center_of(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Centre of mass (x, y) of what a color covers on the gray background."""
    cover = np.abs(picture.astype(float) - 90).sum(axis=2) / np.abs(np.array(color) - 90.0).sum()
    rows, columns = np.indices(cover.shape)
    return np.array([(columns * cover).sum(), (rows * cover).sum()]) / cover.sum()


@given(x=st.floats(10, 109), y=st.floats(10, 89))
def test_a_point_is_drawn_where_it_is_to_a_fraction_of_a_pixel(x: float, y: float) -> None:
    points = np.full((5, 2), np.nan)
    points[2] = [x, y]
    picture = draw_points(GRAY, points, LABEL_BGR, MMLAB_5, radius_px=3.0)
    np.testing.assert_allclose(center_of(picture, LABEL_BGR), [x, y], atol=0.2)


def test_points_have_their_color_and_the_image_stays_untouched() -> None:
    before = GRAY.copy()
    picture = draw_points(GRAY, np.array(FIVE_POINTS), PREDICTION_BGR, MMLAB_5, curves=False, radius_px=2.0)
    for x, y in np.round(FIVE_POINTS).astype(int):
        assert tuple(picture[y, x]) == PREDICTION_BGR
    np.testing.assert_array_equal(GRAY, before)


def test_curves_join_known_points_only() -> None:
    points = np.array(FIVE_POINTS)
    between = ((points[0] + points[1]) / 2).round().astype(int)
    drawn = draw_points(GRAY, points, LABEL_BGR, MMLAB_5)
    assert drawn[between[1], between[0], 2] > 150
    points[1] = np.nan
    broken = draw_points(GRAY, points, LABEL_BGR, MMLAB_5)
    assert tuple(broken[between[1], between[0]]) == (90, 90, 90)


def test_nothing_known_draws_nothing_and_far_points_do_no_harm() -> None:
    np.testing.assert_array_equal(draw_points(GRAY, np.full((5, 2), np.nan), LABEL_BGR, MMLAB_5), GRAY)
    far = np.array(FIVE_POINTS)
    far[0] = [1e12, -1e12]
    assert draw_points(GRAY, far, LABEL_BGR, MMLAB_5, curves=False).shape == GRAY.shape


def test_gray_images_work_and_other_points_do_not() -> None:
    assert draw_points(GRAY[:, :, 0], np.array(FIVE_POINTS), LABEL_BGR, MMLAB_5).shape == GRAY.shape
    with pytest.raises(InputError, match=r"MMLAB_5 must be \(5, 2\); got \(68, 2\)"):
        draw_points(GRAY, points_of(IBUG_68), LABEL_BGR, MMLAB_5)


def test_a_tile_shows_the_labels_of_its_face() -> None:
    """The extent of the points is in the middle of the tile, wherever the face is in the photo."""
    points = np.array(FIVE_POINTS) + [50, 20]
    tile = face_tile(sample_of(GRAY, points, MMLAB_5), None, 200)
    assert tile.shape == (200, 200, 3)
    box = FaceBox.around(points)
    zoom = 200 / (2.6 * max(box.width, box.height))
    for x, y in (points - box.center) * zoom + 99.5:
        assert tuple(tile[round(y), round(x)]) == LABEL_BGR


def test_predictions_are_green_over_red_labels() -> None:
    sample = sample_of(textured_image(0), np.array(FIVE_POINTS), MMLAB_5)
    same = face_tile(sample, sample.points_px, 200)
    greens = (same == PREDICTION_BGR).all(axis=2).sum()
    assert greens > 50
    assert (same == LABEL_BGR).all(axis=2).sum() < 0.2 * greens
    apart = face_tile(sample, sample.points_px + 6, 200)
    assert (apart == LABEL_BGR).all(axis=2).sum() > 50


@pytest.mark.parametrize(("count", "columns", "grid"), [(1, 6, (1, 1)), (5, 2, (3, 2)), (6, 3, (2, 3))])
def test_a_sheet_has_rows_and_columns_of_captioned_tiles(count: int, columns: int, grid: tuple[int, int]) -> None:
    samples = [sample_of(textured_image(i), photo_key=f"face_{i}") for i in range(count)]
    sheet = contact_sheet(samples, columns=columns, tile_px=100)
    tile_height, tile_width, gap = 100 + 36, 100, 6
    assert sheet.shape == (grid[0] * (tile_height + gap) + gap, grid[1] * (tile_width + gap) + gap, 3)
    np.testing.assert_array_equal(sheet[gap : gap + 100, gap : gap + 100], face_tile(samples[0], None, 100))
    assert sheet[gap + 100 : gap + 118, gap : gap + 100].max() > 150, "the name is written under the tile"


def test_the_caption_tells_the_error_or_that_nothing_was_found() -> None:
    samples = [sample_of(textured_image(0), subset=("helen",))] * 3
    points = samples[0].points_px
    sheets = [contact_sheet(samples[:1], predictions=[p], tile_px=200) for p in (points, points + 3, None)]
    captions = [sheet[6 + 200 :] for sheet in sheets]
    assert all(np.abs(a.astype(int) - b).max() > 100 for a, b in itertools.pairwise(captions))


def test_long_names_and_letters_beyond_ascii_fit() -> None:
    sample = sample_of(textured_image(0), photo_key="ein_sehr_langer_Name_mit_Umlauten_äöü_" * 4)
    sheet = contact_sheet([sample], tile_px=64)
    assert sheet.shape[1] == 64 + 12
    np.testing.assert_array_equal(sheet[:, -6:], np.full_like(sheet[:, -6:], 24))


def test_names_number_the_points_and_are_listed_beside_the_sheet() -> None:
    sample = sample_of(textured_image(0), np.array(FIVE_POINTS), MMLAB_5)
    plain, named = contact_sheet([sample]), contact_sheet([sample], names=True)
    assert named.shape[1] > plain.shape[1] + 100
    legend = named[:, plain.shape[1] :]
    # One line of text for each of the five names.
    rows = (legend.max(axis=(1, 2)) > 150).astype(int)
    assert (np.diff(rows) == 1).sum() == 5
    assert (named[: plain.shape[0], : plain.shape[1]] != plain).any(), "numbers stand beside the points"


def test_curves_are_smooth() -> None:
    """Half-way between two points of a bent curve the line leaves the straight edge, outward."""
    points = np.full((68, 2), np.nan)
    angles = np.linspace(np.pi, 0, 17)
    points[:17] = np.column_stack([60 + 40 * np.cos(angles), 40 + 40 * np.sin(angles)])
    points = points[: IBUG_68.num_points]
    points[[1, 3, 5, 7, 9, 11, 13, 15]] = np.nan
    curve = [Curve("contour", tuple(range(0, 17, 2)))]
    picture = draw_points(GRAY, points, LABEL_BGR, replace(IBUG_68, curves=tuple(curve)), radius_px=0.5)
    middle = np.array([60 + 40 * np.cos(angles[7]), 40 + 40 * np.sin(angles[7])])
    x, y = np.round(middle).astype(int)
    assert picture[y - 1 : y + 2, x - 1 : x + 2, 2].max() > 200


def test_lists_of_different_lengths_are_refused() -> None:
    sample = sample_of(textured_image(0))
    with pytest.raises(InputError, match="got 0 faces"):
        contact_sheet([])
    with pytest.raises(InputError, match="1 faces, 2 predictions"):
        contact_sheet([sample], predictions=[None, None])
    with pytest.raises(InputError, match="columns of 1 or more"):
        contact_sheet([sample], columns=0)


def test_found_faces_are_drawn_with_their_boxes() -> None:
    box = FaceBox(20, 20, 80, 80)
    picture = draw_faces(GRAY, [Landmarks(np.array(FIVE_POINTS, np.float32), MMLAB_5, box)])
    assert tuple(picture[35, 34]) == PREDICTION_BGR
    assert (picture[20, 20:80] != 90).any(axis=1).all()
    np.testing.assert_array_equal(draw_faces(GRAY, []), GRAY)


def test_points_that_the_network_is_unsure_of_are_orange_and_its_mean_confidence_is_written() -> None:
    box, confidence = FaceBox(20, 20, 80, 80), np.array([0.9, 0.2, 0.9, 0.9, 0.9], np.float32)
    points = np.array(FIVE_POINTS, np.float32)
    sure, told = (draw_faces(GRAY, [Landmarks(points, MMLAB_5, box, known)]) for known in (None, confidence))
    for index, (x, y) in enumerate(np.round(points).astype(int)):
        assert tuple(told[y, x]) == (UNSURE_BGR if index == 1 else PREDICTION_BGR)
    changed = (sure != told).any(axis=2)
    assert changed[:20].sum() > 50, "no caption over the box"


def test_names_are_numbers_on_the_face_and_a_list_beside_it() -> None:
    face = Landmarks(np.array(FIVE_POINTS, np.float32), MMLAB_5, FaceBox(20, 20, 80, 80))
    plain, named = draw_faces(GRAY, [face]), draw_faces(GRAY, [face], names=True)
    assert named.shape[1] > plain.shape[1]
    assert (named[: plain.shape[0], : plain.shape[1]] != plain).any()
    np.testing.assert_array_equal(draw_faces(GRAY, [], names=True), GRAY)


@pytest.mark.parametrize("name", ["a.png", "new/folder/b.jpg", "c.JPEG"])
def test_a_picture_is_written_whole(tmp_path: Path, name: str) -> None:
    path = save_picture(tmp_path / name, GRAY)
    assert path == tmp_path / name
    assert cv2.imread(str(path)).shape == GRAY.shape
    assert not list(tmp_path.rglob("*.part"))


def test_a_picture_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Cannot write the picture"):
        save_picture(tmp_path / "file" / "a.png", GRAY)
    with pytest.raises(DataError, match="needs the suffix"):
        save_picture(tmp_path / "a.tiff", GRAY)
