"""Reading TOML with a clear error; Python 3.10 on JetPack 6 has no tomllib, so the import is late and optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmedge.errors import LmedgeError


def read_toml(path: Path, error_type: type[LmedgeError]) -> dict[str, Any]:
    """The document in `path`.

    Raises:
        error_type: the file is missing or not TOML, or this Python cannot read TOML.
    """
    try:
        import tomllib
    except ModuleNotFoundError as error:
        raise error_type(f"Reading {path} needs Python 3.11 or newer; on 3.10, pass the settings in code.") from error
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise error_type(f"Cannot read {path}: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise error_type(f"{path} is not valid TOML: {error}") from error
