"""`lmedge demo`: from a clip with a face to pictures, files and figures; and what goes wrong, told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge.apps.driver import read_events
from lmedge.apps.video import VideoSink
from lmedge.data.synthetic import render_faces
from lmedge.schemas import IBUG_68, MMLAB_5, LandmarkSchema
from tests import requirements
from tests.cli.command import DONE, ERROR, USAGE, lmedge
from tests.data.faces import write_image

FRAMES, FPS, SIDE = 6, 10.0, 192
DEMOS = ("filter", "align", "pose", "driver")


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, str]:
    """A rendered face, and the extent of its 68 points: x,y,w,h."""
    requirements.require("onnxruntime")
    return rendered(IBUG_68)


def rendered(schema: LandmarkSchema) -> tuple[np.ndarray, str]:
    [sample] = render_faces(1, schema, seed=4, size_px=SIDE)
    box = sample.box()
    return sample.read_image(), f"{box.x_min:.0f},{box.y_min:.0f},{box.width:.0f},{box.height:.0f}"


@pytest.fixture
def clip(face: tuple[np.ndarray, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video of the face standing still, in a folder that is the present one."""
    monkeypatch.chdir(tmp_path)
    return write_video(tmp_path / "drive.mp4", [face[0]] * FRAMES)


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(np.asarray(read[1]))
    capture.release()
    return frames


@pytest.mark.parametrize("name", DEMOS)
def test_each_demo_goes_through_a_clip_and_tells_what_it_wrote(name: str, clip: Path, face: tuple[np.ndarray, str]) -> None:
    outcome = lmedge("demo", name, "--source", clip, "--box", face[1], "--json")
    assert outcome.code == DONE, outcome
    document = outcome.json
    assert (document["frames"], document["broken"], document["faces"]) == (FRAMES, 0, 1)
    assert document["times_real_time"] > 0
    assert document["files"]
    assert all(Path(file).is_file() for file in document["files"])


@pytest.mark.parametrize("name", ["filter", "pose", "driver"])
def test_the_video_is_named_after_the_source_and_the_demo_and_shows_it(
    name: str, clip: Path, face: tuple[np.ndarray, str]
) -> None:
    lmedge("demo", name, "--source", clip, "--box", face[1])
    written = frames_of(clip.with_name(f"drive-{name}.mp4"))
    assert len(written) == FRAMES
    original = frames_of(clip)[-1]
    assert np.abs(written[-1][:SIDE, :SIDE].astype(int) - original).max() > 60, "nothing was drawn"


@pytest.mark.parametrize("bundle", ["zoo:ibug68", "zoo:wflw98", "zoo:mmlab5"])
@pytest.mark.parametrize("name", DEMOS)
def test_a_picture_becomes_a_picture_with_every_bundle_or_is_refused(
    bundle: str, name: str, face: tuple[np.ndarray, str], tmp_path: Path
) -> None:
    photo = write_image(tmp_path / "face.png", face[0])
    output = tmp_path / "out.png"
    box = rendered(MMLAB_5)[1] if bundle == "zoo:mmlab5" else face[1]
    outcome = lmedge("demo", name, bundle, "--source", photo, "--output", output, "--box", box)
    if name == "driver" and bundle == "zoo:mmlab5":
        outcome.assert_clear_error(ERROR, "MMLAB_5", "68 or 98")
        assert not list(tmp_path.glob("out*"))
        return
    assert outcome.code == DONE, outcome
    assert cv2.imread(str(output)) is not None


def test_align_keeps_every_face_of_every_frame_with_the_way_back(clip: Path, face: tuple[np.ndarray, str]) -> None:
    lmedge("demo", "align", "--source", clip, "--box", face[1], "--output", "faces", "--size", "96")
    rows = [json.loads(line) for line in (clip.parent / "faces" / "faces.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(FRAMES))
    for row in rows:
        picture = cv2.imread(str(clip.parent / "faces" / row["file"]))
        assert picture.shape == (96, 96, 3)
        there, back = (np.vstack([row[key], [0, 0, 1]]) for key in ("transform", "inverse"))
        np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-9)


def test_a_folder_that_holds_aligned_faces_is_not_mixed_with_others(clip: Path, face: tuple[np.ndarray, str]) -> None:
    arguments = ("demo", "align", "--source", clip, "--box", face[1], "--output", "faces")
    lmedge(*arguments)
    before = sorted(path.name for path in Path("faces").iterdir())
    lmedge(*arguments).assert_clear_error(ERROR, "faces holds aligned faces already")
    assert sorted(path.name for path in Path("faces").iterdir()) == before


def test_the_shape_of_the_first_face_is_written(clip: Path, face: tuple[np.ndarray, str]) -> None:
    lmedge("demo", "pose", "--source", clip, "--box", face[1], "--shape", "face.ply")
    assert "element vertex 68" in Path("face.ply").read_text(encoding="ascii")


def test_a_drive_leaves_events_a_picture_and_a_summary(clip: Path, face: tuple[np.ndarray, str]) -> None:
    outcome = lmedge("demo", "driver", "--source", clip, "--box", face[1], "--output", "watched.mp4", "--json")
    assert outcome.json["drive"]["frames"] == FRAMES
    assert "certified" in outcome.json["drive"]["statement"]
    assert read_events("watched.events.jsonl") is not None
    assert cv2.imread("watched.drive.png") is not None


def test_an_output_with_a_dot_in_its_name_is_a_folder_unless_it_is_a_kind_of_file(
    clip: Path, face: tuple[np.ndarray, str]
) -> None:
    lmedge("demo", "align", "--source", clip, "--box", face[1], "--output", "faces.v2")
    assert len(list(Path("faces.v2").glob("face1_*.png"))) == FRAMES


def test_the_margin_makes_the_face_smaller(clip: Path, face: tuple[np.ndarray, str]) -> None:
    def pixels_per_pixel(margin: str) -> float:
        lmedge("demo", "align", "--source", clip, "--box", face[1], "--margin", margin, "--output", f"margin{margin}")
        row = json.loads((Path(f"margin{margin}") / "faces.jsonl").read_text().splitlines()[0])
        return float(np.linalg.norm(row["transform"][0][:2]))

    assert pixels_per_pixel("0.3") == pytest.approx(0.4 * pixels_per_pixel("0"), rel=0.02)


def test_aligned_faces_do_not_go_into_the_folder_of_the_source(face: tuple[np.ndarray, str], tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "face.png", face[0])
    photos = tmp_path / "photos"
    lmedge("demo", "align", "--source", photos, "--output", photos).assert_clear_error(ERROR, "both the source and the output")
    assert [path.name for path in photos.iterdir()] == ["face.png"]


def test_a_picture_is_answered_by_a_picture_named_after_it(
    face: tuple[np.ndarray, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.jpg", face[0])
    lmedge("demo", "filter", "--source", "photo.jpg", "--box", face[1])
    assert cv2.imread("photo-filter.png") is not None


def test_a_longer_focal_length_is_another_pose(clip: Path, face: tuple[np.ndarray, str]) -> None:
    for name, focal in (("near.ply", ("--focal-px", "300")), ("far.ply", ("--focal-px", "3000")), ("again.ply", ())):
        lmedge("demo", "pose", "--source", clip, "--box", face[1], "--shape", name, *focal)
    near, far, again = (Path(name).read_text(encoding="ascii") for name in ("near.ply", "far.ply", "again.ply"))
    assert len({near, far, again}) == 3


@pytest.mark.parametrize("name", DEMOS)
def test_a_window_that_is_closed_before_the_first_frame_is_no_error(
    name: str, clip: Path, face: tuple[np.ndarray, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class ClosedWindow(VideoSink):
        def __init__(self, title: str) -> None: ...

        def _write(self, image_bgr: np.ndarray, time_s: float) -> None: ...

        @property
        def wants_to_end(self) -> bool:
            return True

    monkeypatch.setattr("lmedge.apps.video.WindowSink", ClosedWindow)
    outcome = lmedge("demo", name, "--source", clip, "--box", face[1], "--window", "--json")
    assert outcome.code == DONE, outcome
    assert outcome.json["ended_early"]


def test_where_no_face_was_found_the_cure_fits_what_was_given(clip: Path) -> None:
    assert "There is none at --box 500,500,20,20" in lmedge("demo", "pose", "--source", clip, "--box", "500,500,20,20").stderr


def test_a_clip_without_a_face_is_an_error_and_the_outputs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements.require("onnxruntime")
    monkeypatch.chdir(tmp_path)
    clip = write_video(tmp_path / "empty.mp4", [np.full((120, 160, 3), 40, np.uint8)] * 3)
    outcome = lmedge("demo", "filter", "--source", clip)
    assert outcome.code == ERROR
    assert "Not one face was found in 3 frames" in outcome.stderr
    assert "--detector" in outcome.stderr
    assert len(frames_of(tmp_path / "empty-filter.mp4")) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("filter", "--source", "nothing.mp4"), ERROR, ["No video at nothing.mp4"]),
        (("filter", "--source", "99"), ERROR, ["Camera 99 cannot be opened"]),
        (("filter", "--source", "text.mp4"), ERROR, ["text.mp4 is not a video"]),
        (("filter", "--source", "drive.mp4", "--filter", "glases"), ERROR, ["Did you mean glasses?"]),
        (("filter", "--source", "drive.mp4", "--output", "drive.mp4"), ERROR, ["both the source and the output"]),
        (("filter", ".", "--source", "drive.mp4"), ERROR, ["no bundle", "--source"]),
        (("filter", "--source", "drive.mp4", "--box", "1,2,3"), USAGE, ["x,y,width,height"]),
        (("filter", "--source", "drive.mp4", "--box", "1,2,30,30", "--detector", "y.onnx"), USAGE, ["not both"]),
        (("align", "--source", "drive.mp4", "--anchors", "3"), ERROR, ["anchors must be 2"]),
        (("pose", "--source", "drive.mp4", "--shape", "face.stl"), ERROR, [".ply or .obj"]),
        (("driver", "--source", "drive.mp4", "--output", "no/where/out.mp4"), ERROR, ["no/where"]),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    arguments: tuple[str, ...], code: int, parts: list[str], clip: Path
) -> None:
    (clip.parent / "text.mp4").write_text("not a video")
    before = {path: path.read_bytes() for path in clip.parent.iterdir()}
    outcome = lmedge("demo", *arguments)
    outcome.assert_clear_error(code, *parts)
    assert {path: path.read_bytes() for path in clip.parent.iterdir()} == before


def test_a_window_needs_a_display(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    lmedge("demo", "filter", "--source", clip, "--window").assert_clear_error(ERROR, "no display")
