"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Called with how much is done, how much there is (None where nobody knows, as of a camera), and what it is.
Progress = Callable[[int, int | None, str], None]
