"""Video in, work on each frame, video out.

camera, file, folder or picture ▶ `Frame`, with its time ▶ a function that returns a picture ▶ mp4, PNG files, a window

    from lmedge.apps.video import open_sink, open_source, run_video
    with open_source("drive.mp4") as source:
        summary = run_video(source, lambda frame: frame.image_bgr, [open_sink("copy.mp4", source)])
"""

from __future__ import annotations

from lmedge.apps.video.loop import VideoSummary, run_video
from lmedge.apps.video.sinks import Mp4Sink, PictureSink, PngFolderSink, VideoSink, WindowSink, display_available, open_sink
from lmedge.apps.video.sources import Frame, VideoSource, open_source

__all__ = [
    "Frame",
    "Mp4Sink",
    "PictureSink",
    "PngFolderSink",
    "VideoSink",
    "VideoSource",
    "VideoSummary",
    "WindowSink",
    "display_available",
    "open_sink",
    "open_source",
    "run_video",
]
