"""Adds artifacts to a bundle that is in use: all of them or none, and no reader ever sees a manifest without its files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmedge.bundle.artifact import Artifact, check_digest
from lmedge.bundle.folder import Bundle, add_artifacts
from lmedge.errors import LmedgeError

_STAGING, _NEW, _OLD = ".installing.", "new", "old"


def install_artifacts(bundle: Bundle, artifacts: Iterable[Artifact], parity: Sequence[Mapping[str, Any]] = ()) -> Bundle:
    """The bundle with further artifacts, whose files are copied from their `root`; one of the same path is replaced.

    An artifact whose root is the bundle is there already, and only its entry changes. First all bytes are written beside their
    places, then files are renamed, and the manifest comes last. When anything of that fails, every file is as it was. A process
    killed between two renames leaves files that the old manifest does not promise, which their digests tell; installing again
    mends them. Hold `one_writer` meanwhile.

    Args:
        parity: reports on these artifacts for the manifest, in place of what it says of the same paths and backends.

    Raises:
        LmedgeError: the disk is full or the folder cannot be written.
        DigestMismatchError: a file is not what its artifact says.
    """
    added = list(artifacts)
    new = [artifact for artifact in added if artifact.root != bundle.root]
    for artifact in new:
        check_digest(artifact)
    files = {path: artifact.root / path for artifact in new for path in (artifact.path, *dict(artifact.companions))}
    try:
        for left_behind in bundle.root.glob(f"{_STAGING}*"):
            shutil.rmtree(left_behind)
        staging = Path(tempfile.mkdtemp(dir=bundle.root, prefix=_STAGING))
        try:
            for path, source in files.items():
                _copy(source, staging / _NEW / path)
            with _swapped(bundle.root, staging, list(files)):
                return add_artifacts(bundle, added, parity)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise LmedgeError(f"Cannot write into the bundle {bundle.root}: {error.strerror or error}. It is as it was.") from error


@contextmanager
def _swapped(root: Path, staging: Path, paths: Sequence[str]) -> Iterator[None]:
    """Puts the new files in their places; they stay there unless something fails inside."""
    replaced = {path for path in paths if (root / path).exists()}
    made = [folder for folder in dict.fromkeys((root / path).parent for path in paths) if not folder.exists()]
    try:
        for path in paths:
            _swap(root / path, staging / _NEW / path, staging / _OLD / path)
        yield
    except BaseException:
        for path in paths:
            if path not in replaced:
                (root / path).unlink(missing_ok=True)
            elif (staging / _OLD / path).exists():  # else it was not touched yet
                (staging / _OLD / path).replace(root / path)
        for folder in made:
            if folder.is_dir():
                folder.rmdir()
        raise


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def _swap(place: Path, new: Path, old: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        place.rename(old)
    new.rename(place)
