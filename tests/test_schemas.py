"""Landmark schemas against what the data sets publish, and against labelled faces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.errors import SchemaError
from lmedge.schemas import (
    AFLW_19,
    COFW_29,
    IBUG_68,
    MMLAB_5,
    REGIONS,
    SCHEMAS,
    WFLW_98,
    LandmarkSchema,
    mapping_matrix,
)

Points = npt.NDArray[np.float64]

ALL = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))

# Those with labelled photographs to check against.
AT_HAND = pytest.mark.parametrize("schema", [MMLAB_5, IBUG_68, WFLW_98], ids=lambda schema: schema.name)

# Mirror permutations as published: WFLW in PFLD's Mirror98.txt and PIPNet, the others in PIPNet and HRNet.
PUBLISHED_FLIPS = {
    "MMLAB_5": [1, 0, 2, 4, 3],
    "IBUG_68": [
        16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27, 28, 29, 30,
        35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55,
        64, 63, 62, 61, 60, 67, 66, 65,
    ],
    "WFLW_98": [
        32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2,
        1, 0, 46, 45, 44, 43, 42, 50, 49, 48, 47, 37, 36, 35, 34, 33, 41, 40, 39, 38, 51, 52, 53, 54, 59, 58, 57, 56, 55,
        72, 71, 70, 69, 68, 75, 74, 73, 64, 63, 62, 61, 60, 67, 66, 65, 82, 81, 80, 79, 78, 77, 76, 87, 86, 85, 84, 83,
        92, 91, 90, 89, 88, 95, 94, 93, 97, 96,
    ],
    "COFW_29": [
        1, 0, 3, 2, 6, 7, 4, 5, 9, 8, 11, 10, 14, 15, 12, 13, 17, 16, 19, 18, 20, 21, 23, 22, 24, 25, 26, 27, 28,
    ],
    "AFLW_19": [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 14, 13, 12, 17, 16, 15, 18],
}  # fmt: skip
PUBLISHED_PAIRS = {"MMLAB_5": 2, "IBUG_68": 29, "WFLW_98": 44, "COFW_29": 11, "AFLW_19": 8}
# How far a point of a mean face may lie from its mirror image, as a share of the face's extent. Measured: 0.015 to 0.024 (the
# chin: people tilt and turn their heads more to one side), and 0.075 or more when a single pair is left unswapped.
SYMMETRY_LIMIT = 0.04


@ALL
def test_mirroring_twice_changes_nothing(schema: LandmarkSchema) -> None:
    flips = np.array(schema.flip_indices)
    assert flips[flips].tolist() == list(range(schema.num_points))


@ALL
def test_mirror_pairs_are_the_published_ones(schema: LandmarkSchema) -> None:
    assert list(schema.flip_indices) == PUBLISHED_FLIPS[schema.name]
    moved = sum(flip != index for index, flip in enumerate(schema.flip_indices))
    assert moved == 2 * PUBLISHED_PAIRS[schema.name]


@ALL
def test_every_point_belongs_to_exactly_one_region(schema: LandmarkSchema) -> None:
    members = [index for indices in schema.groups.values() for index in indices]
    assert sorted(members) == list(range(schema.num_points))
    assert set(schema.groups) <= set(REGIONS)


@ALL
def test_regions_normalizer_and_curves_are_their_own_mirror_image(schema: LandmarkSchema) -> None:
    def mirrored(indices: tuple[int, ...]) -> set[int]:
        return {schema.flip_indices[index] for index in indices}

    for name, indices in schema.groups.items():
        assert mirrored(indices) == set(indices), name
    first, second = schema.normalizer
    assert {frozenset(mirrored(first)), frozenset(mirrored(second))} == {frozenset(first), frozenset(second)}
    edges = {frozenset(edge) for edge in schema.edges}
    assert {frozenset(mirrored(edge)) for edge in schema.edges} == edges


@pytest.mark.parametrize(
    ("schema", "region", "expected"),
    [
        (IBUG_68, "contour", range(17)),
        (IBUG_68, "brows", range(17, 27)),
        (IBUG_68, "nose", range(27, 36)),
        (IBUG_68, "eyes", range(36, 48)),
        (IBUG_68, "mouth", range(48, 68)),
        (WFLW_98, "contour", range(33)),
        (WFLW_98, "brows", range(33, 51)),
        (WFLW_98, "nose", range(51, 60)),
        (WFLW_98, "eyes", [*range(60, 76), 96, 97]),
        (WFLW_98, "mouth", range(76, 96)),
        (MMLAB_5, "eyes", [0, 1]),
        (MMLAB_5, "nose", [2]),
        (MMLAB_5, "mouth", [3, 4]),
        (COFW_29, "contour", [28]),
        (COFW_29, "brows", range(8)),
        (COFW_29, "eyes", range(8, 18)),
        (COFW_29, "nose", range(18, 22)),
        (COFW_29, "mouth", range(22, 28)),
        (AFLW_19, "contour", [18]),
        (AFLW_19, "brows", range(6)),
        (AFLW_19, "eyes", range(6, 12)),
        (AFLW_19, "nose", range(12, 15)),
        (AFLW_19, "mouth", range(15, 18)),
    ],
)
def test_regions_are_the_published_ones(schema: LandmarkSchema, region: str, expected: list[int]) -> None:
    assert list(schema.groups[region]) == list(expected)


@pytest.mark.parametrize(("schema", "pair"), [(IBUG_68, (36, 45)), (WFLW_98, (60, 72)), (MMLAB_5, (0, 1)), (COFW_29, (8, 9))])
def test_the_error_is_divided_by_the_inter_ocular_distance(schema: LandmarkSchema, pair: tuple[int, int]) -> None:
    points = np.zeros((2, schema.num_points, 2))
    points[0, pair[0]], points[0, pair[1]] = (10, 20), (13, 24)
    points[1, pair[0]], points[1, pair[1]] = (0, 0), (0, 7)
    assert schema.normalizer_px(points).tolist() == [5, 7]
    assert schema.point_names[pair[0]].startswith("right_eye")


def test_aflw_is_divided_by_a_distance_that_profiles_have_too() -> None:
    """Papers divide by the size of a box. The points here lie on the midline, so both profiles show them."""
    first, second = AFLW_19.normalizer
    assert [AFLW_19.point_names[index] for index in (*first, *second)] == ["nose_tip", "chin"]
    assert [AFLW_19.flip_indices[index] for index in (*first, *second)] == [*first, *second]
    assert "nose tip to chin" in AFLW_19.normalizer_name


def test_left_is_the_subjects_left() -> None:
    """In a photo the subject's right eye is on the left: the first eye of every published order."""
    for schema in SCHEMAS.values():
        first_eye = min(schema.groups["eyes"])
        assert schema.point_names[first_eye].startswith("right_")
        assert schema.point_names[schema.flip_indices[first_eye]].startswith("left_")


def test_closed_curves_return_to_their_first_point() -> None:
    eye = [edge for edge in IBUG_68.edges if set(edge) <= set(range(36, 42))]
    assert eye == [(36, 37), (37, 38), (38, 39), (39, 40), (40, 41), (41, 36)]
    contour = [edge for edge in IBUG_68.edges if set(edge) <= set(range(17))]
    assert contour == [(i, i + 1) for i in range(16)]


# Against labelled photographs, read here by the few lines below and not by lmedge's own readers.


def labelled_faces(schema_name: str, folder: Path) -> Iterator[Points]:
    if schema_name == "IBUG_68":
        for file in sorted((folder / "300w").rglob("*.pts")):
            numbers = file.read_text().split("{")[1].split("}")[0].split()
            yield np.array(numbers, float).reshape(68, 2)
    elif schema_name == "WFLW_98":
        (file,) = (folder / "wflw").rglob("list_98pt_rect_attr_train.txt")
        for line in file.read_text().splitlines():
            yield np.array(line.split()[:196], float).reshape(98, 2)
    else:
        for line in (folder / "mmlab5" / "trainImageList.txt").read_text().splitlines():
            yield np.array(line.split()[5:15], float).reshape(5, 2)


def mean_face(faces: Iterator[Points]) -> Points:
    """Mean shape (K, 2) of faces that are centred and scaled to an extent of 1."""
    return np.mean([(face - face.mean(axis=0)) / np.ptp(face, axis=0).max() for face in faces], axis=0)


def mirror_distances(face: Points, flips: list[int]) -> Points:
    """Distances (K,) of a face's points from those of its mirror image about x = 0."""
    mirrored = (face * [-1, 1])[flips]
    return np.asarray(np.linalg.norm(mirrored - face, axis=1))


@pytest.mark.data
@AT_HAND
def test_the_mean_face_is_its_own_mirror_image(schema: LandmarkSchema, data_folder: Path) -> None:
    face = mean_face(labelled_faces(schema.name, data_folder))
    assert mirror_distances(face, list(schema.flip_indices)).max() < SYMMETRY_LIMIT


@pytest.mark.data
@AT_HAND
def test_one_pair_left_unswapped_is_seen_on_the_mean_face(schema: LandmarkSchema, data_folder: Path) -> None:
    face = mean_face(labelled_faces(schema.name, data_folder))
    for index, partner in enumerate(schema.flip_indices):
        if index < partner:
            flips = list(schema.flip_indices)
            flips[index], flips[partner] = index, partner
            assert mirror_distances(face, flips).max() > SYMMETRY_LIMIT, schema.point_names[index]


@pytest.mark.data
@AT_HAND
def test_the_subjects_right_is_on_the_left_of_the_photo(schema: LandmarkSchema, data_folder: Path) -> None:
    face = mean_face(labelled_faces(schema.name, data_folder))
    for index, partner in enumerate(schema.flip_indices):
        if schema.point_names[index].startswith("right_"):
            assert face[index, 0] < face[partner, 0], schema.point_names[index]


# Conversions between schemas.


def test_a_schema_maps_to_itself_unchanged() -> None:
    assert np.array_equal(mapping_matrix(IBUG_68, IBUG_68), np.eye(68))


@pytest.mark.parametrize(
    ("source", "target"),
    [(WFLW_98, IBUG_68), (IBUG_68, MMLAB_5), (WFLW_98, COFW_29), (WFLW_98, AFLW_19)],
    ids=["98 to 68", "68 to 5", "98 to 29", "98 to 19"],
)
class TestMappings:
    def test_weights_are_shares(self, source: LandmarkSchema, target: LandmarkSchema) -> None:
        matrix = mapping_matrix(source, target)
        assert matrix.shape == (target.num_points, source.num_points)
        assert (matrix >= 0).all()
        assert matrix.sum(axis=1) == pytest.approx(1)

    def test_mapping_and_mirroring_commute(self, source: LandmarkSchema, target: LandmarkSchema) -> None:
        matrix = mapping_matrix(source, target)
        assert np.array_equal(matrix[list(target.flip_indices)][:, list(source.flip_indices)], matrix)

    def test_points_stay_in_their_region(self, source: LandmarkSchema, target: LandmarkSchema) -> None:
        matrix = mapping_matrix(source, target)
        for region, indices in target.groups.items():
            outside = np.setdiff1d(np.arange(source.num_points), source.groups[region])
            assert not matrix[np.ix_(indices, outside)].any(), region


def test_98_to_68_is_pipnets() -> None:
    """Four rows of convert_wflw in PIPNet's lib/preprocess.py, one of each kind."""
    matrix = mapping_matrix(WFLW_98, IBUG_68)
    points = np.arange(98.0)
    assert matrix[3] @ points == 6
    assert matrix[20] @ points == (36 + 39) / 2
    assert matrix[37] @ points == pytest.approx((2 * 61 + 62) / 3)
    assert matrix[67] @ points == 95


def test_68_to_5_takes_eye_centres_and_mouth_corners() -> None:
    matrix = mapping_matrix(IBUG_68, MMLAB_5)
    points = np.arange(68.0)
    assert (matrix @ points).tolist() == pytest.approx([38.5, 44.5, 30, 48, 54])


@pytest.mark.parametrize("target", [COFW_29, AFLW_19], ids=["29", "19"])
def test_names_that_both_sets_have_are_the_same_point(target: LandmarkSchema) -> None:
    matrix = mapping_matrix(WFLW_98, target)
    same = [name for name in target.point_names if name in WFLW_98.point_names]
    assert {"right_eye_outer", "left_eye_inner", "left_mouth_corner", "chin"} <= set(same)
    for name in same:
        row = matrix[target.point_names.index(name)]
        assert row[WFLW_98.point_names.index(name)] == row.sum() == 1, name


def test_an_unpublished_mapping_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"No published mapping from MMLAB_5 to WFLW_98; known: WFLW_98 → IBUG_68"):
        mapping_matrix(MMLAB_5, WFLW_98)
