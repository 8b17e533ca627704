"""What TensorRT says. It wants one logger for the whole process, so there is one, and several logs that listen to it.

A Builder or Runtime speaks to its own logger, the library as a whole (its plugins, say) to the first it was given, by a bare
pointer: once that logger is freed while any Builder or Runtime lives, the process ends at the next word.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any
from weakref import WeakValueDictionary

_KEPT_LINES = 100
_SHOWN_LINES = 6
# The module that loaded TensorRT keeps the logger under this name: it lives as long.
_KEPT_AS = "_lmedge_logger"
# Another program in this process came first. Nothing is wrong then, and nothing follows from it.
_NOT_FIRST = "differs from one already registered"


class EngineLog:
    """What TensorRT says while this is kept, newest last.

    It hears what the thread that made it brings about. What TensorRT's own threads say, every log hears.

    Attributes:
        logger: the object to give to TensorRT.
    """

    def __init__(self, tensorrt: Any) -> None:
        self.logger = _the_logger(tensorrt)
        self._thread = threading.get_ident()
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self.logger.listening[id(self)] = self

    @property
    def lines(self) -> tuple[str, ...]:
        """All that is kept, oldest first."""
        return tuple(self._kept)

    @property
    def tail(self) -> str:
        """The last warnings and errors in one line, or "" when there was none."""
        return " | ".join(dict.fromkeys(list(self._kept)[-_SHOWN_LINES:]))

    def forget(self) -> None:
        """Drops all that was said so far: what comes now belongs to what is done now."""
        self._kept.clear()


def _the_logger(tensorrt: Any) -> Any:
    """The logger of this process, which is never freed."""
    severity_of = tensorrt.ILogger.Severity
    told = (severity_of.INTERNAL_ERROR, severity_of.ERROR, severity_of.WARNING)

    class Collector(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.listening: WeakValueDictionary[int, EngineLog] = WeakValueDictionary()

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(str(message).split())
            if severity not in told or _NOT_FIRST in line:
                return
            # `valuerefs` copies in one step: other threads begin to listen at any moment.
            every = [log for reference in self.listening.valuerefs() if (log := reference()) is not None]
            here = [log for log in every if log._thread == threading.get_ident()]
            for log in here or every:
                log._kept.append(line)

    kept = vars(tensorrt)
    return kept[_KEPT_AS] if _KEPT_AS in kept else kept.setdefault(_KEPT_AS, Collector())
