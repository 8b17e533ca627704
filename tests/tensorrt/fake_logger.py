"""TensorRT's loggers: the base class that lmedge subclasses, the ready one, and how the library speaks to either."""

from __future__ import annotations

import weakref
from typing import Any

from tests.tensorrt.fake_gpu import Crash, FakeGpu
from tests.tensorrt.fake_pybind import Played


class ILogger(Played):
    """Subclassed by the caller, who must call `ILogger.__init__` and give `log`."""

    _sealed = False

    def __init__(self) -> None:
        self._started = True

    def log(self, severity: Any, msg: str) -> None:
        self._gpu.faults.append('Tried to call pure virtual function "ILogger::log"')


class Logger(Played):
    """Writes to the terminal what is at least as severe as `min_severity`."""

    _sealed = False

    def __init__(self, min_severity: Any = None) -> None:
        self._started = True
        self._least = self._trt.ILogger.Severity.WARNING if min_severity is None else min_severity

    @property
    def min_severity(self) -> Any:
        return self._least

    @min_severity.setter
    def min_severity(self, severity: Any) -> None:
        self._least = severity

    def log(self, severity: Any, msg: str) -> None:
        if int(severity) <= int(self._least):
            self._gpu.terminal.append(f"[{severity.name}] {msg}")


def check_logger(owner: Any, kind: str, logger: Any) -> None:
    """Refuses what is no logger, and one whose base class was not started.

    Raises:
        TypeError: with pybind11's words.
    """
    if not isinstance(logger, owner._trt.ILogger):
        raise TypeError(
            f"__init__(): incompatible constructor arguments. The following argument types are supported:\n"
            f"    1. tensorrt.tensorrt.{kind}(logger: tensorrt.tensorrt.ILogger)\n\nInvoked with: {logger!r}"
        )
    if not getattr(logger, "_started", False):
        raise TypeError("tensorrt.tensorrt.ILogger.__init__() must be called when overriding __init__")


class Reporter:
    """Speaks to a logger that the caller must keep alive for as long as anything uses it.

    Args:
        owner: a Builder or Runtime; None for a parser. While any of them lives, the library as a whole (its plugins, say)
            speaks to the logger of the first, by a bare pointer. A later one with another logger warns of that.
    """

    def __init__(self, gpu: FakeGpu, logger: Any, owner: Any = None) -> None:
        self._gpu = gpu
        self._severities = logger._trt.ILogger.Severity
        self._logger = weakref.ref(logger)
        if owner is None:
            return
        others = {reporter._logger for reporter in gpu.reporters.values()} - {self._logger}
        if not gpu.reporters:
            gpu.first_logger = weakref.ref(logger, self._first_is_gone)
        gpu.reporters[owner] = self
        if others:
            self.warning(
                f"The logger passed into createInfer{type(owner).__name__} differs from one already registered for an existing "
                "builder, runtime, or refitter. So the current new logger is ignored, and TensorRT will use the existing one "
                "which is returned by nvinfer1::getLogger() instead"
            )

    def _first_is_gone(self, first: Any) -> None:
        if first is self._gpu.first_logger and any(reporter._logger() for reporter in self._gpu.reporters.values()):
            self._gpu.faults.append("the logger that TensorRT was given first was freed, and TensorRT still points to it")

    @property
    def logger(self) -> Any:
        """The caller's logger.

        Raises:
            Crash: it was freed.
        """
        if (logger := self._logger()) is None:
            raise Crash("The logger was freed while TensorRT still uses it. Keep a reference to it.")
        return logger

    def error(self, message: str) -> None:
        self._say("ERROR", message)

    def warning(self, message: str) -> None:
        self._say("WARNING", message)

    def info(self, message: str) -> None:
        self._say("INFO", message)

    def _say(self, severity: str, message: str) -> None:
        try:
            self.logger.log(getattr(self._severities, severity), message)
        except Exception as error:  # the library catches it, prints it and goes on
            self._gpu.faults.append(f"Exception caught in log(): {error!r}")
