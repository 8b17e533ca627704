"""The whole way, from rendered pictures through a tracker and a trained network to events."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmedge import FaceLandmarker
from lmedge.apps.driver import NOT_CERTIFIED, Drive, DriverMonitor, DriverThresholds, EventLog, drive_picture, shut_eye_part_of
from lmedge.data.synthetic import Expression, HeadPose, Scene, SyntheticFace, render_face
from lmedge.landmarks import FaceBox
from lmedge.runtimes.tracker import FaceTracker
from lmedge.schemas import IBUG_68
from tests.requirements import require

RATE = 15
# Seconds with open and with shut eyes, in turn.
OPEN_AND_SHUT_S = (4.0, 1.5, 2.0, 0.2, 1.0)


def person(closure: float) -> SyntheticFace:
    scene = Scene(HeadPose(4, 2, 1), Expression(eye_closure=(closure, closure)), occluders=(), lighting="ordinary")
    return render_face((2, 9), 160, scene)


@pytest.mark.parametrize("bundle", ["zoo:ibug68", "zoo:wflw98"])
def test_a_microsleep_and_a_blink_are_found_by_the_trained_networks(bundle: str, tmp_path: Path) -> None:
    require("onnxruntime")
    faces = [person(0.0), person(1.0)]
    box = FaceBox.around(faces[0].points(IBUG_68))
    with FaceLandmarker.open(bundle, threads=1) as landmarker, EventLog(tmp_path / "e.jsonl", DriverThresholds()) as log:
        monitor = DriverMonitor(landmarker.schema, DriverThresholds(shut_eye_part=shut_eye_part_of(landmarker)))
        drive = Drive(FaceTracker(landmarker, lambda image_bgr: [box]), monitor, log=log)
        shown, index = [], 0
        for part, seconds in enumerate(OPEN_AND_SHUT_S):
            for _ in range(round(seconds * RATE)):
                shown.append(drive.show(faces[part % 2].image_bgr, index / RATE))
                index += 1
        drive.finish()
    summary = drive.record.summary()
    assert summary.counts == {"blink": 1, "microsleep": 1}
    assert summary.longest_shut_s == pytest.approx(1.5, abs=0.1)
    assert summary.face_s == pytest.approx(summary.seconds)
    assert {picture.shape for picture in shown} == {(360, 160 + 240, 3)}
    assert len(np.unique(drive_picture(drive.record, drive.thresholds))) > 10
    first, *events = map(json.loads, log.path.read_text().splitlines())
    assert first["statement"] == NOT_CERTIFIED
    assert [event["kind"] for event in events] == ["closure", "microsleep", "microsleep", "blink"]
