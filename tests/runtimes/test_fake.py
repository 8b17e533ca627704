"""The fake runtime: what users test their own programs with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge import Bundle, FaceLandmarker
from lmedge.errors import EngineError, InputError
from lmedge.runtimes.fake import FakeRuntime, brightness_centres, fake_bundle
from lmedge.schemas import IBUG_68
from tests.bundles import random_crops


def test_its_bundle_is_complete_and_the_same_in_every_folder(tmp_path: Path) -> None:
    first, second = (fake_bundle(tmp_path / name / "bundle") for name in ("a", "b"))
    assert first.manifest.schema == IBUG_68
    assert first.verify_digests() == 2
    for path in ("manifest.json", "golden.npz"):
        assert (first.root / path).read_bytes() == (second.root / path).read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["bundle"]


def test_scripted_answers_come_in_turn_and_then_computed_ones(fake_faces: Bundle) -> None:
    crops = random_crops(2)
    with FakeRuntime.open(fake_faces.select("fake"), batch=2) as runtime:
        assert isinstance(runtime, FakeRuntime)
        computed = runtime.infer({"image": crops})["landmarks"]
        runtime.script(np.full((5, 2), 0.25), np.stack([np.zeros((5, 2)), np.ones((5, 2))]), RuntimeError("engine lost"))
        assert (runtime.infer({"image": crops})["landmarks"] == 0.25).all()
        np.testing.assert_array_equal(runtime.infer({"image": crops})["landmarks"][:, 0, 0], [0, 1])
        with pytest.raises(EngineError, match="engine lost"):
            runtime.infer({"image": crops})
        np.testing.assert_array_equal(runtime.infer({"image": crops})["landmarks"], computed)


def test_a_script_of_the_wrong_shape_is_refused(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        runtime = landmarker.runtime
        assert isinstance(runtime, FakeRuntime)
        with pytest.raises(InputError, match=r"end in \(5, 2\)"):
            runtime.script(np.zeros((68, 2)))
        runtime.script(np.zeros((3, 5, 2)))
        with pytest.raises(InputError, match="for 3 crops"):
            runtime.infer({"image": random_crops(1)})


@given(st.integers(1, 98), st.integers(0, 1000))
def test_each_point_lies_in_its_own_cell(count: int, seed: int) -> None:
    points = brightness_centres(random_crops(1, seed)[0], count)
    assert points.shape == (count, 2)
    assert ((points >= 0) & (points <= 1)).all()
    assert len(np.unique(points, axis=0)) == count


def test_brightness_pulls_a_point() -> None:
    crop = np.zeros((32, 32, 3), np.uint8)
    crop[24, 8] = 255
    x, y = brightness_centres(crop, 1)[0]
    assert x < 0.5 < y
