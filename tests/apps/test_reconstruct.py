"""Shapes of faces from one picture: true on the generic head, nearer to a person than it, whole files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmedge.apps.reconstruct import FaceShape, reconstruct
from lmedge.data.synthetic import Expression
from lmedge.data.synthetic.modes import deform, draw_identity
from lmedge.errors import InputError, LmedgeError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.pose import Camera, generic_points, rotation_matrix
from lmedge.schemas import IBUG_68, MMLAB_5, SCHEMAS, WFLW_98, LandmarkSchema

CAMERA = Camera(2000.0, (639.5, 359.5))
INNER = sorted(set(range(98)) - set(WFLW_98.groups["contour"]))
ALL = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))


def seen(head_mm: np.ndarray, schema: LandmarkSchema, *angles_deg: float) -> Landmarks:
    """A head 900 mm before the camera."""
    points_px = CAMERA.project(head_mm @ rotation_matrix(*angles_deg).T + (0, 0, 900))
    return Landmarks(points_px.astype(np.float32), schema, FaceBox.around(points_px))


def person(number: int) -> np.ndarray:
    return np.asarray(deform(draw_identity(np.random.default_rng(number)), Expression())[:98])


def shape_error_mm(points_mm: np.ndarray, truth_mm: np.ndarray) -> float:
    """Mean distance after the best similarity (Umeyama 1991): one picture tells no size, and pose is another matter."""
    source, target = points_mm - points_mm.mean(axis=0), truth_mm - truth_mm.mean(axis=0)
    left, sizes, right = np.linalg.svd(target.T @ source)
    mirrored = np.linalg.det(left @ right) < 0
    signs = np.array([1, 1, -1 if mirrored else 1])
    moved = (sizes * signs).sum() / (source**2).sum() * source @ (left * signs @ right).T
    return float(np.linalg.norm(moved - target, axis=1).mean())


def mean_errors_mm(yaw_deg: float) -> tuple[float, float]:
    """Of the reconstruction and of the generic head, over people, without the contour."""
    people = [person(number) for number in range(8)]
    shapes = [reconstruct(seen(head, WFLW_98, yaw_deg, 5, 0), CAMERA).points_mm for head in people]
    own = [shape_error_mm(shape[INNER], head[INNER]) for shape, head in zip(shapes, people, strict=True)]
    generic = [shape_error_mm(generic_points(WFLW_98)[INNER], head[INNER]) for head in people]
    return float(np.mean(own)), float(np.mean(generic))


# The shape


@ALL
@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 0, 0), (-20, 15, 10)])
def test_the_generic_head_is_its_own_reconstruction(schema: LandmarkSchema, angles: tuple[float, ...]) -> None:
    shape = reconstruct(seen(generic_points(schema), schema, *angles), CAMERA)
    np.testing.assert_allclose(shape.points_mm, generic_points(schema), atol=0.2)
    assert (shape.pose.yaw_deg, shape.pose.pitch_deg, shape.pose.roll_deg) == pytest.approx(angles, abs=0.1)


@pytest.mark.parametrize(("yaw_deg", "limit"), [(0, 0.5), (30, 0.6), (-30, 0.6)])
def test_a_person_is_nearer_to_the_reconstruction_than_to_the_generic_head(yaw_deg: float, limit: float) -> None:
    own, generic = mean_errors_mm(yaw_deg)
    assert own < limit * generic


@pytest.mark.parametrize("schema", [MMLAB_5, WFLW_98], ids=lambda schema: schema.name)
def test_the_points_are_seen_where_they_were_found(schema: LandmarkSchema) -> None:
    head = person(3) if schema == WFLW_98 else generic_points(MMLAB_5) + np.random.default_rng(0).normal(0, 1.5, (5, 3))
    landmarks = seen(head, schema, 20, -5, 10)
    missed = np.linalg.norm(reconstruct(landmarks, CAMERA).project() - landmarks.points_px, axis=1)
    inner = [index for index in range(schema.num_points) if index not in schema.groups.get("contour", ())]
    # A millimetre is 2.2 px here.
    assert missed[inner].max() < 1.0


@pytest.mark.parametrize(("name", "low", "high"), [("nose_ridge_1", 0.8, 1.0), ("right_contour_8", 0.1, 0.4)])
def test_an_outline_is_followed_less_than_a_point_of_the_face(name: str, low: float, high: float) -> None:
    """A point that is seen 4 mm beside its place: on the outline that is mostly another piece of skin."""
    index = WFLW_98.point_names.index(name)
    straight = seen(generic_points(WFLW_98), WFLW_98, 0, 0, 0)
    points_px = straight.points_px.copy()
    points_px[index, 0] += 4 * CAMERA.focal_px / 900
    moved = reconstruct(Landmarks(points_px, WFLW_98, straight.box), CAMERA)
    share = (moved.points_mm[index, 0] - generic_points(WFLW_98)[index, 0]) / 4
    assert low < share < high


# Triangles and colours


@ALL
def test_triangles_face_the_viewer_and_use_every_point(schema: LandmarkSchema) -> None:
    triangles = reconstruct(seen(generic_points(schema), schema, 0, 0, 0), CAMERA).triangles
    corners = (generic_points(schema) * (1, -1, -1))[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()
    assert set(triangles.ravel().tolist()) == set(range(schema.num_points))


def test_points_have_the_colours_of_the_picture() -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    image[:, :640] = (10, 20, 30)
    image[:, 640:] = (200, 150, 100)
    shape = reconstruct(seen(generic_points(IBUG_68), IBUG_68, 0, 0, 0), CAMERA, image)
    assert shape.colors_bgr is not None
    right, left = (IBUG_68.point_names.index(f"{side}_eye_outer") for side in ("right", "left"))
    assert shape.colors_bgr[right].tolist() == [10, 20, 30]
    assert shape.colors_bgr[left].tolist() == [200, 150, 100]


# Files


@pytest.fixture
def shape() -> FaceShape:
    return reconstruct(seen(generic_points(IBUG_68), IBUG_68, 10, 0, 0), CAMERA, np.full((720, 1280, 3), (1, 2, 3), np.uint8))


def test_a_ply_file_holds_vertices_colours_and_faces(shape: FaceShape, tmp_path: Path) -> None:
    lines = shape.write(tmp_path / "face.ply").read_text().splitlines()
    end = lines.index("end_header")
    assert lines[:2] == ["ply", "format ascii 1.0"]
    assert f"element vertex {IBUG_68.num_points}" in lines
    assert f"element face {len(shape.triangles)}" in lines
    vertices = np.array([line.split() for line in lines[end + 1 : end + 69]], float)
    # y up, z toward the viewer; red, green, blue.
    np.testing.assert_allclose(vertices[:, :3], shape.points_mm * (1, -1, -1), atol=1e-3)
    np.testing.assert_array_equal(vertices[:, 3:], np.tile([3, 2, 1], (68, 1)))
    faces = np.array([line.split() for line in lines[end + 69 :]], int)
    np.testing.assert_array_equal(faces[:, 0], 3)
    np.testing.assert_array_equal(faces[:, 1:], shape.triangles)


def test_an_obj_file_counts_from_one(shape: FaceShape, tmp_path: Path) -> None:
    rows = [line.split() for line in shape.write(tmp_path / "face.OBJ").read_text().splitlines()]
    vertices = np.array([row[1:] for row in rows if row[0] == "v"], float)
    faces = np.array([row[1:] for row in rows if row[0] == "f"], int)
    np.testing.assert_allclose(vertices[:, :3], shape.points_mm * (1, -1, -1), atol=1e-3)
    np.testing.assert_allclose(vertices[0, 3:] * 255, [3, 2, 1], atol=0.02)
    np.testing.assert_array_equal(faces, shape.triangles + 1)


@pytest.mark.parametrize("ending", [".ply", ".obj"])
def test_without_a_picture_there_are_no_colours(ending: str, tmp_path: Path) -> None:
    shape = reconstruct(seen(generic_points(MMLAB_5), MMLAB_5, 0, 0, 0), CAMERA)
    text = shape.write(tmp_path / f"face{ending}").read_text()
    assert shape.colors_bgr is None
    assert "red" not in text
    nose = shape.points_mm[2] * (1, -1, -1)
    line = next(line for line in text.splitlines() if line.split()[-1] == f"{nose[2]:.4f}")
    assert len(line.removeprefix("v ").split()) == 3


def test_other_endings_and_unwritable_places_are_refused(shape: FaceShape, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"as \.ply or \.obj; got 'face\.stl'"):
        shape.write(tmp_path / "face.stl")
    (tmp_path / "file").write_text("")
    with pytest.raises(LmedgeError, match="Cannot write"):
        shape.write(tmp_path / "file" / "face.ply")


# Refusals


def test_points_that_no_head_has_are_named() -> None:
    names = ("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner", "third_eye")
    own = LandmarkSchema("OWN_6", names, {"eyes": (0, 1)}, ((0,), (1,)), "eyes")
    points_px = np.vstack([seen(generic_points(MMLAB_5), MMLAB_5, 0, 0, 0).points_px, [[640, 300]]])
    with pytest.raises(InputError, match=r"OWN_6 has 1 points .*: third_eye"):
        reconstruct(Landmarks(points_px, own, FaceBox.around(points_px)), CAMERA)


def test_points_in_one_plane_are_refused() -> None:
    own = LandmarkSchema(
        "OWN_4", ("right_eye", "left_eye", "right_mouth_corner", "left_mouth_corner"), {"eyes": (0, 1)}, ((0,), (1,)), "eyes"
    )
    with pytest.raises(InputError, match="do not lie in one plane"):
        reconstruct(seen(generic_points(own), own, 0, 0, 0), CAMERA)
