"""What a fresh Python would send to the makers of OpenVINO and NNCF. The sender is replaced, so that a test sends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.requirements import REPOSITORY

_COUNT_EVENTS = """
import sys
from openvino_telemetry.backend.backend_ga4 import GA4Backend
sent = []
GA4Backend.send = lambda self, message: sent.append(message)
{how}
from openvino_telemetry.main import Telemetry
if Telemetry._SingletonMetaClass__single_instance is not None:
    Telemetry().force_shutdown(5)
print(len(sent))
"""


def fresh_run(how: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Runs `how` as on a user's machine: no CI, no choice made before. The last line on stdout is the number of events sent."""
    kept = {key: value for key, value in os.environ.items() if key not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    return subprocess.run(
        [sys.executable, "-c", _COUNT_EVENTS.format(how=how)],
        env={**kept, "HOME": str(home), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def events(how: str, home: Path) -> int:
    """How many events `how` sends."""
    return int(fresh_run(how, home).stdout.split()[-1])
