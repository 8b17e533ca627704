"""Golden vectors: a few frames with the answers that a bundle must give, stored inside it for the self-test on the device.

The file is an uncompressed npz (a zip of .npy files, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)
with fixed names, order and time stamps, so equal arrays are equal bytes everywhere. It is never unpickled. The array
`confidence` is there only for networks that say how sure they are.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import CONFIDENCE
from lmedge.errors import BundleFormatError, InputError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import PreprocessSpec, crop_face
from lmedge.runtimes.answers import Answer, Answers

_DTYPES = {
    "frames": np.uint8, "boxes_xyxy": np.float64, "crops": np.uint8, "fractions": np.float32, "points_px": np.float32,
}  # fmt: skip
_OPTIONAL = CONFIDENCE
# The oldest time a zip can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Golden:
    """F frames with one face each, and the reference's answers.

    Attributes:
        frames: uint8 (F, H, W, 3) BGR.
        boxes_xyxy: float64 (F, 4), boxes of kind "reference" in pixels of the frame.
        crops: uint8 (F, h, w, 3), what `preprocess.crop_face` made of them.
        fractions: float32 (F, K, 2), what the reference network answered to the crops.
        points_px: float32 (F, K, 2), the same points in pixels of the frame.
        confidence: float32 (F, K), how sure the reference was of them; None where it does not say.
    """

    frames: npt.NDArray[np.uint8]
    boxes_xyxy: npt.NDArray[np.float64]
    crops: npt.NDArray[np.uint8]
    fractions: npt.NDArray[np.float32]
    points_px: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in _DTYPES}
        count, points, sure = len(self.frames), shapes["fractions"][1:], self.confidence
        fitting = (
            all(getattr(self, name).dtype == dtype for name, dtype in _DTYPES.items())
            and count > 0
            and len(shapes["frames"]) == len(shapes["crops"]) == 4
            and shapes["frames"][3] == shapes["crops"][3] == 3
            and shapes["boxes_xyxy"] == (count, 4)
            and len(points) == 2
            and points[1] == 2
            and shapes["fractions"] == shapes["points_px"] == (count, *points)
            and shapes["crops"][0] == count
            and (sure is None or (sure.dtype == np.float32 and sure.shape == (count, points[0])))
        )
        if not fitting:
            shown = shapes if sure is None else {**shapes, _OPTIONAL: sure.shape}
            raise InputError(f"Golden vectors do not fit together: {shown}.")

    @property
    def answers(self) -> Answers:
        """What the reference answered to the crops."""
        return Answers(self.fractions, self.confidence)

    @classmethod
    def record(
        cls, frames: npt.NDArray[np.uint8], boxes_xyxy: npt.NDArray[np.float64], spec: PreprocessSpec, answer: Answer
    ) -> Golden:
        """Golden vectors of a reference.

        Args:
            frames: uint8 (F, H, W, 3) BGR.
            boxes_xyxy: (F, 4), kind "reference".
            answer: the reference: crops uint8 (F, h, w, 3) → its answers, or their fractions (F, K, 2).
        """
        boxes = [FaceBox(x_min, y_min, x_max, y_max) for x_min, y_min, x_max, y_max in np.asarray(boxes_xyxy).tolist()]
        made = [crop_face(frame, box, spec) for frame, box in zip(frames, boxes, strict=True)]
        crops = np.stack([crop for crop, _ in made])
        answers = Answers.of(answer(crops))
        fractions = np.asarray(answers.fractions, np.float32)
        confidence = None if answers.confidence is None else np.asarray(answers.confidence, np.float32)
        points = [transform.from_fractions(face) for (_, transform), face in zip(made, fractions, strict=True)]
        return cls(frames, np.asarray(boxes_xyxy, np.float64), crops, fractions, np.asarray(points, np.float32), confidence)

    def to_bytes(self) -> bytes:
        """The npz file; equal arrays give equal bytes."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name in (field.name for field in fields(self) if getattr(self, field.name) is not None):
                array = io.BytesIO()
                np.lib.format.write_array(array, np.ascontiguousarray(getattr(self, name)), (1, 0), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), array.getvalue())
        return stream.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Golden:
        """The inverse of `to_bytes`.

        Raises:
            BundleFormatError: no such file, or not one with these arrays.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
                stored = [*_DTYPES, *([_OPTIONAL] if f"{_OPTIONAL}.npy" in archive.namelist() else [])]
                return cls(**{name: _read_array(archive, f"{name}.npy") for name in stored})
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise BundleFormatError(f"{path} holds no golden vectors ({error}). Build the bundle again.") from error


def _read_array(archive: zipfile.ZipFile, name: str) -> Any:
    return np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
