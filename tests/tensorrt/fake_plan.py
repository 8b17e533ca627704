"""A plan, as the fake TensorRT writes and reads it: what was built for which machine, and the graph itself.

Layout: 4 bytes of magic, the SHA-256 of header and graph, the lengths of the header and of all, the header in JSON, the graph.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, field, replace
from typing import Any

_MAGIC = b"ftrt"
_HEADER = struct.Struct("<4s32sIQ")
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class PlanError(Exception):
    """These bytes are no plan; the message is TensorRT's."""


@dataclass(frozen=True)
class Plan:
    """What a plan holds.

    Attributes:
        version: of the TensorRT that built it.
        flags: names of the builder flags that were set.
        profiles: per optimisation profile, input → its least, usual and most shape.
        tactics: layer → the kernel that was measured to be fastest; differs between builds unless a timing cache pins it.
        network_flags: names of the flags that the network was created with.
    """

    onnx: bytes
    version: str
    compute_capability: str
    gpu_name: str
    flags: tuple[str, ...]
    network_flags: tuple[str, ...]
    hardware_compatibility: str
    profiles: tuple[dict[str, Shapes], ...]
    tactics: dict[str, int]
    verbosity: str
    optimization_level: int
    workspace_bytes: int
    layers: list[dict[str, Any]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        header = json.dumps({**asdict(replace(self, onnx=b"")), "onnx": ""}, sort_keys=True).encode()
        body = header + self.onnx
        return _HEADER.pack(_MAGIC, hashlib.sha256(body).digest(), len(header), _HEADER.size + len(body)) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Reads a plan.

        Raises:
            PlanError: it is none, it is cut off, or a byte changed.
        """
        if not data:
            raise PlanError("Error Code 3: API Usage Error (Cannot deserialize with an empty memory buffer.)")
        if len(data) < _HEADER.size:
            raise PlanError("Error Code 2: Internal Error (Assertion bufferSize >= minBufferSize failed.)")
        magic, digest, length, size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise PlanError(
                "Error Code 1: Serialization (Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.Trying to "
                "load an engine created with incompatible serialization version. Check that the engine was not created using "
                "safety runtime, same OS was used and version compatibility parameters were set accordingly and that it is a "
                "TRT engine file)"
            )
        if size != len(data):
            raise PlanError("Error Code 1: Serialization (Serialization assertion plan.header.size == blobSize failed.)")
        body = data[_HEADER.size :]
        if hashlib.sha256(body).digest() != digest:
            raise PlanError("Error Code 1: Serialization (Serialization assertion failed. The engine is corrupted.)")
        fields = json.loads(body[:length])
        for name in ("flags", "network_flags"):
            fields[name] = tuple(fields[name])
        shapes = [{k: tuple(map(tuple, v)) for k, v in profile.items()} for profile in fields["profiles"]]
        return cls(**{**fields, "profiles": tuple(shapes), "onnx": body[length:]})


def rewritten(plan: bytes, **changes: Any) -> bytes:
    """A sound plan like this one with other facts, such as `rewritten(plan, version="10.9.0")`."""
    return replace(Plan.from_bytes(plan), **changes).to_bytes()
