"""From an image and face boxes to landmarks: the one class that an application needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Bundle
from lmedge.errors import EngineError, InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.preprocess import REFERENCE, PreprocessSpec
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import Runtime, is_count
from lmedge.runtimes.checks import select_here
from lmedge.runtimes.choice import AUTO, EngineChoice, choose_engine
from lmedge.runtimes.crops import CropBatch, CutFaces
from lmedge.runtimes.engine_set import EngineSet
from lmedge.runtimes.self_test import NOT_ASKED, SelfTest, self_test_engine
from lmedge.schemas import LandmarkSchema

# Engines take memory and clocks rise in their first calls.
_WARM_UP = 3


class FaceLandmarker:
    """A bundle, opened on one engine. It belongs to the thread that opened it; close it, or use it in a ``with`` block.

    Attributes:
        bundle: where the network comes from.
        runtime: the engine that runs it, for the first of the batch sizes.
        self_test: whether the engine was held to the bundle's golden answers when it was opened.
        choice: how ``backend="auto"`` chose the engine; None where the caller named it.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        """Takes an opened engine as it is, and closes it in the end; `open` does more.

        Args:
            runtime: for any batch size, or for one; a network of the bundle.
        """
        self.bundle = bundle
        self.runtime = runtime
        self.self_test: SelfTest = NOT_ASKED
        self.choice: EngineChoice | None = None
        self._use(EngineSet(runtime))

    def _use(self, engines: EngineSet) -> None:
        self._engines = engines
        self._cutter = CropBatch(self.bundle.manifest.preprocess, max(engines.sizes, default=1))

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        *,
        backend: str = "onnxruntime",
        precision: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        dialect: str | None = None,
        batches: Sequence[int] = (1,),
        ahead: bool = True,
        self_test: bool = True,
        warm_up: int = _WARM_UP,
    ) -> FaceLandmarker:
        """Opens a bundle on exactly this engine, precision and device; there is no fallback.

        Args:
            bundle: an opened bundle, its folder, or a trained one as "zoo:ibug68_fast".
            backend: one of `lmedge.runtimes.runtime_names()`; or "auto", the fastest that is right on this machine: measured
                once, and remembered, see `lmedge.runtimes.choice`. `choice` says which.
            precision: "fp32", "fp16", "int8" or "fp16-int8", where the bundle has it. None is "fp32" for a named backend, and
                any for "auto".
            device: one of the backend's `status().devices`; None is the CPU, for an engine without it its first device.
            threads: of CPU engines; None leaves the engine's default.
            dialect: overrides which of several files of a precision is taken; see `select_here`.
            batches: numbers of faces per call that engines are compiled for. With (1, 4), seven faces are a call for four and
                three for one each; without 1 among them, the last call is filled up. More of them take more memory.
            ahead: compile all of them now; else the first, and the others when so many faces first appear.
            self_test: hold every engine to the bundle's golden answers before it is used; some milliseconds.
            warm_up: calls of every engine before the first that counts.

        Raises:
            BundleError: no bundle there, or nothing in it for this backend and precision.
            BackendUnavailableError: the engine is not installed (or, DeviceUnavailableError, has no such device).
            DigestMismatchError: the file is not the one the manifest promises.
            ParityError: the engine does not give the golden answers on this machine.
            InputError: threads, a batch size or their number below 1, or warm_up below 0.
        """
        sizes = batches if isinstance(batches, Sequence) else ()
        if not sizes or not all(is_count(size, 1) for size in sizes) or not is_count(warm_up, 0):
            raise InputError(
                "batches must name at least one whole number of at least 1, as (1, 4), and warm_up be one of at least 0; "
                f"got {batches!r}, {warm_up!r}."
            )
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        choice = None
        if backend == AUTO:
            choice = choose_engine(opened, precision=precision, device=device, threads=threads, dialect=dialect)
            backend, artifact, device = choice.backend, choice.artifact, choice.device
        else:
            artifact = select_here(opened, backend, precision or "fp32", dialect=dialect, device=device)
        runtime = find_runtime(backend).open(artifact, device=device, threads=threads, batch=batches[0])
        landmarker = cls(opened, runtime)
        landmarker.choice = choice
        try:
            landmarker._prepare_all(batches, ahead, self_test, warm_up)
        except BaseException:
            landmarker.close()
            raise
        return landmarker

    def _prepare_all(self, batches: Sequence[int], ahead: bool, self_test: bool, warm_up: int) -> None:
        def prepare(runtime: Runtime) -> None:
            if self_test:
                self.self_test = self_test_engine(runtime, self.bundle)
            blank = np.zeros((runtime.batch or 1, *self.spec.input_hw, 3), np.uint8)
            for _ in range(warm_up):
                runtime.infer({runtime.inputs[0].name: blank})

        prepare(self.runtime)
        self._use(EngineSet(self.runtime, batches[1:], prepare))
        if ahead:
            self._engines.compile()

    @property
    def schema(self) -> LandmarkSchema:
        """What the points are."""
        return self.bundle.manifest.schema

    @property
    def spec(self) -> PreprocessSpec:
        """How crops are made."""
        return self.bundle.manifest.preprocess

    @property
    def ready_batches(self) -> tuple[int, ...]:
        """The numbers of faces per call that engines are compiled for by now."""
        return self._engines.ready

    def predict(
        self, image_bgr: npt.NDArray[np.uint8], boxes_xyxy: npt.ArrayLike | Sequence[FaceBox], box_kind: str = REFERENCE
    ) -> list[Landmarks]:
        """The landmarks of each face, in the order of the boxes. They own their memory.

        After an error the next call works as if nothing had been.

        Args:
            image_bgr: uint8 (H, W, 3) BGR of any stride; gray (H, W) is replicated.
            boxes_xyxy: (N, 4) x_min, y_min, x_max, y_max in pixels, or a list of `FaceBox`, each with its own kind. N may be 0.
            box_kind: who drew the boxes of an array; the bundle knows how each kind frames a face.

        Raises:
            InputError: an image or a box that cannot be used; a kind the bundle has no fit for; the landmarker is closed.
            OwnershipError: another thread opened the landmarker, or the process that this one was forked from.
            EngineError: the engine failed, or answered something that is not a number.
        """
        self.runtime.check_usable()
        return self.answer(self.cut(image_bgr, boxes_xyxy, box_kind))

    def cut(
        self, image_bgr: npt.NDArray[np.uint8], boxes_xyxy: npt.ArrayLike | Sequence[FaceBox], box_kind: str = REFERENCE
    ) -> CutFaces:
        """The first half of `predict`: afterwards the image is not needed any more. Only one image at a time can be in work.

        Another thread than the landmarker's own may call it, while that one does nothing.

        Raises:
            InputError: an image or a box that cannot be used; a kind the bundle has no fit for.
        """
        boxes = face_boxes(boxes_xyxy, box_kind)
        return self._cutter.cut(image_bgr, boxes, self._engines.room(len(boxes)))

    def answer(self, faces: CutFaces) -> list[Landmarks]:
        """The second half of `predict`: the landmarks of the faces that were cut last.

        Raises:
            InputError: the landmarker is closed; OwnershipError: another thread or process opened it.
            EngineError: the engine failed, or answered something that is not a number.
        """
        if not faces.boxes:
            return []
        answers = self._engines.answer(faces.crops, len(faces.boxes))
        fractions, sure = answers.fractions, answers.confidence
        # What is not a number is refused below; numbers without a place in float32 become infinite, and are refused too.
        with np.errstate(invalid="ignore", over="ignore"):
            points_px = [
                way.from_fractions(face).astype(np.float32) for way, face in zip(faces.transforms, fractions, strict=True)
            ]
        schema = self.schema
        try:
            return [
                Landmarks(points, schema, box, None if sure is None else sure[index])
                for index, (box, points) in enumerate(zip(faces.boxes, points_px, strict=True))
            ]
        except InputError as error:
            raise EngineError(
                f"{self.runtime.name} answered NaN, infinity, or a confidence outside 0 to 1 for {self.runtime.artifact.path}. "
                f"Check the bundle on this machine: lmedge verify {self.bundle.root} --backend {self.runtime.name}"
            ) from error

    def close(self) -> None:
        """Frees the engines; closing twice is fine."""
        self._engines.close()

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def face_boxes(boxes_xyxy: Any, kind: str = REFERENCE) -> list[FaceBox]:
    """Boxes (N, 4) as an array or nested list, or a list of `FaceBox`, as a list of checked boxes.

    Raises:
        InputError: another shape, or a box without area.
    """
    listed = not isinstance(boxes_xyxy, np.ndarray) and isinstance(boxes_xyxy, Sequence)
    if listed and all(isinstance(box, FaceBox) for box in boxes_xyxy):
        return list(boxes_xyxy)
    try:
        if np.iscomplexobj(boxes_xyxy):
            raise TypeError("they are complex")
        array = np.asarray(boxes_xyxy, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"Boxes must be numbers of shape (N, 4): x_min, y_min, x_max, y_max; {error}.") from error
    if array.size == 0:
        return []
    if array.ndim != 2 or array.shape[1] != 4:
        cure = " For one box, give [box]." if array.shape == (4,) else ""
        raise InputError(f"Boxes must have the shape (N, 4): x_min, y_min, x_max, y_max; got {array.shape}.{cure}")
    return [FaceBox(x_min, y_min, x_max, y_max, kind=kind) for x_min, y_min, x_max, y_max in array.tolist()]
