"""What lies beside each TensorRT engine: where it comes from, on which machine it was built, and how.

A plan is bound to the TensorRT, the GPU and the driver it was built with, and says none of that itself. The record says it, so
that opening can compare it with the machine before TensorRT is asked for anything.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lmedge.bundle import PRECISIONS, Artifact, TensorSpec, file_digest, write_atomically
from lmedge.errors import BundleFormatError, EngineMismatchError
from lmedge.runtimes.tensorrt_machine import EngineMachine, version_numbers

RECORD_VERSION = 1
RECORD_SUFFIX = ".json"

# A record is a few kilobytes; what is larger was not written by lmedge.
_MOST_BYTES = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")
_AGAIN = "Compile the engine again: lmedge compile BUNDLE --target tensorrt"
_AMPERE = (8, 0)
# Plans of one major version that the runtime of another one takes, when they were built for it (TensorRT's support matrix).
_NEXT_MAJOR = {8: 10, 10: 11}


@dataclass(frozen=True)
class BatchProfile:
    """The batch sizes an engine takes: `least` to `most`, tuned for `usual`.

    Raises:
        ValueError: not 1 <= least <= usual <= most.
    """

    least: int = 1
    usual: int = 1
    most: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.usual <= self.most:
            raise ValueError(f"A batch profile must rise from 1 on; got {self}.")

    def __str__(self) -> str:
        return f"{self.least}:{self.usual}:{self.most}"

    def takes(self, batch: int) -> bool:
        return self.least <= batch <= self.most


@dataclass(frozen=True)
class EngineRecord:
    """How one engine came to be.

    Attributes:
        onnx: the file it was built from, relative to the bundle.
        onnx_sha256: of that file.
        precision: one of `PRECISIONS`.
        machine: where it was built, and the only kind of machine it runs on.
        profile: the batch sizes it takes.
        inputs, outputs: its tensors by name, as in the manifest.
        version_compatible: built to run on later TensorRT versions too.
        hardware_compatible: built to run on every GPU from Ampere on.
        options: further settings of the build: workspace, TF32, optimisation level.
        timing_cache_sha256: of the timing cache it was built with, or None.
        layers: the precision that layers compute in ("fp32", "fp16", "int8") → how many, as TensorRT's inspector says.
    """

    onnx: str
    onnx_sha256: str
    precision: str
    machine: EngineMachine
    profile: BatchProfile
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version_compatible: bool = False
    hardware_compatible: bool = False
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    timing_cache_sha256: str | None = None
    layers: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "record_version": RECORD_VERSION,
            "onnx": self.onnx,
            "onnx_sha256": self.onnx_sha256,
            "precision": self.precision,
            "machine": self.machine.to_json(),
            "profile": {"least": self.profile.least, "usual": self.profile.usual, "most": self.profile.most},
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "version_compatible": self.version_compatible,
            "hardware_compatible": self.hardware_compatible,
            "options": dict(sorted(self.options.items())),
            "timing_cache_sha256": self.timing_cache_sha256,
            "layers": dict(sorted(self.layers.items())),
        }

    def write(self, file: Path) -> None:
        """Writes the record; the same record gives the same bytes.

        Raises:
            LmedgeError: the disk is full or the folder cannot be written.
        """
        write_atomically(file, json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, file: Path) -> EngineRecord:
        """The inverse of `write`; nothing in the file is trusted.

        Raises:
            BundleFormatError: no such file, no record, one that a newer lmedge wrote, or one that contradicts itself.
        """
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise BundleFormatError(f"{file} is larger than any record of an engine. {_AGAIN}")
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleFormatError(f"{file} cannot be read as the record of an engine: {error}. {_AGAIN}") from error
        version = document.get("record_version") if isinstance(document, dict) else None
        if not isinstance(version, int) or version > RECORD_VERSION:
            raise BundleFormatError(
                f"{file} has the record version {version!r}; this lmedge reads up to {RECORD_VERSION}. {_AGAIN}"
            )
        try:
            return cls._from_json(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleFormatError(f"{file} is malformed at {error!s}. {_AGAIN}") from error

    @classmethod
    def _from_json(cls, document: Mapping[str, Any]) -> EngineRecord:
        cache, profile = document["timing_cache_sha256"], document["profile"]
        return cls(
            onnx=_inner_path(document["onnx"]),
            onnx_sha256=_digest(document["onnx_sha256"]),
            precision=_one_of(document["precision"], PRECISIONS),
            machine=EngineMachine.from_json(document["machine"]),
            profile=BatchProfile(*(_count(profile[name]) for name in ("least", "usual", "most"))),
            inputs=tuple(map(TensorSpec.from_json, document["inputs"])),
            outputs=tuple(map(TensorSpec.from_json, document["outputs"])),
            version_compatible=_one_of(document["version_compatible"], (True, False)),
            hardware_compatible=_one_of(document["hardware_compatible"], (True, False)),
            options={str(name): _plain(value) for name, value in document["options"].items()},
            timing_cache_sha256=None if cache is None else _digest(cache),
            layers={str(name): _count(value) for name, value in document["layers"].items()},
        )


def record_path(engine_path: str) -> str:
    """Where the record of an engine lies: beside it, under its name and ".json"."""
    return engine_path + RECORD_SUFFIX


def compile_command(bundle_root: Path) -> str:
    """What to type to build the engines of a bundle on this machine."""
    return f"lmedge compile {shlex.quote(str(bundle_root))} --target tensorrt"


def check_record(record: EngineRecord, artifact: Artifact) -> None:
    """Compares a record with what the manifest says of the same engine, and with the ONNX file it was built from.

    Raises:
        EngineMismatchError: the engine was built from another file than the bundle has now: it is stale.
        BundleFormatError: precision or tensors differ: the record is of another engine.
    """
    claims = (record.precision, record.inputs, record.outputs)
    if claims != (artifact.precision, artifact.inputs, artifact.outputs):
        raise BundleFormatError(
            f"{record_path(artifact.path)} is the record of another engine: it says {record.precision} with "
            f"{_names(record)}; the manifest says {artifact.precision} with {_names(artifact)}. "
            f"Build it here: {compile_command(artifact.root)}"
        )
    parent = artifact.root / record.onnx
    found = file_digest(parent) if parent.is_file() else artifact.made_from
    if record.onnx_sha256 != artifact.made_from or found != record.onnx_sha256:
        raise EngineMismatchError(
            f"{artifact.path} is stale: it was built from a {record.onnx} with sha256 {record.onnx_sha256[:16]}…; "
            f"the bundle's has {(found or 'none')[:16]}…. Build it here: {compile_command(artifact.root)}"
        )


def check_machine(record: EngineRecord, machine: EngineMachine, bundle_root: Path) -> None:
    """Refuses an engine whose `machine_differences` are any.

    Raises:
        EngineMismatchError: naming every difference, and the command that rebuilds.
    """
    differences = machine_differences(record, machine)
    if differences:
        raise EngineMismatchError(
            f"This {record.precision} engine was built for another machine. {'; '.join(differences)}. "
            f"Build it here: {compile_command(bundle_root)}"
        )


def machine_differences(record: EngineRecord, machine: EngineMachine) -> list[str]:
    """What of a machine an engine cannot run on, "TensorRT: built on 10.3.0, here 10.13.3.9" each; empty where it runs.

    TensorRT's rules (https://docs.nvidia.com/deeplearning/tensorrt, "Engine Compatibility"): a plan runs on the TensorRT and
    the GPU it was built with. A version-compatible one also runs on later versions of the same major version and of the next
    (8 to 10, 10 to 11); a hardware-compatible one on every GPU of compute capability 8.0 and above. The driver may be newer.
    The CUDA runtime is recorded but not compared: it only moves data to and from the engine.
    """
    built = record.machine
    return [
        f"{name}: built on {wanted}, here {found}"
        for name, wanted, found, fits in (
            ("TensorRT", built.tensorrt, machine.tensorrt, _version_fits(record, machine)),
            ("GPU", built.gpu, machine.gpu, record.hardware_compatible or built.gpu == machine.gpu),
            ("compute capability", built.compute_capability, machine.compute_capability, _gpu_fits(record, machine)),
            ("CUDA of the driver", built.driver, machine.driver, _is_as_new(machine.driver, built.driver)),
            ("system", built.os, machine.os, built.os == machine.os),
            ("architecture", built.arch, machine.arch, built.arch == machine.arch),
        )
        if not fits
    ]


def _version_fits(record: EngineRecord, machine: EngineMachine) -> bool:
    if not record.version_compatible:
        return record.machine.tensorrt == machine.tensorrt
    built, here = version_numbers(record.machine.tensorrt), version_numbers(machine.tensorrt)
    majors = {built[0], _NEXT_MAJOR.get(built[0])} if built and here else set()
    return here >= built and here[0] in majors


def _gpu_fits(record: EngineRecord, machine: EngineMachine) -> bool:
    if record.hardware_compatible:
        return version_numbers(machine.compute_capability) >= _AMPERE
    return record.machine.compute_capability == machine.compute_capability


def _is_as_new(found: str, wanted: str) -> bool:
    return version_numbers(found) >= version_numbers(wanted)


def _names(holder: EngineRecord | Artifact) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {spec.shape_text}" for spec in (*holder.inputs, *holder.outputs))


def _inner_path(value: Any) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or value in ("", "."):
        raise ValueError(f"onnx, which must be a path inside the bundle: {value!r}")
    return str(value)


def _digest(value: Any) -> str:
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise ValueError(f"{value!r}, which is no sha256")
    return value


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"{value!r}, which must be one of {choices}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r}, which must be a whole number")
    return value


def _plain(value: Any) -> str | int | bool:
    if not isinstance(value, str | int | bool):
        raise ValueError(f"{value!r}, which must be text, a whole number, true or false")
    return value
