"""What was measured once about this machine, kept in the user's cache folder (XDG Base Directory Specification 0.8).

A cache is only ever a shortcut: where it cannot be read or written, one measures again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmedge.bundle import write_atomically
from lmedge.errors import LmedgeError

_VERSION = 1


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/lmedge/engines``, by default below ``~/.cache``; None where the user has no home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative path is to be ignored, the specification says.
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "lmedge" / "engines"


def recall(key: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was remembered under a key of plain data; None where nothing was, or nothing that can be read."""
    file = _file(key)
    if file is None:
        return None
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        # The whole key is in the file, so that a copy under another name is no answer.
        known = document["version"] == _VERSION and document["key"] == _plain(key)
        return dict(document["value"]) if known else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Writes a value under a key, both plain data; whether that was possible."""
    file = _file(key)
    if file is None:
        return False
    document = {"version": _VERSION, "key": _plain(key), "value": value}
    try:
        write_atomically(file, json.dumps(document, indent=1) + "\n")
    except LmedgeError:
        return False
    return True


def _file(key: Mapping[str, Any]) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return None if folder is None else folder / f"{name}.json"


def _plain(key: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(key))
