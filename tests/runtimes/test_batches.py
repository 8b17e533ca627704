"""Several faces per image: which calls they become, and that they are the same faces however they are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge import Bundle, FaceLandmarker
from lmedge.errors import DigestMismatchError, InputError
from lmedge.preprocess import PreprocessSpec, crop_face
from lmedge.runtimes.crops import CropBatch
from lmedge.runtimes.engine_set import EngineSet
from lmedge.runtimes.fake import FakeRuntime
from lmedge.runtimes.landmarker import face_boxes
from tests.requirements import require
from tests.runtimes.engines_for_tests import IMAGE

ENGINES = ["fake", "onnxruntime", "openvino"]


def boxes(count: int) -> npt.NDArray[np.float64]:
    corners = np.random.default_rng(count).uniform(0, 90, (count, 2))
    return np.hstack([corners, corners + np.linspace(30, 60, count)[:, None]])


def bundle_for(engine: str, request: pytest.FixtureRequest) -> Bundle:
    if engine != "fake":
        require(engine)
    bundle: Bundle = request.getfixturevalue("fake_faces" if engine == "fake" else "tiny_bundle")
    return bundle


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batches", [(1, 4), (4,), (2, 3)])
@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_faces_are_the_same_however_they_are_called(
    engine: str, batches: tuple[int, ...], count: int, request: pytest.FixtureRequest
) -> None:
    bundle = bundle_for(engine, request)
    with (
        FaceLandmarker.open(bundle, backend=engine, threads=1) as single,
        FaceLandmarker.open(bundle, backend=engine, threads=1, batches=batches) as batched,
    ):
        together = batched.predict(IMAGE, boxes(count))
        assert len(together) == count
        for face, box in zip(together, boxes(count), strict=True):
            alone = single.predict(IMAGE, [box])[0]
            # Sums may run in another order; 1e-6 of a crop of 75 px.
            np.testing.assert_allclose(face.points_px, alone.points_px, rtol=0, atol=1e-4)
            assert face.box == alone.box


@pytest.mark.parametrize(
    ("batches", "count", "calls"),
    [
        ((1, 4), 7, [4, 1, 1, 1]),
        ((4,), 7, [4, 4]),
        ((1, 4), 4, [4]),
        ((1,), 3, [1, 1, 1]),
        ((2, 3), 4, [3, 2]),
        ((8, 2), 1, [2]),
    ],
)
def test_the_largest_size_that_fits_is_called_first(
    fake_faces: Bundle, batches: tuple[int, ...], count: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = FakeRuntime._infer
    with FaceLandmarker.open(fake_faces, backend="fake", batches=batches) as landmarker:
        monkeypatch.setattr(FakeRuntime, "_infer", lambda self, feeds: seen.append(len(feeds["image"])) or real(self, feeds))
        landmarker.predict(IMAGE, boxes(count))
    assert seen == calls


@given(st.sets(st.integers(1, 9), min_size=1), st.integers(0, 40))
def test_calls_hold_all_faces_and_waste_less_than_one_call(sizes: set[int], count: int) -> None:
    class OneSize:
        batch = min(sizes)
        inputs = (type("Spec", (), {"name": "image"}),)

    engines = EngineSet(OneSize(), tuple(sizes))  # type: ignore[arg-type]
    assert count <= engines.room(count) < count + min(sizes)


def test_sizes_are_compiled_ahead_or_when_they_are_needed(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake", batches=(1, 4)) as ahead:
        assert sorted(ahead.ready_batches) == [1, 4]
    with FaceLandmarker.open(fake_faces, backend="fake", batches=(1, 4), ahead=False) as later:
        assert later.ready_batches == (1,)
        later.predict(IMAGE, boxes(3))
        assert later.ready_batches == (1,)
        later.predict(IMAGE, boxes(4))
        assert later.ready_batches == (1, 4)


def test_a_bundle_that_is_gone_is_said_when_a_size_is_first_needed(fake_faces: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(fake_faces.root, folder)
    with FaceLandmarker.open(folder, backend="fake", batches=(1, 4), ahead=False) as landmarker:
        expected = landmarker.predict(IMAGE, boxes(1))[0].points_px
        shutil.rmtree(folder)
        with pytest.raises(DigestMismatchError, match=r"model\.fp32\.fake"):
            landmarker.predict(IMAGE, boxes(4))
        np.testing.assert_array_equal(landmarker.predict(IMAGE, boxes(1))[0].points_px, expected)


@pytest.mark.parametrize(
    "options",
    [{"batches": sizes} for sizes in ((), (0,), (1, -4), 4, "4", (1.5,))] + [{"warm_up": count} for count in (-1, 1.5)],
)
def test_sizes_and_warm_up_that_make_no_sense_are_refused(fake_faces: Bundle, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="at least"):
        FaceLandmarker.open(fake_faces, backend="fake", **options)  # type: ignore[arg-type]


def test_an_engine_for_any_batch_takes_all_faces_in_one_call(fake_faces: Bundle) -> None:
    with FakeRuntime.open(fake_faces.select("fake"), batch=None) as runtime:
        assert len(FaceLandmarker(fake_faces, runtime).predict(IMAGE, boxes(5))) == 5
        with pytest.raises(InputError, match="fixed batch"):
            EngineSet(runtime, (4,))


def test_crops_lie_in_the_same_memory_from_image_to_image() -> None:
    batch = CropBatch(PreprocessSpec(input_hw=(32, 32)), room=4)
    faces = face_boxes(boxes(3))
    first, second = batch.cut(IMAGE, faces, 4), batch.cut(IMAGE[::-1], faces, 4)
    assert np.shares_memory(first.crops, second.crops)
    assert first.crops.shape == (4, 32, 32, 3)


def test_crops_in_one_array_are_those_of_each_face_alone() -> None:
    spec = PreprocessSpec(input_hw=(32, 32))
    faces = face_boxes(boxes(5))  # made smaller by different factors
    cut = CropBatch(spec).cut(IMAGE, faces, 5)
    for crop, transform, box in zip(cut.crops, cut.transforms, faces, strict=True):
        alone, way = crop_face(IMAGE, box, spec)
        np.testing.assert_array_equal(crop, alone)
        np.testing.assert_array_equal(transform.matrix, way.matrix)
