"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lmedge.bundle import machine_arch
from lmedge.runtimes.cuda_driver import probe_driver

_PACKAGES = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "cuda-bindings",
    "tensorrt",
    "torch",
)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, system, Python, versions of engines. Plain data.

    Where there is an NVIDIA driver, also "gpus", the names of its devices, and "cuda_driver", the newest CUDA it runs.
    """
    driver = probe_driver()
    gpus = {"gpus": [gpu.name for gpu in driver.devices], "cuda_driver": driver.version} if driver.devices else {}
    return {
        "cpu": _cpu_model(),
        "arch": machine_arch(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        **gpus,
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware"))]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
