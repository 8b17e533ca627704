"""A runtime without an engine, so that programs built on lmedge can be tested where none is installed.

    bundle = fake_bundle(tmp_path / "bundle")
    with FaceLandmarker.open(bundle, backend="fake") as landmarker:
        landmarker.runtime.script(fractions)      # what the next call answers; without it, the answer is computed

The computed answer follows from the crop alone: the crop is cut into cells, one per point, and a point lies at the centre
of brightness of its cell, weighted by blue for x and by red for y. So colours, positions and axes all matter, as in a network.
"""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt

import lmedge
from lmedge.bundle import ANY_ARCH, Artifact, Bundle, Manifest, network_specs, write_atomically, write_bundle
from lmedge.errors import InputError
from lmedge.preprocess import PreprocessSpec
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus
from lmedge.runtimes.golden import Golden
from lmedge.schemas import IBUG_68, LandmarkSchema

_BLUE, _RED = 0, 2
_GOLDEN_SEED = 0


class FakeRuntime(Runtime):
    """Answers every format without reading the file."""

    name = "fake"
    formats = ("fake", "onnx", "openvino", "tensorrt", "torch")

    @classmethod
    def status(cls) -> RuntimeStatus:
        return RuntimeStatus(True, lmedge.__version__, ("cpu",), "It runs no network.", "")

    def _open(self) -> None:
        self._script: deque[npt.NDArray[np.float32] | Exception] = deque()

    def script(self, *answers: npt.NDArray[np.floating] | Exception) -> None:
        """What the next calls of `infer` answer, in turn; afterwards answers are computed again.

        Args:
            answers: fractions of the crop, (K, 2) for every crop of the call or (N, K, 2); or an exception to raise.

        Raises:
            InputError: an array that does not end in (K, 2).
        """
        for answer in answers:
            if isinstance(answer, Exception):
                self._script.append(answer)
                continue
            fractions = np.asarray(answer, np.float32)
            if fractions.ndim not in (2, 3) or fractions.shape[-2:] != (self._num_points, 2):
                raise InputError(f"A scripted answer must end in ({self._num_points}, 2); got {fractions.shape}.")
            self._script.append(fractions)

    @property
    def _num_points(self) -> int:
        return int(self.outputs[0].shape[1])

    def _infer(self, feeds: Results) -> Results:
        crops = feeds[self.inputs[0].name]
        if not self._script:
            return {self.outputs[0].name: np.stack([brightness_centres(crop, self._num_points) for crop in crops])}
        answer = self._script.popleft()
        if isinstance(answer, Exception):
            raise answer
        fractions = answer if answer.ndim == 3 else np.repeat(answer[None], len(crops), axis=0)
        if len(fractions) != len(crops):
            raise InputError(f"The scripted answer is for {len(fractions)} crops; the call has {len(crops)}.")
        return {self.outputs[0].name: fractions.copy()}


def brightness_centres(crop_bgr: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.float32]:
    """`count` points (count, 2) as fractions of a crop (H, W, 3): each the centre of brightness of its own cell."""
    height, width = crop_bgr.shape[:2]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    points = np.empty((count, 2), np.float32)
    for index in range(count):
        row, column = divmod(index, columns)
        top, bottom = row * height // rows, (row + 1) * height // rows
        left, right = column * width // columns, (column + 1) * width // columns
        cell = crop_bgr[top:bottom, left:right].astype(np.float64) + 1  # never all zero
        along_x, along_y = cell[:, :, _BLUE].sum(axis=0), cell[:, :, _RED].sum(axis=1)
        points[index, 0] = (along_x @ np.arange(left, right) / along_x.sum() + 0.5) / width
        points[index, 1] = (along_y @ np.arange(top, bottom) / along_y.sum() + 0.5) / height
    return points


def fake_bundle(folder: Path, schema: LandmarkSchema = IBUG_68, spec: PreprocessSpec | None = None) -> Bundle:
    """Writes a complete bundle with digests and golden vectors that only `FakeRuntime` can run.

    Raises:
        LmedgeError: the folder cannot be written.
    """
    spec = spec or PreprocessSpec()
    source = folder.parent / f".{folder.name}.source"
    file = source / "model.fp32.fake"
    write_atomically(file, f"{schema.num_points} centres of brightness\n")
    inputs, outputs = network_specs(spec, schema)
    artifact = Artifact.of_file(
        file, source, format="fake", precision="fp32", inputs=inputs, outputs=outputs, serves={"fake": (ANY_ARCH,)}
    )
    frames, boxes_xyxy = _golden_frames()
    golden = Golden.record(
        frames, boxes_xyxy, spec, lambda crops: np.stack([brightness_centres(crop, schema.num_points) for crop in crops])
    )
    manifest = Manifest(name=f"fake-{schema.name}", schema=schema, preprocess=spec, artifacts=(artifact,))
    bundle = write_bundle(folder, manifest, golden.to_bytes())
    file.unlink()
    source.rmdir()
    return bundle


def _golden_frames() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Two frames of coloured noise, smooth enough that a shift moves the centres, with a box each."""
    rng = np.random.default_rng(_GOLDEN_SEED)
    coarse = rng.integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)
    frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return frames, np.array([[30.0, 20.0, 140.0, 130.0], [60.5, 40.25, 170.5, 150.75]])
