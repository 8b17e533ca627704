"""Makes docs/gallery.png: what `lmedge demo` and `lmedge predict` draw, on rendered faces. No photo of anyone.

    python docs/gallery.py

Each picture is the output of the command under it; the faces are nobody's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from lmedge.data.drawing import BACKGROUND_BGR, TEXT_BGR, Image, fitted_text, write_text
from lmedge.data.pictures import save_picture
from lmedge.data.synthetic import Expression, HeadPose, Scene, render_face
from lmedge.data.synthetic.lids import closure_at, draw_lid_moves
from lmedge.schemas import IBUG_68

GALLERY = Path(__file__).with_name("gallery.png")
SIZE_PX, TILE_PX, CAPTION_PX, GAP_PX, COLUMNS = 384, 300, 22, 6, 4
DRIVE_S, FPS = 20.0, 10
# Who, where the head points (yaw, pitch, roll) and the words of the command, with {photo} and {out} to be filled in.
PICTURES = (
    ((21, 1), (-12.0, 4.0, 3.0), "predict {photo} --draw {out}"),
    ((22, 2), (22.0, -4.0, -6.0), "demo pose --source {photo}"),
    ((23, 3), (-20.0, 5.0, 14.0), "demo align --source {photo}"),
    ((24, 4), (10.0, 0.0, 4.0), "demo filter --filter glasses --filter moustache --source {photo}"),
    ((25, 5), (-16.0, 4.0, -5.0), "demo filter --filter hat --source {photo}"),
    ((26, 6), (18.0, -5.0, 6.0), "demo filter --filter mask --source {photo}"),
    ((27, 7), (-8.0, 3.0, 2.0), "demo filter --filter tiger --source {photo}"),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiles = [tile(picture(folder, number, *row), shown(row[2])) for number, row in enumerate(PICTURES)]
        frame, course = drive(folder)
        tiles.append(tile(frame, "lmedge demo driver --source drive.mp4"))
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    width = rows[0].shape[1]
    course = cv2.resize(course, (width, round(course.shape[0] * width / course.shape[1])), interpolation=cv2.INTER_AREA)
    save_picture(GALLERY, np.vstack([*rows, course]))


def picture(folder: Path, number: int, person: tuple[int, int], angles_deg: tuple[float, float, float], words: str) -> Image:
    """What a command draws of a person."""
    face = render_face(person, SIZE_PX, Scene(HeadPose(*angles_deg), Expression(smile=3.0), occluders=(), lighting="ordinary"))
    photo = save_picture(folder / f"face_{number}.png", face.image_bgr)
    points = face.points(IBUG_68)
    (x, y), (right, bottom) = points.min(axis=0), points.max(axis=0)
    box = f"{x:.0f},{y:.0f},{right - x:.0f},{bottom - y:.0f}"
    if words.startswith("predict"):
        lmedge(*words.format(photo=photo, out=folder / "drawn").split(), "--box", box)
        return read(folder / "drawn" / photo.name)
    output = folder / f"out_{number}.png"
    lmedge(*words.format(photo=photo, out="").split(), "--box", box, "--output", str(output))
    return read(output)


def drive(folder: Path) -> tuple[Image, Image]:
    """A frame of a watched drive with the dashboard, and the course of all of it."""
    video = folder / "drive.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (SIZE_PX, SIZE_PX))
    moves = draw_lid_moves(np.random.default_rng(1), DRIVE_S, blink_s=0.3)
    box = ""
    for number in range(round(DRIVE_S * FPS)):
        time_s = number / FPS
        closure = float(closure_at(time_s, moves))
        pose = HeadPose(8.0 * np.sin(time_s / 2), 3.0 * np.sin(time_s / 3), 0.0)
        scene = Scene(pose, Expression(eye_closure=(closure, closure)), occluders=(), lighting="ordinary")
        face = render_face((28, 8), SIZE_PX, scene)
        if not box:
            (x, y), (right, bottom) = (face.points(IBUG_68).min(axis=0), face.points(IBUG_68).max(axis=0))
            box = f"{x:.0f},{y:.0f},{right - x:.0f},{bottom - y:.0f}"
        writer.write(face.image_bgr)
    writer.release()
    output = folder / "watched.mp4"
    lmedge("demo", "driver", "--source", str(video), "--box", box, "--output", str(output))
    capture = cv2.VideoCapture(str(output))
    capture.set(cv2.CAP_PROP_POS_FRAMES, round(0.6 * DRIVE_S * FPS))
    frame = np.asarray(capture.read()[1], np.uint8)
    capture.release()
    return frame, read(output.with_name("watched.drive.png"))


def lmedge(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "lmedge.cli", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def read(path: Path) -> Image:
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} was not written.")
    return np.asarray(image, np.uint8)


def shown(words: str) -> str:
    """The command as one would type it."""
    return "lmedge " + words.format(photo="face.png", out="out")


def tile(image: Image, caption: str) -> Image:
    """A picture in a square, with its command below."""
    zoom = TILE_PX / max(image.shape[:2])
    small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    whole = np.full((TILE_PX + CAPTION_PX, TILE_PX + GAP_PX, 3), BACKGROUND_BGR, np.uint8)
    top, left = (TILE_PX - small.shape[0]) // 2, (TILE_PX - small.shape[1]) // 2
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    write_text(whole, fitted_text(caption, TILE_PX - 4), (4, TILE_PX + CAPTION_PX - 7), TEXT_BGR)
    return whole


if __name__ == "__main__":
    main()
