"""Aligned faces of a video or picture: a PNG file for each face in each frame, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmedge.apps.align import AlignedFace, Alignment
from lmedge.apps.video import Frame
from lmedge.data.drawing import Image
from lmedge.data.pictures import save_picture
from lmedge.errors import DataError, InputError
from lmedge.runtimes.tracker import TrackedFace

INDEX_FILE = "faces.jsonl"
_FACE_NAME = "face{}_{:06d}.png"
_OWN = ("face*_*.png", INDEX_FILE)


class AlignedFaces:
    """Aligns the tracked faces of each frame; keeps them in a folder if there is one.

    The folder gets face1_000000.png (number of the face, number of the frame) and faces.jsonl: a line per file with the frame,
    its time, the face, and both transforms.

    Attributes:
        written: files so far.
        skipped: faces whose eyes were too near each other to fix a size and tilt.
    """

    def __init__(self, alignment: Alignment, folder: str | Path | None = None) -> None:
        """
        Raises:
            InputError: the folder is a file, or holds aligned faces already.
        """
        self.alignment = alignment
        self.folder = None if folder is None else Path(folder).expanduser()
        self.written = self.skipped = 0
        if self.folder is not None and self.folder.is_file():
            raise InputError(f"{self.folder} is a file; aligned faces go into a folder. Give another name.")
        if self.folder is not None and any(next(self.folder.glob(pattern), None) for pattern in _OWN):
            raise InputError(f"{self.folder} holds aligned faces already. Give another folder, or empty this one.")

    def add(self, frame: Frame, faces: Sequence[TrackedFace]) -> Image:
        """Takes the faces of a frame in.

        Returns:
            The aligned largest face, uint8 (height, width, 3) of the alignment's size; black where there is none.

        Raises:
            DataError: a file cannot be written.
        """
        shown = np.zeros((*self.alignment.size_hw, 3), np.uint8)
        for face in sorted(faces, key=lambda one: one.landmarks.box.width * one.landmarks.box.height):
            try:
                aligned = self.alignment.align(frame.image_bgr, face.smoothed)
            except InputError:
                self.skipped += 1
                continue
            shown = aligned.image_bgr
            self._keep(frame, face.identity, aligned)
        return shown

    def _keep(self, frame: Frame, identity: int, aligned: AlignedFace) -> None:
        if self.folder is None:
            return
        file = save_picture(self.folder / _FACE_NAME.format(identity, frame.index), aligned.image_bgr)
        row = {
            "file": file.name,
            "frame": frame.index,
            "time_s": round(frame.time_s, 4),
            "face": identity,
            "transform": aligned.transform.tolist(),
            "inverse": aligned.inverse.tolist(),
        }
        index_file = self.folder / INDEX_FILE
        try:
            with index_file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
        except OSError as error:
            raise DataError(f"Cannot write {index_file}: {error.strerror or error}.") from error
        self.written += 1
