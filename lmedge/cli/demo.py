"""What landmarks are for, on a camera, video or picture: demo filter, align, pose, driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmedge.cli.demo_run import WRITTEN_AS_ONE, Choices, Demo, output_stem, run_demo
from lmedge.cli.options import BackendOption, DetectorOption, DeviceOption, JsonOption, PrecisionOption, ThreadsOption
from lmedge.default_bundle import DEFAULT
from lmedge.errors import InputError

if TYPE_CHECKING:
    from lmedge.apps.video import Frame
    from lmedge.cli.demo_run import Draw
    from lmedge.data.drawing import Image
    from lmedge.landmarks import Landmarks
    from lmedge.pose import Camera
    from lmedge.runtimes.landmarker import FaceLandmarker
    from lmedge.runtimes.tracker import TrackedFace

_DEMO_HELP = "Show what landmarks are for, on a camera, video or picture: filters, alignment, head pose, a driver monitor."

BundleArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[BUNDLE]", help=f"A bundle folder or zoo:NAME; {DEFAULT} if left out.", show_default=False),
]
SourceOption = Annotated[
    str, typer.Option("--source", metavar="FILE|CAMERA", help="A video, a picture, a folder of pictures, or a camera's number.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="NAME.mp4, NAME.png or .jpg of a picture, or a folder for PNG files. Named after the source.",
    ),
]
WindowOption = Annotated[
    bool, typer.Option("--window", help="Show it in a window; q ends it. Writes pictures only with --output.")
]
BoxOption = Annotated[
    str | None,
    typer.Option("--box", metavar="X,Y,W,H", help="Where the face is in the first frame, in pixels, kind reference."),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second of a folder of pictures, or asked of a camera.", min=0.1, max=1000),
]
FocalOption = Annotated[
    float | None, typer.Option("--focal-px", help="The camera's focal length in pixels; assumed if not given.", min=1.0)
]


def register(app: typer.Typer) -> None:
    demo = typer.Typer(help=_DEMO_HELP, no_args_is_help=True, rich_markup_mode=None)
    demo.command("filter", epilog="Example:  lmedge demo filter --source drive.mp4 --filter glasses --detector yunet.onnx")(
        filter_
    )
    demo.command("align", epilog="Example:  lmedge demo align --source people.jpg --detector yunet.onnx --output faces")(align)
    demo.command("pose", epilog="Example:  lmedge demo pose --source 0 --window --detector yunet.onnx")(pose)
    demo.command("driver", epilog="Example:  lmedge demo driver --source drive.mp4 --detector yunet.onnx --output out.mp4")(
        driver
    )
    app.add_typer(demo, name="demo")


def filter_(
    source: SourceOption,
    bundle: BundleArgument = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="NAME|DIR", help="glasses, hat, mask, moustache, tiger, or a folder of your own. Repeatable."
        ),
    ] = None,
    box: BoxOption = None,
    detector: DetectorOption = None,
    output: OutputOption = None,
    window: WindowOption = False,
    fps: FpsOption = None,
    focal_px: FocalOption = None,
    backend: BackendOption = "onnxruntime",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Paint stickers and masks over faces."""
    from lmedge.apps.filters import FilterPainter, load_filter

    chosen = [load_filter(name) for name in filters or ("glasses", "moustache")]
    choices = Choices(bundle, source, output, window, box, detector, fps, backend, precision, device, threads, as_json)

    def start(demo: Demo) -> Draw:
        painters: dict[tuple[int, int], FilterPainter] = {}

        def paint(frame: Frame, faces: Sequence[TrackedFace]) -> Image:
            size_hw = (frame.image_bgr.shape[0], frame.image_bgr.shape[1])
            if size_hw not in painters:
                painters[size_hw] = FilterPainter(chosen, demo.landmarker.schema, camera=_camera(focal_px, size_hw))
            return painters[size_hw].paint(frame.image_bgr, [face.smoothed for face in faces])

        FilterPainter(chosen, demo.landmarker.schema)  # refused before a frame is read
        return paint

    run_demo("filter", choices, start)


def align(
    source: SourceOption,
    bundle: BundleArgument = None,
    size: Annotated[int, typer.Option("--size", help="Side of an aligned face in pixels.", min=8, max=4096)] = 224,
    margin: Annotated[
        float, typer.Option("--margin", help="Border around the face, a part of the side.", min=0.0, max=0.49)
    ] = 0.1,
    anchors: Annotated[int, typer.Option("--anchors", help="2: the eye centres; 5: eyes, nose and mouth.")] = 2,
    box: BoxOption = None,
    detector: DetectorOption = None,
    output: OutputOption = None,
    window: WindowOption = False,
    fps: FpsOption = None,
    backend: BackendOption = "onnxruntime",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring faces to one place, size and tilt. A folder gets every face, NAME.mp4 or NAME.png and a window the largest one."""
    from lmedge.apps.align import Alignment
    from lmedge.apps.align_video import INDEX_FILE, AlignedFaces

    alignment = Alignment.standard((size, size), margin=margin, anchors=anchors)
    choices = Choices(bundle, source, output, window, box, detector, fps, backend, precision, device, threads, as_json)
    into = output if output is not None or window else Path(f"{output_stem(source)}-aligned")
    folder = into if into is not None and (into.is_dir() or into.suffix.lower() not in WRITTEN_AS_ONE) else None
    if folder is not None and folder.resolve() == Path(source).resolve():
        raise InputError(f"{folder} is both the source and the output. Give the output another name.")

    all_aligned: list[AlignedFaces] = []

    def start(demo: Demo) -> Draw:
        aligned = AlignedFaces(alignment, folder)
        all_aligned.append(aligned)
        demo.files += [] if folder is None else [folder / INDEX_FILE]
        return aligned.add

    def finish() -> dict[str, Any]:
        return {"aligned": {"written": all_aligned[0].written, "skipped": all_aligned[0].skipped}}

    run_demo("align", choices, start, finish, written_apart=folder is not None)


def pose(
    source: SourceOption,
    bundle: BundleArgument = None,
    shape: Annotated[
        Path | None,
        typer.Option("--shape", metavar="FILE", help="Write the first face in three dimensions: NAME.ply or NAME.obj."),
    ] = None,
    box: BoxOption = None,
    detector: DetectorOption = None,
    output: OutputOption = None,
    window: WindowOption = False,
    fps: FpsOption = None,
    focal_px: FocalOption = None,
    backend: BackendOption = "onnxruntime",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw where heads look and what faces do: yaw, pitch, roll; eyes, mouth, brows, smile against the face at rest."""
    from lmedge.apps.pose_view import PoseView

    choices = Choices(bundle, source, output, window, box, detector, fps, backend, precision, device, threads, as_json)

    def start(demo: Demo) -> Draw:
        schema = demo.landmarker.schema
        part = _shut_eye_part(demo.landmarker)
        views: dict[tuple[int, int], PoseView] = {}

        def draw(frame: Frame, faces: Sequence[TrackedFace]) -> Image:
            size_hw = (frame.image_bgr.shape[0], frame.image_bgr.shape[1])
            if size_hw not in views:
                views[size_hw] = PoseView(
                    schema, shut_eye_part=part, camera=_camera(focal_px, size_hw), shape_file=None if views else shape
                )
            return views[size_hw].draw(frame, faces)

        demo.files += [] if shape is None else [shape]
        return draw

    run_demo("pose", choices, start)


def driver(
    source: SourceOption,
    bundle: BundleArgument = None,
    box: BoxOption = None,
    detector: DetectorOption = None,
    output: OutputOption = None,
    window: WindowOption = False,
    fps: FpsOption = None,
    focal_px: FocalOption = None,
    backend: BackendOption = "onnxruntime",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch a driver: blinks, PERCLOS, microsleep, sleep, yawns, distraction. Not a certified safety function.

    NAME.events.jsonl has the events and NAME.drive.png the course of the drive: beside the annotated video, and also with
    --window alone.
    """
    from lmedge.apps.driver import (
        Drive,
        DriverMonitor,
        DriverThresholds,
        EventLog,
        FrameState,
        draw_dashboard,
        drive_picture,
        shut_eye_part_of,
    )
    from lmedge.data.pictures import save_picture

    choices = Choices(bundle, source, output, window, box, detector, fps, backend, precision, device, threads, as_json)
    main = output or Path(f"{output_stem(source)}-driver")
    events_file, picture_file = (main.with_name(f"{main.stem}.{ending}") for ending in ("events.jsonl", "drive.png"))
    drives: list[Drive] = []

    def watch(demo: Demo) -> Callable[[Frame], tuple[FrameState, Landmarks | None]]:
        thresholds = DriverThresholds(shut_eye_part=shut_eye_part_of(demo.landmarker))
        monitor = DriverMonitor(demo.landmarker.schema, thresholds)
        log = demo.stack.enter_context(EventLog(events_file, thresholds))
        demo.files += [events_file, picture_file]

        def update(frame: Frame) -> tuple[FrameState, Landmarks | None]:
            if not drives:
                size_hw = (frame.image_bgr.shape[0], frame.image_bgr.shape[1])
                drives.append(Drive(demo.tracker, monitor, camera=_camera(focal_px, size_hw), log=log))
            return drives[0].update(frame.image_bgr, frame.time_s), drives[0].landmarks

        return update

    def start(demo: Demo) -> Draw:
        def draw(frame: Frame, seen: tuple[FrameState, Landmarks | None]) -> Image:
            state, landmarks = seen
            return draw_dashboard(frame.image_bgr, state, landmarks, drives[0].thresholds)

        return draw

    def finish() -> dict[str, Any]:
        drive = drives[0]
        drive.finish()
        save_picture(picture_file, drive_picture(drive.record, drive.thresholds, Path(source).name))
        return {"drive": drive.record.summary().to_json()}

    run_demo("driver", choices, start, finish, watch=watch)


def _shut_eye_part(landmarker: FaceLandmarker) -> float | None:
    """None where the points do not outline the eyes."""
    from lmedge.apps.driver import shut_eye_part_of

    try:
        return shut_eye_part_of(landmarker)
    except InputError:
        return None


def _camera(focal_px: float | None, size_hw: Sequence[int]) -> Camera | None:
    from lmedge.pose import Camera

    return None if focal_px is None else Camera(focal_px, ((size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2))
