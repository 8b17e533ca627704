"""One process at a time adds to a bundle: a lock file that holds the process's number and goes away with it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmedge.errors import BundleError, LmedgeError

WRITER = ".writer.lock"


@contextmanager
def one_writer(bundle: Path) -> Iterator[None]:
    """Keeps other processes of this machine from adding to a bundle meanwhile.

    The lock is on the open file (https://man7.org/linux/man-pages/man2/flock.2.html), so the system releases it however the
    process ends. A file that a killed process left behind locks nothing, and the next one removes it.

    Raises:
        BundleError: another process adds to this bundle; the message has its number.
        LmedgeError: the folder cannot be written.
    """
    file = bundle / WRITER
    descriptor = _take(file)
    try:
        yield
    finally:
        # Removed while it is still locked: whoever opened it before finds out in `_take` that it is gone.
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _take(file: Path) -> int:
    """The descriptor of the locked file, with this process's number in it."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LmedgeError(
                f"Cannot write into {file.parent}: {error.strerror or error}. The bundle is as it was. "
                "Give its owner's rights to this user, or copy the bundle to where it can be written."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "another one"
            os.close(descriptor)
            raise BundleError(
                f"Process {holder} adds engines to {file.parent} at this moment. Wait until it is done, and run this again."
            ) from error
        if _is_still_there(file, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)


def _is_still_there(file: Path, descriptor: int) -> bool:
    """Whether the locked file is the one at its path, not one that its holder removed while this process waited to open it."""
    try:
        there = file.stat()
    except OSError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
