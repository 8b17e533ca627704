"""Who may use an engine: the thread that opened it, in the process that opened it.

Engines keep threads of their own. A fork copies the memory of a process but none of its threads, so in the child an engine can
neither answer nor be freed: freeing waits for threads that are not there (seen with OpenVINO). The child therefore gets an
error when it uses one, and what it inherited stays in memory until it ends.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any
from weakref import WeakSet

from lmedge.errors import OwnershipError

_kept_in_forks: WeakSet[Any] = WeakSet()
# Asking the system for the process takes longer than all other checks of a call together.
_this_process_id = os.getpid()


class Owner:
    """The thread and the process in which it was made."""

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._thread_name = threading.current_thread().name
        self._process_id = _this_process_id

    @property
    def is_of_this_process(self) -> bool:
        """False in a process that was forked from the owner's."""
        return _this_process_id == self._process_id

    def check(self, what: str) -> None:
        """Refuses everyone else.

        Args:
            what: what is owned, for the message: "onnxruntime runtime".

        Raises:
            OwnershipError: another thread, naming both, or a forked process, naming both.
        """
        self.check_process(what)
        if threading.get_ident() != self._thread_id:
            raise OwnershipError(
                f"This {what} belongs to the thread {self._thread_name!r}, which opened it; the thread "
                f"{threading.current_thread().name!r} cannot use it. "
                "Open one per thread, or use lmedge.LandmarkerPool."
            )

    def check_process(self, what: str) -> None:
        """Refuses a process that was forked from the owner's; every thread of that one may go on.

        Raises:
            OwnershipError: naming both processes.
        """
        if _this_process_id != self._process_id:
            raise OwnershipError(
                f"This {what} was opened in process {self._process_id}; its fork, process {_this_process_id}, cannot use it. "
                "Open one in the child, or start children with multiprocessing.get_context('spawn')."
            )


def keep_in_forks(runtime: Any) -> None:
    """From now on, children of this process never free this object."""
    _kept_in_forks.add(runtime)


def _after_fork() -> None:
    global _this_process_id  # noqa: PLW0603 - the child is another process
    _this_process_id = os.getpid()
    for runtime in list(_kept_in_forks):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
