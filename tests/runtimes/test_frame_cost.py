"""What a frame costs in memory: nothing but its result, whatever came before it."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from lmedge import Bundle, FaceLandmarker
from tests.requirements import require

# A face that is made smaller by the crop, so that the halving is in it too, and one that is not.
FRAME = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
SMALL, LARGE = [600.0, 300.0, 625.0, 325.0], [500.0, 200.0, 780.0, 480.0]
# Of one call, all its objects together at their peak: no crop (3 KB), no frame. Results and temporary arrays are some hundred
# bytes each.
PEAK_BYTES = 12_000


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("box", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("part", [False, True], ids=["frame", "part of a larger frame"])
def test_a_call_allocates_nothing_but_its_result(
    engine: str, box: list[float], part: bool, request: pytest.FixtureRequest
) -> None:
    require(engine)
    bundle: Bundle = request.getfixturevalue("tiny_bundle")
    frame = FRAME[:, 5:-5] if part else FRAME
    with FaceLandmarker.open(bundle, backend=engine, threads=1) as landmarker:
        boxes = np.array([box])
        for _ in range(5):
            landmarker.predict(frame, boxes)
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(100):
                landmarker.predict(frame, boxes)
            gc.collect()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            face = landmarker.predict(frame, boxes)[0]
            result, peak = (size - before for size in tracemalloc.get_traced_memory())
            for _ in range(100):
                landmarker.predict(frame, boxes)
            gc.collect()
            kept = (tracemalloc.get_traced_memory()[0] - before - result) / 100
        finally:
            tracemalloc.stop()
    assert face.points_px.nbytes == 40
    assert peak < PEAK_BYTES
    assert result < 4_000
    # Python's free lists count as taken until they are full: a fraction of the objects of a call, and less with each call.
    assert kept < result / 4


def test_the_result_owns_its_memory(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake", batches=(2,)) as landmarker:
        first, second = landmarker.predict(FRAME, [SMALL, LARGE])
        kept = first.points_px.copy(), second.points_px.copy()
        landmarker.predict(FRAME[::-1], [LARGE, SMALL])
        np.testing.assert_array_equal(first.points_px, kept[0])
        np.testing.assert_array_equal(second.points_px, kept[1])
        assert not np.shares_memory(first.points_px, second.points_px)
