"""What a test may need beyond the base install, and how to ask for it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
DATA_FOLDER = Path(os.environ.get("LMEDGE_DATA", REPOSITORY.parent / "shared" / "data"))


def missing(name: str) -> str:
    """Why `name` is not here, or "" when it is: "data" for the labelled photographs, else a package, which is not imported."""
    if name == "data":
        return "" if DATA_FOLDER.is_dir() else f"no labelled photographs in {DATA_FOLDER}; set LMEDGE_DATA"
    return "" if importlib.util.find_spec(name) else f"the package {name} is not installed"


def require(*names: str) -> None:
    """Skips the running test, or the module that calls it while it is imported, unless all of these are here."""
    for name in names:
        if reason := missing(name):
            pytest.skip(reason, allow_module_level=True)


def required() -> list[str]:
    """What LMEDGE_REQUIRE names: a run fails at its start when one of these is missing, so that no skip can hide it."""
    return [name.strip() for name in os.environ.get("LMEDGE_REQUIRE", "").split(",") if name.strip()]
