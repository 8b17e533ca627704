"""How far head pose is off, on rendered faces whose angles are known: from exact points and from those that networks find.

    python benchmarks/head_pose.py [--bundle zoo:ibug68 ...] [--faces 600] [--out benchmarks/results]

Each face is another person with another expression, light and camera, yaw spread evenly up to 60 degrees, pitch and roll as in
photo collections. Networks look at a crop around the exact points. The camera is known, or assumed from the size of the picture
(`Camera.assumed_for`), which for these pictures is wrong: they are cut out around the face.

Figures are mean absolute errors in degrees by band of |yaw|; `pitch_bias` is the mean error of pitch with its sign. Writes
head_pose.json and head_pose.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lmedge import FaceBox, FaceLandmarker
from lmedge.data.synthetic import Scene, SyntheticFace, render_face
from lmedge.data.synthetic.camera import YAW_LIMIT, draw_pose
from lmedge.pose import Camera, head_pose
from lmedge.runtimes.bench import describe_machine
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema

SEED, SIZE_PX = 2207, 160
BANDS = ((0, 15), (15, 30), (30, 45), (45, 60), (0, 45))
KNOWN, ASSUMED = "known", "assumed"

Floats = npt.NDArray[np.float64]
FoundPoints = Callable[[SyntheticFace], npt.NDArray[np.floating]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", nargs="*", default=["zoo:ibug68", "zoo:wflw98", "zoo:mmlab5"])
    parser.add_argument("--faces", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    faces = [drawn_face(number) for number in range(arguments.faces)]
    rows = [row for schema in (IBUG_68, WFLW_98, MMLAB_5) for row in exact(faces, schema)]
    for name in arguments.bundle:
        with FaceLandmarker.open(name, threads=1) as landmarker:
            rows += predicted(faces, name, landmarker)
    record = {"machine": describe_machine(), "faces": len(faces), "size_px": SIZE_PX, "seed": SEED, "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file_name, text in {"head_pose.json": json.dumps(record, indent=1) + "\n", "head_pose.md": markdown(record)}.items():
        (arguments.out / file_name).write_text(text, encoding="utf-8")
    print(markdown(record))


def drawn_face(number: int) -> SyntheticFace:
    """A random person at a random pose, whose yaw is spread evenly."""
    rng = np.random.default_rng([SEED, number])
    pose = replace(draw_pose(rng), yaw_deg=float(rng.uniform(-YAW_LIMIT, YAW_LIMIT)))
    return render_face(rng, SIZE_PX, Scene(pose=pose))


def exact(faces: Sequence[SyntheticFace], schema: LandmarkSchema) -> Iterator[dict[str, Any]]:
    yield from by_camera(faces, schema, "exact", lambda face: face.points(schema))


def predicted(faces: Sequence[SyntheticFace], name: str, landmarker: FaceLandmarker) -> Iterator[dict[str, Any]]:
    def find(face: SyntheticFace) -> npt.NDArray[np.floating]:
        box = FaceBox.around(face.points(landmarker.schema))
        return landmarker.predict(face.image_bgr, [box])[0].points_px

    yield from by_camera(faces, landmarker.schema, name, find)


def by_camera(
    faces: Sequence[SyntheticFace], schema: LandmarkSchema, points: str, find: FoundPoints
) -> Iterator[dict[str, Any]]:
    found = [find(face) for face in faces]
    for camera in (KNOWN, ASSUMED):
        errors_deg = np.array(
            [
                error_deg(face, points_px, schema, face.camera if camera == KNOWN else Camera.assumed_for(SIZE_PX, SIZE_PX))
                for face, points_px in zip(faces, found, strict=True)
            ]
        )
        for band in BANDS:
            yield {"points": points, "schema": schema.name, "camera": camera, **summary(faces, errors_deg, band)}


def error_deg(
    face: SyntheticFace, points_px: npt.NDArray[np.floating], schema: LandmarkSchema, camera: Camera
) -> tuple[float, float, float]:
    """Found less true yaw, pitch and roll."""
    pose, truth = head_pose(points_px, schema, camera), face.pose
    return pose.yaw_deg - truth.yaw_deg, pose.pitch_deg - truth.pitch_deg, pose.roll_deg - truth.roll_deg


def summary(faces: Sequence[SyntheticFace], errors_deg: Floats, band: tuple[int, int]) -> dict[str, Any]:
    turns_deg = np.array([abs(face.pose.yaw_deg) for face in faces])
    inside = errors_deg[(band[0] <= turns_deg) & (turns_deg <= band[1])]
    yaw, pitch, roll = abs(inside).mean(axis=0).round(2).tolist()
    return {
        "turned_deg": f"{band[0]} to {band[1]}", "faces": len(inside), "yaw": yaw, "pitch": pitch, "roll": roll,
        "pitch_bias": round(float(inside[:, 1].mean()), 2),
    }  # fmt: skip


def markdown(record: dict[str, Any]) -> str:
    """One row for each kind of points and camera, one column for each band: yaw / pitch / roll."""
    machine, rows = record["machine"], record["rows"]
    table: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        errors = " / ".join(f"{row[name]:.1f}" for name in ("yaw", "pitch", "roll"))
        table.setdefault((row["points"], row["schema"], row["camera"]), []).append(errors)
    bands = [f"{row['turned_deg']}° ({row['faces']} faces)" for row in rows[: len(BANDS)]]
    columns = ["points", "schema", "camera", *bands]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join([*key, *cells])} |" for key, cells in table.items()]
    parts = [
        "# Head pose: mean absolute errors of yaw / pitch / roll in degrees, by |yaw|",
        f"Made by `python benchmarks/head_pose.py`, which says what each figure is: {record['faces']} rendered faces of "
        f"{record['size_px']} px.",
        f"{machine['cpu']}, Python {machine['python']}, onnxruntime {machine['versions'].get('onnxruntime')}",
        "\n".join(lines),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
