"""One run of a demo: opens source, bundle, tracker and outputs, goes through the frames, tells what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lmedge.cli.console import note, print_json, print_table, progress_bar
from lmedge.cli.faces import bundle_within, parse_box, print_terms
from lmedge.default_bundle import DEFAULT
from lmedge.errors import BundleError, DataError

if TYPE_CHECKING:
    from lmedge.apps.video import Frame, VideoSink, VideoSource, VideoSummary
    from lmedge.data.drawing import Image
    from lmedge.runtimes.landmarker import FaceLandmarker
    from lmedge.runtimes.tracker import FaceTracker

    # A frame and what was found in it → the picture.
    Draw = Callable[[Frame, Any], Image]

# Endings of outputs that are one file; any other name is a folder.
WRITTEN_AS_ONE = (".mp4", ".png", ".jpg", ".jpeg")
_STILL = ".png"

# What of a drive people see, and in which words.
_DRIVE_WORDS = {
    "seconds": "seconds watched",
    "face_s": "with a face",
    "eyes_s": "with eyes that were seen",
    "road_s": "with the head toward the road",
    "counts": "events",
    "blink_mean_s": "mean length of a blink, s",
    "longest_shut_s": "longest time with shut eyes, s",
    "highest_perclos": "highest PERCLOS",
    "statement": "statement",
}


@dataclass(frozen=True)
class Choices:
    """What all demos can be told."""

    bundle: Path | None
    source: str
    output: Path | None
    window: bool
    box: str | None
    detector: Path | None
    fps: float | None
    backend: str
    precision: str
    device: str | None
    threads: int | None
    as_json: bool


@dataclass
class Demo:
    """An opened demo: frames come from `source`, faces from `tracker`, pictures go to `sinks` and `files` are written.

    What has to be closed at the end goes on `stack`.
    """

    stack: ExitStack
    source: VideoSource
    landmarker: FaceLandmarker
    tracker: FaceTracker
    sinks: list[VideoSink]
    files: list[Path]


def run_demo(
    name: str,
    choices: Choices,
    start: Callable[[Demo], Draw],
    finish: Callable[[], dict[str, Any]] = dict,
    *,
    written_apart: bool = False,
    watch: Callable[[Demo], Callable[[Frame], Any]] | None = None,
) -> None:
    """Opens, runs to the end of the source and tells what came of it.

    Args:
        start: an opened demo → what draws a frame and its faces, or what `watch` found, while the next frame is worked on.
        finish: what to add to the JSON document, after the last frame.
        written_apart: `start` writes by itself what would go to a sink.
        watch: an opened demo → what finds something in a frame; without it, the tracked faces.
    """
    from lmedge.apps.video import run_video

    with ExitStack() as stack:
        demo = _open(name, choices, stack, written_apart=written_apart)
        draw = start(demo)
        work = watch(demo) if watch else lambda frame: demo.tracker.update(frame.image_bgr, frame.time_s)
        progress = stack.enter_context(progress_bar())
        summary = run_video(demo.source, work, demo.sinks, draw=draw, progress=progress)
        more = finish() if summary.frames else {}
    counts = demo.tracker.counts
    document = {
        "source": choices.source,
        **summary.to_json(),
        "faces": counts.found,
        "detector_calls": counts.detector_calls,
        **more,
        "files": [str(file) for file in demo.files if file.exists()],
    }
    if choices.as_json:
        print_json(document)
    else:
        _print_summary(name, document, summary)
    if summary.frames and counts.found == 0:
        frames = f"{summary.frames} {'frame' if summary.frames == 1 else 'frames'}"
        raise DataError(f"Not one face was found in {frames} of {choices.source}; what was written is kept. {_cure(choices)}")


def _cure(choices: Choices) -> str:
    """What to try where no face was found."""
    if choices.detector:
        return (
            "The detector found none: faces may be too small, turned away or too dark. Tell where the face is: --box x,y,w,h."
        )
    if choices.box:
        return (
            f"There is none at --box {choices.box} (x, y, width, height in pixels). Give another one, or --detector MODEL.onnx."
        )
    return "Give --detector MODEL.onnx (a YuNet file), or the face's place in the first frame: --box x,y,w,h."


def _open(name: str, choices: Choices, stack: ExitStack, *, written_apart: bool) -> Demo:
    from lmedge.apps.video import WindowSink, open_sink, open_source
    from lmedge.runtimes.detector import given_boxes, yunet_detector
    from lmedge.runtimes.landmarker import FaceLandmarker
    from lmedge.runtimes.tracker import FaceTracker

    if choices.box and choices.detector:
        raise typer.BadParameter("give --box or --detector, not both.")
    given = [parse_box(choices.box, "reference")] if choices.box else []
    source = stack.enter_context(open_source(choices.source, fps=choices.fps))
    output = choices.output
    if output is None and not choices.window and not written_apart:
        output = Path(f"{output_stem(choices.source)}-{name}{_STILL if source.frame_count == 1 else '.mp4'}")
    sinks: list[VideoSink] = [] if output is None or written_apart else [open_sink(output, source)]
    if choices.window:
        sinks.append(WindowSink(f"lmedge demo {name}: {source.name}"))
    landmarker = stack.enter_context(
        FaceLandmarker.open(
            _bundle(choices.bundle),
            backend=choices.backend,
            precision=choices.precision,
            device=choices.device,
            threads=choices.threads,
        )
    )
    print_terms(landmarker.bundle)
    if choices.detector:
        tracker = FaceTracker(landmarker, yunet_detector(choices.detector))
    else:
        # Only while no face is known: where the face was in the first frame says nothing of later ones.
        tracker = FaceTracker(landmarker, given_boxes(given), every=sys.maxsize)
        if not given:
            note(f"{source.name}: no --box or --detector given, so the whole picture is taken as one face.")
    return Demo(stack, source, landmarker, tracker, sinks, [] if output is None or written_apart else [output])


def _bundle(named: Path | None) -> Path:
    from lmedge.bundle.zoo import resolve_bundle

    if named is None:
        note(f"No bundle is named; taking {DEFAULT}.")
        return resolve_bundle(DEFAULT)
    folder = resolve_bundle(named)
    if not (folder / "manifest.json").is_file():
        hint = bundle_within(folder)
        raise BundleError(f"{folder} is no bundle (no manifest.json). Videos and pictures go to --source.{hint}")
    return folder


def output_stem(source: str) -> str:
    """What outputs are named after."""
    return f"camera{source}" if source.isdecimal() else Path(source).resolve().stem


def _print_summary(name: str, document: dict[str, Any], summary: VideoSummary) -> None:
    rows = [
        ["frames", f"{summary.frames}{' (ended early)' if summary.ended_early else ''}"],
        *([["broken frames, skipped", str(summary.broken)]] if summary.broken else []),
        *([["frames that the file declares and lacks", str(summary.missing)]] if summary.missing else []),
        ["faces", str(document["faces"])],
        ["searches for faces", str(document["detector_calls"])],
        ["times real time, without writing", f"{summary.times_real_time:.1f}"],
        *[[f"aligned faces {key}", str(value)] for key, value in document.get("aligned", {}).items()],
        *[[words, _told(document["drive"][key])] for key, words in _DRIVE_WORDS.items() if "drive" in document],
        *[["written", file] for file in document["files"]],
    ]
    print_table(f"demo {name}: {document['source']}", ["what", "value"], rows)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {kind}" for kind, count in value.items()) or "none"
    return "–" if value is None else str(value)
