"""How often the system took the processor away from this process while it could have gone on: others ran on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Interruptions:
    """`count` is set when the block ends; None where the system does not tell."""

    count: int | None = None


@contextmanager
def count_interruptions() -> Iterator[Interruptions]:
    """Counts involuntary context switches (getrusage(2), ru_nivcsw) of all threads of this process."""
    found, before = Interruptions(), _switches()
    yield found
    after = _switches()
    found.count = None if before is None or after is None else after - before


def _switches() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
