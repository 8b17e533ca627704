"""LandmarkerPool: the same answers as one landmarker, in order, from many threads."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest

from lmedge import Bundle, FaceLandmarker
from lmedge.errors import BundleError, EngineError, InputError, ParityError
from lmedge.runtimes.pool import LandmarkerPool
from tests.requirements import require
from tests.runtimes.engines_for_tests import BOX, IMAGE, SkipsTheEngine, Troubled

Images = list[tuple[npt.NDArray[np.uint8], list[list[float]]]]


def images(count: int) -> Images:
    rng = np.random.default_rng(count)
    return [
        (rng.integers(0, 256, (100, 120, 3), np.uint8), [[10.0, 10.0, 60.0 + place, 70.0]] * (place % 3))
        for place in range(count)
    ]


@pytest.mark.parametrize("engine", ["fake", "onnxruntime", "openvino"])
def test_answers_are_those_of_one_landmarker_bit_for_bit(engine: str, request: pytest.FixtureRequest) -> None:
    if engine != "fake":
        require(engine)
    bundle: Bundle = request.getfixturevalue("fake_faces" if engine == "fake" else "tiny_bundle")
    work = images(60)
    with FaceLandmarker.open(bundle, backend=engine, threads=1) as single:
        expected = [single.predict(*one) for one in work]
    with LandmarkerPool(bundle, 8, backend=engine) as pool:
        assert pool.workers == 8
        found = list(pool.map(work))
    assert len(found) == len(expected)
    for here, there in zip(found, expected, strict=True):
        assert [face.points_px.tobytes() for face in here] == [face.points_px.tobytes() for face in there]


def test_several_threads_may_give_it_work(fake_faces: Bundle) -> None:
    work, found = images(12), {}
    with LandmarkerPool(fake_faces, 2, backend="fake") as pool:

        def use(number: int) -> None:
            found[number] = list(pool.map(work))

        threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    first = [[face.points_px.tobytes() for face in faces] for faces in found[0]]
    for faces in found.values():
        assert [[face.points_px.tobytes() for face in one] for one in faces] == first


def test_an_error_is_that_of_its_image_only(fake_faces: Bundle) -> None:
    with LandmarkerPool(fake_faces, 2, backend="fake") as pool:
        bad = pool.submit(IMAGE, [[400.0, 30.0, 500.0, 110.0]])
        good = pool.submit(IMAGE, [BOX])
        with pytest.raises(InputError, match="outside"):
            bad.result(10)
        assert len(good.result(10)) == 1


def test_an_engine_that_fails_costs_one_image(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmedge.runtimes.fake.FakeRuntime", Troubled)
    with LandmarkerPool(fake_faces, 1, backend="fake") as pool:

        def trouble(_: object) -> None:
            Troubled.trouble = None
            raise RuntimeError("lost")

        monkeypatch.setattr(Troubled, "trouble", staticmethod(trouble))
        with pytest.raises(EngineError, match="lost"):
            pool.submit(IMAGE, [BOX]).result(10)
        assert len(pool.submit(IMAGE, [BOX]).result(10)) == 1


def test_images_are_taken_only_as_fast_as_they_are_worked_on(fake_faces: Bundle) -> None:
    taken = []

    def endless() -> object:
        while True:
            taken.append(1)
            yield (IMAGE, [BOX])

    with LandmarkerPool(fake_faces, 2, backend="fake") as pool:
        answers = pool.map(endless())  # type: ignore[arg-type]
        for _ in range(5):
            next(answers)
        assert len(taken) <= 5 + 3 * 2 + 1


def test_a_landmarker_that_does_not_open_ends_the_pool(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with pytest.raises(BundleError, match="no int8"):
        LandmarkerPool(fake_faces, 3, backend="fake", precision="int8")
    monkeypatch.setattr("lmedge.runtimes.fake.FakeRuntime", SkipsTheEngine)
    with pytest.raises(ParityError):
        LandmarkerPool(fake_faces, 3, backend="fake")
    assert threading.active_count() == before


def test_closing_finishes_the_work_and_then_takes_no_more(fake_faces: Bundle) -> None:
    pool = LandmarkerPool(fake_faces, 2, backend="fake")
    waiting = [pool.submit(IMAGE, [BOX]) for _ in range(6)]
    pool.close()
    pool.close()
    assert all(len(one.result(0)) == 1 for one in waiting)
    with pytest.raises(InputError, match="closed"):
        pool.submit(IMAGE, [BOX])


def test_auto_is_settled_once_for_all_workers(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with LandmarkerPool(fake_faces, 2, backend="auto") as pool:
        assert len(pool.submit(IMAGE, [BOX]).result(10)) == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
def test_less_than_one_worker_or_a_part_of_one_is_refused(fake_faces: Bundle, workers: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        LandmarkerPool(fake_faces, workers)
