"""What TensorRT made of a network: its inspector's JSON → layers by precision, and which convolutions run in int8.

TensorRT fuses: one layer of an engine is several nodes of the ONNX file, which its metadata names. Up to TensorRT 10 a tensor
has the field "Format/Datatype" ("Int8", "Channel major FP16 format"), from 11 on "Format" and "DataType" apart
(https://docs.nvidia.com/deeplearning/tensorrt, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INT8 = "int8"
UNKNOWN = "unknown"

# In this order: "bfloat16" holds "float16", and "fp16" is also a part of longer format names.
_TYPES = (
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8|float8", re.IGNORECASE)),
    ("uint8", re.compile(r"uint8", re.IGNORECASE)),
    (INT8, re.compile(r"int8", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half|float16", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float", re.IGNORECASE)),
    ("int32", re.compile(r"int32", re.IGNORECASE)),
    ("int64", re.compile(r"int64", re.IGNORECASE)),
    ("bool", re.compile(r"bool", re.IGNORECASE)),
)
_TYPE_FIELDS = ("DataType", "Datatype", "Format/Datatype", "Format")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class EngineLayers:
    """The layers of one engine.

    Attributes:
        by_precision: the type that a layer computes in → number of layers, most frequent first; "unknown" where TensorRT does
            not say.
        int8_convolutions: nodes of the ONNX file, or TensorRT's own names where it names none.
        float_convolutions: the others, (name, precision) each.
    """

    by_precision: Mapping[str, int]
    int8_convolutions: tuple[str, ...]
    float_convolutions: tuple[tuple[str, str], ...]

    @property
    def count(self) -> int:
        return sum(self.by_precision.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "by_precision": dict(self.by_precision),
            "int8_convolutions": list(self.int8_convolutions),
            "float_convolutions": [{"name": name, "precision": precision} for name, precision in self.float_convolutions],
        }


def read_layers(inspector_json: str) -> EngineLayers:
    """Sums up what `IEngineInspector.get_engine_information` says; what cannot be read counts as no layer."""
    try:
        document = json.loads(inspector_json)
    except ValueError:
        document = {}
    layers = document.get("Layers", []) if isinstance(document, dict) else []
    counted = Counter(_precision(layer) for layer in layers)
    int8: list[str] = []
    others: list[tuple[str, str]] = []
    for layer in layers:
        precision = _precision(layer)
        for name in _convolutions(layer):
            if precision == INT8:
                int8.append(name)
            else:
                others.append((name, precision))
    return EngineLayers(dict(counted.most_common()), tuple(int8), tuple(others))


def _precision(layer: Any) -> str:
    """The type of a layer's weights, else of its first input, else of its first output."""
    if not isinstance(layer, dict):  # only names were kept
        return UNKNOWN
    weights = layer.get("Weights")
    tensors = [{"DataType": weights.get("Type", "")}] if isinstance(weights, dict) else []
    tensors += [*layer.get("Inputs", ()), *layer.get("Outputs", ())]
    for tensor in tensors:
        text = next((str(tensor[field]) for field in _TYPE_FIELDS if tensor.get(field)), "")
        found = next((name for name, pattern in _TYPES if pattern.search(text)), "")
        if found:
            return found
    return UNKNOWN


def _convolutions(layer: Any) -> list[str]:
    """The convolutions that a layer computes; none for one that only moves or converts tensors."""
    if not isinstance(layer, dict):
        return []
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    if "reformat" in kind or "constant" in kind:
        return []
    nodes = [name for name in _NODE.findall(str(layer.get("Metadata", ""))) if "quantize" not in name.lower()]
    named = [name for name in nodes if "conv" in name.lower()]
    if named:
        return named
    return [str(layer.get("Name", "?"))] if "conv" in kind else []
