"""What is in an ONNX file, for `lmedge inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from lmedge.bundle import TensorSpec
from lmedge.errors import ExportError
from lmedge.export.graph.qdq_graph import DEQUANTIZE, QUANTIZE


@dataclass(frozen=True)
class OnnxSummary:
    """An ONNX file in numbers.

    Attributes:
        file: its name; size_bytes: of the file.
        opset, ir_version, producer: as the file says.
        inputs, outputs: name, type and shape; a dimension is a number or a name.
        nodes: operator → how many, most frequent first.
        parameters: numbers stored as weights and constants; weight_types: type → how many of them.
        quantize, dequantize: type of the quantised tensor → how many such nodes.
    """

    file: str
    size_bytes: int
    opset: int
    ir_version: int
    producer: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: Mapping[str, int]
    parameters: int
    weight_types: Mapping[str, int]
    quantize: Mapping[str, int]
    dequantize: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        tensors = {name: [spec.to_json() for spec in getattr(self, name)] for name in ("inputs", "outputs")}
        return {**asdict(self), **tensors}


def inspect_onnx(file: Path) -> OnnxSummary:
    """Reads an ONNX file.

    Raises:
        ExportError: missing, or not an ONNX file.
    """
    try:
        model = onnx.load(file, format="protobuf")  # else the suffix decides
    except (OSError, DecodeError) as error:
        raise ExportError(f"{file} cannot be read as an ONNX file: {error}") from error
    if not model.graph.node:
        raise ExportError(f"{file} holds no graph; it is no ONNX file, or an empty one.")
    graph = model.graph
    sizes: Counter[str] = Counter()
    for tensor in graph.initializer:
        sizes[_type_name(tensor.data_type)] += int(np.prod(tensor.dims, dtype=np.int64))
    return OnnxSummary(
        file=file.name,
        size_bytes=file.stat().st_size,
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(map(_spec, graph.input)),
        outputs=tuple(map(_spec, graph.output)),
        nodes=dict(Counter(node.op_type for node in graph.node).most_common()),
        parameters=sizes.total(),
        weight_types=dict(sizes.most_common()),
        quantize=_quantized_types(graph, QUANTIZE),
        dequantize=_quantized_types(graph, DEQUANTIZE),
    )


def _quantized_types(graph: onnx.GraphProto, op_type: str) -> dict[str, int]:
    """Counts pairs by the type of their zero point, which is the type of the quantised tensor."""
    types = {tensor.name: _type_name(tensor.data_type) for tensor in graph.initializer}
    points = [node.input[2] if len(node.input) > 2 else "" for node in graph.node if node.op_type == op_type]
    # Without a zero point the operator's definition says uint8.
    return dict(Counter(types.get(point, "uint8" if not point else "computed") for point in points).most_common())


def _type_name(data_type: int) -> str:
    name = str(TensorProto.DataType.Name(data_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    return TensorSpec(value.name, _type_name(tensor.elem_type), shape)
