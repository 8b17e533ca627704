"""What a picture shows of the eyes: dark lenses and darkness are told, shut eyes and clear glasses are not taken for them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from lmedge.apps.driver import DriverThresholds, FaceSight, SightMeter
from lmedge.data.synthetic import Expression, Scene, SyntheticFace, render_face
from lmedge.data.synthetic.camera import HeadPose
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema

LIMITS = DriverThresholds()
PEOPLE = range(9)


def landmarks_of(face: SyntheticFace, schema: LandmarkSchema = IBUG_68) -> Landmarks:
    points = face.points(schema)
    return Landmarks(points, schema, FaceBox.around(points))


@lru_cache(maxsize=64)
def rendered(person: int, occluder: str | None, closure: float) -> SyntheticFace:
    pose = HeadPose(12.0 * (person % 3 - 1), 6.0 * (person % 2), 0)
    occluders = () if occluder is None else (occluder,)
    expression = Expression(eye_closure=(closure, closure))
    return render_face((31, person), 112, Scene(pose, expression, occluders=occluders, lighting="ordinary"))


def sights(occluder: str | None, closure: float) -> list[FaceSight]:
    faces = [rendered(person, occluder, closure) for person in PEOPLE]
    return [SightMeter(IBUG_68).read(face.image_bgr, landmarks_of(face)) for face in faces]


def test_dark_lenses_are_told_whatever_the_eyes_behind_them_do() -> None:
    """Measured on 60 faces each: 98 % of dark lenses below 0.6."""
    dark = [sight.ratio < LIMITS.sunglasses_ratio for sight in sights("sunglasses", 0.0)]
    assert sum(dark) >= len(dark) - 1


@pytest.mark.parametrize("closure", [0.0, 1.0], ids=["open", "shut"])
def test_bare_eyes_are_never_taken_for_dark_lenses(closure: float) -> None:
    assert min(sight.ratio for sight in sights(None, closure)) > LIMITS.sunglasses_ratio


def test_clear_glasses_are_seldom_taken_for_dark_ones() -> None:
    dark = [sight.ratio < LIMITS.sunglasses_ratio for sight in sights("glasses", 0.0)]
    assert sum(dark) <= 1


@pytest.mark.parametrize("level", [10, 100, 240])
@pytest.mark.parametrize("schema", [IBUG_68, WFLW_98], ids=lambda schema: schema.name)
def test_an_even_picture_shows_its_level(level: int, schema: LandmarkSchema) -> None:
    face = rendered(0, None, 0.0)
    flat = np.full_like(face.image_bgr, level)
    sight = SightMeter(schema).read(flat, landmarks_of(face, schema))
    assert (sight.under_eyes, sight.cheeks) == pytest.approx((level, level))
    assert sight.ratio == pytest.approx(1)


def test_a_side_outside_the_picture_leaves_the_other_to_speak() -> None:
    face = rendered(1, None, 0.0)
    points = face.points(IBUG_68)
    middle = round(float(points[:, 0].mean()))
    cut = Landmarks(points - np.array([middle, 0], np.float32), IBUG_68, FaceBox.around(points))
    sight = SightMeter(IBUG_68).read(face.image_bgr[:, middle:], cut)
    assert np.isfinite([sight.under_eyes, sight.cheeks]).all()
    outside = Landmarks(points + 5000, IBUG_68, FaceBox.around(points + 5000))
    assert np.isnan(SightMeter(IBUG_68).read(face.image_bgr, outside).cheeks)


def test_gray_pictures_are_taken_and_others_refused() -> None:
    face = rendered(2, None, 0.0)
    gray = face.image_bgr.mean(axis=2).astype(np.uint8)
    assert SightMeter(IBUG_68).read(gray, landmarks_of(face)).cheeks > 20
    with pytest.raises(InputError, match="uint8"):
        SightMeter(IBUG_68).read(gray / 255.0, landmarks_of(face))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="MMLAB_5"):
        SightMeter(MMLAB_5)
