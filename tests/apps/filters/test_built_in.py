"""The filters that come with lmedge: drawn by its own script, wearable by every schema that has their points."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge.apps.filters import FaceFilter, FilterPainter, built_in_filters, load_filter
from lmedge.apps.filters.draw_built_in import FILTERS, draw_filters
from lmedge.errors import InputError
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema
from tests.apps.filters.faces import CAMERA, changed, face, gray_picture

# Encoders of pictures and versions of OpenCV differ in a few levels at edges.
MEAN_LEVELS, MOST_LEVELS = 0.3, 48


def test_there_are_the_five_that_the_script_draws() -> None:
    assert set(built_in_filters()) == set(FILTERS) == {"glasses", "hat", "mask", "moustache", "tiger"}


def test_the_committed_pictures_are_what_the_script_draws(tmp_path: Path) -> None:
    draw_filters(tmp_path)
    for name, folder in built_in_filters().items():
        assert (tmp_path / name / "filter.json").read_text() == (folder / "filter.json").read_text()
        assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in (tmp_path / name).iterdir())
        for file in folder.glob("*.png"):
            here, drawn = (
                cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(int) for path in (file, tmp_path / name / file.name)
            )
            # Where there is no alpha, colours are nobody's business.
            difference = np.abs(here * (here[:, :, 3:] > 0) - drawn * (here[:, :, 3:] > 0))
            assert difference.mean() < MEAN_LEVELS, f"run python -m lmedge.apps.filters.draw_built_in and commit {file.name}"
            assert difference.max() <= MOST_LEVELS


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98])
def test_every_filter_fits_faces_of_68_and_98_points(name: str, schema: LandmarkSchema) -> None:
    painter = FilterPainter(load_filter(name), schema)
    for yaw in (0, 30, -45):
        found = face(schema, yaw=yaw)
        painted = changed(painter.paint(gray_picture(), [found]))
        rows, columns = np.nonzero(painted)
        middle = np.array([columns.mean(), rows.mean()])
        height = np.ptp(found.points_px[:, 1])
        assert np.linalg.norm(middle - found.points_px.mean(axis=0)) < 1.3 * height, "it is on the face, or on top of it"
        assert 0.02 * height**2 < painted.sum() < 4 * height**2


@pytest.mark.parametrize("name", ["glasses", "moustache", "hat"])
def test_stickers_fit_faces_of_five_points_nearly_as_those_of_68(name: str) -> None:
    few, many = (
        changed(FilterPainter(load_filter(name), schema).paint(gray_picture(), [face(schema, yaw=20)]))
        for schema in (MMLAB_5, IBUG_68)
    )
    # The moustache hangs from the nose's tip instead of its base.
    assert (few & many).sum() / (few | many).sum() > 0.7


@pytest.mark.parametrize("yaw", [40, -40])
@pytest.mark.parametrize("schema", [IBUG_68, MMLAB_5])
def test_glasses_reach_to_the_near_ear_and_their_far_arm_is_hidden(schema: LandmarkSchema, yaw: float) -> None:
    glasses, found = load_filter("glasses"), face(schema, yaw=yaw)
    front = FaceFilter("front", tuple(layer for layer in glasses.layers if not layer.optional))
    ends = []
    for worn in (front, glasses):
        columns = np.nonzero(changed(FilterPainter(worn, schema, camera=CAMERA).paint(gray_picture(), [found])))[1]
        ends.append(np.sign(yaw) * np.array([columns.min(), columns.max()][:: int(np.sign(yaw))]))
    (near_lens, far_lens), (near, far) = ends
    assert far == far_lens
    assert near < near_lens - 40


@pytest.mark.parametrize("name", ["mask", "tiger"])
def test_what_needs_the_contour_is_refused_for_five_points(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' needs points that MMLAB_5 does not have: .*zoo:ibug68"):
        FilterPainter(load_filter(name), MMLAB_5)
