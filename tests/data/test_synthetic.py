"""Rendered faces: the labels are exact, the pictures show what they say, and a face depends on its number alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice

import cv2
import numpy as np
import pytest

from lmedge.data.samples import check_labels
from lmedge.data.synthetic import Expression, Gaze, HeadPose, Scene, render_face, render_faces
from lmedge.errors import InputError, SchemaError
from lmedge.schemas import AFLW_19, COFW_29, IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema, mapping_matrix


def plain(
    yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, expression: Expression | None = None, gaze: Gaze | None = None
) -> Scene:
    return Scene(HeadPose(yaw, pitch, roll), expression or Expression(), gaze or Gaze(), plain=True)


def color_at(image: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y = np.round(point).astype(int)
    return image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(float).mean(axis=0)


def gray_at(image: np.ndarray, point: np.ndarray) -> float:
    """The median of 3 × 3 pixels: a catch light may touch the pupil."""
    x, y = np.round(point).astype(int)
    return float(np.median(image[y - 1 : y + 2, x - 1 : x + 2].mean(axis=2)))


# Reproducible


@pytest.mark.parametrize("schema", [MMLAB_5, IBUG_68, WFLW_98, COFW_29, AFLW_19], ids=lambda schema: schema.name)
def test_same_seed_same_bytes(schema: LandmarkSchema) -> None:
    first, second = (list(render_faces(3, schema, seed=7, size_px=96)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.read_image().tobytes() == b.read_image().tobytes()
        assert a.points_px.tobytes() == b.points_px.tobytes()
        assert a.photo_key == b.photo_key


def test_a_face_depends_on_its_number_not_on_the_count() -> None:
    few, many = (
        list(render_faces(2, IBUG_68, seed=3, size_px=64)),
        list(islice(render_faces(100, IBUG_68, seed=3, size_px=64), 2)),
    )
    assert [face.read_image().tobytes() for face in few] == [face.read_image().tobytes() for face in many]
    alone = render_face((3, 1), 64)
    assert alone.image_bgr.tobytes() == few[1].read_image().tobytes()


def test_another_seed_another_face() -> None:
    pictures = {render_face((seed, i), 64).image_bgr.tobytes() for seed in range(3) for i in range(4)}
    assert len(pictures) == 12


def test_the_schema_does_not_change_the_picture() -> None:
    pictures = {next(render_faces(1, schema, size_px=64)).read_image().tobytes() for schema in (MMLAB_5, IBUG_68, WFLW_98)}
    assert len(pictures) == 1


def test_the_number_of_threads_does_not_change_a_byte() -> None:
    program = (
        "import hashlib, sys, cv2; cv2.setNumThreads(int(sys.argv[1]));"
        "from lmedge.data.synthetic import render_face; faces = [render_face((0, i), 96) for i in range(12)];"
        "print(hashlib.sha256(b''.join(f.image_bgr.tobytes() + f.points_px.tobytes() for f in faces)).hexdigest())"
    )
    digests = set()
    for threads in ("1", "3"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", program, threads]
        digests.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(digests) == 1


# Samples


def test_samples_are_named_by_seed_and_number() -> None:
    keys = [face.photo_key for face in render_faces(2, IBUG_68, seed=5, size_px=48)]
    assert keys == ["synthetic_5_0", "synthetic_5_1"]


@pytest.mark.parametrize("size_px", [48, 112, 200])
def test_labels_lie_in_the_picture_and_fill_about_half_of_it(size_px: int) -> None:
    for face in render_faces(25, WFLW_98, seed=1, size_px=size_px):
        image = face.read_image()
        assert image.shape == (size_px, size_px, 3)
        assert image.dtype == np.uint8
        assert check_labels(face.points_px, image.shape[:2], face.origin) == 0
        assert 0.44 <= np.ptp(face.points_px, axis=0).max() / size_px <= 0.66


def test_schemas_agree_through_the_published_conversions() -> None:
    face = render_face((0, 3), 96)
    wflw, ibug, mmlab = (face.points(schema) for schema in (WFLW_98, IBUG_68, MMLAB_5))
    np.testing.assert_allclose(ibug, mapping_matrix(WFLW_98, IBUG_68) @ wflw, atol=1e-4)
    np.testing.assert_allclose(mmlab, mapping_matrix(IBUG_68, MMLAB_5) @ ibug, atol=1e-4)


def test_a_schema_without_a_conversion_is_refused() -> None:
    own = LandmarkSchema("OWN_1", ("nose", "right_eye", "left_eye"), {"nose": (0,)}, ((1,), (2,)), "eyes")
    with pytest.raises(SchemaError, match="No published mapping"):
        next(render_faces(1, own))


@pytest.mark.parametrize("size_px", [0, 47, 2000])
def test_sizes_that_cannot_show_a_face_are_refused(size_px: int) -> None:
    with pytest.raises(InputError, match="size_px"):
        render_face((0, 0), size_px)


# Pictures agree with labels


@pytest.fixture(scope="module", params=[(0, 0), (1, 0), (2, 5), (3, 9)], ids=str)
def frontal(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    face = render_face(request.param, 256, plain())
    return face.image_bgr, face.points_px


def test_pupils_are_dark_and_the_white_beside_them_is_not(frontal: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = frontal
    for pupil, outer, inner in ((96, 60, 64), (97, 72, 68)):
        dark = gray_at(image, points[pupil])
        corners = [color_at(image, points[pupil] + 0.62 * (points[corner] - points[pupil])).mean() for corner in (outer, inner)]
        assert dark < 60
        assert max(corners) > 90


def test_gaze_moves_the_dark_disc_and_its_label_together() -> None:
    for right_deg in (-20, 20):
        face = render_face((0, 0), 256, plain(gaze=Gaze(right_deg=right_deg)))
        points = face.points_px
        for pupil, ring in ((96, range(60, 68)), (97, range(68, 76))):
            shift = points[pupil, 0] - points[list(ring), 0].mean()
            assert np.sign(shift) == np.sign(right_deg)
            assert gray_at(face.image_bgr, points[pupil]) < 60


def test_lips_are_redder_than_the_chin(frontal: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = frontal
    lip = color_at(image, (points[85] + points[94]) / 2)
    chin = color_at(image, points[85] + 0.45 * (points[16] - points[85]))
    assert lip[2] / lip[1] > 1.08 * chin[2] / chin[1]


def test_brows_are_darker_than_the_skin_above_and_below(frontal: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = frontal
    for upper, lower in ((35, 40), (44, 48)):
        brow = color_at(image, (points[upper] + points[lower]) / 2).mean()
        lift = points[upper] - points[lower]
        assert brow < color_at(image, points[upper] + 1.5 * lift).mean()


def test_the_picture_changes_at_the_chin_line(frontal: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = frontal
    step = (points[16] - points[57]) / np.linalg.norm(points[16] - points[57])
    inside, outside = color_at(image, points[16] - 5 * step), color_at(image, points[16] + 5 * step)
    assert np.abs(inside - outside).max() > 15


def test_an_open_mouth_is_not_skin() -> None:
    face = render_face((0, 0), 256, plain(expression=Expression(mouth_gap_mm=22)))
    points = face.points_px
    between = [gray_at(face.image_bgr, points[90] + part * (points[94] - points[90])) for part in (0.4, 0.5, 0.6)]
    cheek = color_at(face.image_bgr, (points[76] + points[60]) / 2)
    assert min(between) < 0.7 * cheek.mean()


def test_a_shut_eye_shows_no_white() -> None:
    open_eye, shut_eye = (render_face((0, 0), 256, plain(expression=Expression(eye_closure=(c, c)))) for c in (0.0, 1.0))

    def brightest(image: np.ndarray, points: np.ndarray) -> float:
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(points[60:68]).astype(np.int32)], 1)
        return float(image[mask > 0].min(axis=1).max())

    assert brightest(shut_eye.image_bgr, shut_eye.points_px) < 0.8 * brightest(open_eye.image_bgr, open_eye.points_px)


def test_shifted_labels_would_be_noticed(frontal: tuple[np.ndarray, np.ndarray]) -> None:
    """The mutant of the tests above: labels off by a third of an eye find no dark pupil."""
    image, points = frontal
    shift = 0.33 * (points[64] - points[60])
    assert gray_at(image, points[96] + shift) > 60


# Variety and speed


def test_faces_vary_as_people_do() -> None:
    faces = [render_face((11, i), 64) for i in range(120)]
    yaw = np.array([face.pose.yaw_deg for face in faces])
    assert 50 < np.abs(yaw).max() <= 60
    assert max(abs(face.pose.pitch_deg) for face in faces) <= 30
    assert 8 < yaw.std() < 30
    brightness = np.array([face.image_bgr.mean() for face in faces])
    assert brightness.std() > 20
    assert min(face.eye_opening[0] for face in faces) < 0.1
    assert max(face.mouth_opening for face in faces) > 0.35


def test_rendering_is_fast_enough_to_train_on(record_property: Callable[[str, object], None]) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        render_face((0, 0), 128)
        start = time.process_time()
        for i in range(60):
            render_face((0, i), 128)
        per_second = 60 / (time.process_time() - start)
    finally:
        cv2.setNumThreads(threads)
    record_property("faces_per_second_of_cpu_time_at_128_px", round(per_second))
    sys.stdout.write(f"rendered faces at 128 px: {per_second:.0f} per second of CPU time")
    assert per_second > 10
