"""The way of a fresh process to its first answer; `lmedge.runtimes.benchmarking.cold_start` starts it.

    python -m lmedge.runtimes.benchmarking.first_answer '{"bundle": "...", "backend": "openvino", ...}'

It writes one JSON document to stdout: times of the monotonic clock, which all processes of a machine share, and memory.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from lmedge.bundle import Bundle
from lmedge.errors import LmedgeError
from lmedge.runtimes.benchmarking.resident import peak_resident_mib, resident_mib
from lmedge.runtimes.benchmarking.scene import BOX_PX, FRAME_HW
from lmedge.runtimes.landmarker import FaceLandmarker


def first_answer(wanted: dict[str, Any]) -> dict[str, Any]:
    """Opens and predicts once.

    Args:
        wanted: "bundle" (its folder), and as `FaceLandmarker.open` takes them "backend", "precision", "dialect", "device",
            "threads".
    """
    imported_ns, before_mib = time.monotonic_ns(), resident_mib()
    options = {name: value for name, value in wanted.items() if name != "bundle"}
    with FaceLandmarker.open(Bundle.open(wanted["bundle"]), **options) as landmarker:
        opened_ns = time.monotonic_ns()
        landmarker.predict(np.full((*FRAME_HW, 3), 128, np.uint8), [[0.0, 0.0, BOX_PX, BOX_PX]])
        answered_ns, after_mib = time.monotonic_ns(), resident_mib()
    return {
        "imported_ns": imported_ns,
        "opened_ns": opened_ns,
        "answered_ns": answered_ns,
        "before_mib": before_mib,
        "after_mib": after_mib,
        "peak_mib": peak_resident_mib(),
    }


def main() -> None:
    """Ends with 1, and the error as the document, where there is no answer."""
    try:
        document, code = first_answer(json.loads(sys.argv[1])), 0
    except LmedgeError as error:
        document, code = {"error": str(error)}, 1
    sys.stdout.write(json.dumps(document))
    sys.exit(code)


if __name__ == "__main__":
    main()
