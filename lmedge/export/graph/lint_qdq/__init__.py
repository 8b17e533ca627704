"""Is a Q/DQ graph legal and well laid out for TensorRT, and with that for every engine?

TensorRT is the strictest of the three: int8 with zero point 0, one scale per activation, scales along the output channels for
weights, float biases ("Working with Quantized Types", TensorRT 10 and 11; `QuantDequantLinearHelper` in onnx-tensorrt). Weights
may be stored as int8 with a DequantizeLinear, which makes the file a third of the size, or as floats with both nodes.
TensorRT 8 documented the latter only, and lmedge supports TensorRT 10 and newer.

Each rule says what TensorRT does with a graph that breaks it: refuse it, or only be slower or less accurate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lmedge.errors import ExportError
from lmedge.export.graph.lint_qdq.operators import OPERATOR_RULES
from lmedge.export.graph.lint_qdq.placement import PLACEMENT_RULES
from lmedge.export.graph.lint_qdq.quantisers import QUANTISER_RULES
from lmedge.export.graph.lint_qdq.rule import REFUSED, SLOW, Effect, Finding, Rule
from lmedge.export.graph.qdq_graph import QdqGraph

__all__ = ["REFUSED", "RULES", "SLOW", "Effect", "Finding", "Rule", "lint_file", "lint_qdq"]

RULES: Mapping[str, Rule] = {rule.name: rule for rule in (*QUANTISER_RULES, *OPERATOR_RULES, *PLACEMENT_RULES)}


def lint_qdq(model: onnx.ModelProto) -> list[Finding]:
    """What keeps a graph from being portable, by rule and then in graph order; empty when nothing does.

    A graph without quantisers can only break the rules about operators and types.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    graph = QdqGraph(_with_types(model).graph, opset)
    return [finding for rule in RULES.values() for finding in rule.findings(graph)]


def lint_file(file: Path) -> list[Finding]:
    """`lint_qdq` of an ONNX file.

    Raises:
        ExportError: missing, or not an ONNX file.
    """
    try:
        model = onnx.load(file, format="protobuf")  # else the suffix decides
    except (OSError, DecodeError) as error:
        raise ExportError(f"{file} cannot be read as an ONNX file: {error}") from error
    return lint_qdq(model)


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the types that can be told of its tensors, also where they contradict each other."""
    return onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False)
