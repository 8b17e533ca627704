"""Light and camera of rendered faces: near infrared, low light, light from the side, and what is left of the resolution."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge.data.synthetic import LIGHTINGS, Expression, Gaze, HeadPose, Scene, SyntheticFace, render_face, render_faces
from lmedge.schemas import MMLAB_5

SIZE = 128


def lit(lighting: str, seed: tuple[int, int]) -> SyntheticFace:
    return render_face(seed, SIZE, Scene(HeadPose(), Expression(), Gaze(), occluders=(), lighting=lighting))


def skin_gray(face: SyntheticFace) -> tuple[float, float]:
    """Mean gray of the right and the left cheek."""
    gray, points = face.image_bgr.astype(float).mean(axis=2), face.points_px
    cheeks = [0.5 * (points[outer] + points[corner]) for outer, corner in ((60, 76), (72, 82))]
    return tuple(float(gray[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4].mean()) for x, y in cheeks)  # type: ignore[return-value]


@pytest.mark.parametrize("seed", [(0, i) for i in range(10)], ids=str)
def test_near_infrared_is_gray(seed: tuple[int, int]) -> None:
    face = lit("near-infrared", seed)
    assert face.lighting == "near-infrared"
    assert (face.image_bgr == face.image_bgr[..., :1]).all()


def test_near_infrared_shows_a_bright_face_before_a_dark_place() -> None:
    """Whatever the skin looks like by day: dark and light people differ by less than by day."""
    faces = [lit("near-infrared", (1, i)) for i in range(16)]
    for face in faces:
        corners = [
            face.image_bgr[rows, columns].mean() for rows in (np.s_[:12], np.s_[-12:]) for columns in (np.s_[:12], np.s_[-12:])
        ]
        assert max(skin_gray(face)) > 1.2 * min(corners)
    infrared, day = ([max(skin_gray(lit(name, (1, i)))) for i in range(16)] for name in ("near-infrared", "ordinary"))
    assert np.std(infrared) / np.mean(infrared) < np.std(day) / np.mean(day)


def test_pupils_shine_back_in_some_infrared_faces_only() -> None:
    bright = []
    for i in range(16):
        face = render_face((2, i), 256, Scene(HeadPose(), Expression(), Gaze(), lighting="near-infrared", plain=True))
        gray, (x, y), across = face.image_bgr[..., 0].astype(float), face.points_px[96], face.points_px[64] - face.points_px[60]
        iris = [gray[round(y), round(x + sign * 0.17 * across[0])] for sign in (-1, 1)]
        bright.append(bool(np.median(gray[round(y) : round(y) + 3, round(x) - 1 : round(x) + 2]) > 1.2 * np.mean(iris)))
    assert 3 <= sum(bright) <= 13


def test_light_from_the_side_leaves_half_of_the_face_dark() -> None:
    def imbalance(lighting: str) -> float:
        return float(
            np.median([abs(np.log((a + 4) / (b + 4))) for a, b in (skin_gray(lit(lighting, (3, i))) for i in range(12))])
        )

    assert imbalance("side-light") > 2 * imbalance("ordinary")


def test_low_light_is_darker_and_noisier() -> None:
    def noise(face: SyntheticFace) -> float:
        gray = face.image_bgr.astype(float).mean(axis=2)
        return float(np.median(np.abs(gray[:-2] - 2 * gray[1:-1] + gray[2:])))

    low, day = ([lit(name, (4, i)) for i in range(12)] for name in ("low-light", "ordinary"))
    assert np.median([max(skin_gray(face)) for face in low]) < 0.75 * np.median([max(skin_gray(face)) for face in day])
    assert np.median([noise(face) for face in low]) > 1.5 * np.median([noise(face) for face in day])


def test_every_light_occurs_and_is_a_tag() -> None:
    faces = list(render_faces(200, MMLAB_5, seed=6, size_px=48))
    counts = {name: sum(name in face.subset for face in faces) for name in LIGHTINGS}
    assert counts.pop("ordinary") == 0
    assert min(counts.values()) >= 3
    assert sum(not set(face.subset) & set(LIGHTINGS) for face in faces) > 100


def test_the_face_can_be_made_out_in_nearly_all_pictures() -> None:
    contrast = [np.ptp(np.percentile(face.read_image(), [2, 98])) for face in render_faces(150, MMLAB_5, seed=8, size_px=64)]
    assert np.mean(np.array(contrast) > 40) > 0.97
