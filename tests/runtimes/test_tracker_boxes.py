"""FaceTracker and its detector: which boxes become faces, and what an answer may look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lmedge import FaceBox
from lmedge.errors import InputError
from lmedge.runtimes.tracker import FaceTracker
from lmedge.runtimes.tracking_rules import TrackingRules
from tests.runtimes.played_faces import FPS, IMAGE, PlayedLandmarker, Scene, Video, one_face

both_kinds = pytest.mark.parametrize("confident", [True, False], ids=["confidence", "geometry"])


@both_kinds
def test_a_detector_that_sees_a_face_twice_makes_one(confident: bool) -> None:
    scene = one_face(confident=confident)

    def twice(image_bgr: npt.NDArray[np.uint8]) -> list[list[float]]:
        return [[100, 80, 160, 140], [104, 84, 168, 148], [70, 60, 130, 120]]

    tracker = FaceTracker(PlayedLandmarker(scene), twice, every=1)
    for number in range(5):
        assert [face.identity for face in tracker.update(IMAGE, float(number))] == [1]


def test_what_the_network_does_not_believe_is_no_face() -> None:
    def mistaken(image_bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        return np.array([[20.0, 20.0, 60.0, 60.0, 0.99]])

    tracker = FaceTracker(PlayedLandmarker(one_face()), mistaken)
    assert tracker.update(IMAGE, 0.0) == []
    assert tracker.counts.found == 0


def test_without_confidence_a_face_that_the_detector_keeps_missing_is_lost() -> None:
    scene = one_face(confident=False)
    blind = [scene.detect(IMAGE)] + [np.zeros((0, 5))] * 10
    tracker = FaceTracker(PlayedLandmarker(scene), lambda image_bgr: blind.pop(0), every=10)
    seen = [[face.identity for face in tracker.update(IMAGE, number / FPS)] for number in range(30)]
    assert seen == [[1]] * 20 + [[]] * 10  # missed at frames 10 and 20


def test_and_is_back_under_its_identity_once_the_detector_sees_it_again() -> None:
    scene = one_face(confident=False)
    found, nothing = scene.detect(IMAGE), np.zeros((0, 5))
    answers = [found, nothing, nothing] + [found] * 3
    tracker = FaceTracker(PlayedLandmarker(scene), lambda image_bgr: answers.pop(0), every=10)
    seen = [[face.identity for face in tracker.update(IMAGE, number / FPS)] for number in range(30)]
    assert seen == [[1]] * 20 + [[]] * 3 + [[1]] * 7


def test_with_confidence_the_network_outweighs_the_detector() -> None:
    scene = one_face()
    blind = [scene.detect(IMAGE)] + [np.zeros((0, 5))] * 10
    tracker = FaceTracker(PlayedLandmarker(scene), lambda image_bgr: blind.pop(0), every=10)
    assert all(len(tracker.update(IMAGE, number / FPS)) == 1 for number in range(60))


def test_the_largest_faces_are_followed_when_there_are_too_many() -> None:
    scene = Scene({"small": (10.0, 10.0, 30.0), "large": (60.0, 60.0, 80.0), "middle": (200.0, 60.0, 50.0)})
    faces = Video(scene, rules=TrackingRules(max_faces=2)).next()
    assert [round(face.landmarks.box.width) for face in faces] == [80, 50]


def test_a_newcomer_waits_while_there_are_too_many() -> None:
    scene = Scene({"ann": (40.0, 80.0, 60.0), "bob": (200.0, 70.0, 70.0)})
    video = Video(scene, every=5, rules=TrackingRules(max_faces=2))
    video.next()
    scene.faces["carl"] = (120.0, 10.0, 50.0)
    assert video.play(10) == [[1, 2]] * 10
    assert video.tracker.counts.found == 2


def test_boxes_of_a_detector_go_through_the_fit_of_the_bundle() -> None:
    video = Video(one_face(shift=0.1))
    [face] = video.next()
    assert face.landmarks.box == FaceBox(106.0, 80.0, 166.0, 140.0)


def test_boxes_may_come_from_the_caller() -> None:
    video = Video(one_face(), detects=False)
    assert video.next() == []
    [face] = video.next([video.scene.box("ann")])
    assert face.identity == 1
    assert video.play(5) == [[1]] * 5
    assert video.scene.detector_calls == video.tracker.counts.detector_calls == 0


def test_boxes_of_the_caller_spare_the_detector() -> None:
    video = Video(one_face(), every=5)
    for _ in range(3):
        for _ in range(4):
            video.next()
        video.next([video.scene.box("ann")])
    assert video.scene.detector_calls == 1


def test_boxes_beside_the_image_are_left_out() -> None:
    video = Video(one_face(), detects=False)
    assert [face.identity for face in video.next([FaceBox(-90, 0, -20, 60), video.scene.box("ann")])] == [1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "detector's answer"),
        ([[1.0, 2.0, 3.0]], r"\(N, 4\)"),
        (np.array([[np.nan, 0, 10, 10, 0.9]]), "finite"),
        ([FaceBox(100, 80, 160, 140, kind="mtcnn")], "mtcnn"),
    ],
)
def test_an_answer_of_the_detector_that_cannot_be_used_is_named(answer: Any, message: str) -> None:
    tracker = FaceTracker(PlayedLandmarker(one_face()), lambda image_bgr: answer)
    with pytest.raises(InputError, match=message):
        tracker.update(IMAGE, 0.0)


@pytest.mark.parametrize("every", [0, -3])
def test_the_detector_cannot_be_called_every_zero_frames(every: int) -> None:
    with pytest.raises(InputError, match="every"):
        FaceTracker(PlayedLandmarker(one_face()), every=every)


@pytest.mark.parametrize(
    "fields",
    [
        {"seek_every": 0},
        {"unconfirmed": 0},
        {"max_faces": 0},
        {"keep_s": -1.0},
        {"return_distance": np.nan},
        {"pause_s": np.inf},
    ],
)
def test_rules_without_meaning_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(fields))):
        TrackingRules(**fields)
