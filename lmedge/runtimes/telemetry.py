"""Keeps engines from reporting home.

``import openvino`` sends a usage event to Google Analytics and writes an identifier below ``~/intel`` wherever the package
openvino_telemetry is installed, and OpenVINO's wheel requires it; NNCF does the same for every call. Both fall back to an
empty stand-in when that package cannot be imported, so inside `telemetry_off` it cannot. Nothing on disk changes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "openvino_telemetry"


@contextmanager
def telemetry_off() -> Iterator[None]:
    """While this lasts, no module finds openvino_telemetry. Import OpenVINO and NNCF for the first time inside it.

    What was imported before keeps the sender it has: a program that imported OpenVINO itself has decided for itself.
    """
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _PACKAGE}
    for name in hidden:
        del sys.modules[name]
    sys.modules[_PACKAGE] = None  # type: ignore[assignment]  # documented: makes the import raise ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]
        sys.modules.update(hidden)
