"""Files and folders that are either whole or not there, and the digests that name their bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lmedge.errors import DigestMismatchError, LmedgeError


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest_310(stream)


def _digest_310(stream: Any) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part (temporary name, fsync, rename).

    Raises:
        LmedgeError: the disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise LmedgeError(
            f"Cannot write {path}: {error.strerror or error}. The previous content, if any, is untouched."
        ) from error


def replace_folder(new: Path, folder: Path) -> None:
    """Puts `new` in the place of `folder`; the old folder goes away after the new one stands."""
    old = folder.parent / f".{folder.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_file(root: Path, path: str, sha256: str) -> None:
    """Compares one file below `root` with its digest.

    Raises:
        DigestMismatchError: it is missing, or other bytes.
    """
    try:
        found = file_digest(root / path)
    except OSError as error:
        raise DigestMismatchError(
            f"{root / path} cannot be read ({error.strerror}); the manifest names it. Build again."
        ) from error
    if found != sha256:
        raise DigestMismatchError(
            f"{path} was changed: its sha256 is {found[:16]}…, the manifest promises {sha256[:16]}…. "
            "Copy the bundle again from where it was built, or build it again."
        )
