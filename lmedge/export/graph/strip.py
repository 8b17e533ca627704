"""A graph → the same graph without traces of where it was made.

Exporters leave stack traces with source paths, class names and derived dimension names in it. Without them, the same
network gives the same bytes on every machine, and a product does not carry its developers' folders.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx

from lmedge.export.graph.compare import IR_VERSION

BATCH = "batch"
_GRAPH_NAME = "landmarks"


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Clears metadata, doc strings and inferred shapes, names the first dimension of every input and output `batch`."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    for described in (stripped, stripped.graph, *_parts(stripped.graph)):
        described.ClearField("doc_string")
        described.ClearField("metadata_props")
    for field in ("producer_version", "domain", "model_version", "training_info", "configuration"):
        stripped.ClearField(field)
    stripped.producer_name = "lmedge"
    stripped.ir_version = min(stripped.ir_version, IR_VERSION)
    stripped.graph.name = _GRAPH_NAME
    # Readers infer these again; here they hold names of the exporter's symbols.
    stripped.graph.ClearField("value_info")
    for value in (*stripped.graph.input, *stripped.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    return stripped


def _parts(graph: onnx.GraphProto) -> Iterable[Any]:
    return (*graph.node, *graph.initializer, *graph.input, *graph.output)
