"""One file that an engine can load: what it computes, from what it was made, and whom it serves."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmedge.bundle.files import check_file, file_digest
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

PRECISIONS = ("fp32", "fp16", "int8", "fp16-int8")
ANY_ARCH = "any"
# The tensors of every network; the last one only where a network says how sure it is.
IMAGE, LANDMARKS, CONFIDENCE = "image", "landmarks", "confidence"

Digests = tuple[tuple[str, str], ...]


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


def network_specs(
    spec: PreprocessSpec, schema: LandmarkSchema, *, confidence: bool = False
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of every lmedge network: uint8 BGR crops in, fractions of the crop out, and from some the
    confidence of each point."""
    height, width = spec.input_hw
    image = TensorSpec(IMAGE, "uint8", ("batch", height, width, 3))
    landmarks = TensorSpec(LANDMARKS, "float32", ("batch", schema.num_points, 2))
    return (image,), (landmarks, *([TensorSpec(CONFIDENCE, "float32", ("batch", schema.num_points))] if confidence else []))


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
        check_file(artifact.root, path, sha256)


def machine_arch() -> str:
    """This processor's architecture as manifests name it: x86_64 or aarch64."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
