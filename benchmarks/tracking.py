"""What tracking gives and costs: lag, jitter, identities, calls of the detector.

    python benchmarks/tracking.py --videos DIR --detector YUNET.onnx [--bundle zoo:ibug68 ...] [--out benchmarks/results]

Four measurements, each with the zoo's networks on one thread of ONNX Runtime:

- ramp: a rendered face moves across a picture at a steady speed. Lag = (true place - found place) along the way over the way
  of one frame, less the same of the face at rest; for the network's points and for the smoothed ones, beside `OneEuro.lag_s`.
- rest: the same face stands still under camera noise. Jitter = standard deviation of its points, in % of inter-ocular distance.
- videos: jitter = RMS residual of a point to the mean of the 0.5 s around it, in % of the clip's median inter-ocular distance;
  it holds real movement too, so also for the quarter of frames in which the face moves least. "off" is the same distance of the
  smoothed points from the 0.5-s mean of the unsmoothed ones: it falls with jitter and rises with lag. Identities are held
  against detections in every frame, which the tracker does not see.
- covered: the lens is covered for ten frames, or the face is elsewhere: how soon the tracker says so, and who comes back.

Where "confidence" is "hidden", the tracker has to judge by geometry. Writes tracking.json and tracking.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lmedge import FaceBox, FaceLandmarker, FaceTracker, Landmarks
from lmedge.data.synthetic import HeadPose, Scene, render_face
from lmedge.preprocess import reference_box
from lmedge.runtimes.bench import describe_machine
from lmedge.runtimes.detector import YUNET, yunet_detector
from lmedge.runtimes.evaluate import iou
from lmedge.runtimes.landmarker import face_boxes
from lmedge.runtimes.smoothing import OneEuro, PointSmoother
from lmedge.runtimes.tracker import BoxFinder

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

EVERY = 30
FPS = 30.0
SPEEDS = (0.1, 0.3, 1.0, 2.0)  # faces per second
PARTS = ("ramp", "rest", "videos", "covered", "settings")
SETTINGS = {
    "none": OneEuro(1e6, 0.0, 0.0),
    "default": OneEuro(),
    "speeds beside the face only": OneEuro(0.5, 0.0, 10.0),
    "whole face only": OneEuro(0.5, 20.0, 0.0),
    "steadier": OneEuro(0.3, 20.0, 5.0),
    "quicker": OneEuro(1.0, 20.0, 20.0, 4.0),
}
_WINDOW_S = 0.5
_CANVAS_HW, _FACE_PX, _CORNER_PX = (360, 640), 160, np.array([40.0, 100.0])
# Of so many frames, the first are covered.
_PERIOD, _COVERED, _TURNS = 40, 10, 5


class Unsure(FaceLandmarker):
    """A landmarker whose confidence is hidden, as of a network without."""

    def predict(self, *arguments: Any, **options: Any) -> list[Landmarks]:
        return [replace(face, confidence=None) for face in super().predict(*arguments, **options)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="a folder of videos")
    parser.add_argument("--detector", type=Path, required=True, help="a YuNet file")
    parser.add_argument("--bundle", nargs="*", default=["zoo:ibug68", "zoo:wflw98"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = sorted(path for path in arguments.videos.iterdir() if path.suffix in {".avi", ".gif", ".mp4"})
    record: dict[str, Any] = {"machine": describe_machine(), "every": EVERY, **{part: [] for part in PARTS}}
    tracks: list[tuple[Floats, float, float]] = []
    detector = yunet_detector(arguments.detector)
    detected = {file: [detector(image) for image, _ in frames_of(file)] for file in files}
    for name in arguments.bundle:
        with FaceLandmarker.open(name, threads=1) as landmarker:
            record["ramp"] += [{"bundle": name, **row} for row in ramps(landmarker)]
            record["rest"].append({"bundle": name, **rest(landmarker)})
            unsure = Unsure(landmarker.bundle, landmarker.runtime)
            for file, detections in detected.items():
                for confidence, judge in (("used", landmarker), ("hidden", unsure)):
                    row, found = video(file, judge, detector, detections)
                    tracks += found if confidence == "used" else []
                    record["videos"].append({"bundle": name, "confidence": confidence, **row})
                    print(name, confidence, row)
            longest = max(files, key=lambda file: file.stat().st_size)
            for confidence, judge in (("used", landmarker), ("hidden", unsure)):
                rows = [covered(longest, judge, detector, kind) for kind in ("covered", "elsewhere")]
                record["covered"] += [{"bundle": name, "confidence": confidence, **row} for row in rows]
    record["settings"] = [{"settings": name, **compare(chosen, tracks)} for name, chosen in SETTINGS.items()]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file_name, text in {"tracking.json": json.dumps(record, indent=1) + "\n", "tracking.md": markdown(record)}.items():
        (arguments.out / file_name).write_text(text, encoding="utf-8")
    print(markdown(record))


def frames_of(file: Path) -> Iterator[tuple[Image, float]]:
    """Every frame and its time in seconds."""
    capture = cv2.VideoCapture(str(file))
    fps = capture.get(cv2.CAP_PROP_FPS)
    for number in count():
        got, image = capture.read()
        if not got:
            return
        yield np.asarray(image, np.uint8), number / fps


def drawn_face(landmarker: FaceLandmarker) -> tuple[Image, Floats]:
    """The face by itself, and its points once it is placed."""
    face = render_face((7, 1), _FACE_PX, Scene(pose=HeadPose(), plain=True))
    return face.image_bgr, face.points(landmarker.schema) + _CORNER_PX


def placed(image_bgr: Image, shift_px: float) -> Image:
    """The face on a gray picture, this far to the right."""
    matrix = np.array([[1.0, 0.0, _CORNER_PX[0] + shift_px], [0.0, 1.0, _CORNER_PX[1]]])
    size = (_CANVAS_HW[1], _CANVAS_HW[0])
    return np.asarray(cv2.warpAffine(image_bgr, matrix, size, borderMode=cv2.BORDER_CONSTANT, borderValue=(128,) * 3), np.uint8)


def ramps(landmarker: FaceLandmarker) -> Iterator[dict[str, Any]]:
    image, points = drawn_face(landmarker)
    side_px = float(np.ptp(points, axis=0).max())
    for speed in SPEEDS:
        step_px = speed * side_px / FPS
        frames = min(int(2 * FPS), int((_CANVAS_HW[1] - _FACE_PX - 60) / step_px))
        tracker = FaceTracker(landmarker)
        still: list[list[Any]] = []
        moving: list[list[Any]] = []
        for number in range(-30, frames):
            way = max(number, 0) * step_px
            boxes = [FaceBox.around(points)] if number == -30 else None
            [face] = tracker.update(placed(image, way), (number + 30) / FPS, boxes)
            ahead = [(points[:, 0] + way - found.points_px[:, 0]).mean() for found in (face.landmarks, face.smoothed)]
            (still if number <= 0 else moving).append(ahead)
        behind = (np.mean(moving[len(moving) // 2 :], axis=0) - np.mean(still[-10:], axis=0)) / step_px
        yield {
            "faces_per_s": speed, "px_per_frame": round(step_px, 2), "network_lag_frames": round(float(behind[0]), 3),
            "smoothed_lag_frames": round(float(behind[1]), 3), "stated_lag_frames": round(OneEuro().lag_s(speed) * FPS, 3),
        }  # fmt: skip


def rest(landmarker: FaceLandmarker) -> dict[str, Any]:
    image, points = drawn_face(landmarker)
    still = placed(image, 0.0)
    tracker, rng = FaceTracker(landmarker), np.random.default_rng(0)
    raw, smooth = [], []
    for number in range(150):
        noisy = np.clip(still + rng.normal(0, 5, still.shape), 0, 255).astype(np.uint8)
        boxes = [FaceBox.around(points)] if number == 0 else None
        [face] = tracker.update(noisy, number / FPS, boxes)
        raw.append(face.landmarks.points_px)
        smooth.append(face.smoothed.points_px)
    between = float(landmarker.schema.normalizer_px(points))
    before, after = (100 * float(np.std(found[30:], axis=0).mean()) / between for found in (raw, smooth))
    return {"noise_levels": 5, "raw_percent": round(before, 3), "smoothed_percent": round(after, 3)}


def video(
    file: Path, landmarker: FaceLandmarker, detector: BoxFinder, detections: Sequence[Floats]
) -> tuple[dict[str, Any], list[tuple[Floats, float, float]]]:
    tracker = FaceTracker(landmarker, detector, EVERY)
    raw, smooth, when = defaultdict(list), defaultdict(list), defaultdict(list)
    owners: dict[int, int] = {}
    kept = expected = 0
    for (image, time_s), rows in zip(frames_of(file), detections, strict=True):
        faces = tracker.update(image, time_s)
        truth = [reference_box(box, landmarker.spec) for box in face_boxes(rows[:, :4], YUNET)]
        for place, box in enumerate(sorted(truth, key=lambda one: one.x_min)):
            expected += 1
            best = max(faces, key=lambda face: iou(box, FaceBox.around(face.landmarks.points_px)), default=None)
            if best is not None and iou(box, FaceBox.around(best.landmarks.points_px)) > 0.3:
                kept += owners.setdefault(place, best.identity) == best.identity
        for face in faces:
            raw[face.identity].append(face.landmarks.points_px)
            smooth[face.identity].append(face.smoothed.points_px)
            when[face.identity].append(time_s)
    counts, found = tracker.counts, {}
    row: dict[str, Any] = {
        "video": file.name, "frames": counts.frames, "detected_faces": expected,
        "identity_kept_percent": round(100 * kept / expected, 2), "identities": counts.found, "lost": counts.lost,
        "returned": counts.returned, "detector_calls_per_100": round(100 * counts.detector_calls / counts.frames, 2),
    }  # fmt: skip
    for identity, times in when.items():
        if len(times) == counts.frames:
            points = np.asarray(raw[identity], np.float64)
            between = float(np.median(landmarker.schema.normalizer_px(points)))
            found[identity] = (points, 1 / float(np.median(np.diff(times))), between)
    measured = [jitter(points, np.asarray(smooth[one]), fps, d) for one, (points, fps, d) in found.items()]
    if measured:
        row |= {name: round(float(np.mean([one[name] for one in measured])), 3) for name in measured[0]}
    return row, list(found.values())


def jitter(raw: Floats, smooth: Floats, fps: float, between_px: float) -> dict[str, float]:
    """In % of the inter-ocular distance, for points (frames, K, 2)."""
    window = max(3, round(_WINDOW_S * fps) | 1)
    middle = slice(window // 2, len(raw) - window // 2)
    raw_mean, smooth_mean = (_running_mean(points, window) for points in (raw, smooth))
    speed = np.linalg.norm(np.gradient(raw_mean.mean(axis=1), axis=0), axis=1)
    calm = speed <= np.quantile(speed, 0.25)

    def rms(off: Floats) -> float:
        return 100 * math.sqrt(float((off**2).sum(axis=-1).mean())) / between_px

    before, after, off = raw[middle] - raw_mean, smooth[middle] - smooth_mean, smooth[middle] - raw_mean
    return {
        "jitter_raw": rms(before), "jitter_smoothed": rms(after), "calm_jitter_raw": rms(before[calm]),
        "calm_jitter_smoothed": rms(after[calm]), "off_smoothed": rms(off),
    }  # fmt: skip


def _running_mean(points: Floats, window: int) -> Floats:
    total = np.cumsum(np.concatenate([np.zeros((1, *points.shape[1:])), points]), axis=0)
    return np.asarray((total[window:] - total[:-window]) / window)


def covered(file: Path, landmarker: FaceLandmarker, detector: BoxFinder, kind: str) -> dict[str, Any]:
    """Five times: ten frames of gray, or shifted sideways by half a picture, then thirty as they are."""
    tracker = FaceTracker(landmarker, detector, EVERY)
    told: dict[int, int] = {}
    back: dict[int, int] = {}
    before, same = set[int](), 0
    for number, (taken, time_s) in enumerate(frames_of(file)):
        turn, part = divmod(number - _PERIOD, _PERIOD)
        image = taken
        if turn >= 0 and part < _COVERED:
            image = np.full_like(taken, 110) if kind == "covered" else np.roll(taken, taken.shape[1] // 2, axis=1)
        faces = {face.identity for face in tracker.update(image, time_s)}
        if part == _PERIOD - 1:
            before = faces
        elif turn >= 0 and part < _COVERED and not faces & before:
            told.setdefault(turn, part)
        elif turn >= 0 and part >= _COVERED and faces and turn not in back:
            back[turn] = part - _COVERED
            same += bool(faces & before)
        if turn == _TURNS - 1 and part == _PERIOD - 1:
            break
    answers = {"noticed_after": list(told.values()), "back_after": list(back.values()), "same_identity": same}
    return {"kind": kind, "times": _TURNS, **answers}


def compare(chosen: OneEuro, tracks: Sequence[tuple[Floats, float, float]]) -> dict[str, Any]:
    """Other settings on the points of all faces that were seen throughout, at 20 frames per second and more."""
    rows = [jitter(raw, smoothed(raw, fps, chosen), fps, between_px) for raw, fps, between_px in tracks if fps > 15]
    means = {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]} if rows else {}
    lags = {f"lag_frames_at_{speed:g}": round(chosen.lag_s(speed) * FPS, 2) for speed in SPEEDS}
    return {**means, **lags, "blink_depth_percent": round(100 * blink_depth(chosen), 1)}


def smoothed(frames_px: Floats, fps: float, chosen: OneEuro) -> Floats:
    smoother = PointSmoother(chosen)
    return np.stack([smoother.update(points, number / fps) for number, points in enumerate(frames_px)])


def blink_depth(chosen: OneEuro) -> float:
    """How much is left of a lid that falls by a twentieth of the face and rises again in 0.2 s, while the head is still."""
    frames = np.tile(np.random.default_rng(0).uniform(0, 100, (68, 2)), (60, 1, 1))
    frames[:, 0, 1] += 5.0 * np.clip(1 - abs(np.arange(60) / FPS - 1.0) / 0.1, 0, 1)
    smooth = smoothed(frames, FPS, chosen)[:, 0, 1]
    return float(max(smooth) - smooth[0]) / 5.0


def markdown(record: dict[str, Any]) -> str:
    machine = record["machine"]
    parts = [
        "# Tracking: lag, jitter, identities, calls of the detector",
        f"Made by `python benchmarks/tracking.py`, which says what each figure is. A search every {record['every']} frames; "
        f"jitter in % of the inter-ocular distance; lag in frames of {FPS:g} per second.\n\n"
        f"{machine['cpu']}, Python {machine['python']}, onnxruntime {machine['versions'].get('onnxruntime')}",
    ]
    for title in PARTS:
        rows = record[title]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(str(row.get(name, '–')) for name in columns)} |" for row in rows]
        parts.append(f"## {title.capitalize()}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
