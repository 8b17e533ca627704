"""The trained bundles that come with lmedge, found by the start of their name: `zoo:ibug68_fast`, `zoo:ibug68`, `zoo:wflw98`,
`zoo:mmlab5`, `zoo:synthetic68`. A place that takes a bundle folder takes these too.
"""

from __future__ import annotations

from pathlib import Path

from lmedge.bundle.manifest import MANIFEST
from lmedge.errors import BundleError

PREFIX = "zoo:"


def zoo_folder() -> Path:
    """Where the trained bundles lie in this installation."""
    return Path(__file__).resolve().parent.parent / "zoo"


def zoo_bundles() -> list[Path]:
    """The trained bundles, sorted by name."""
    return sorted(file.parent for file in zoo_folder().glob(f"*/{MANIFEST}"))


def resolve_bundle(path: str | Path) -> Path:
    """The folder of a bundle that is given by path or as ``zoo:NAME``, where the start of the name is enough.

    Raises:
        BundleError: no trained bundle has a name that starts so.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return Path(path)
    wanted, known = text.removeprefix(PREFIX), zoo_bundles()
    found = [folder for folder in known if wanted and folder.name.startswith(wanted)]
    # What stands before the first hyphen is a whole name: `zoo:ibug68` is not `ibug68_fast`, whatever else is there.
    found = [folder for folder in found if folder.name.partition("-")[0] == wanted] or found
    if not found:
        names = ", ".join(f"{PREFIX}{folder.name}" for folder in known) or "none: this installation has no trained bundles"
        raise BundleError(f"{text}: no trained bundle is called so; there is {names}.")
    return found[0]
