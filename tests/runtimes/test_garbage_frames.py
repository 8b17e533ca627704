"""Frames and boxes as broken cameras, drivers and detectors give them: a typed error each, and the next good frame works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge import FaceLandmarker
from lmedge.errors import InputError
from lmedge.runtimes.fake import fake_bundle
from tests import bundles
from tests.requirements import require
from tests.runtimes.engines_for_tests import BOX, IMAGE

# Longest side of a garbage frame; memory for both sides would not do.
LONGEST = 16_384
SIZES = st.one_of(st.sampled_from([0, 1, 2, 3, 31, LONGEST]), st.integers(0, 400))
DTYPES = [
    np.uint8,
    np.uint8,
    np.uint8,
    np.int8,
    np.uint16,
    np.float32,
    np.float64,
    np.complex64,
    np.bool_,
    np.object_,
    "U1",
    "M8[s]",
]


@st.composite
def garbage_images(draw: st.DrawFn) -> Any:
    """Arrays of any shape, type and layout, most of them nearly images; and things that are no arrays."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([None, "face.jpg", 3, b"\xff\xd8", [[1, 2], [3, 4]], np.float32(2), {}]))
    height, width = draw(SIZES), draw(SIZES)
    if height * width > LONGEST * 32:
        width = min(width, 32)
    channels = draw(st.sampled_from([(3,), (3,), (3,), (), (1,), (4,), (0,), (3, 1)]))
    # Memory of zeros that is not touched costs nothing.
    image: Any = np.zeros((2 * height, 2 * width, *channels), draw(st.sampled_from(DTYPES)))
    if image.dtype == np.uint8:
        image[::7, ::5] = draw(st.integers(0, 255))
    layout = draw(
        st.sampled_from(["plain", "part", "apart", "upside down", "columns first", "mirrored", "read only", "zero strides"])
    )
    if layout == "plain":
        return np.ascontiguousarray(image[:height, :width])
    if layout == "part":
        return image[height // 2 : height // 2 + height, 1 : 1 + width]
    if layout == "apart":
        return image[::2, ::2]
    if layout == "upside down":
        return image[:height][::-1]
    if layout == "mirrored":
        return image[:height, :width, ...][:, ::-1]
    if layout == "columns first":
        return np.asfortranarray(image[:height, :width])
    if layout == "zero strides":
        return np.broadcast_to(image[:1, :1], (height, width, *channels)) if image.size else image
    image.flags.writeable = False
    return image[:height, :width]


NUMBERS = st.one_of(
    st.floats(-50, 500), st.floats(), st.sampled_from([0.0, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), 16_383.5])
)
ROWS = st.lists(NUMBERS, min_size=4, max_size=4)
BOXES = st.one_of(
    st.lists(ROWS, max_size=3),
    st.lists(st.lists(NUMBERS, max_size=6), max_size=3),
    st.sampled_from(
        [
            None,
            "box",
            [None],
            [[1, 2, 3, "4"]],
            [[1, 2, 3, 10**400]],
            [[1j, 2, 3, 4]],
            np.array([[1j, 2, 3, 4]]),
            [BOX, None],
            7,
            np.zeros((0, 5)),
            [[]],
        ]
    ),
    st.lists(ROWS, min_size=1, max_size=3).map(lambda rows: np.array(rows, np.float32)),
    st.lists(ROWS, min_size=1, max_size=2).map(lambda rows: np.array(rows, np.float64)[:, ::-1]),
)


@pytest.fixture(scope="module")
def landmarkers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FaceLandmarker]]:
    bundle = fake_bundle(tmp_path_factory.mktemp("garbage") / "bundle", bundles.SCHEMA, bundles.SPEC)
    opened = [FaceLandmarker.open(bundle, backend="fake", batches=batches) for batches in ((1,), (1, 4))]
    yield opened
    for landmarker in opened:
        landmarker.close()


@given(image=garbage_images(), boxes=BOXES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of the test's own numbers to float32
def test_garbage_frames_and_boxes_are_refused_or_answered(landmarkers: list[FaceLandmarker], image: Any, boxes: Any) -> None:
    for landmarker in landmarkers:
        try:
            for face in landmarker.predict(image, boxes):
                assert np.isfinite(face.points_px).all()
        except InputError:
            pass
        assert np.isfinite(landmarker.predict(IMAGE, [BOX])[0].points_px).all()


@given(image=garbage_images())
def test_a_garbage_frame_with_a_good_box_changes_nothing_for_the_next(landmarkers: list[FaceLandmarker], image: Any) -> None:
    expected = landmarkers[0].predict(IMAGE, [BOX])[0].points_px
    try:
        landmarkers[0].predict(image, [[0.0, 0.0, 3.0, 3.0], [-5.0, -5.0, 1e5, 1e5]])
    except InputError:
        assert not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 2 and image.size)
    np.testing.assert_array_equal(landmarkers[0].predict(IMAGE, [BOX])[0].points_px, expected)


@pytest.mark.parametrize("shape", [(LONGEST, 40, 3), (40, LONGEST, 3), (40_000, 3, 3)])
def test_long_frames_are_cut_at_both_ends(landmarkers: list[FaceLandmarker], shape: tuple[int, int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    height, width = shape[:2]
    for box in ([0.0, 0.0, 30.0, 30.0], [width - 30.0, height - 30.0, width - 1.0, height - 1.0]):
        assert len(landmarkers[0].predict(image, [box])) == 1


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_real_engines_live_through_a_stretch_of_garbage(engine: str, request: pytest.FixtureRequest) -> None:
    require(engine)
    rng = np.random.default_rng(5)
    with FaceLandmarker.open(request.getfixturevalue("tiny_bundle"), backend=engine, threads=1) as landmarker:
        expected = landmarker.predict(IMAGE, [BOX])[0].points_px
        refused = 0
        for _ in range(60):
            shape = tuple(rng.integers(0, 60, rng.integers(1, 5)))
            image = rng.integers(0, 256, shape, np.uint8).astype(rng.choice([np.uint8, np.float32, np.uint16]))
            box = rng.choice([np.nan, -1.0, 0.0, 5.0, 30.0, 1e9], 4)
            try:
                landmarker.predict(image, [box])
            except InputError:
                refused += 1
            np.testing.assert_array_equal(landmarker.predict(IMAGE, [BOX])[0].points_px, expected)
        assert refused > 30
