"""What the driver monitor finds, against faces and drives whose truth is known, and how fast it goes through videos.

    python benchmarks/driver_monitor.py [--bundle zoo:ibug68]... [--faces 200] [--seconds 60] [--videos DIR --detector YUNET]

Three parts, for exact points and for those of each bundle:

1. single rendered faces up to 45 degrees of yaw: correlation of the openings of eyes and mouth with the truth, and what is left
   of the opening of an eye when the same person shuts it (`DriverThresholds.shut_eye_part`);
2. a rendered drive at 15 frames per second: precision and recall of blinks and of closures from 0.5 s, error of PERCLOS;
3. with --videos: times faster than real time, without decoding and encoding, and how often each event was told.

Not a certified safety function, and these are not figures of one: rendered faces blink alike, people do not.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

from lmedge import FaceLandmarker  # noqa: E402
from lmedge.apps.driver import Drive, DriverMonitor, DriverThresholds, SightMeter  # noqa: E402
from lmedge.apps.expression import FaceMeter  # noqa: E402
from lmedge.apps.video import open_source  # noqa: E402
from lmedge.data.synthetic import Expression, HeadPose, Scene, SyntheticFace, render_face  # noqa: E402
from lmedge.data.synthetic.camera import draw_pose  # noqa: E402
from lmedge.data.synthetic.lids import LidMove, closure_at, draw_lid_moves  # noqa: E402
from lmedge.data.synthetic.modes import draw_expression  # noqa: E402
from lmedge.errors import InputError  # noqa: E402
from lmedge.landmarks import FaceBox, Landmarks  # noqa: E402
from lmedge.pose import Camera, head_pose  # noqa: E402
from lmedge.runtimes.detector import yunet_detector  # noqa: E402
from lmedge.runtimes.tracker import FaceTracker  # noqa: E402
from lmedge.schemas import WFLW_98, LandmarkSchema  # noqa: E402

SIZE_PX = 160
MOST_YAW_DEG = 45.0
RATE, BLINK_S, CLOSURE_S = 15.0, 0.15, 0.5
# Boxes of a tracker are never exact: shifted and scaled by this part of their side.
BOX_NOISE = 0.03
EXACT = "exact points"
Points = dict[str, Landmarks]


@dataclass(frozen=True)
class Frame:
    """One rendered frame and the points that each source sees in it."""

    time_s: float
    face: SyntheticFace
    points: Points


class Sources:
    """Exact points, and the points of each bundle."""

    def __init__(self, bundles: list[str]) -> None:
        self.landmarkers = {name: FaceLandmarker.open(name, threads=1) for name in bundles}
        self._rng = np.random.default_rng(0)

    @property
    def schemas(self) -> dict[str, LandmarkSchema]:
        return {EXACT: WFLW_98} | {name: landmarker.schema for name, landmarker in self.landmarkers.items()}

    def look(self, face: SyntheticFace) -> Points:
        exact = face.points(WFLW_98)
        found = {EXACT: Landmarks(exact, WFLW_98, FaceBox.around(exact))}
        for name, landmarker in self.landmarkers.items():
            box = FaceBox.around(face.points(landmarker.schema)).xyxy
            side = float(max(box[2:] - box[:2]))
            found[name] = landmarker.predict(face.image_bgr, [box + self._rng.normal(0, BOX_NOISE * side, 4)])[0]
        return found


def openings(sources: Sources, count: int) -> dict[str, dict[str, float]]:
    """Part 1."""
    rng, camera = np.random.default_rng(7), Camera.assumed_for(SIZE_PX, SIZE_PX)
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in sources.schemas}
    left: dict[str, list[float]] = {name: [] for name in sources.schemas}
    meters = {name: FaceMeter(schema) for name, schema in sources.schemas.items()}
    for index in range(count):
        pose, expression = draw_pose(rng), draw_expression(rng)
        pose = HeadPose(float(np.clip(pose.yaw_deg, -MOST_YAW_DEG, MOST_YAW_DEG)), pose.pitch_deg, pose.roll_deg)
        face = render_face((index, 1), SIZE_PX, Scene(pose, expression, occluders=()))
        for name, landmarks in sources.look(face).items():
            ratios = meters[name].read(landmarks, head_pose(landmarks.points_px, landmarks.schema, camera))
            rows[name].append((*face.eye_opening, face.mouth_opening, ratios.right_eye, ratios.left_eye, ratios.mouth))
        if index % 4 == 0:
            pair = [
                render_face((index, 1), SIZE_PX, Scene(pose, Expression(eye_closure=(c, c)), occluders=())) for c in (0.0, 1.0)
            ]
            seen = [sources.look(face) for face in pair]
            for name, parts in left.items():
                is_open, is_shut = (meters[name].read(points[name]) for points in seen)
                parts.append((is_shut.right_eye + is_shut.left_eye) / (is_open.right_eye + is_open.left_eye))
    result = {}
    for name, values in rows.items():
        table = np.array(values)
        result[name] = {
            "eye_correlation": float(np.corrcoef(table[:, :2].ravel(), table[:, 3:5].ravel())[0, 1]),
            "mouth_correlation": float(np.corrcoef(table[:, 2], table[:, 5])[0, 1]),
            "shut_eye_part": float(np.median(left[name])),
            "shut_eye_part_p10": float(np.percentile(left[name], 10)),
            "shut_eye_part_p90": float(np.percentile(left[name], 90)),
        }
    return result


def drive_frames(sources: Sources, moves: tuple[LidMove, ...], seconds: float, person: int) -> Iterator[Frame]:
    times = np.arange(0, seconds, 1 / RATE)
    for time_s, closure in zip(times.tolist(), closure_at(times, moves).tolist(), strict=True):
        pose = HeadPose(10 * np.sin(0.5 * time_s), 5 * np.sin(0.31 * time_s), 3 * np.sin(0.2 * time_s))
        scene = Scene(pose, Expression(eye_closure=(closure, closure)), occluders=(), lighting="ordinary")
        face = render_face((person, 9), SIZE_PX, scene)
        yield Frame(time_s, face, sources.look(face))


def drive(sources: Sources, left: dict[str, float], seconds: float, person: int) -> dict[str, dict[str, float | None]]:
    """Part 2."""
    moves = draw_lid_moves(np.random.default_rng(person), seconds, blink_s=BLINK_S)
    camera = Camera.assumed_for(SIZE_PX, SIZE_PX)
    monitors, sights, states = {}, {}, {name: [] for name in sources.schemas}
    for name, schema in sources.schemas.items():
        monitors[name] = DriverMonitor(schema, DriverThresholds(shut_eye_part=left[name]))
        sights[name] = SightMeter(schema)
    for frame in drive_frames(sources, moves, seconds, person):
        for name, landmarks in frame.points.items():
            pose = head_pose(landmarks.points_px, landmarks.schema, camera)
            sight = sights[name].read(frame.face.image_bgr, landmarks)
            states[name].append(monitors[name].update(frame.time_s, landmarks, pose, sight))
    fine = np.arange(0, seconds, 0.001)
    shut = np.cumsum(closure_at(fine, moves) >= DriverThresholds().shut) * 0.001
    result: dict[str, dict[str, float | None]] = {}
    for name, seen in states.items():
        ready_s = next((state.time_s for state in seen if state.ready), seconds)
        later = [move for move in moves if move.start_s > ready_s]
        spans = {
            kinds: [
                (event.start_s, event.end_s)
                for s in seen
                for event in s.events
                if event.kind in kinds and event.end_s is not None
            ]
            for kinds in (("blink",), ("closure", "microsleep", "sleep"))
        }
        scores = {}
        for word, kinds, wanted in (
            ("blink", ("blink",), [move for move in later if move.shut_s == 0]),
            ("closure", ("closure", "microsleep", "sleep"), [move for move in later if move.shut_s >= CLOSURE_S]),
        ):
            hits = sum(any(start < m.end_s and end > m.start_s for start, end in spans[kinds]) for m in wanted)
            right = sum(any(start < m.end_s and end > m.start_s for m in wanted) for start, end in spans[kinds])
            scores[f"{word}_recall"] = hits / len(wanted) if wanted else None
            scores[f"{word}_precision"] = right / len(spans[kinds]) if spans[kinds] else None
        errors = []
        for state in seen:
            if state.perclos is not None:
                since_s = max(state.time_s - 60, ready_s)
                true = (shut[int(state.time_s * 1000)] - shut[int(since_s * 1000)]) / (state.time_s - since_s)
                errors.append(abs(state.perclos - float(true)))
        scores["perclos_error_max"] = max(errors, default=None)
        result[name] = scores
    return result


def videos(bundle: str, left: float, folder: Path, detector: Path) -> list[dict[str, Any]]:
    """Part 3."""
    rows = []
    for file in sorted(folder.iterdir()):
        if file.suffix not in (".mp4", ".avi", ".gif"):
            continue
        with FaceLandmarker.open(bundle, threads=1) as landmarker, open_source(file) as source:
            monitor = DriverMonitor(landmarker.schema, DriverThresholds(shut_eye_part=left))
            watch = Drive(FaceTracker(landmarker, yunet_detector(detector), every=30), monitor)
            spent_s, last_s = 0.0, 0.0
            for frame in source:
                started = time.perf_counter()
                watch.update(frame.image_bgr, frame.time_s)
                spent_s, last_s = spent_s + time.perf_counter() - started, frame.time_s
            watch.finish()
            rows.append({"clip": file.name, "times_real_time": last_s / spent_s, **watch.record.summary().to_json()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", help="default: zoo:ibug68 and zoo:wflw98")
    parser.add_argument("--faces", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--person", type=int, default=5)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sources = Sources(options.bundle or ["zoo:ibug68", "zoo:wflw98"])
    single = openings(sources, options.faces)
    default = DriverThresholds().shut_eye_part
    left = {name: default if name == EXACT else values["shut_eye_part"] for name, values in single.items()}
    report: dict[str, Any] = {"openings": single, "drive": drive(sources, left, options.seconds, options.person)}
    if options.videos is not None:
        report["videos"] = {}
        for name in sources.landmarkers:
            try:
                report["videos"][name] = videos(name, left[name], options.videos, options.detector)
            except InputError as error:
                # A bundle that knows no boxes of that detector.
                report["videos"][name] = f"skipped: {error}"
    text = json.dumps(report, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
