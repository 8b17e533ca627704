"""From an image and face boxes to landmarks: the one class that an application needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import CONFIDENCE, LANDMARKS, Bundle
from lmedge.errors import InputError, LmedgeError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.preprocess import REFERENCE, PreprocessSpec, check_box_in_image, check_image, crop_transform, warp
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.checks import select_here
from lmedge.schemas import LandmarkSchema


class FaceLandmarker:
    """A bundle, opened on one engine. It belongs to the thread that opened it; close it, or use it in a ``with`` block.

    Attributes:
        bundle: where the network comes from.
        runtime: the engine that runs it, compiled for one face per call.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle = bundle
        self.runtime = runtime
        self._input = runtime.inputs[0].name
        self._num_points = bundle.manifest.schema.num_points

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        *,
        backend: str = "onnxruntime",
        precision: str = "fp32",
        device: str | None = None,
        threads: int | None = None,
        dialect: str | None = None,
    ) -> FaceLandmarker:
        """Opens a bundle on exactly this engine, precision and device; there is no fallback.

        Args:
            bundle: an opened bundle, its folder, or a trained one as "zoo:ibug68".
            backend: one of `lmedge.runtimes.runtime_names()`.
            precision: "fp32", "fp16", "int8" or "fp16-int8", where the bundle has it.
            device: one of the backend's `status().devices`; None is the CPU, for an engine without it its first device.
            threads: of CPU engines; None leaves the engine's default.
            dialect: overrides which of several files of a precision is taken; see `select_here`.

        Raises:
            BundleError: no bundle there, or nothing in it for this backend and precision.
            BackendUnavailableError: the engine is not installed (or, DeviceUnavailableError, has no such device).
            DigestMismatchError: the file is not the one the manifest promises.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        adapter = find_runtime(backend)
        artifact = select_here(opened, backend, precision, dialect=dialect, device=device)
        return cls(opened, adapter.open(artifact, device=device, threads=threads, batch=1))

    @property
    def schema(self) -> LandmarkSchema:
        """What the points are."""
        return self.bundle.manifest.schema

    @property
    def spec(self) -> PreprocessSpec:
        """How crops are made."""
        return self.bundle.manifest.preprocess

    def predict(
        self, image_bgr: npt.NDArray[np.uint8], boxes_xyxy: npt.ArrayLike | Sequence[FaceBox], box_kind: str = REFERENCE
    ) -> list[Landmarks]:
        """The landmarks of each face, in the order of the boxes.

        Args:
            image_bgr: uint8 (H, W, 3) BGR of any stride; gray (H, W) is replicated.
            boxes_xyxy: (N, 4) x_min, y_min, x_max, y_max in pixels, or a list of `FaceBox`, each with its own kind. N may be 0.
            box_kind: who drew the boxes of an array; the bundle knows how each kind frames a face.

        Raises:
            InputError: an image or a box that cannot be used; a kind the bundle has no fit for; the landmarker is closed.
            LmedgeError: the engine answered something that is not a number.
        """
        boxes = face_boxes(boxes_xyxy, box_kind)
        image = check_image(image_bgr)
        for box in boxes:
            check_box_in_image(box, (image.shape[0], image.shape[1]))
        return [self._predict_face(image, box) for box in boxes]

    def _predict_face(self, image_bgr: npt.NDArray[np.uint8], box: FaceBox) -> Landmarks:
        transform = crop_transform(box, self.spec)
        crop = warp(image_bgr, transform, self.spec.border_value)
        results = self.runtime.infer({self._input: crop[None]})
        fractions = results[LANDMARKS][0]
        if not np.isfinite(fractions).all():
            raise LmedgeError(
                f"{self.runtime.name} answered NaN or infinity for {self.runtime.artifact.path}. "
                f"Check the bundle on this machine: lmedge verify {self.bundle.root} --backend {self.runtime.name}"
            )
        confidence = results.get(CONFIDENCE)
        points_px = transform.from_fractions(fractions).astype(np.float32)
        return Landmarks(points_px, self.schema, box, None if confidence is None else confidence[0])

    def close(self) -> None:
        """Frees the engine; closing twice is fine."""
        self.runtime.close()

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def face_boxes(boxes_xyxy: Any, kind: str = REFERENCE) -> list[FaceBox]:
    """Boxes (N, 4) as an array or nested list, or a list of `FaceBox`, as a list of checked boxes.

    Raises:
        InputError: another shape, or a box without area.
    """
    if isinstance(boxes_xyxy, Sequence) and all(isinstance(box, FaceBox) for box in boxes_xyxy):
        return list(boxes_xyxy)
    try:
        array = np.asarray(boxes_xyxy, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"Boxes must be numbers of shape (N, 4): x_min, y_min, x_max, y_max; {error}.") from error
    if array.size == 0:
        return []
    if array.ndim != 2 or array.shape[1] != 4:
        cure = " For one box, give [box]." if array.shape == (4,) else ""
        raise InputError(f"Boxes must have the shape (N, 4): x_min, y_min, x_max, y_max; got {array.shape}.{cure}")
    return [FaceBox(x_min, y_min, x_max, y_max, kind=kind) for x_min, y_min, x_max, y_max in array.tolist()]
