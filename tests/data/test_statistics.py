"""The numbers of a data set, checked on constructed faces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.samples import FaceSample
from lmedge.data.sources import parse_source, read_sources
from lmedge.data.spreads import Histogram, Spread
from lmedge.data.statistics import data_statistics, suspicious_labels
from lmedge.data.synthetic.camera import HeadPose
from lmedge.errors import DataError, SchemaError
from lmedge.landmarks import FaceBox
from lmedge.pose import generic_points
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema
from tests.data.faces import points_of, sample_of, textured_image, write_image

FIVE = np.array([[20.0, 20.0], [60.0, 20.0], [40.0, 40.0], [25.0, 60.0], [55.0, 60.0]])


def five(folder: Path, name: str, points_px: np.ndarray = FIVE, seed: int = 0, subset: tuple[str, ...] = ()) -> FaceSample:
    path = folder / f"{name}.png"
    if not path.exists():
        write_image(path, textured_image(seed, 100, 100))
    return sample_of(path, points_px, MMLAB_5, subset=subset)


def test_counts_sizes_and_distances(tmp_path: Path) -> None:
    faces = [five(tmp_path, f"face{i}", FIVE * scale, seed=i, subset=("net",)) for i, scale in enumerate((0.5, 1.0, 1.5))]
    statistics = data_statistics(faces)
    assert (statistics.schema, statistics.count, statistics.photos) == ("MMLAB_5", 3, 3)
    assert statistics.training + statistics.validation == 3
    assert statistics.subsets == {"net": 3}
    assert statistics.normalizer_px == Spread(min=20.0, p5=22.0, p50=40.0, p95=58.0, max=60.0)
    assert statistics.box_side_px == {"reference": Spread(min=20.0, p5=22.0, p50=40.0, p95=58.0, max=60.0)}
    assert (statistics.unknown_points, statistics.outside_points, statistics.duplicates) == (0, 0, ())


def test_boxes_are_described_by_kind_and_fitted_to_the_reference(tmp_path: Path) -> None:
    # The reference box is 20 to 60; this one is twice as long and has its centre 8 px further right.
    box = FaceBox(8, 0, 88, 80, kind="own")
    statistics = data_statistics([replace(five(tmp_path, "face"), boxes={"own": box}), five(tmp_path, "other", seed=1)])
    assert statistics.box_side_px["own"] == Spread(80.0, 80.0, 80.0, 80.0, 80.0)
    fit = statistics.box_fits["own"]
    assert (fit.scale, fit.shift_x, fit.shift_y) == (0.5, -0.1, 0.0)


def test_unknown_points_are_counted_by_name(tmp_path: Path) -> None:
    partial = FIVE.copy()
    partial[[2, 3]] = np.nan
    statistics = data_statistics([five(tmp_path, "a"), five(tmp_path, "b", partial, seed=1)])
    assert statistics.unknown_points == 2
    assert statistics.unknown_by_point == {"nose_tip": 1, "right_mouth_corner": 1}


def test_faces_without_a_normaliser_leave_no_spread(tmp_path: Path) -> None:
    blind = FIVE.copy()
    blind[0] = np.nan
    assert data_statistics([five(tmp_path, "a", blind)]).normalizer_px is None


def test_labels_outside_the_image_are_counted_and_beyond_half_a_face_refused(tmp_path: Path) -> None:
    near, far = FIVE - [25, 0], FIVE - [60, 0]
    statistics = data_statistics([five(tmp_path, "a"), five(tmp_path, "b", near, seed=1), five(tmp_path, "c", far, seed=2)])
    # 20 - 25 is outside, and so is no other point of that face: 25 - 25 = 0 is the first pixel's centre.
    assert (statistics.outside_points, statistics.outside_faces) == (1, 1)
    assert len(statistics.refused) == 1
    assert "labels:c" in statistics.refused[0]


def test_a_broken_image_is_listed_and_the_rest_counted(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    statistics = data_statistics([five(tmp_path, "good"), five(tmp_path, "broken")])
    assert statistics.count == 2
    assert len(statistics.refused) == 1
    assert "broken.png is not a complete image" in statistics.refused[0]


def test_copies_are_listed_and_count_as_one_photo(tmp_path: Path) -> None:
    faces = [five(tmp_path, "a", seed=3), five(tmp_path, "b", seed=3), five(tmp_path, "c", seed=4)]
    statistics = data_statistics(faces)
    assert statistics.duplicates == (("a", "b"),)
    assert statistics.photos == 2


def test_of_copies_the_labellings_are_compared(tmp_path: Path) -> None:
    moved = FIVE.copy()
    moved[2] += [6, 0]
    faces = [five(tmp_path, "a", seed=3), five(tmp_path, "c", seed=4), five(tmp_path, "b", moved, seed=3)]
    (found,) = data_statistics(faces).relabelled
    assert (found.first, found.second, found.worst_point) == (0, 2, "nose_tip")
    # A point of five is 6 of 40 px off; the alignment shares it out a little.
    assert found.difference == pytest.approx(6 / 5 / 40, abs=0.02)


def test_head_angles_and_sizes_are_counted_in_bins(tmp_path: Path) -> None:
    turned = generic_points(MMLAB_5) @ HeadPose(35, 0, -20).rotation.T
    faces = [five(tmp_path, f"face{i}", turned[:, :2] * 0.4 + 50, seed=i) for i in range(3)]
    statistics = data_statistics(faces)
    counts = {name: dict(zip(h.edges, h.counts, strict=False)) for name, h in statistics.pose.items()}
    assert counts["yaw_deg"][30] == counts["pitch_deg"][0] + counts["pitch_deg"][-15] == counts["roll_deg"][-30] == 3
    assert sum(statistics.face_px.counts) == 3


def test_point_sets_without_a_place_on_a_head_have_no_pose(tmp_path: Path) -> None:
    own = LandmarkSchema("OWN", ("right_eye", "left_eye"), {"eyes": (0, 1)}, ((0,), (1,)), "eyes")
    face = sample_of(textured_image(0), np.array([[20.0, 30.0], [60.0, 31.0]]), own)
    assert data_statistics([face]).pose == {}


@given(values=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=50))
def test_round_bins_hold_every_value(values: list[float]) -> None:
    histogram = Histogram.of(np.array([*values, np.nan]))
    assert sum(histogram.counts) == len(values)
    assert 1 <= len(histogram.counts) <= 12
    assert histogram.edges[0] <= min(values)
    assert max(values) <= histogram.edges[-1]


def test_values_beyond_given_edges_count_in_the_outermost_bins() -> None:
    assert Histogram.of(np.array([-500.0, 1, 2, 500]), (0, 1.5, 3)).counts == (2, 2)


def test_the_misplaced_label_is_the_first_suspicion() -> None:
    rng = np.random.default_rng(0)
    image = textured_image(0)
    faces = [sample_of(image, points_of(IBUG_68) + rng.normal(0, 0.5, (68, 2)), photo_key=str(i)) for i in range(40)]
    swapped = points_of(IBUG_68)[list(IBUG_68.flip_indices)]
    swapped[:17] = points_of(IBUG_68)[:17]
    faces[23] = sample_of(image, swapped, photo_key="swapped")
    ranked = suspicious_labels(faces)
    assert (ranked[0].photo_key, ranked[0].index) == ("swapped", 23)
    assert [faces[entry.index].photo_key for entry in ranked] == [entry.photo_key for entry in ranked]
    assert [s.deviation for s in ranked] == sorted((s.deviation for s in ranked), reverse=True)
    assert len(ranked) == len(faces)
    assert data_statistics(faces).suspicious == tuple(ranked[:24])


def test_the_reason_names_region_and_point() -> None:
    rng = np.random.default_rng(0)
    image = textured_image(0)
    faces = [sample_of(image, points_of(IBUG_68) + rng.normal(0, 0.3, (68, 2)), photo_key=str(i)) for i in range(40)]
    wrong = points_of(IBUG_68)
    wrong[54] += [25, 0]
    faces.append(sample_of(image, wrong, photo_key="wrong"))
    first = suspicious_labels(faces)[0]
    assert first.photo_key == "wrong"
    assert first.reason.startswith("mouth ")
    assert "left_mouth_corner" in first.reason


def test_the_document_is_plain_json(tmp_path: Path) -> None:
    document = json.loads(json.dumps(data_statistics([five(tmp_path, "a")]).to_json()))
    assert document["count"] == 1
    assert document["box_side_px"]["reference"]["p50"] == 40.0


def test_no_faces_and_two_schemas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one labelled face"):
        data_statistics([])
    with pytest.raises(SchemaError, match="IBUG_68, MMLAB_5"):
        data_statistics([five(tmp_path, "a"), sample_of(textured_image(0))])


@pytest.mark.data
def test_wflw_at_hand(data_folder: Path) -> None:
    statistics = data_statistics(read_sources([parse_source(f"wflw:{data_folder / 'wflw'}")]))
    assert (statistics.count, statistics.photos, statistics.refused) == (752, 563, ())
    assert (statistics.outside_points, statistics.outside_faces) == (42, 7)
    assert len(statistics.duplicates) == 3
    # Seen in the whole set: its rectangles are 1.3 times the extent of the points.
    assert 1 / statistics.box_fits["wflw"].scale == pytest.approx(1.3, abs=0.02)
