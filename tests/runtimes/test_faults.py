"""What can go wrong in a loop that runs for hours: each a typed error or a change of health, and the next good frame works."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lmedge import Bundle, FaceLandmarker
from lmedge.errors import EngineError
from lmedge.runtimes.base import Results
from lmedge.runtimes.health import HealthLimits, HealthMonitor, HealthState, Symptom
from lmedge.runtimes.real_time import RealTimeLandmarker
from tests.requirements import require
from tests.runtimes.engines_for_tests import BOX, IMAGE, Troubled, open_troubled

LIMITS = HealthLimits(failed_calls=3, recover_calls=1, frozen_calls=4)


def nan_points(results: Results) -> Results:
    results["landmarks"][0, 2, 1] = np.nan
    return results


def infinite_points(results: Results) -> Results:
    results["landmarks"][0, 0, 0] = -np.inf
    return results


def points_without_a_place_in_float32(results: Results) -> Results:
    results["landmarks"][:] = 3e38
    return results


def raises(_: Results) -> Results:
    raise RuntimeError("CUDA error 700: an illegal memory access")


def raises_without_words(_: Results) -> Results:
    raise ValueError


@pytest.mark.parametrize(
    "trouble", [nan_points, infinite_points, points_without_a_place_in_float32, raises, raises_without_words]
)
def test_an_engine_in_trouble_is_a_typed_error_and_the_next_frame_works(
    fake_faces: Bundle, trouble: Callable[[Results], Results]
) -> None:
    with open_troubled(fake_faces) as landmarker:
        expected = landmarker.predict(IMAGE, [BOX])[0].points_px
        assert isinstance(landmarker.runtime, Troubled)
        for _ in range(3):
            landmarker.runtime.trouble = trouble
            with pytest.raises(EngineError, match="lmedge verify"):
                landmarker.predict(IMAGE, [BOX])
            landmarker.runtime.trouble = None
            np.testing.assert_array_equal(landmarker.predict(IMAGE, [BOX])[0].points_px, expected)


@pytest.mark.parametrize("confidence", [np.nan, -0.01, 1.01, np.inf])
def test_a_confidence_that_is_none_is_a_typed_error(fake_faces: Bundle, confidence: float) -> None:
    with open_troubled(fake_faces) as landmarker:
        real = landmarker._engines.answer

        def unsure(*arguments: Any) -> Any:
            answers = real(*arguments)
            return type(answers)(answers.fractions, np.full((1, 5), confidence, np.float32))

        landmarker._engines.answer = unsure  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="confidence outside 0 to 1"):
            landmarker.predict(IMAGE, [BOX])


@pytest.fixture
def watched(fake_faces: Bundle) -> Iterator[RealTimeLandmarker]:
    with RealTimeLandmarker(lambda: open_troubled(fake_faces), deadline_ms=20_000, health=HealthMonitor(LIMITS)) as landmarker:
        landmarker.predict(IMAGE, [BOX])
        assert landmarker.health.state is HealthState.READY
        yield landmarker


def trouble_of(watched: RealTimeLandmarker, trouble: Callable[[Results], Results] | None) -> None:
    assert isinstance(watched.landmarker.runtime, Troubled)
    watched.landmarker.runtime.trouble = trouble


def frames(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield rng.integers(0, 256, IMAGE.shape, np.uint8)


@pytest.mark.parametrize("trouble", [nan_points, raises])
def test_an_engine_that_stays_in_trouble_fails_and_comes_back(
    watched: RealTimeLandmarker, trouble: Callable[[Results], Results]
) -> None:
    trouble_of(watched, trouble)
    states = []
    for frame in frames(3):
        with pytest.raises(EngineError):
            watched.predict(frame, [BOX])
        states.append(watched.health.state)
    assert states == [HealthState.DEGRADED, HealthState.DEGRADED, HealthState.FAILED]
    trouble_of(watched, None)
    for state, frame in zip((HealthState.READY,), frames(1), strict=True):
        assert len(watched.predict(frame, [BOX]).faces) == 1
        assert watched.health.state is state


def test_an_engine_that_repeats_its_last_answer_fails_and_comes_back(watched: RealTimeLandmarker) -> None:
    kept: list[Results] = []

    def frozen(results: Results) -> Results:
        kept.append(results)
        return {name: array.copy() for name, array in kept[0].items()}

    trouble_of(watched, frozen)
    for move, frame in enumerate(frames(5)):
        watched.predict(frame, [[40.0 + move, 30.0, 120.0 + move, 110.0]])
    assert watched.health.state is HealthState.FAILED
    assert watched.health.symptoms == {Symptom.FROZEN}
    trouble_of(watched, None)
    watched.predict(IMAGE, [BOX])
    assert watched.health.state is HealthState.READY


def test_a_camera_that_repeats_its_last_frame_is_seen_too(watched: RealTimeLandmarker) -> None:
    for _ in range(5):
        watched.predict(IMAGE, [BOX])
    assert watched.health.symptoms == {Symptom.FROZEN}


def test_missed_deadlines_are_a_change_of_health_and_the_next_frame_works(watched: RealTimeLandmarker) -> None:
    def slow(results: Results) -> Results:
        time.sleep(0.03)
        return results

    trouble_of(watched, slow)
    for frame in frames(3):
        watched.predict(frame, [BOX], deadline_ms=1)
    assert watched.health.state is HealthState.FAILED
    assert watched.health.symptoms == {Symptom.LATE}
    trouble_of(watched, None)
    for frame in frames(1):
        assert not watched.predict(frame, [BOX]).late
    assert watched.health.state is HealthState.READY


@pytest.mark.parametrize("engine", ["fake", "onnxruntime", "openvino"])
def test_a_bundle_that_is_removed_while_it_is_open_goes_on(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if engine != "fake":
        require(engine)
    bundle: Bundle = request.getfixturevalue("fake_faces" if engine == "fake" else "tiny_bundle")
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.root, folder)
    with FaceLandmarker.open(folder, backend=engine, threads=1) as landmarker:
        expected = landmarker.predict(IMAGE, [BOX])[0].points_px
        shutil.rmtree(folder)
        for _ in range(3):
            np.testing.assert_array_equal(landmarker.predict(IMAGE, [BOX])[0].points_px, expected)
