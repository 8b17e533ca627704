"""The self-test at opening: engines that answer wrongly are refused, each kind by a named test."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from lmedge import Bundle, FaceLandmarker
from lmedge.errors import DigestMismatchError, ParityError
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.fake import FakeRuntime
from lmedge.runtimes.golden import Golden
from lmedge.runtimes.self_test import self_test_engine
from tests.bundles import SPEC
from tests.requirements import require
from tests.runtimes import engines_for_tests as mutants
from tests.runtimes.engines_for_tests import BOX, IMAGE


def test_a_right_engine_passes_and_says_how_near_it_is(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        assert landmarker.self_test.passed
        assert landmarker.self_test.max_px == 0
        assert "recorded answers" in landmarker.self_test.remark


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_real_engines_pass(engine: str, request: pytest.FixtureRequest) -> None:
    require(engine)
    with FaceLandmarker.open(request.getfixturevalue("tiny_bundle"), backend=engine, batches=(1, 4)) as landmarker:
        assert landmarker.self_test.passed
        assert 0 <= (landmarker.self_test.max_px or 0) < 0.01


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("mutant", [mutants.CachesItsLastAnswer, mutants.SkipsTheEngine, mutants.SwapsColours])
def test_an_engine_that_answers_wrongly_is_refused(
    fake_faces: Bundle, mutant: type[FakeRuntime], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmedge.runtimes.fake.FakeRuntime", mutant)
    with pytest.raises(ParityError, match="lmedge verify"):
        FaceLandmarker.open(fake_faces, backend="fake", batches=(batch,))


def test_an_engine_that_mixes_faces_up_is_refused_for_batches(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmedge.runtimes.fake.FakeRuntime", mutants.MixesFacesUp)
    FaceLandmarker.open(fake_faces, backend="fake").close()
    with pytest.raises(ParityError, match="px off"):
        FaceLandmarker.open(fake_faces, backend="fake", batches=(1, 2))


def test_answers_within_the_limit_that_do_not_follow_the_crops_are_refused(fake_faces: Bundle) -> None:
    """int8 is given some pixels, in which a network that always says the same could hide."""
    artifact = dataclasses.replace(fake_faces.select("fake"), precision="int8")
    golden = Golden.from_file(fake_faces.golden_file())
    near = golden.fractions + np.float32(0.001)
    mean = near.mean(axis=0)
    assert np.abs(golden.fractions - mean).max() * SPEC.input_hw[0] < 4
    with FakeRuntime.open(artifact) as runtime:
        assert isinstance(runtime, FakeRuntime)
        runtime.script(*near, *near[::-1])
        assert self_test_engine(runtime, fake_faces).passed
        runtime.script(*[mean] * 4)
        with pytest.raises(ParityError, match="same answer"):
            self_test_engine(runtime, fake_faces)


def test_an_engine_that_answers_no_numbers_is_refused(fake_faces: Bundle) -> None:
    with FakeRuntime.open(fake_faces.select("fake")) as runtime:
        assert isinstance(runtime, FakeRuntime)
        runtime.script(np.full((5, 2), np.nan))
        with pytest.raises(ParityError, match="nan px off"):
            self_test_engine(runtime, fake_faces)


def test_a_refused_engine_is_closed(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Runtime] = []

    class Mutant(mutants.SkipsTheEngine):
        def _open(self) -> None:
            super()._open()
            opened.append(self)

    monkeypatch.setattr("lmedge.runtimes.fake.FakeRuntime", Mutant)
    with pytest.raises(ParityError):
        FaceLandmarker.open(fake_faces, backend="fake")
    assert [runtime._closed for runtime in opened] == [True]


def test_it_can_be_switched_off_and_says_so(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmedge.runtimes.fake.FakeRuntime", mutants.SkipsTheEngine)
    with FaceLandmarker.open(fake_faces, backend="fake", self_test=False) as landmarker:
        assert not landmarker.self_test.passed
        assert "switched off" in landmarker.self_test.remark
        assert len(landmarker.predict(IMAGE, [BOX])) == 1


def test_a_bundle_without_golden_vectors_opens_and_says_that_nothing_was_tested(fake_faces: Bundle) -> None:
    bare = dataclasses.replace(fake_faces, manifest=dataclasses.replace(fake_faces.manifest, golden=None))
    with FaceLandmarker.open(bare, backend="fake") as landmarker:
        assert not landmarker.self_test.passed
        assert "no golden vectors" in landmarker.self_test.remark


def test_changed_golden_vectors_are_refused(fake_faces: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(fake_faces.root, folder)
    content = bytearray((folder / "golden.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "golden.npz").write_bytes(content)
    with pytest.raises(DigestMismatchError, match=r"golden\.npz"):
        FaceLandmarker.open(folder, backend="fake")
