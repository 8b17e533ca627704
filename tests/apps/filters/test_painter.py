"""Filters over faces: bound points land on their places, the turn of the head counts, what is nearer covers what is farther."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lmedge.apps.filters import FaceFilter, FilterPainter, Layer
from lmedge.apps.filters.places import HEAD_PLACES_MM, FacePlaces
from lmedge.errors import InputError
from lmedge.pose import head_pose, rotation_matrix
from lmedge.schemas import COFW_29, IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema
from tests.apps.filters.faces import (
    CAMERA,
    GRAY,
    PLACE_MM,
    SIDE_PX,
    changed,
    face,
    gray_picture,
    landmarks,
    painter_of,
    solid,
    sticker,
)

# Farther turned, the far side of the jaw is hidden behind the cheek.
POSES = [(0, 0, 0), (20, 10, -15), (-20, -20, 25)]
EYES = {"right_eye": (60.0, 50.0), "left_eye": (140.0, 50.0)}
THREE = {"nose_tip": (100.0, 20.0), "right_mouth_corner": (70.0, 70.0), "left_mouth_corner": (130.0, 72.0)}
FOUR = {
    "nose_base": (100.0, 20.0),
    "upper_lip_top": (99.0, 42.0),
    "right_mouth_corner": (40.0, 60.0),
    "left_mouth_corner": (160.0, 60.0),
}
JAW = {
    "right_contour_2": (30.0, 20.0), "right_contour_5": (50.0, 70.0), "chin": (100.0, 85.0), "left_contour_5": (150.0, 70.0),
    "left_contour_2": (170.0, 20.0), "nose_ridge_1": (100.0, 15.0),
}  # fmt: skip
HAT = {"right_temple": (40.0, 90.0), "left_temple": (160.0, 90.0), "forehead": (100.0, 80.0), "crown": (100.0, 30.0)}
# Half a pixel is the usual slip between conventions, and has to show. A sticker that bends at its points draws a dot lopsided:
# its centre moves, its brightest pixel stays.
CENTRE_LANDS_PX, PEAK_LANDS_PX = 0.3, 1.0


def dot_at(place: tuple[float, float]) -> np.ndarray:
    """A picture with one soft white dot, its centre at a fraction of a pixel."""
    rows, columns = np.mgrid[:100, :200]
    picture = np.full((100, 200, 4), 255, np.uint8)
    picture[:, :, 3] = 255 * np.exp(-((columns - place[0]) ** 2 + (rows - place[1]) ** 2) / (2 * 1.3**2))
    return picture


def centre_of(light: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(light.shape)
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize(
    ("schema", "binding"),
    [
        (IBUG_68, EYES), (IBUG_68, THREE), (IBUG_68, FOUR), (IBUG_68, JAW), (IBUG_68, HAT), (WFLW_98, JAW), (WFLW_98, FOUR),
        (MMLAB_5, EYES), (MMLAB_5, THREE), (MMLAB_5, HAT),
    ],
)  # fmt: skip
def test_every_bound_point_lands_on_its_place(schema: LandmarkSchema, binding: dict, pose: tuple[float, float, float]) -> None:
    found = face(schema, *pose)
    fitted = head_pose(found.points_px, schema, CAMERA)
    places_px = FacePlaces(schema, tuple(binding)).find(found.points_px, fitted)
    bent = len(binding) > 3
    for (name, at), place_px in zip(binding.items(), places_px, strict=True):
        painted = painter_of(sticker(binding, dot_at(at)), schema).paint(gray_picture(), [found], [fitted])
        light = painted[:, :, 0].astype(float) - GRAY
        distance = np.linalg.norm(centre_of(light == light.max() if bent else light) - place_px)
        assert distance < (PEAK_LANDS_PX if bent else CENTRE_LANDS_PX), f"{name} lands {distance:.2f} px from its place"


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98, MMLAB_5])
def test_places_of_the_head_follow_its_pose(schema: LandmarkSchema, pose: tuple[float, float, float]) -> None:
    """The points alone tell where the crown of the average head is."""
    found = face(schema, *pose)
    places = FacePlaces(schema, tuple(HEAD_PLACES_MM))
    truth_px = CAMERA.project(np.array(list(HEAD_PLACES_MM.values())) @ rotation_matrix(*pose).T + PLACE_MM)
    np.testing.assert_allclose(places.find(found.points_px, head_pose(found.points_px, schema, CAMERA)), truth_px, atol=1)
    assert places.find(found.points_px, None) is None


@pytest.mark.parametrize("schema", [WFLW_98, MMLAB_5])
def test_names_mean_the_same_places_on_every_schema(schema: LandmarkSchema) -> None:
    names = (
        ["right_contour_3", "left_brow_1", "nose_tip", "right_eye", "chin"] if schema == WFLW_98 else ["nose_tip", "left_eye"]
    )
    here, there = face(schema), face(IBUG_68)
    np.testing.assert_allclose(
        FacePlaces(schema, names).find(here.points_px, None), FacePlaces(IBUG_68, names).find(there.points_px, None), atol=0.2
    )


def extent(painted: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(changed(painted))
    return np.array([np.ptp(columns), np.ptp(rows)])


def test_a_turned_head_shows_a_narrower_sticker_of_the_same_height() -> None:
    binding = {"right_eye_outer": (50.0, 50.0), "left_eye_outer": (150.0, 50.0)}
    painter = painter_of(sticker(binding), IBUG_68)
    front = extent(painter.paint(gray_picture(), [face(IBUG_68)]))
    turned = extent(painter.paint(gray_picture(), [face(IBUG_68, yaw=50)]))
    assert turned[0] / front[0] == pytest.approx(np.cos(np.radians(50)), abs=0.08)
    assert turned[1] / front[1] == pytest.approx(1, abs=0.12)
    flat = extent(painter.paint(gray_picture(), [face(IBUG_68, yaw=50)], [None]))
    assert flat[1] / front[1] < 0.75, "without the pose, two points shrink the whole"


def test_looking_up_makes_a_sticker_lower() -> None:
    painter = painter_of(sticker({"right_eye_outer": (50.0, 50.0), "left_eye_outer": (150.0, 50.0)}), IBUG_68)
    front, up = (extent(painter.paint(gray_picture(), [face(IBUG_68, pitch=pitch)])) for pitch in (0, 40))
    assert up[1] / front[1] == pytest.approx(np.cos(np.radians(40)), abs=0.1)


@pytest.mark.parametrize("yaw", [55, -55])
def test_on_a_turned_head_the_nose_covers_the_cheek_behind_it(yaw: float) -> None:
    """A warp whose nose is white and whose cheeks are black: where the tip of the nose is seen, it is white."""
    front = face(IBUG_68)
    binding = {name: (float(x), float(y)) for name, (x, y) in zip(IBUG_68.point_names, front.points_px, strict=True)}
    picture = solid((0, 0, 0), (SIDE_PX, SIDE_PX))
    nose = cv2.convexHull(np.rint(front.points_px[27:36]).astype(np.int32))
    cv2.fillConvexPoly(picture, nose, (255, 255, 255, 255))
    turned = face(IBUG_68, yaw=yaw)
    painted = painter_of(Layer("warp", picture, (binding,)), IBUG_68).paint(gray_picture(), [turned])
    ridge = turned.points_px[28:31]
    cheek = turned.points_px[14 if yaw > 0 else 2]
    assert (np.sign(yaw) * (ridge[-1, 0] - cheek[0])) > 0, "the tip of the nose is seen over the cheek behind it"
    for x, y in np.rint(ridge - (2 * np.sign(yaw), 0)).astype(int):
        assert painted[y, x, 0] > 200


def test_a_layer_fades_out_toward_its_largest_turn() -> None:
    painter = painter_of(sticker(EYES, solid((255, 255, 255)), max_yaw_deg=40), IBUG_68)
    found = face(IBUG_68)
    light = []
    for yaw in (20, 35, 41, -35):
        pose = head_pose(face(IBUG_68, yaw=yaw).points_px, IBUG_68, CAMERA)
        light.append(int(painter.paint(gray_picture(), [found], [pose]).max()))
    assert light[0] == 255
    assert light[1] == pytest.approx((GRAY + 255) / 2, abs=10)
    assert light[2] == GRAY
    assert light[3] == pytest.approx(light[1], abs=5)


def test_behind_the_face_a_layer_shows_outside_its_outline_only() -> None:
    binding = {"right_eye_outer": (90.0, 50.0), "left_eye_outer": (110.0, 50.0)}
    found = face(IBUG_68)
    painted = painter_of(sticker(binding, behind_face=True), IBUG_68).paint(gray_picture(), [found])
    inside = np.vstack([found.points_px[IBUG_68.groups["nose"], :], found.points_px[IBUG_68.groups["mouth"], :]])
    for x, y in np.rint(inside).astype(int):
        assert (painted[y, x] == GRAY).all()
    left_of_the_ear = found.points_px[0] - (25, 0)
    assert changed(painted)[round(float(left_of_the_ear[1])), round(float(left_of_the_ear[0]))]


def test_holes_leave_eyes_and_mouth_free() -> None:
    binding = {"right_eye_outer": (80.0, 30.0), "left_eye_outer": (120.0, 30.0)}
    found = face(WFLW_98)
    painted = changed(painter_of(sticker(binding, holes=("right_eye", "inner_lip")), WFLW_98).paint(gray_picture(), [found]))
    places = FacePlaces(WFLW_98, ("right_eye", "left_eye", "nose_tip")).find(found.points_px, None)
    shown = [painted[round(y), round(x)] for x, y in places.tolist()]
    assert shown == [False, True, True]


def test_higher_layers_lie_over_lower_ones() -> None:
    low, high = sticker(EYES, solid((255, 0, 0)), order=1), sticker(EYES, solid((0, 255, 0)), order=2)
    for layers in ((low, high), (high, low)):
        painted = FilterPainter(FaceFilter("both", layers), IBUG_68).paint(gray_picture(), [face(IBUG_68)])
        assert not (painted[:, :, 0] == 255).any(), "no blue is left"
        assert (painted[:, :, 1] == 255).any()
    apart = FilterPainter([FaceFilter("high", (high,)), FaceFilter("low", (low,))], IBUG_68)
    np.testing.assert_array_equal(apart.paint(gray_picture(), [face(IBUG_68)]), painted)


def test_the_near_face_is_painted_over_the_far_one() -> None:
    near, far = face(IBUG_68), face(IBUG_68, at_mm=PLACE_MM + (40, 0, 300))
    binding = {"right_eye": (90.0, 50.0), "left_eye": (110.0, 50.0)}
    painter = painter_of(sticker(binding, solid((255, 255, 255), alpha=128)), IBUG_68)
    first = painter.paint(gray_picture(), [near, far])
    np.testing.assert_array_equal(first, painter.paint(gray_picture(), [far, near]))
    opaque = FilterPainter(FaceFilter("one", (sticker(binding, gradient()),)), IBUG_68, camera=CAMERA)
    alone, both = opaque.paint(gray_picture(), [near]), opaque.paint(gray_picture(), [far, near])
    inner = cv2.erode(changed(alone).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    np.testing.assert_array_equal(both[inner], alone[inner])


def test_a_nearer_face_hides_what_a_farther_one_wears() -> None:
    """A board behind the far head reaches over to the near face, and ends at its outline."""
    near, far = face(IBUG_68), face(IBUG_68, at_mm=PLACE_MM + (170, -20, 400))
    board = sticker({"right_eye": (90.0, 50.0), "left_eye": (110.0, 50.0)}, solid(hw=(300, 200)), max_yaw_deg=40)
    painter = painter_of(board, IBUG_68)
    poses = [head_pose(face(IBUG_68, yaw=60).points_px, IBUG_68, CAMERA), head_pose(far.points_px, IBUG_68, CAMERA)]
    painted = changed(painter.paint(gray_picture(), [near, far], poses))
    bare = changed(painter.paint(gray_picture(), [far]))
    cheek, beside = np.rint(near.points_px[[14, 16]]).astype(int) + [(-6, 0), (12, 0)]
    assert bare[cheek[1], cheek[0]], "without the near face the board is there"
    assert not painted[cheek[1], cheek[0]]
    assert painted[beside[1], beside[0]]


def gradient() -> np.ndarray:
    picture = solid()
    picture[:, :, 1] = np.arange(200)
    return picture


@pytest.mark.parametrize("shift_mm", [(-300, 0, 0), (0, 250, 0), (5000, 0, 0)])
def test_faces_beyond_the_border_are_cut_off(shift_mm: tuple[int, int, int]) -> None:
    found = face(IBUG_68, at_mm=PLACE_MM + shift_mm)
    painted = painter_of(sticker(HAT), IBUG_68).paint(gray_picture(), [found])
    assert painted.shape == gray_picture().shape
    if shift_mm[0] == 5000:
        assert not changed(painted).any()


def test_the_image_itself_stays_as_it_was_and_no_face_changes_nothing() -> None:
    image = gray_picture()
    painter = painter_of(sticker(EYES), IBUG_68)
    assert changed(painter.paint(image, [face(IBUG_68)])).any()
    np.testing.assert_array_equal(image, gray_picture())
    untouched = painter.paint(image, [])
    np.testing.assert_array_equal(untouched, image)
    assert untouched is not image


def test_a_way_of_binding_that_the_schema_has_is_taken() -> None:
    layer = sticker(EYES)
    both = type(layer)("sticker", layer.picture_bgra, (FOUR, EYES))
    only_four = painter_of(sticker(FOUR), IBUG_68).paint(gray_picture(), [face(IBUG_68)])
    np.testing.assert_array_equal(painter_of(both, IBUG_68).paint(gray_picture(), [face(IBUG_68)]), only_four)
    assert changed(painter_of(both, MMLAB_5).paint(gray_picture(), [face(MMLAB_5)])).any()


@pytest.mark.parametrize(("schema", "missing"), [(MMLAB_5, "right_contour_2"), (COFW_29, "right_contour_2")])
def test_points_that_a_schema_lacks_are_told(schema: LandmarkSchema, missing: str) -> None:
    with pytest.raises(InputError, match=f"'test' needs points that {schema.name} does not have: {missing}.*zoo:ibug68"):
        painter_of(sticker(JAW), schema)


def test_an_own_set_of_points_wears_what_its_names_allow() -> None:
    """A point that nobody else knows has no place on the head, and leaves the others theirs."""
    names = (*MMLAB_5.point_names, "third_eye")
    own = LandmarkSchema("OWN_6", names, {"eyes": (0, 1)}, ((0,), (1,)), "eyes")
    five = face(MMLAB_5, yaw=25)
    six = landmarks(np.vstack([five.points_px, [[300.0, 200.0]]]), own)
    for binding in (EYES, HAT):
        of_six, of_five = (painter_of(sticker(binding), one.schema).paint(gray_picture(), [one]) for one in (six, five))
        assert changed(of_six).any()
        assert np.abs(of_six.astype(int) - of_five).max() <= 2
    with pytest.raises(InputError, match="OWN_6 does not have: right_contour_2"):
        painter_of(sticker(JAW), own)


@pytest.mark.parametrize("fields", [{"holes": ("right_eye",)}, {"behind_face": True}])
def test_what_hides_a_layer_needs_its_points_too(fields: dict) -> None:
    with pytest.raises(InputError, match="MMLAB_5 does not have"):
        painter_of(sticker(EYES, **fields), MMLAB_5)


def test_an_optional_layer_is_left_out_where_its_points_are_missing() -> None:
    eyes, jaw = sticker(EYES), sticker(JAW, solid((255, 0, 0)), optional=True)
    image, found = gray_picture(), face(MMLAB_5)
    painted = FilterPainter(FaceFilter("both", (eyes, jaw)), MMLAB_5).paint(image, [found])
    np.testing.assert_array_equal(painted, FilterPainter(FaceFilter("eyes", (eyes,)), MMLAB_5).paint(image, [found]))
    with pytest.raises(InputError, match="'jaw' needs points"):
        FilterPainter(FaceFilter("jaw", (jaw,)), MMLAB_5)


def test_wrong_calls_are_refused() -> None:
    painter = painter_of(sticker(EYES), IBUG_68)
    with pytest.raises(InputError, match=r"made for IBUG_68; got a face of WFLW_98"):
        painter.paint(gray_picture(), [face(WFLW_98)])
    with pytest.raises(InputError, match="one per face"):
        painter.paint(gray_picture(), [face(IBUG_68)], [])
    with pytest.raises(InputError, match="at least one filter"):
        FilterPainter([], IBUG_68)
