"""A Q/DQ graph as the linter and the legaliser see it: who makes and who reads a tensor, and where the pairs stand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
QUANTISERS = (QUANTIZE, DEQUANTIZE)
# What leaves one number per channel.
POOLS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")
# What engines compute in int8, with weights as their second input.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LAYERS = (*WEIGHTED, "Add")
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Mish")
# Operators that hand values on as they are; a quantiser may stand before or behind them.
MOVES = (
    *("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"),
    *("Concat", "Split", "Slice", "Gather", "Pad", "MaxPool", "GlobalMaxPool", "DepthToSpace", "SpaceToDepth"),
)


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear and a DequantizeLinear that reads it: `result` is `source`, rounded."""

    quantize: onnx.NodeProto
    dequantize: onnx.NodeProto

    @property
    def source(self) -> str:
        return str(self.quantize.input[0])

    @property
    def result(self) -> str:
        return str(self.dequantize.output[0])


class QdqGraph:
    """A view of a graph, made once; it does not follow changes."""

    def __init__(self, graph: onnx.GraphProto, opset: int = 0) -> None:
        self.graph = graph
        self.opset = opset
        self.nodes = list(graph.node)
        self.outputs = {output.name for output in graph.output}
        self.inputs = {value.name: value.type.tensor_type.elem_type for value in graph.input}
        self.maker = {output: node for node in graph.node for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self.quantisers = [node for node in graph.node if node.op_type in QUANTISERS]
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and (tensor := _constant(node)) is not None:
                self._constants[node.output[0]] = tensor

    def op_type(self, tensor: str) -> str:
        """The operator that makes a tensor; "" for inputs and weights."""
        return self.maker[tensor].op_type if tensor in self.maker else ""

    def is_constant(self, tensor: str) -> bool:
        return tensor in self._constants

    def array(self, tensor: str) -> npt.NDArray[Any] | None:
        """The value of a constant; None for what is computed."""
        stored = self._constants.get(tensor)
        return None if stored is None else numpy_helper.to_array(stored)

    def constant_type(self, tensor: str) -> int:
        """The ONNX type of a constant, UNDEFINED for what is computed."""
        return self._constants[tensor].data_type if tensor in self._constants else TensorProto.UNDEFINED

    def pair(self, tensor: str) -> Pair | None:
        """The pair whose result a tensor is; None where none stands directly in front of it."""
        dequantize = self.maker.get(tensor)
        if dequantize is None or dequantize.op_type != DEQUANTIZE:
            return None
        quantize = self.maker.get(dequantize.input[0])
        return Pair(quantize, dequantize) if quantize is not None and quantize.op_type == QUANTIZE else None

    def pairs(self) -> list[Pair]:
        """Every pair, in graph order."""
        return [pair for node in self.quantisers if node.op_type == DEQUANTIZE and (pair := self.pair(node.output[0]))]

    def activation_pairs(self) -> list[Pair]:
        """The pairs that round what the network computes, not its weights."""
        return [pair for pair in self.pairs() if not self.is_constant(pair.source)]

    def before_moves(self, tensor: str) -> str:
        """Follows a tensor back through operators that only hand values on."""
        while self.op_type(tensor) in MOVES:
            tensor = str(self.maker[tensor].input[0])
        return tensor

    def is_pooled(self, tensor: str) -> bool:
        """True for one number per channel: a pool over all positions, and what convolutions and activations make of it."""
        while self.op_type(tensor) in ("Conv", *ACTIVATIONS, *MOVES, *QUANTISERS):
            tensor = str(self.maker[tensor].input[0])
        return self.op_type(tensor) in POOLS

    def holds_weights(self, quantiser: onnx.NodeProto) -> bool:
        """True where a quantiser works on a constant: stored as integers, or as floats with both nodes behind them."""
        name = str(quantiser.input[0])
        quantize = self.maker.get(name)
        if quantize is not None and quantize.op_type == QUANTIZE:
            name = str(quantize.input[0])
        return self.is_constant(self.before_moves(name))

    def quantised_type(self, quantiser: onnx.NodeProto) -> int:
        """The ONNX type of the integers that a quantiser makes or reads; UNDEFINED where nothing says it."""
        if len(quantiser.input) > 2 and quantiser.input[2]:
            return self.constant_type(quantiser.input[2])
        if quantiser.op_type == QUANTIZE:
            # Without a zero point the operator's definition says uint8, unless an attribute (opset 21) says otherwise.
            return int(attribute(quantiser, "output_dtype", 0)) or TensorProto.UINT8
        name = self.before_moves(str(quantiser.input[0]))
        if self.op_type(name) == QUANTIZE:
            return self.quantised_type(self.maker[name])
        return self.constant_type(name) or self.inputs.get(name, TensorProto.UNDEFINED)

    def reached(self, tensor: str) -> tuple[list[onnx.NodeProto], bool]:
        """The nodes that work on a tensor, through moves and other quantisers, and whether it becomes a graph output."""
        found: dict[str, onnx.NodeProto] = {}
        is_output, waiting, seen = False, [tensor], {tensor}
        while waiting:
            name = waiting.pop()
            is_output |= name in self.outputs
            for node in self.readers[name]:
                if node.op_type not in (*MOVES, *QUANTISERS):
                    found[node.output[0]] = node
                elif node.output[0] not in seen and name == node.input[0]:
                    seen.update(node.output)
                    waiting.extend(node.output)
        return list(found.values()), is_output

    def head(self) -> list[onnx.NodeProto]:
        """The layers of the regression head: matrix products from which no convolution is reached any more."""
        before: set[str] = set()  # tensors that some convolution is computed from
        for node in reversed(self.nodes):
            if node.op_type in ("Conv", "ConvTranspose") or before.intersection(node.output):
                before.update(node.input)
        return [node for node in self.nodes if node.op_type in ("Gemm", "MatMul") and not before.intersection(node.output)]

    def weight_axis(self, layer: onnx.NodeProto, rank: int) -> int:
        """The axis of a layer's weights that counts its output channels."""
        if layer.op_type == "Conv":
            return 0
        if layer.op_type == "Gemm":
            return 0 if attribute(layer, "transB", 0) else 1
        return 1 if layer.op_type == "ConvTranspose" else rank - 1


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else int(helper.get_attribute_value(found))


def text(node: onnx.NodeProto, name: str, default: str) -> str:
    """An attribute of a node that is text."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else found.s.decode()


def label(node: onnx.NodeProto) -> str:
    """A node's name, or where it has none, its operator and what it makes."""
    return node.name or f"{node.op_type} → {', '.join(node.output)}"


def same_numbers(graph: QdqGraph, pair: Pair) -> bool:
    """True where both nodes of a pair have the same scale and zero point, as far as they are constants."""
    for slot in (1, 2):
        names = [node.input[slot] if len(node.input) > slot else "" for node in (pair.quantize, pair.dequantize)]
        arrays = [graph.array(name) for name in names]
        if arrays[0] is not None and arrays[1] is not None and not np.array_equal(arrays[0], arrays[1]):
            return False
    return True


def slots_of(node: onnx.NodeProto, tensor: str) -> Iterator[int]:
    """The places at which a node reads a tensor."""
    return (slot for slot, name in enumerate(node.input) if name == tensor)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    value = helper.get_attribute_value(node.attribute[0]) if node.attribute else None
    if isinstance(value, onnx.TensorProto):
        return value
    if isinstance(value, float | int):
        return numpy_helper.from_array(np.array(value, np.float32 if isinstance(value, float) else np.int64))
    return None
