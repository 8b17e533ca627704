"""The energy meters of this machine, and why there are no others."""

from __future__ import annotations

from pathlib import Path

from lmedge.runtimes.benchmarking.energy import EnergyMeter
from lmedge.runtimes.benchmarking.ina3221 import find_ina3221
from lmedge.runtimes.benchmarking.nvml import find_nvml
from lmedge.runtimes.benchmarking.rapl import find_rapl

_SYSTEM_CLASSES = Path("/sys/class")


def find_meters(device: str, classes: Path = _SYSTEM_CLASSES) -> tuple[list[EnergyMeter], str]:
    """Meters that count what an engine on this device uses, and the reasons where there is none.

    Args:
        device: as `Runtime.device` names it; the meters of GPUs say nothing of a CPU engine.
    """
    rapl, no_rapl = find_rapl(classes / "powercap")
    board, no_board = find_ina3221(classes / "hwmon")
    meters: list[EnergyMeter] = [*rapl, *board]
    reasons = [no_rapl, no_board]
    if device.partition(":")[0] == "cuda":
        gpus, no_gpu = find_nvml()
        meters += gpus
        reasons.append(no_gpu)
    return meters, "" if meters else "; ".join(reason for reason in reasons if reason)
