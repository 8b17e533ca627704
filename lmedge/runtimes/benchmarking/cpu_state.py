"""How fast the processor runs at this moment, and who decides that (Linux cpufreq).

A governor that lowers the clock between frames makes every frame of a camera slower than those of a loop without pauses.
https://docs.kernel.org/admin-guide/pm/cpufreq.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SYSTEM = Path("/sys/devices/system/cpu")
# Jetson's power mode ("pmode:0000").
_NVPMODEL = Path("/var/lib/nvpmodel/status")
FIXED = "performance"


def cpu_state(system: Path = _SYSTEM, nvpmodel: Path = _NVPMODEL) -> dict[str, Any]:
    """Plain data: "load" (of the last minute), and where the system tells them "mhz" and "limits_mhz" (lowest and highest over
    all cores), "governors", "boost", "power_mode".

    Without frequencies there is "reason" instead.
    """
    state: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}
    folders = sorted(system.glob("cpu[0-9]*/cpufreq"))
    current = list(_megahertz(folders, "scaling_cur_freq"))
    if current:
        state["mhz"] = [min(current), max(current)]
    else:
        state["reason"] = f"{system}/cpu*/cpufreq has no frequencies: a virtual machine or container does not show them"
    limits = [*_megahertz(folders, "scaling_min_freq"), *_megahertz(folders, "scaling_max_freq")]
    if limits:
        state["limits_mhz"] = [min(limits), max(limits)]
    governors = sorted({text for folder in folders if (text := _read(folder / "scaling_governor"))})
    if governors:
        state["governors"] = governors
    boost = _boost(system)
    if boost is not None:
        state["boost"] = boost
    mode = _read(nvpmodel)
    if mode:
        state["power_mode"] = mode
    return state


def clock_note(state: dict[str, Any]) -> str:
    """What a governor other than "performance" means for figures measured under it; "" where there is nothing to say."""
    others = [name for name in state.get("governors", ()) if name != FIXED]
    if not others:
        return ""
    return (
        f"The clock follows the load (governor {', '.join(others)}), so pauses between frames make them slower. "
        f"For steady figures: sudo cpupower frequency-set --governor {FIXED}, on Jetson sudo jetson_clocks"
    )


def _megahertz(folders: list[Path], name: str) -> Iterator[int]:
    for folder in folders:
        text = _read(folder / name)
        if text.isdecimal():
            yield round(int(text) / 1000)


def _boost(system: Path) -> bool | None:
    boost, no_turbo = _read(system / "cpufreq" / "boost"), _read(system / "intel_pstate" / "no_turbo")
    if boost in ("0", "1"):
        return boost == "1"
    return no_turbo == "0" if no_turbo in ("0", "1") else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
