"""One network in engines for several batch sizes: any number of crops is answered by calls of these sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lmedge.bundle import CONFIDENCE, LANDMARKS
from lmedge.errors import InputError
from lmedge.runtimes.answers import Answers
from lmedge.runtimes.base import Runtime


class EngineSet:
    """Engines of the same file, device and threads, each compiled for its own batch size.

    Attributes:
        first: the engine that was opened first; the others are opened like it.
        sizes: the batch sizes that are used, largest first; empty where the first engine takes any.
    """

    def __init__(self, first: Runtime, batches: Sequence[int] = (), prepare: Callable[[Runtime], None] | None = None) -> None:
        """
        Args:
            first: an opened engine, which this set closes.
            batches: further batch sizes; they are compiled when they are first needed, or by `compile`.
            prepare: what is done with each of these before its first call; an engine for which it raises is not used.

        Raises:
            InputError: a size below 1, or sizes beside an engine that takes any.
        """
        if any(size < 1 for size in batches) or (first.batch is None and batches):
            raise InputError(f"Batch sizes must be at least 1, for an engine with a fixed batch; got {tuple(batches)}.")
        self.first = first
        self.sizes = () if first.batch is None else tuple(sorted({first.batch, *batches}, reverse=True))
        self._engines = {first.batch: first}
        self._prepare = prepare
        self._input = first.inputs[0].name

    @property
    def ready(self) -> tuple[int, ...]:
        """The batch sizes whose engines are compiled."""
        return tuple(engine.batch for engine in self._engines.values() if engine.batch is not None)

    def compile(self) -> None:
        """Makes every size ready now.

        Raises:
            LmedgeError: as `Runtime.open`.
        """
        for size in self.sizes:
            self._engine(size)

    def room(self, count: int) -> int:
        """How many crops `answer` wants for `count` faces: where no size fits the rest, the last call is filled up."""
        return sum(self._calls(count))

    def answer(self, crops: npt.NDArray[np.uint8], count: int) -> Answers:
        """What the network says of the first `count` of crops uint8 (room(count), h, w, 3). The caller owns it.

        Raises:
            EngineError: an engine failed.
            LmedgeError: a size that was not compiled before cannot be: the bundle's file is gone.
        """
        exact = self._engines.get(count)
        if exact is not None and len(crops) == count:
            only = exact.infer({self._input: crops})
            return Answers(only[LANDMARKS], only.get(CONFIDENCE))
        parts = []
        start = 0
        for size in self._calls(count):
            parts.append(self._engine(size if self.sizes else None).infer({self._input: crops[start : start + size]}))
            start += size
        joined = parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        confidence = joined.get(CONFIDENCE)
        return Answers(joined[LANDMARKS][:count], None if confidence is None else confidence[:count])

    def close(self) -> None:
        """Frees all engines; closing twice is fine."""
        for engine in self._engines.values():
            engine.close()

    def _calls(self, count: int) -> list[int]:
        """The batch sizes of the calls for `count` faces: the largest that fit, and for a rest the smallest."""
        if not self.sizes:
            return [count]
        calls: list[int] = []
        for size in self.sizes:
            calls += [size] * (count // size)
            count %= size
        return [*calls, self.sizes[-1]] if count else calls

    def _engine(self, size: int | None) -> Runtime:
        engine = self._engines.get(size)
        if engine is None:
            self.first.check_usable()
            like = self.first
            engine = type(like).open(like.artifact, device=like.device, threads=like.threads, batch=size)
            try:
                if self._prepare is not None:
                    self._prepare(engine)
            except BaseException:
                engine.close()
                raise
            self._engines[size] = engine
        return engine
