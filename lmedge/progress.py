"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Called with how much is done, how much there is, and what it is.
Progress = Callable[[int, int, str], None]
