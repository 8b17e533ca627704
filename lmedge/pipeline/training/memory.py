"""Keeps the memory of training tensors in the process.

Every step allocates and frees the same few hundred megabytes. glibc hands large blocks back to the system at once, and each
page then faults again: on a virtual machine that cost up to half of the training time, in bursts of tens of seconds.
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h>: parameters of mallopt(3)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST_INT = 2**31 - 1
_TOP_PAD_BYTES = 256 << 20


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed blocks for the rest of this process; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wishes = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _LARGEST_INT, _M_TOP_PAD: _TOP_PAD_BYTES}
    return all(mallopt(name, value) == 1 for name, value in wishes.items())
