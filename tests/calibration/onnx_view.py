"""An ONNX graph as tests ask about it: constants, and makers and readers of each tensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import numpy_helper


class OnnxView:
    """A network, or the file of one."""

    def __init__(self, model: onnx.ModelProto | Path) -> None:
        graph = (onnx.load(model) if isinstance(model, Path) else model).graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.outputs = {output.name for output in graph.output}

    def of(self, *op_types: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in op_types]

    def makes(self, tensor: str) -> str:
        """The operator that makes a tensor; "" for inputs and constants."""
        return self.maker[tensor].op_type if tensor in self.maker else ""

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if tensor in node.input]

    def weight_dequantizers(self) -> Iterator[onnx.NodeProto]:
        return (node for node in self.of("DequantizeLinear") if node.input[0] in self.constants)

    def int8_convolutions(self) -> list[str]:
        """Names of the convolutions that read quantised weights."""
        return [node.name for node in self.of("Conv") if self.makes(node.input[1]) == "DequantizeLinear"]
