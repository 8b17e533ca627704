"""Streams, events and captured graphs: work is queued, and takes place when somebody waits for it, not before.

So a result that is read without waiting is still garbage, and work on two streams that nothing orders does not see each other.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.tensorrt import fake_gpu as codes
from tests.tensorrt.fake_gpu import CudaError, FakeGpu

Work = Callable[[], None]
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
_handles = itertools.count(0x5A00_0000, 0x10)


@dataclass
class Capture:
    """Work that a stream records instead of doing it."""

    mode: int
    thread: int
    work: list[Work] = field(default_factory=list)
    broken: bool = False


@dataclass
class Stream:
    """A queue of work; `capture` while it records."""

    kind: ClassVar[str] = "stream"
    device: int
    non_blocking: bool
    pending: deque[Work] = field(default_factory=deque)
    capture: Capture | None = None
    polls: int = 0


@dataclass
class Event:
    """A mark in a stream; done once the work before it is."""

    kind: ClassVar[str] = "event"
    timed: bool
    stream: Stream | None = None
    done: bool = True
    captured: bool = False
    recorded: bool = False
    clock_ms: float = 0.0
    polls: int = 0


@dataclass
class Graph:
    """What a capture gave."""

    kind: ClassVar[str] = "graph"
    work: tuple[Work, ...]


@dataclass
class GraphExec:
    """A graph that can be launched, on its own once it was made."""

    kind: ClassVar[str] = "executable graph"
    device: int
    work: tuple[Work, ...]


class Streams:
    """The streams of a machine."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._default: dict[int, Stream] = {}
        self._clock_ms = 0.0

    # ---- handles ----

    def open(self, resource: Any) -> int:
        """A handle for a new stream, event or graph."""
        handle = next(_handles)
        self._gpu.resources[handle] = resource
        return handle

    def get(self, handle: int, kind: type[Any]) -> Any:
        resource = self._gpu.resources.get(handle)
        if not isinstance(resource, kind):
            raise CudaError(codes.INVALID_HANDLE)
        return resource

    def close(self, handle: int, kind: type[Any]) -> Any:
        resource = self.get(handle, kind)
        del self._gpu.resources[handle]
        return resource

    def stream(self, handle: int) -> Stream:
        """The stream of a handle; 0 is the default stream of the thread's device."""
        if handle == 0:
            device = self._gpu.device_index()
            return self._default.setdefault(device, Stream(device, non_blocking=False))
        stream: Stream = self.get(handle, Stream)
        return stream

    # ---- work ----

    def submit(self, stream: Stream, work: Work) -> None:
        """Queues work, or records it where the stream captures."""
        if stream.capture is not None:
            if stream.capture.broken:
                raise CudaError(codes.CAPTURE_INVALIDATED)
            stream.capture.work.append(work)
        else:
            stream.pending.append(work)

    def run(self, stream: Stream, until: Event | None = None) -> None:
        """Does the queued work of a stream, all of it or up to an event."""
        while stream.pending and not (until is not None and until.done):
            work = stream.pending.popleft()
            if self._gpu.lost:
                raise CudaError(self._gpu.lost)
            if failure := self._gpu.failure("device"):
                self._gpu.lost = failure.code or codes.LAUNCH_FAILURE
                raise CudaError(self._gpu.lost)
            work()

    def run_all(self, device: int | None = None, *, only_blocking: bool = False) -> None:
        """Does the queued work of every stream of a device."""
        streams = [*self._default.values(), *(r for r in list(self._gpu.resources.values()) if isinstance(r, Stream))]
        for stream in streams:
            if (device is None or stream.device == device) and not (only_blocking and stream.non_blocking):
                self.run(stream)

    def record(self, event: Event, stream: Stream) -> None:
        event.stream, event.recorded, event.polls = stream, True, 0
        event.captured = stream.capture is not None
        event.done = False

        def mark() -> None:
            self._clock_ms += 0.25
            event.clock_ms, event.done = self._clock_ms, True

        self.submit(stream, mark)

    def wait_for(self, stream: Stream, event: Event) -> None:
        """Makes the work that follows on a stream wait for an event."""
        if event.stream is not None and event.stream is not stream and not event.done:
            other = event.stream
            self.submit(stream, lambda: self.run(other, until=event))

    # ---- capture ----

    def begin_capture(self, stream: Stream, mode: int) -> None:
        if stream.capture is not None:
            raise CudaError(codes.INVALID_VALUE)
        stream.capture = Capture(mode, threading.get_ident())

    def end_capture(self, stream: Stream) -> int:
        capture = stream.capture
        if capture is None:
            raise CudaError(codes.INVALID_VALUE)
        if capture.mode != RELAXED and capture.thread != threading.get_ident():
            raise CudaError(codes.CAPTURE_WRONG_THREAD)
        stream.capture = None
        if capture.broken:
            raise CudaError(codes.CAPTURE_INVALIDATED)
        return self.open(Graph(tuple(capture.work)))

    def forbid_while_capturing(self, stream: Stream | None = None) -> None:
        """Breaks the captures that a waiting or allocating call disturbs; with a stream, only if that one captures."""
        for other in [r for r in self._gpu.resources.values() if isinstance(r, Stream) and r.capture is not None]:
            capture = other.capture
            assert capture is not None
            mine = capture.thread == threading.get_ident()
            disturbed = capture.mode == GLOBAL or (capture.mode == THREAD_LOCAL and mine)
            if (stream is None and disturbed) or stream is other:
                capture.broken = True
                raise CudaError(codes.CAPTURE_UNSUPPORTED)
