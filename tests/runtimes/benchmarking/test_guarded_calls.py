"""A wrong benchmark is caught: an engine that does not compute what it is asked is not timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from lmedge.bundle import Bundle, network_specs
from lmedge.errors import LmedgeError, ParityError
from lmedge.preprocess import PreprocessSpec
from lmedge.runtimes import fake
from lmedge.runtimes.base import Results, Runtime
from lmedge.runtimes.bench import Conditions, bench
from lmedge.runtimes.benchmarking.guarded_calls import SAME_PX, EngineCall
from lmedge.runtimes.benchmarking.scene import make_scene
from lmedge.runtimes.fake import FakeRuntime
from lmedge.runtimes.gates import GateLimits
from tests.bundles import SCHEMA, SPEC, tiny_answer
from tests.runtimes.benchmarking.wrong_engines import WRONG

HOW = Conditions(iterations=60)


def without_golden(bundle: Bundle) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, golden=None))


@pytest.mark.parametrize("break_it", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("golden", [True, False], ids=["golden vectors", "none"])
def test_what_does_not_work_is_not_timed(
    break_it: Callable[[pytest.MonkeyPatch], None], golden: bool, fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = fake_faces if golden else without_golden(fake_faces)
    assert bench(bundle, conditions=HOW)[0].count == HOW.iterations
    break_it(monkeypatch)
    with pytest.raises(LmedgeError) as caught:
        bench(bundle, conditions=HOW)
    if break_it is not WRONG["answers no numbers once it is warm"]:  # which `predict` refuses by itself
        assert isinstance(caught.value, ParityError)


@pytest.mark.parametrize("name", ["caches its last answer once it is warm", "skips every other call"])
def test_several_faces_per_call_are_held_to_their_answers_too(
    name: str, fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Conditions(iterations=60, batches=(3,))
    assert bench(fake_faces, conditions=how)[0].batch == 3
    WRONG[name](monkeypatch)
    with pytest.raises(ParityError):
        bench(fake_faces, conditions=how)


class LateRuntime:
    """Answers what it was asked the time before; `engine_call` as of a runtime."""

    inputs = network_specs(SPEC, SCHEMA)[0]

    def __init__(self, crop: np.ndarray) -> None:
        self._last = tiny_answer(crop[None])

    def engine_call(self, feeds: Results) -> Callable[[], Results]:
        def call() -> Results:
            answer, self._last = self._last, tiny_answer(feeds["image"])
            return {"landmarks": answer}

        return call


def test_an_engine_that_is_late_by_one_crop_is_not_taken_for_right() -> None:
    """Even where it was as late when it was called by itself, crop by crop in the same order."""
    scene = make_scene(SPEC)
    late = EngineCall("late", scene, 1, cast(Runtime, LateRuntime(scene.crops[-1])))
    with pytest.raises(ParityError, match="px from that of the engine by itself"):
        late.keep_answers(tiny_answer(np.roll(scene.crops, 1, axis=0)), SAME_PX)


def test_a_network_that_answers_the_same_to_everything_is_timed_with_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was hardly trained: its golden vectors say so, and the engine is right to do as they say."""
    monkeypatch.setattr(fake, "brightness_centres", lambda crop, count: np.full((count, 2), 0.5, np.float32))
    bundle = fake.fake_bundle(tmp_path / "bundle", SCHEMA, SPEC)
    (row,) = bench(bundle, conditions=HOW)
    assert "cannot be seen" in row.not_measured["golden"]
    with pytest.raises(ParityError, match="the same to different crops"):
        bench(without_golden(bundle), conditions=HOW)


def test_the_limits_of_the_golden_answers_can_be_set(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = fake.brightness_centres
    monkeypatch.setattr(fake, "brightness_centres", lambda crop, count: exact(crop, count) + np.float32(0.03))
    with pytest.raises(ParityError, match="golden_network"):
        bench(fake_faces, conditions=HOW)
    open_gates = GateLimits(golden_fp32_px=9.0)
    assert bench(fake_faces, conditions=replace(HOW, limits=open_gates))[0].count == HOW.iterations


def test_the_message_says_what_was_wrong_and_that_there_is_no_figure(
    fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRONG["caches its last answer once it is warm"](monkeypatch)
    with pytest.raises(ParityError, match=r"fake fp32 \(model\.fp32\.fake\): .* px from .*no figure is given"):
        bench(fake_faces, conditions=HOW)


@pytest.mark.parametrize("batch", [1, 3])
def test_no_call_gets_the_crops_of_the_call_before(batch: int, fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an engine that remembers its last crop would be as right as it is fast."""
    seen: list[np.ndarray] = []
    exact = FakeRuntime._infer

    def watched(self: FakeRuntime, feeds: Results) -> Results:
        seen.append(feeds["image"].copy())
        return exact(self, feeds)

    monkeypatch.setattr(FakeRuntime, "_infer", watched)
    bench(fake_faces, conditions=Conditions(iterations=40, batches=(batch,)))
    timed = seen[-80:]
    for before, after in itertools.pairwise(timed):
        for place in range(batch):
            assert (before[place] != after[place]).any()


class TestScene:
    def test_its_boxes_lie_in_a_frame_of_720_lines(self) -> None:
        scene = make_scene(PreprocessSpec())
        assert scene.frame_bgr.shape == (720, 1280, 3)
        for box in scene.boxes:
            assert 0 <= box.x_min < box.x_max < 1280
            assert 0 <= box.y_min < box.y_max < 720

    def test_all_its_crops_differ(self) -> None:
        crops = make_scene(SPEC).crops.astype(np.int16)
        for index, crop in enumerate(crops):
            for other in crops[:index]:
                assert np.abs(crop - other).mean() > 10

    def test_two_actions_in_turn_each_see_all_of_it(self) -> None:
        assert len(make_scene(SPEC).boxes) % 2 == 1

    def test_it_is_the_same_every_time(self) -> None:
        np.testing.assert_array_equal(make_scene(SPEC).crops, make_scene(SPEC).crops)
