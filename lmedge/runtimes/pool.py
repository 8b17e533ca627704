"""Many images on many cores: a landmarker of its own for each of several threads.

    with LandmarkerPool("zoo:ibug68_fast", workers=4, precision="int8") as pool:
        for faces in pool.map((image, boxes) for image, boxes in images):
            ...

For one camera a single landmarker answers sooner. Engines and OpenCV work outside of Python's lock, so threads are enough.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Bundle
from lmedge.errors import InputError
from lmedge.landmarks import FaceBox, Landmarks
from lmedge.preprocess import REFERENCE
from lmedge.runtimes.base import is_count
from lmedge.runtimes.choice import AUTO, choose_engine
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.ownership import Owner

Boxes = npt.ArrayLike | Sequence[FaceBox]
Job = tuple[npt.NDArray[np.uint8], Any, str, "Future[list[Landmarks]]"]

# Jobs that wait for each worker: enough that none is idle, few enough that images do not pile up in memory.
_WAITING_PER_WORKER = 2


class LandmarkerPool:
    """Threads with a landmarker each. Any thread may give it work; answers are the same as one landmarker's, bit for bit."""

    def __init__(self, bundle: Bundle | str | Path, workers: int, *, threads: int | None = 1, **options: Any) -> None:
        """Opens all landmarkers; returns when the last one is ready.

        Args:
            bundle: as for `FaceLandmarker.open`.
            workers: how many, usually one per core.
            threads: of each engine; more than one makes workers wait for each other's cores.
            options: the others of `FaceLandmarker.open`.

        Raises:
            InputError: less than one worker.
            LmedgeError: as `FaceLandmarker.open`; no thread is left behind.
        """
        if not is_count(workers, 1):
            raise InputError(f"A pool needs at least 1 worker, a whole number of them; got {workers!r}.")
        self._jobs: queue.Queue[Job | None] = queue.Queue(_WAITING_PER_WORKER * workers)
        self._closed = False
        self._closing = threading.Lock()
        opened: list[Future[None]] = [Future() for _ in range(workers)]
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        options = _chosen_once(bundle, {"threads": threads, **options})
        self._owner = Owner()
        self._threads = [
            threading.Thread(target=self._work, args=(bundle, options, ready), name=f"landmarker-{number}", daemon=True)
            for number, ready in enumerate(opened, 1)
        ]
        for thread in self._threads:
            thread.start()
        failures = [error for error in (ready.exception() for ready in opened) if error is not None]
        if failures:
            self.close()
            raise failures[0]

    @property
    def workers(self) -> int:
        """How many landmarkers there are."""
        return len(self._threads)

    def submit(self, image_bgr: npt.NDArray[np.uint8], boxes_xyxy: Boxes, box_kind: str = REFERENCE) -> Future[list[Landmarks]]:
        """Hands over an image, which must not change before its answer is there; waits while too many others wait.

        Args:
            image_bgr, boxes_xyxy, box_kind: as for `FaceLandmarker.predict`, whose errors the future raises.

        Raises:
            InputError: the pool is closed; OwnershipError: this process was forked from the pool's.
        """
        self._owner.check_process("pool of landmarkers")
        answer: Future[list[Landmarks]] = Future()
        # Under the lock, so that no job comes behind the ones that end the workers.
        with self._closing:
            if self._closed:
                raise InputError("This pool of landmarkers is closed. Open a new one.")
            self._jobs.put((image_bgr, boxes_xyxy, box_kind, answer))
        return answer

    def map(
        self, images: Iterable[tuple[npt.NDArray[np.uint8], Boxes]], box_kind: str = REFERENCE
    ) -> Iterator[list[Landmarks]]:
        """The faces of each image, in the order of the images; of these only as many are taken as can be worked on.

        Raises:
            InputError: the pool is closed, or an image cannot be used.
            EngineError: an engine failed.
        """
        waiting: deque[Future[list[Landmarks]]] = deque()
        for image_bgr, boxes_xyxy in images:
            waiting.append(self.submit(image_bgr, boxes_xyxy, box_kind))
            while waiting and (waiting[0].done() or len(waiting) > (1 + _WAITING_PER_WORKER) * self.workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        """Waits for the work that was handed over, and frees the engines; closing twice is fine."""
        if not self._owner.is_of_this_process:
            return
        with self._closing:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> LandmarkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, bundle: Bundle, options: dict[str, Any], ready: Future[None]) -> None:
        try:
            landmarker = FaceLandmarker.open(bundle, **options)
        except BaseException as error:
            ready.set_exception(error)
            # Whatever ends the others ends this one too.
            self._jobs.get()
            return
        ready.set_result(None)
        with landmarker:
            while (job := self._jobs.get()) is not None:
                *image_and_boxes, answer = job
                if not answer.set_running_or_notify_cancel():
                    continue
                try:
                    answer.set_result(landmarker.predict(*image_and_boxes))
                except BaseException as error:
                    answer.set_exception(error)


def _chosen_once(bundle: Bundle, options: dict[str, Any]) -> dict[str, Any]:
    """The options with "auto" replaced by what it stands for: workers that measure together would measure each other."""
    if options.get("backend") != AUTO:
        return options
    asked = {name: options.get(name) for name in ("precision", "device", "threads", "dialect")}
    choice = choose_engine(bundle, **asked)
    artifact = choice.artifact
    found = {"backend": choice.backend, "precision": artifact.precision, "dialect": artifact.dialect, "device": choice.device}
    return {**options, **found}
