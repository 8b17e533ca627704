"""Alignment: eyes land on the template, the way back is exact, five points where two will not do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.apps.align import AlignedFace, Alignment, anchor_points, similarity
from lmedge.data.synthetic import SyntheticFace, render_face
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import AFLW_19, COFW_29, IBUG_68, MMLAB_5, SCHEMAS, WFLW_98, LandmarkSchema

ALL = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
IMAGE = np.zeros((120, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def faces() -> list[SyntheticFace]:
    return [render_face((31, index), 128) for index in range(20)]


def landmarks(points_px: np.ndarray, schema: LandmarkSchema) -> Landmarks:
    return Landmarks(points_px.astype(np.float32), schema, FaceBox.around(points_px))


def eye_centres_px(face: SyntheticFace) -> np.ndarray:
    """Right and left, from the lids and corners of the 68 points."""
    points = face.points(IBUG_68)
    return np.array([points[36:42].mean(axis=0), points[42:48].mean(axis=0)])


def aligned(face: SyntheticFace, schema: LandmarkSchema, alignment: Alignment) -> AlignedFace:
    return alignment.align(face.image_bgr, landmarks(face.points(schema), schema))


# Where the face lands


@pytest.mark.parametrize("schema", [MMLAB_5, IBUG_68, WFLW_98], ids=lambda schema: schema.name)
def test_eye_centres_land_on_the_template(faces: list[SyntheticFace], schema: LandmarkSchema) -> None:
    alignment = Alignment.standard()
    for face in faces:
        landed = aligned(face, schema, alignment).to_aligned(eye_centres_px(face))
        assert np.linalg.norm(landed - alignment.target_px, axis=1).max() < 0.01


@pytest.mark.parametrize("schema", [COFW_29, AFLW_19], ids=lambda schema: schema.name)
def test_eyes_of_other_point_sets_are_found_by_name(faces: list[SyntheticFace], schema: LandmarkSchema) -> None:
    alignment = Alignment.standard((112, 112))
    for face in faces:
        transform = aligned(face, schema, alignment)
        landed = transform.to_aligned(anchor_points(face.points(schema), schema, 2))
        np.testing.assert_allclose(landed, alignment.target_px, atol=1e-3)
        assert np.linalg.norm(transform.to_aligned(eye_centres_px(face)) - alignment.target_px, axis=1).max() < 3


@pytest.mark.parametrize("size_hw", [(112, 112), (160, 96), (64, 200)])
def test_the_picture_moves_with_the_points(size_hw: tuple[int, int]) -> None:
    """A white spot on the right eye is found where the template has it."""
    points = np.array([[60, 50], [100, 60], [78, 70], [64, 90], [98, 92]], float)
    picture = IMAGE.copy()
    cv2.circle(picture, (60, 50), 3, (255, 255, 255), cv2.FILLED)
    alignment = Alignment.standard(size_hw)
    result = alignment.align(picture, landmarks(points, MMLAB_5))
    y, x = np.nonzero(result.image_bgr[:, :, 0] > 128)
    np.testing.assert_allclose([x.mean(), y.mean()], alignment.target_px[0], atol=0.3)


def test_the_standard_face_fills_the_picture_up_to_the_margin() -> None:
    """The 68 points of the average head, looking straight ahead, after alignment."""
    from lmedge.pose import generic_points

    head = generic_points(IBUG_68)[:, :2] + 300
    for margin in (0.0, 0.1, 0.25):
        alignment = Alignment.standard((200, 200), margin=margin)
        landed = alignment.align(np.zeros((600, 600, 3), np.uint8), landmarks(head, IBUG_68)).to_aligned(head)
        assert np.ptp(landed, axis=0).max() == pytest.approx(200 * (1 - 2 * margin), rel=1e-3)
        np.testing.assert_allclose((landed.min(axis=0) + landed.max(axis=0)) / 2, 99.5, atol=0.1)


@pytest.mark.parametrize("size_hw", [(112, 112), (160, 96), (64, 200)])
def test_pictures_have_the_size_that_was_asked_for(size_hw: tuple[int, int]) -> None:
    points = np.array([[60, 50], [100, 60], [78, 70], [64, 90], [98, 92]], float)
    result = Alignment.standard(size_hw).align(IMAGE, landmarks(points, MMLAB_5))
    assert result.image_bgr.shape == (*size_hw, 3)
    assert result.image_bgr.dtype == np.uint8
    assert result.image_bgr.flags.c_contiguous


# The way back


@given(
    angle=st.floats(-180, 180), size=st.floats(5, 2000), x=st.floats(-500, 3000), y=st.floats(-500, 3000),
    point=st.tuples(st.floats(0, 223), st.floats(0, 223)),
)  # fmt: skip
def test_the_inverse_maps_back(angle: float, size: float, x: float, y: float, point: tuple[float, float]) -> None:
    turn = np.radians(angle)
    along = size * np.array([np.cos(turn), np.sin(turn)])
    five = np.array([[x, y], [x, y] + along, [x + 3, y + 3], [x, y + 5], [x + 5, y + 5]])
    result = Alignment.standard((224, 224)).align(IMAGE, landmarks(five, MMLAB_5))
    np.testing.assert_allclose(result.to_aligned(result.to_image(np.array(point))), point, atol=0.01)
    np.testing.assert_allclose(
        np.vstack([result.transform, [0, 0, 1]]) @ np.vstack([result.inverse, [0, 0, 1]]), np.eye(3), atol=1e-6
    )


def test_a_face_is_turned_upright_and_never_mirrored(faces: list[SyntheticFace]) -> None:
    for face in faces:
        (a, b), (c, d) = aligned(face, IBUG_68, Alignment.standard()).transform[:, :2]
        assert a == pytest.approx(d)
        assert b == pytest.approx(-c)
        assert a * d - b * c > 0
        upright = np.degrees(np.arctan2(c, a))
        assert upright == pytest.approx(-face.pose.roll_deg, abs=25)


# Five points


@ALL
def test_five_anchors_are_the_best_similarity(faces: list[SyntheticFace], schema: LandmarkSchema) -> None:
    """No small turn, zoom or shift brings the five nearer to the template."""
    alignment = Alignment.standard((112, 112), anchors=5)
    anchors = anchor_points(faces[0].points(schema), schema)
    result = aligned(faces[0], schema, alignment)

    def miss(linear: np.ndarray, shift: np.ndarray) -> float:
        return float(
            (
                (anchors @ (linear @ result.transform[:, :2]).T + linear @ result.transform[:, 2] + shift - alignment.target_px)
                ** 2
            ).sum()
        )

    best = miss(np.eye(2), np.zeros(2))
    for turn, zoom, shift in ((0.01, 1, 0), (-0.01, 1, 0), (0, 1.01, 0), (0, 0.99, 0), (0, 1, 0.3), (0, 1, -0.3)):
        linear = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        for direction in np.eye(2):
            assert miss(linear, shift * direction) > best


@given(turn=st.floats(-3.1, 3.1), zoom=st.floats(0.01, 50), x=st.floats(-1e3, 1e3), y=st.floats(-1e3, 1e3))
def test_a_similarity_is_found_from_points_that_it_moved(turn: float, zoom: float, x: float, y: float) -> None:
    matrix = np.column_stack([zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]), [x, y]])
    source = np.array([[0, 0], [40, 3], [18, 25], [5, 44], [37, 46]], float)
    np.testing.assert_allclose(similarity(source, source @ matrix[:, :2].T + matrix[:, 2]), matrix, rtol=1e-6, atol=1e-6)


def test_five_anchors_stay_calm_in_profile() -> None:
    """Eyes that nearly coincide would blow the face up by two anchors."""
    points = np.array([[60, 50], [63, 50], [80, 70], [62, 90], [65, 91]], float)
    zooms = [
        np.linalg.norm(Alignment.standard(anchors=anchors).align(IMAGE, landmarks(points, MMLAB_5)).transform[0, :2])
        for anchors in (2, 5)
    ]
    assert zooms[1] < 5
    assert zooms[0] > 20


# Batches


def test_a_batch_holds_what_single_calls_give(faces: list[SyntheticFace]) -> None:
    alignment = Alignment.standard((96, 80))
    marks = [landmarks(face.points(IBUG_68), IBUG_68) for face in faces[:4]]
    batch = alignment.align_batch([face.image_bgr for face in faces[:4]], marks)
    assert batch.images_bgr.shape == (4, 96, 80, 3)
    for index, (face, mark) in enumerate(zip(faces, marks, strict=False)):
        single = alignment.align(face.image_bgr, mark)
        np.testing.assert_array_equal(batch.images_bgr[index], single.image_bgr)
        np.testing.assert_array_equal(batch.transforms[index], single.transform)
        np.testing.assert_array_equal(batch.inverses[index], single.inverse)


def test_an_empty_batch_has_the_shape_of_none() -> None:
    batch = Alignment.standard((96, 80)).align_batch([], [])
    assert batch.images_bgr.shape == (0, 96, 80, 3)
    assert batch.transforms.shape == batch.inverses.shape == (0, 2, 3)


def test_a_batch_needs_an_image_per_face() -> None:
    points = np.array([[60, 50], [100, 60], [78, 70], [64, 90], [98, 92]], float)
    with pytest.raises(InputError, match="got 2 images and 1 faces"):
        Alignment.standard().align_batch([IMAGE, IMAGE], [landmarks(points, MMLAB_5)])


# Refusals


def test_eyes_on_one_spot_are_refused() -> None:
    points = np.array([[60, 50], [60.5, 50], [80, 70], [62, 90], [65, 91]], float)
    with pytest.raises(InputError, match=r"2 anchors of this face are within 0\.50 px.*anchors=5"):
        Alignment.standard().align(IMAGE, landmarks(points, MMLAB_5))


def test_five_points_on_one_spot_are_refused_without_advice_to_take_five() -> None:
    points = np.array([[60, 50], [60.1, 50], [60, 50.1], [60, 50.2], [60.1, 50.2]], float)
    with pytest.raises(InputError, match=r"5 anchors of this face are within .* too near to fix its size and tilt\.$"):
        Alignment.standard(anchors=5).align(IMAGE, landmarks(points, MMLAB_5))


def test_points_without_eyes_are_refused() -> None:
    own = LandmarkSchema("OWN_2", ("nose_tip", "chin"), {"nose": (0,)}, ((0,), (1,)), "height")
    with pytest.raises(InputError, match="needs the right eye, which OWN_2 does not have by name"):
        Alignment.standard().align(IMAGE, landmarks(np.array([[10, 10], [12, 40]], float), own))


def test_points_without_a_mouth_align_by_the_eyes_alone() -> None:
    own = LandmarkSchema("OWN_3", ("right_eye", "left_eye", "nose_tip"), {"eyes": (0, 1)}, ((0,), (1,)), "eyes")
    face = landmarks(np.array([[60, 50], [100, 60], [78, 70]], float), own)
    with pytest.raises(InputError, match=r"corner of the mouth, which OWN_3 .* by the eyes alone: anchors=2"):
        Alignment.standard(anchors=5).align(IMAGE, face)
    assert Alignment.standard().align(IMAGE, face).image_bgr.shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("template", "size_hw", "margin", "message"),
    [
        (np.zeros((3, 2)), (64, 64), 0.0, r"\(2, 2\), eye centres, or \(5, 2\); got shape \(3, 2\)"),
        (np.full((2, 2), np.nan), (64, 64), 0.0, "must be finite"),
        (np.ones((2, 2)), (64, 64), 0.0, "coincide"),
        (np.eye(2) * 30, (4, 64), 0.0, "from 8 to 4096"),
        (np.eye(2) * 30, (64, 64), 0.5, "below 0.5"),
        (np.eye(2) * 30, (64, 64), -0.1, "at least 0"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(
    template: np.ndarray, size_hw: tuple[int, int], margin: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Alignment(template, size_hw, margin)


def test_only_two_and_five_anchors_exist() -> None:
    with pytest.raises(InputError, match=r"2 .* or 5 .*; got 3"):
        Alignment.standard(anchors=3)


def test_what_is_no_image_is_refused() -> None:
    points = np.array([[60, 50], [100, 60], [78, 70], [64, 90], [98, 92]], float)
    with pytest.raises(InputError, match="uint8"):
        Alignment.standard().align(IMAGE.astype(float), landmarks(points, MMLAB_5))  # type: ignore[arg-type]
