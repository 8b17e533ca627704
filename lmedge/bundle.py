"""The bundle: a small, hashed folder with everything a device needs to find landmarks. Its reader and its writer.

Every file is named in `manifest.json` with its sha256. Opening checks the manifest (format version, paths that stay inside),
each artifact is checked against its digest before an engine sees it, and `verify_digests` checks all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lmedge.errors import BundleError, BundleFormatError, DigestMismatchError, LmedgeError
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
PRECISIONS = ("fp32", "fp16", "int8", "fp16-int8")
ANY_ARCH = "any"

Digests = tuple[tuple[str, str], ...]


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


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. A dimension is a number, or a name such as "batch" that any size fits."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) and all(
            isinstance(wanted, str) or wanted == size for wanted, size in zip(self.shape, shape, strict=True)
        )

    @property
    def shape_text(self) -> str:
        return "(" + ", ".join(map(str, self.shape)) + ")"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TensorSpec:
        shape = tuple(size if isinstance(size, int) else str(size) for size in document["shape"])
        return cls(str(document["name"]), str(document["dtype"]), shape)


def network_specs(spec: PreprocessSpec, schema: LandmarkSchema) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of every lmedge network: uint8 BGR crops in, fractions of the crop out."""
    height, width = spec.input_hw
    image = TensorSpec("image", "uint8", ("batch", height, width, 3))
    return (image,), (TensorSpec("landmarks", "float32", ("batch", schema.num_points, 2)),)


@dataclass(frozen=True)
class Artifact:
    """One file that an engine can load.

    Attributes:
        path: relative to the bundle, with forward slashes.
        format: "onnx", "openvino" (IR), "tensorrt" (engine), "torch" (exported program) or a third party's.
        precision: one of `PRECISIONS`.
        sha256: of the file.
        inputs, outputs: the tensors, by name.
        made_from: sha256 of the file it was made from, or None.
        companions: further files that belong to it, (path, sha256) each, e.g. the .bin of an OpenVINO IR.
        tool_versions: what made it.
        serves: backend → processor architectures ("x86_64", "aarch64", "any") for which it answers its precision.
        requires: for engines: TensorRT version, compute capability, OS, architecture; else None.
        dialect: "" or the name of a variant, "x86" for unsigned activations.
        root: the folder that `path` is relative to; not part of the manifest.
    """

    path: str
    format: str
    precision: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    made_from: str | None = None
    companions: Digests = ()
    tool_versions: Mapping[str, str] = field(default_factory=dict)
    serves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    requires: Mapping[str, str] | None = None
    dialect: str = ""
    root: Path = field(default=Path(), compare=False)

    @property
    def file(self) -> Path:
        return self.root / self.path

    @property
    def label(self) -> str:
        """Precision and dialect for tables: "int8 (x86)"."""
        return f"{self.precision} ({self.dialect})" if self.dialect else self.precision

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "format": self.format,
            "precision": self.precision,
            "dialect": self.dialect,
            "sha256": self.sha256,
            "companions": dict(self.companions),
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "made_from": self.made_from,
            "tool_versions": dict(sorted(self.tool_versions.items())),
            "serves": {backend: list(archs) for backend, archs in sorted(self.serves.items())},
            "requires": dict(self.requires) if self.requires is not None else None,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], root: Path = Path()) -> Artifact:
        requires = document["requires"]
        return cls(
            path=str(document["path"]),
            format=str(document["format"]),
            precision=str(document["precision"]),
            sha256=str(document["sha256"]),
            inputs=tuple(map(TensorSpec.from_json, document["inputs"])),
            outputs=tuple(map(TensorSpec.from_json, document["outputs"])),
            made_from=document["made_from"],
            companions=tuple((str(k), str(v)) for k, v in document["companions"].items()),
            tool_versions={str(k): str(v) for k, v in document["tool_versions"].items()},
            serves={str(k): tuple(map(str, v)) for k, v in document["serves"].items()},
            requires=None if requires is None else {str(k): str(v) for k, v in requires.items()},
            dialect=str(document.get("dialect", "")),
            root=root,
        )

    @classmethod
    def of_file(cls, file: Path, root: Path, companions: Sequence[Path] = (), **fields: Any) -> Artifact:
        """The artifact of a file that lies below `root`, digests computed; `fields` are the other attributes."""
        pairs = tuple((other.relative_to(root).as_posix(), file_digest(other)) for other in companions)
        return cls(path=file.relative_to(root).as_posix(), sha256=file_digest(file), companions=pairs, root=root, **fields)


def check_digest(artifact: Artifact) -> None:
    """Compares an artifact's files with their digests.

    Raises:
        DigestMismatchError: a file is missing or other bytes.
    """
    for path, sha256 in ((artifact.path, artifact.sha256), *artifact.companions):
        _check_file(artifact.root, path, sha256)


def _check_file(root: Path, path: str, sha256: str) -> None:
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


@dataclass(frozen=True)
class Bundle:
    """An opened bundle folder."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Opens a bundle folder; artifacts are checked when they are used, or all at once by `verify_digests`.

        Raises:
            BundleError: no manifest there.
            BundleFormatError: a manifest that cannot be used.
        """
        root = Path(path)
        file = root / MANIFEST
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            inner = root / "bundle" / MANIFEST
            hint = f" Did you mean {inner.parent}?" if inner.is_file() else " Make one: lmedge build --target onnxruntime"
            raise BundleError(f"{root} is no bundle: it has no {MANIFEST}.{hint}") from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BundleFormatError(f"{file} cannot be read as JSON: {error}") from error
        return cls(root, Manifest.from_json(document, root))

    def verify_digests(self) -> int:
        """Checks every file that the manifest names; the number of files checked.

        Raises:
            DigestMismatchError: naming the first file that is missing or changed.
        """
        count = 0
        for artifact in self.manifest.artifacts:
            check_digest(artifact)
            count += 1 + len(artifact.companions)
        if self.manifest.golden is not None:
            _check_file(self.root, GOLDEN, self.manifest.golden)
            count += 1
        return count

    def golden_file(self) -> Path:
        """The golden vectors, their digest checked.

        Raises:
            BundleError: this bundle has none.
            DigestMismatchError: they were changed.
        """
        if self.manifest.golden is None:
            raise BundleError(f"{self.root} has no golden vectors for the self-test. Build it again.")
        _check_file(self.root, GOLDEN, self.manifest.golden)
        return self.root / GOLDEN

    def candidates(self, backend: str, arch: str | None = None) -> list[Artifact]:
        """The artifacts that serve a backend on an architecture (this machine's by default), in the manifest's order."""
        here = arch or machine_arch()
        return [a for a in self.manifest.artifacts if {here, ANY_ARCH} & set(a.serves.get(backend, ()))]

    def select(self, backend: str, precision: str = "fp32", *, dialect: str | None = None, arch: str | None = None) -> Artifact:
        """The artifact that answers `precision` on `backend` on this machine.

        The manifest's `serves` decides, and of several the last: packers write the more specific after the more general.

        Args:
            dialect: overrides the choice ("" is the portable file, "x86" the unsigned one).
            arch: processor architecture, this machine's by default.

        Raises:
            BundleError: none does; the message lists what there is.
        """
        if dialect is None:
            fitting = [a for a in self.candidates(backend, arch) if a.precision == precision]
        else:
            fitting = [
                a for a in self.manifest.artifacts if (a.precision, a.dialect) == (precision, dialect) and backend in a.serves
            ]
        if not fitting:
            there = sorted({f"{name} {a.label}" for a in self.manifest.artifacts for name in a.serves})
            wanted = f"{precision} ({dialect})" if dialect else precision
            raise BundleError(
                f"{self.root} has no {wanted} for {backend} on {arch or machine_arch()}; "
                f"it has {', '.join(there) or 'nothing'}."
            )
        return fitting[-1]


def machine_arch() -> str:
    """This processor's architecture as manifests name it: x86_64 or aarch64."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def write_bundle(folder: Path, manifest: Manifest, golden: bytes | None = None) -> Bundle:
    """Writes a bundle folder in one step: an existing one is replaced when the new one is complete.

    Each artifact's files are copied from its `root`; the manifest is written last.

    Raises:
        LmedgeError: the disk is full or the folder cannot be written; an existing bundle is untouched.
        DigestMismatchError: a source file is not what its artifact says.
    """
    partial = folder.parent / f".{folder.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for artifact in manifest.artifacts:
            check_digest(artifact)
            for path in (artifact.path, *(name for name, _ in artifact.companions)):
                target = partial / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artifact.root / path, target)
        if golden is not None:
            write_atomically(partial / GOLDEN, golden)
            manifest = replace(manifest, golden=hashlib.sha256(golden).hexdigest())
        write_atomically(partial / MANIFEST, json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n")
        replace_folder(partial, folder)
    except OSError as error:
        raise LmedgeError(
            f"Cannot write the bundle {folder}: {error.strerror or error}. An existing bundle is untouched."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Bundle.open(folder)


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


def add_artifacts(bundle: Bundle, artifacts: Iterable[Artifact]) -> Bundle:
    """The bundle with further artifacts, whose files already lie inside it; an artifact of the same path is replaced."""
    added = {artifact.path: replace(artifact, root=bundle.root) for artifact in artifacts}
    kept = [artifact for artifact in bundle.manifest.artifacts if artifact.path not in added]
    manifest = replace(bundle.manifest, artifacts=(*kept, *added.values()))
    write_atomically(bundle.root / MANIFEST, json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n")
    return Bundle.open(bundle.root)
