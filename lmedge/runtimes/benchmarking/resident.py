"""Resident memory of this process (Linux, proc_pid_status(5))."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_mib(status: Path = _STATUS) -> float | None:
    """What it holds now; None where the system does not tell."""
    return _field(status, "VmRSS:")


def peak_resident_mib(status: Path = _STATUS) -> float | None:
    """The most it has held; None where the system does not tell."""
    return _field(status, "VmHWM:")


def _field(status: Path, name: str) -> float | None:
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(name)]
    return round(int(found[0][1]) / 1024, 2) if found and found[0][1].isdecimal() else None
