"""FaceTracker: who is who from frame to frame, with few calls of the detector."""

from __future__ import annotations

import numpy as np
import pytest

from lmedge import Bundle, FaceBox, FaceLandmarker
from lmedge.errors import InputError, LmedgeError
from lmedge.runtimes.fake import FakeRuntime
from lmedge.runtimes.smoothing import OneEuro, PointSmoother
from lmedge.runtimes.tracker import FaceTracker
from lmedge.runtimes.tracking_rules import TrackingRules
from tests.runtimes.played_faces import FPS, IMAGE, SHAPE, PlayedLandmarker, Scene, Video, one_face, two_faces

both_kinds = pytest.mark.parametrize("confident", [True, False], ids=["confidence", "geometry"])


@both_kinds
def test_a_moving_face_keeps_its_identity_and_its_points(confident: bool) -> None:
    def to_the_right(number: int, scene: Scene) -> None:
        scene.faces["ann"] = (20.0 + 3 * number, 80.0, 60.0)

    video = Video(one_face(confident=confident))
    assert video.play(60, to_the_right) == [[1]] * 60
    [face] = video.next()
    np.testing.assert_allclose(face.landmarks.points_px, SHAPE * 60 + [197.0, 80.0], atol=1e-3)
    assert (face.age, face.since_s) == (61, pytest.approx(1 / FPS))
    assert face.confidence == (pytest.approx(0.9) if confident else None)


@both_kinds
def test_the_detector_is_called_every_so_many_frames_and_no_more(confident: bool) -> None:
    video = Video(two_faces(confident=confident), every=25)
    video.play(100)
    assert video.scene.detector_calls == 4
    counts = video.tracker.counts
    assert (counts.frames, counts.detector_calls, counts.found, counts.lost, counts.returned) == (100, 4, 2, 0, 0)
    assert counts.crops == video.scene.crops == 200


def test_boxes_are_taken_from_the_points_of_the_frame_before() -> None:
    video = Video(one_face())
    [before] = video.next()
    video.scene.faces["ann"] = (110.0, 84.0, 60.0)
    [after] = video.next()
    assert after.landmarks.box == FaceBox.around(before.landmarks.points_px)


def test_smoothed_points_are_those_of_the_filter() -> None:
    def wobbling(number: int, scene: Scene) -> None:
        scene.faces["ann"] = (100.0 + 2 * (number % 3), 80.0, 60.0)

    chosen = OneEuro(min_cutoff_hz=2.0)
    video, smoother = Video(one_face(), smoothing=chosen), PointSmoother(chosen)
    for number in range(10):
        wobbling(number, video.scene)
        [face] = video.next()
        expected = smoother.update(face.landmarks.points_px, video.frame / FPS)
        np.testing.assert_allclose(face.smoothed.points_px, expected, atol=1e-4)
        assert face.lag_s == smoother.lag_s
    assert not np.allclose(face.smoothed.points_px, face.landmarks.points_px, atol=0.1)
    assert face.smoothed.schema == face.landmarks.schema


def test_a_newcomer_is_found_by_the_next_search() -> None:
    def bob_comes(number: int, scene: Scene) -> None:
        if number == 5:
            scene.faces["bob"] = (200.0, 70.0, 70.0)

    seen = Video(one_face(), every=10).play(21, bob_comes)
    assert seen[:10] == [[1]] * 10
    assert seen[10:] == [[1, 2]] * 11


@both_kinds
def test_a_face_that_leaves_is_lost_at_once(confident: bool) -> None:
    def ann_leaves(number: int, scene: Scene) -> None:
        if number == 5:
            del scene.faces["ann"]

    video = Video(two_faces(confident=confident))
    seen = video.play(10, ann_leaves)
    assert seen == [[1, 2]] * 5 + [[1]] * 5  # Bob is larger, and so the first
    assert video.tracker.counts.lost == 1


@both_kinds
def test_a_face_that_is_covered_for_a_moment_keeps_its_identity(confident: bool) -> None:
    def covered(number: int, scene: Scene) -> None:
        if number == 10:
            del scene.faces["ann"]
        if number == 25:
            scene.faces["ann"] = (120.0, 90.0, 60.0)

    video = Video(one_face(confident=confident))
    seen = video.play(40, covered)
    assert seen[10:25] == [[]] * 15
    assert seen[28:] == [[1]] * 12
    counts = video.tracker.counts
    assert (counts.found, counts.lost, counts.returned) == (1, 1, 1)


def test_with_confidence_a_covered_face_is_back_in_the_frame_in_which_it_is_uncovered() -> None:
    def covered(number: int, scene: Scene) -> None:
        scene.faces = {} if 10 <= number < 25 else {"ann": (100.0, 80.0, 60.0)}

    video = Video(one_face(), every=1000, rules=TrackingRules(seek_every=1000))
    assert video.play(40, covered)[25:] == [[1]] * 15


def test_without_confidence_it_is_the_detector_that_brings_a_lost_face_back() -> None:
    def covered(number: int, scene: Scene) -> None:
        scene.faces = {} if number == 10 else {"ann": (100.0, 80.0, 60.0)}

    video = Video(one_face(confident=False), every=1000, rules=TrackingRules(seek_every=5))
    assert video.play(20, covered)[10:] == [[]] * 5 + [[1]] * 5


def test_a_lost_face_comes_back_only_when_the_network_is_as_sure_as_of_a_new_one() -> None:
    sure = [0.9] * 3 + [0.35] * 3 + [0.2] + [0.35] * 3 + [0.45] * 3

    def fading(number: int, scene: Scene) -> None:
        scene.sure = sure[number]

    video = Video(one_face())
    assert video.play(len(sure), fading) == [[1]] * 6 + [[]] * 4 + [[1]] * 3


@pytest.mark.parametrize("gone", [35, 200])
def test_a_face_that_was_away_for_longer_is_another_one(gone: int) -> None:
    def away(number: int, scene: Scene) -> None:
        scene.faces = {} if 10 <= number < 10 + gone else {"ann": (100.0, 80.0, 60.0)}

    seen = Video(one_face(), every=5).play(gone + 20, away)
    assert seen[-1] == [2]
    assert [1] not in seen[10:]


def test_a_face_far_from_where_one_was_lost_is_another_one() -> None:
    def elsewhere(number: int, scene: Scene) -> None:
        if number == 10:
            scene.faces["ann"] = (230.0, 80.0, 60.0)

    assert Video(one_face()).play(20, elsewhere)[10:] == [[2]] * 10


def test_while_no_face_is_known_the_detector_is_called_now_and_then() -> None:
    video = Video(Scene())
    video.play(31)
    assert video.scene.detector_calls == 11
    assert video.scene.crops == 0


def test_a_lost_face_is_searched_in_the_same_frame() -> None:
    def jumps(number: int, scene: Scene) -> None:
        if number == 7:
            scene.faces["ann"] = (150.0, 80.0, 60.0)  # too far for the crop, near enough to be the same

    video = Video(one_face(), every=1000)
    assert video.play(10, jumps) == [[1]] * 10
    assert video.scene.detector_calls == 2


def test_faces_that_pass_each_other_are_not_exchanged() -> None:
    """Bob passes before Ann, who is hidden for as long as he covers her."""

    def passing(number: int, scene: Scene) -> None:
        x = 200.0 - 4 * number
        scene.faces = {"bob": (x, 80.0, 60.0)}
        if abs(x - 100.0) > 30:
            scene.faces["ann"] = (100.0, 80.0, 60.0)

    video = Video(Scene({"ann": (100.0, 80.0, 60.0), "bob": (200.0, 80.0, 60.0)}), every=5)
    by_name = {}
    for number in range(50):
        passing(number, video.scene)
        faces = {face.identity: face.landmarks.points_px[0, 0] for face in video.next()}
        if number == 0:
            by_name = {"ann": 1, "bob": 2} if faces[1] == 100.0 else {"ann": 2, "bob": 1}
        assert len(set(faces.values())) == len(faces), "two identities on one face"
        assert faces[by_name["bob"]] == pytest.approx(video.scene.faces["bob"][0], abs=1e-3)
    assert faces[by_name["ann"]] == 100.0


def test_a_face_that_walks_out_of_the_image_is_lost() -> None:
    def walks(number: int, scene: Scene) -> None:
        scene.faces["ann"] = (100.0 + 5 * number, 80.0, 60.0)

    seen = Video(one_face(), detects=False)
    seen.next([seen.scene.box("ann")])
    assert seen.play(40, walks) == [[1]] * 38 + [[]] * 2  # its middle leaves 320 px after frame 37


def test_a_frame_of_another_size_starts_anew() -> None:
    video = Video(one_face())
    assert [face.identity for face in video.next()] == [1]
    assert [face.identity for face in video.next(image=np.zeros((480, 640, 3), np.uint8))] == [2]


def test_after_a_long_pause_faces_are_looked_for_anew() -> None:
    video = Video(one_face())
    video.next()
    video.frame += int(1.9 * FPS)
    assert [face.identity for face in video.next()] == [1]
    video.frame += int(2.1 * FPS)
    assert [face.identity for face in video.next()] == [2]


@pytest.mark.parametrize("time_s", [0.0, -1.0, np.nan, np.inf])
def test_time_has_to_go_on(time_s: float) -> None:
    tracker = FaceTracker(PlayedLandmarker(one_face()))
    tracker.update(IMAGE, 0.0)
    with pytest.raises(InputError, match="rise"):
        tracker.update(IMAGE, time_s)


def test_after_an_error_the_next_frame_works() -> None:
    video, calm = Video(one_face(), every=4), Video(one_face(), every=4)
    for number in range(12):
        if number in (0, 2, 4, 5):
            video.landmarker.error = MemoryError()
            with pytest.raises(MemoryError):
                video.tracker.update(IMAGE, (number + 0.5) / FPS)
        with pytest.raises(InputError):
            video.tracker.update(IMAGE[:, :, :2], (number + 0.75) / FPS)
        ours, theirs = video.next(), calm.next()
        assert [face.identity for face in ours] == [face.identity for face in theirs] == [1]
        np.testing.assert_array_equal(ours[0].smoothed.points_px, theirs[0].smoothed.points_px)
    assert video.tracker.counts == calm.tracker.counts


def test_an_engine_that_answers_no_number_is_an_error_of_that_frame_only(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        assert isinstance(landmarker.runtime, FakeRuntime)
        tracker = FaceTracker(landmarker, box_kind="reference")
        answer = 0.1 + 0.8 * SHAPE
        landmarker.runtime.script(answer, answer * np.nan, answer)
        [first] = tracker.update(IMAGE, 0.0, [[100, 80, 160, 140]])
        with pytest.raises(LmedgeError, match="lmedge verify"):
            tracker.update(IMAGE, 0.1)
        [second] = tracker.update(IMAGE, 0.2)
        assert (first.identity, second.identity, second.age) == (1, 1, 2)
