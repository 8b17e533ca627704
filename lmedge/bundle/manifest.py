"""What `manifest.json` says, read with distrust: its version, its fields, and paths that stay inside the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lmedge.bundle.artifact import Artifact
from lmedge.errors import BundleFormatError
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        name: of the bundle.
        schema: what the points are.
        preprocess: how crops are made.
        artifacts: files that engines load.
        calibration, evaluation, parity: reports as plain data (see `lmedge.reports`).
        provenance: data sets with their licences, checkpoint digest, tool versions, photo keys seen in training.
        golden: sha256 of golden.npz, or None.
        format_version: of this document.
    """

    name: str
    schema: LandmarkSchema
    preprocess: PreprocessSpec
    artifacts: tuple[Artifact, ...]
    calibration: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    parity: Sequence[Mapping[str, Any]] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    golden: str | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": self.format_version,
            "name": self.name,
            "schema": self.schema.to_json(),
            "preprocess": self.preprocess.to_json(),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "golden": self.golden,
            "calibration": self.calibration,
            "evaluation": self.evaluation,
            "parity": list(self.parity),
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], root: Path = Path()) -> Manifest:
        """Reads and checks a manifest.

        Raises:
            BundleFormatError: a newer format, a missing or malformed field, a path that leaves the bundle.
        """
        version = document.get("format_version") if isinstance(document, Mapping) else None
        if not isinstance(version, int):
            raise BundleFormatError(f"{root / MANIFEST} has no format_version; it is no lmedge manifest.")
        if version > FORMAT_VERSION:
            raise BundleFormatError(
                f"{root / MANIFEST} has format version {version}; this lmedge reads up to {FORMAT_VERSION}. "
                "Upgrade: pip install -U lmedge"
            )
        try:
            manifest = cls(
                name=str(document["name"]),
                schema=LandmarkSchema.from_json(document["schema"]),
                preprocess=PreprocessSpec.from_json(document["preprocess"]),
                artifacts=tuple(Artifact.from_json(entry, root) for entry in document["artifacts"]),
                calibration=document["calibration"],
                evaluation=document["evaluation"],
                parity=tuple(document["parity"]),
                provenance=dict(document["provenance"]),
                golden=document["golden"],
                format_version=version,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BundleFormatError(f"{root / MANIFEST} is malformed at {error!s}. Build the bundle again.") from error
        for artifact in manifest.artifacts:
            for path in (artifact.path, *(name for name, _ in artifact.companions)):
                _check_inside(root, path)
        return manifest


def _check_inside(root: Path, path: str) -> None:
    pure = PurePosixPath(path)
    plain = path.isprintable() and "\\" not in path and path not in ("", ".")
    inside = plain and not pure.is_absolute() and ".." not in pure.parts
    if not inside or not (root / path).resolve().is_relative_to(root.resolve()):
        raise BundleFormatError(
            f"The manifest names {path!r}, which leaves the bundle {root}. This bundle is not safe to open."
        )
