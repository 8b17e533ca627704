"""What lies before a rendered face: seen in the picture, and the points under it are marked as hidden."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge.data.synthetic import OCCLUDERS, Expression, Gaze, HeadPose, Scene, SyntheticFace, render_face, render_faces
from lmedge.errors import InputError
from lmedge.schemas import AFLW_19, COFW_29, IBUG_68, MMLAB_5, WFLW_98

SIZE = 192
SEEDS = [(0, 1), (2, 5), (3, 9), (5, 2)]
GROUPS = {name: list(indices) for name, indices in WFLW_98.groups.items()}
PUPILS = [96, 97]
# What each of them hides in every picture, what it never hides, and what may be either.
HIDDEN = {
    "sunglasses": [61, 62, 63, 65, 66, 67, 69, 70, 71, 73, 74, 75, *PUPILS],
    "mask": [*GROUPS["mouth"], *range(8, 25)],
}
NEVER_HIDDEN = {
    "glasses": range(98),
    "sunglasses": [*GROUPS["mouth"], *range(6, 27), *range(53, 60)],
    "mask": [*GROUPS["eyes"], *GROUPS["brows"], 51],
    "hand": [*GROUPS["brows"], 0, 1, 31, 32],
    "steering-wheel": [*GROUPS["brows"], *GROUPS["eyes"], 51, 52],
    "cap": [*GROUPS["mouth"], *range(4, 29), 53, 54],
    "hair-strands": [16, 54],
}


def plain(*occluders: str, yaw: float = 0.0, lighting: str | None = None) -> Scene:
    return Scene(HeadPose(yaw), Expression(), Gaze(), occluders=occluders, lighting=lighting, plain=True)


def hidden_by(face: SyntheticFace, bare: SyntheticFace) -> np.ndarray:
    """Points that only the occluder hides."""
    return np.flatnonzero(bare.visible & ~face.visible)


@pytest.fixture(scope="module", params=SEEDS, ids=str)
def seed(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


@pytest.mark.parametrize("name", OCCLUDERS)
def test_an_occluder_is_in_the_picture_and_in_the_record(name: str, seed: tuple[int, int]) -> None:
    bare, face = render_face(seed, SIZE, plain()), render_face(seed, SIZE, plain(name))
    assert face.occluders == (name,)
    assert bare.occluders == ()
    np.testing.assert_array_equal(face.points_px, bare.points_px)
    low, high = bare.points_px.min(axis=0).astype(int) - 20, bare.points_px.max(axis=0).astype(int) + 20
    area = np.s_[max(0, low[1]) : high[1], max(0, low[0]) : high[0]]
    changed = np.abs(face.image_bgr[area].astype(int) - bare.image_bgr[area]).max(axis=2) > 20
    assert changed.mean() > 0.01


@pytest.mark.parametrize("name", HIDDEN)
def test_it_hides_the_points_behind_it(name: str, seed: tuple[int, int]) -> None:
    face = render_face(seed, SIZE, plain(name))
    assert set(HIDDEN[name]) <= set(np.flatnonzero(~face.visible).tolist())


@pytest.mark.parametrize("name", NEVER_HIDDEN)
def test_it_hides_no_other_point(name: str, seed: tuple[int, int]) -> None:
    bare, face = render_face(seed, SIZE, plain()), render_face(seed, SIZE, plain(name))
    assert not set(NEVER_HIDDEN[name]) & set(hidden_by(face, bare).tolist())


@pytest.mark.parametrize("name", ["hand", "steering-wheel", "hair-strands"])
def test_most_of_them_hide_something(name: str) -> None:
    hidden = [len(hidden_by(render_face((7, i), 96, plain(name)), render_face((7, i), 96, plain()))) for i in range(12)]
    assert sum(count > 0 for count in hidden) >= 8
    assert max(hidden) < 70


@pytest.mark.parametrize("yaw", [-50, 50])
def test_dark_lenses_hide_the_near_eye_of_a_turned_head(yaw: float) -> None:
    near = range(60, 68) if yaw > 0 else range(68, 76)
    assert not render_face((0, 1), SIZE, plain("sunglasses", yaw=yaw)).visible[list(near)].any()


def test_hidden_points_show_the_occluder_and_visible_ones_the_face() -> None:
    """A point is hidden exactly where drawing the occluder changed its pixel by much; the edge of it may be either."""
    bare, face = render_face((0, 1), SIZE, plain()), render_face((0, 1), SIZE, plain("mask"))
    row, column = np.round(bare.points_px[:, 1]).astype(int), np.round(bare.points_px[:, 0]).astype(int)
    change = np.abs(face.image_bgr[row, column].astype(int) - bare.image_bgr[row, column]).max(axis=1)
    hidden = hidden_by(face, bare)
    assert np.median(change[hidden]) > 20
    assert np.median(np.delete(change, hidden)) < 3


@pytest.mark.parametrize("schema", [MMLAB_5, IBUG_68, COFW_29, AFLW_19], ids=lambda schema: schema.name)
def test_visibility_follows_the_points_into_other_schemas(schema) -> None:  # type: ignore[no-untyped-def]
    face = render_face((0, 1), SIZE, plain("mask"))
    visible = face.visible_in(schema)
    assert visible.shape == (schema.num_points,)
    assert not visible[list(schema.groups["mouth"])].any()
    assert visible[list(schema.groups["eyes"])].all()
    assert render_face((0, 1), SIZE, plain()).visible_in(schema).all()


def test_several_at_once() -> None:
    face = render_face((0, 1), SIZE, plain("mask", "sunglasses", "cap"))
    assert set(face.occluders) == {"mask", "sunglasses", "cap"}
    assert not face.visible[[*HIDDEN["mask"], *HIDDEN["sunglasses"]]].any()


def test_random_faces_have_every_occluder_and_most_have_none() -> None:
    faces = list(render_faces(400, MMLAB_5, seed=4, size_px=48))
    counts = {name: sum(name in face.subset for face in faces) for name in OCCLUDERS}
    assert min(counts.values()) >= 3
    assert sum(not set(face.subset) & set(OCCLUDERS) for face in faces) > 150
    assert not any({"glasses", "sunglasses"} <= set(face.subset) for face in faces)


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (Scene(occluders=("scarf",)), "glasses, sunglasses, mask.*got scarf"),
        (Scene(occluders=("glasses", "sunglasses")), "got both"),
        (Scene(lighting="dusk"), "near-infrared; got 'dusk'"),
    ],
)
def test_scenes_that_do_not_exist_are_refused(scene: Scene, message: str) -> None:
    with pytest.raises(InputError, match=message):
        render_face((0, 0), 64, scene)
