"""Engines and callers that look fast because they do not work: each must end a measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lmedge.bundle import LANDMARKS
from lmedge.runtimes.base import Results
from lmedge.runtimes.fake import FakeRuntime
from lmedge.runtimes.landmarker import FaceLandmarker

Patch = pytest.MonkeyPatch
_exact = FakeRuntime._infer
# By then the golden vectors are checked, and every crop was answered before the clock runs.
_BEFORE_THE_CLOCK = 100


def _copied(results: Results) -> Results:
    return {name: array.copy() for name, array in results.items()}


def caches_its_first_answer(patch: Patch) -> None:
    kept: list[Results] = []

    def infer(self: FakeRuntime, feeds: Results) -> Results:
        if not kept:
            kept.append(_exact(self, feeds))
        return _copied(kept[0])

    patch.setattr(FakeRuntime, "_infer", infer)


def caches_its_last_answer_once_it_is_warm(patch: Patch) -> None:
    kept: list[Results] = []

    def infer(self: FakeRuntime, feeds: Results) -> Results:
        if len(kept) < _BEFORE_THE_CLOCK:
            kept.append(_exact(self, feeds))
        return _copied(kept[-1])

    patch.setattr(FakeRuntime, "_infer", infer)


def skips_every_other_call(patch: Patch) -> None:
    calls, last = [0], list[Results]()

    def infer(self: FakeRuntime, feeds: Results) -> Results:
        calls[0] += 1
        if calls[0] % 2 or calls[0] < _BEFORE_THE_CLOCK:
            last[:] = [_exact(self, feeds)]
        return _copied(last[0])

    patch.setattr(FakeRuntime, "_infer", infer)


def is_one_call_late(patch: Patch) -> None:
    last: list[Results] = []

    def infer(self: FakeRuntime, feeds: Results) -> Results:
        answer = _exact(self, feeds)
        last.append(answer)
        return _copied(last.pop(0) if len(last) > 1 else answer)

    patch.setattr(FakeRuntime, "_infer", infer)


def skips_the_engine(patch: Patch) -> None:
    def infer(self: FakeRuntime, feeds: Results) -> Results:
        crops = feeds[self.inputs[0].name]
        return {LANDMARKS: np.full((len(crops), *self.outputs[0].shape[1:]), 0.5, np.float32)}

    patch.setattr(FakeRuntime, "_infer", infer)


def answers_no_numbers_once_it_is_warm(patch: Patch) -> None:
    calls = [0]

    def infer(self: FakeRuntime, feeds: Results) -> Results:
        answer = _exact(self, feeds)
        calls[0] += 1
        if calls[0] > _BEFORE_THE_CLOCK:
            answer[LANDMARKS][0, 0] = np.nan
        return answer

    patch.setattr(FakeRuntime, "_infer", infer)


def bare_call_computes_once(patch: Patch) -> None:
    def engine_call(self: FakeRuntime, feeds: Results) -> Any:
        answer = self._infer(dict(feeds))
        return lambda: answer

    patch.setattr(FakeRuntime, "engine_call", engine_call)


def bare_call_does_nothing(patch: Patch) -> None:
    patch.setattr(FakeRuntime, "engine_call", lambda self, feeds: lambda: None)


def bare_call_asks_another_network(patch: Patch) -> None:
    def engine_call(self: FakeRuntime, feeds: Results) -> Any:
        return lambda: {LANDMARKS: 1 - _exact(self, feeds)[LANDMARKS]}

    patch.setattr(FakeRuntime, "engine_call", engine_call)


def bare_call_answers_no_numbers_once_it_is_warm(patch: Patch) -> None:
    def engine_call(self: FakeRuntime, feeds: Results) -> Any:
        calls = [0]

        def call() -> Results:
            calls[0] += 1
            answer = _exact(self, feeds)[LANDMARKS]
            return {LANDMARKS: answer if calls[0] < _BEFORE_THE_CLOCK // 2 else np.full_like(answer, np.nan)}

        return call

    patch.setattr(FakeRuntime, "engine_call", engine_call)


def predict_caches_its_last_faces(patch: Patch) -> None:
    predict, calls, last = FaceLandmarker.predict, [0], list[Any]()

    def cached(self: FaceLandmarker, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] < _BEFORE_THE_CLOCK // 2:
            last[:] = [predict(self, *arguments)]
        return last[0]

    patch.setattr(FaceLandmarker, "predict", cached)


def predict_loses_a_face_once_it_is_warm(patch: Patch) -> None:
    predict, calls = FaceLandmarker.predict, [0]

    def losing(self: FaceLandmarker, *arguments: Any) -> Any:
        calls[0] += 1
        return predict(self, *arguments)[: None if calls[0] < _BEFORE_THE_CLOCK // 2 else -1]

    patch.setattr(FaceLandmarker, "predict", losing)


WRONG: dict[str, Callable[[Patch], None]] = {
    wrong.__name__.replace("_", " "): wrong
    for wrong in (
        caches_its_first_answer,
        caches_its_last_answer_once_it_is_warm,
        skips_every_other_call,
        is_one_call_late,
        skips_the_engine,
        answers_no_numbers_once_it_is_warm,
        bare_call_computes_once,
        bare_call_does_nothing,
        bare_call_asks_another_network,
        bare_call_answers_no_numbers_once_it_is_warm,
        predict_caches_its_last_faces,
        predict_loses_a_face_once_it_is_warm,
    )
}
