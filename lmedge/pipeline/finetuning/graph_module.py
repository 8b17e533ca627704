"""An ONNX graph as a PyTorch module: the same nodes on the same tensors, so that training changes numbers and nothing else.

Quantisers round as ONNX says and let the gradient pass (`fake_quantize`). What the file stores as integers is trained as real
numbers, and so is what it keeps in float:

    stored as integers: scale · round(saturate(parameter · unit / scale))        in float: parameter · unit

The unit of a weight is its int8 step, and a bias has one of about the same effect. So one learning rate means the same in every
channel of every layer: this share of a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lmedge.export.graph.compare import INPUT, OUTPUT
from lmedge.export.graph.input_scale import find_normalisation
from lmedge.export.graph.legalize_qdq import DEQUANTIZE, QUANTIZE
from lmedge.pipeline.finetuning.fake_quantize import fake_quantize, round_through
from lmedge.pipeline.finetuning.graph_operators import Constants, Node, Operation, operation

_LAYERS = ("Conv", "Gemm")
_STORED = "_quantized"  # what the quantiser appends to the name of a weight that it stores as integers
_INT8_STEPS = 127
# A bias moves its output as a weight does that meets half of a quantiser's 128 or 256 levels.
_BIAS_LEVELS = 64
# In steps: a weight that starts between two integers stays on its own side of the middle.
_NEARLY_HALF = 0.4999
_TOLERANCE = 0.01  # of that, for the rounding of float32
_TINY = 1e-8  # gives a channel of zeros a unit

Makers = dict[str, Node]


@dataclass(frozen=True)
class _Step:
    """One node: what it calculates, of which tensors, and which of these nobody reads later."""

    operation: Operation
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_reads: tuple[str, ...]


@dataclass(frozen=True)
class _Integers:
    """How an initialiser is stored: its scale in the file, the scales whose product that is, its shape beside the values, and
    the limits of its type."""

    scale: str
    factors: tuple[str, ...]
    shape: tuple[int, ...]
    limits: tuple[float, float]


class GraphModule(nn.Module):
    """Crops uint8 (N, H, W, 3) BGR → landmarks float32 (N, K, 2), fractions of the crop, as the graph's file answers.

    Args:
        model: an fp32 graph, or one with Q/DQ in either dialect. It is not changed.
        float_model: the fp32 graph that `model` was quantised from. Int8 weights then start at their values before rounding;
            those that do not round to what `model` holds are left alone.
        learn_scales: the scales of activations are parameters too, as logarithms (LSQ). Zero points, the scales of weights and
            that of the normalised image stay.

    Attributes:
        weights: parameters of weights and biases, in units, by initialiser (dots written as slashes).
        log_scales: by scale, the logarithm of what it is multiplied with; empty without `learn_scales`.

    Raises:
        ExportError: an operator or a setting that is not known here, naming the node.
    """

    def __init__(
        self, model: onnx.ModelProto, float_model: onnx.ModelProto | None = None, *, learn_scales: bool = False
    ) -> None:
        super().__init__()
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        constants = _constants(model)
        nodes = [Node(node, constants) for node in model.graph.node]
        makers = {output: node for node in nodes for output in node.outputs}
        self._outputs = tuple(output.name for output in model.graph.output)
        self._steps = _compile(nodes, constants, makers, self._outputs)
        self._integers = _stored_integers(nodes, constants, makers)
        self._constants = nn.ParameterDict(
            {_key(name): _frozen(torch.tensor(value)) for name, value in constants.items() if value.dtype == np.float32}
        )
        self.log_scales, self.weights, self._units = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        if learn_scales:
            normalisation = find_normalisation(model)
            exact = normalisation.tensor if normalisation else None
            learnt = {node.inputs[1] for node in nodes if node.op_type == QUANTIZE and node.inputs[0] != exact}
            self.log_scales.update({_key(name): nn.Parameter(torch.zeros(())) for name in sorted(learnt)})
        before = _constants(float_model) if float_model is not None else {}
        for layer in nodes:
            if layer.op_type in _LAYERS:
                self._train(layer, constants, makers, before)

    def forward(self, crops_uint8: Tensor) -> Tensor:
        """The landmarks; a batch of any size that the graph takes."""
        return self.answers(crops_uint8)[OUTPUT]

    def answers(self, crops_uint8: Tensor) -> dict[str, Tensor]:
        """Every output by its name: the landmarks, and of a confident network the confidence (N, K)."""
        values: dict[str, Tensor] = {INPUT: crops_uint8}
        for step in self._steps:
            made = step.operation(*(self._read(name, values) for name in step.inputs))
            values.update(zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=True))
            for name in step.last_reads:
                del values[name]
        return {name: values[name] for name in self._outputs}

    @torch.no_grad()
    def write_back(self) -> onnx.ModelProto:
        """The graph with the numbers as they are now: the same nodes, names and order, rounded as `forward` rounds."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        steps = {stored.scale: self._step(name) for name, stored in self._integers.items()}
        for tensor in model.graph.initializer:
            name, before = tensor.name, numpy_helper.to_array(tensor)
            if name in self._integers:
                after = self._codes(name)
            elif _key(name) in self.weights:
                after = self._number(name)
            elif name in steps or _key(name) in self.log_scales:
                after = steps[name] if name in steps else self._scale(name)
            else:
                continue
            # Through float64, which holds every int32.
            array = after.double().cpu().numpy().astype(before.dtype).reshape(before.shape)
            tensor.CopyFrom(numpy_helper.from_array(array, name))
        return model

    def _read(self, name: str, values: dict[str, Tensor]) -> Tensor | None:
        if name in values:
            return values[name]
        if name in self._integers:
            return self._codes(name) * self._step(name)
        if _key(name) in self.weights:
            return self._number(name)
        # Constants of other types were read when the step was made.
        return self._scale(name) if _key(name) in self._constants else None

    def _number(self, name: str) -> Tensor:
        number: Tensor = self.weights[_key(name)] * self._units[_key(name)]
        return number

    def _codes(self, name: str) -> Tensor:
        low, high = self._integers[name].limits
        return round_through((self._number(name) / self._step(name)).clamp(low, high))

    def _step(self, name: str) -> Tensor:
        """The scale of a stored initialiser; that of a bias follows the learnt scale of its layer's input."""
        stored = self._integers[name]
        step: Tensor = math.prod(self._scale(factor).detach() for factor in stored.factors)  # type: ignore[assignment]
        return step.reshape(stored.shape)

    def _scale(self, name: str) -> Tensor:
        constant: Tensor = self._constants[_key(name)]
        return constant * self.log_scales[_key(name)].exp() if _key(name) in self.log_scales else constant

    def _train(self, layer: Node, constants: Constants, makers: Makers, before: Constants) -> None:
        """Makes the weight and the bias of a layer parameters, where they are constants."""
        weight, *bias = (makers[name].inputs[0] if name in makers else name for name in layer.inputs[1:] if name)
        if weight not in constants:
            return
        if weight in self._integers:
            unit = self._step(weight)
        else:
            array = torch.tensor(constants[weight])
            axis = 0 if layer.op_type == "Conv" or layer.get("transB", 0) else 1
            others = [other for other in range(array.ndim) if other != axis]
            unit = _power_of_two(array.abs().amax(others, keepdim=True) / _INT8_STEPS)
        self._add(weight, unit, constants, before)
        if bias and bias[0] in constants:
            scale = _scale_of(layer.inputs[0], makers)
            reach = float(constants[scale]) * _BIAS_LEVELS if scale else 1.0
            self._add(bias[0], _power_of_two(unit.flatten() * reach), constants, before)

    def _add(self, name: str, unit: Tensor, constants: Constants, before: Constants) -> None:
        number = torch.tensor(constants[name]).float()
        if name in self._integers:
            step = self._step(name)
            # What rounding took from an int32 bias is nothing.
            exact = None if constants[name].dtype == np.int32 else before.get(name.removesuffix(_STORED))
            if exact is not None and exact.shape == number.shape:
                rest = torch.tensor(exact) / step - number
                if rest.abs().max() <= _NEARLY_HALF + _TOLERANCE:
                    number = number + rest.clamp(-_NEARLY_HALF, _NEARLY_HALF)
            number = number * step
        self._units[_key(name)] = _frozen(unit)
        self.weights[_key(name)] = nn.Parameter(number / unit)


def _compile(nodes: list[Node], constants: Constants, makers: Makers, outputs: tuple[str, ...]) -> list[_Step]:
    last = {name: number for number, node in enumerate(nodes) for name in node.inputs}
    steps = []
    for number, node in enumerate(nodes):
        function = _quantiser(node, constants, makers) if node.op_type in (QUANTIZE, DEQUANTIZE) else operation(node)
        ended = {name for name in node.inputs if last[name] == number and name in makers and name not in outputs}
        steps.append(_Step(function, node.inputs, node.outputs, tuple(sorted(ended))))
    return steps


def _quantiser(node: Node, constants: Constants, makers: Makers) -> Operation:
    """QuantizeLinear does the work of both; DequantizeLinear passes on what stands for integers already, but for an image."""
    scale, zeros = node.constant(1), node.constant(2)
    if scale is None or node.get("block_size", 0):
        raise node.refused("has one scale per block, or none")
    kind = np.iinfo(np.uint8 if zeros is None else zeros.dtype)
    if zeros is None or not zeros.any():
        zero = 0
    elif zeros.size == 1:
        zero = int(zeros.item())
    else:
        raise node.refused("has zero points other than 0 by channel")
    if node.op_type == QUANTIZE:
        if scale.size != 1:
            raise node.refused(f"has {scale.size} scales for an activation; expected one")
        low, high = float(kind.min - zero), float(kind.max - zero)
        return lambda x, scale, *_: fake_quantize(x, scale, low, high)
    source = makers.get(node.inputs[0])
    if node.inputs[0] == INPUT:
        return lambda x, scale, *_: (x.to(torch.float32) - zero) * scale
    if node.inputs[0] in constants:
        if zero:
            raise node.refused(f"has a weight with the zero point {zero}; expected 0")
    elif source is None or source.op_type != QUANTIZE or source.inputs[1:] != node.inputs[1:]:
        raise node.refused("does not undo a QuantizeLinear of the same scale and zero point")
    return lambda x, *_: x


def _stored_integers(nodes: list[Node], constants: Constants, makers: Makers) -> dict[str, _Integers]:
    """The initialisers that a DequantizeLinear reads. The scale of an int32 bias is that of its layer's input times that of the
    weight, and engines count on it."""
    layers = {layer.inputs[2]: layer for layer in nodes if layer.op_type in _LAYERS and len(layer.inputs) > 2}
    stored = {}
    for node in nodes:
        if node.op_type == DEQUANTIZE and node.inputs[0] in constants:
            array, scale = constants[node.inputs[0]], node.inputs[1]
            kind = np.iinfo(array.dtype)
            factors: tuple[str, ...] = (scale,)
            if array.dtype == np.int32 and node.outputs[0] in layers:
                sources = [_scale_of(name, makers) for name in layers[node.outputs[0]].inputs[:2]]
                factors = tuple(source for source in sources if source) if all(sources) else factors
            shape = [1] * array.ndim
            if constants[scale].size > 1:
                shape[node.get("axis", 1)] = -1
            # float32 has no 2³¹ − 1; the next below is this.
            limits = (float(kind.min), float(kind.max) if kind.bits < 32 else 2.0**31 - 128)
            stored[node.inputs[0]] = _Integers(scale, factors, tuple(shape), limits)
    return stored


def _scale_of(name: str, makers: Makers) -> str | None:
    """The scale of a tensor that is quantised and perhaps moved; None where it is in float."""
    node = makers.get(name)
    while node is not None and node.op_type == "Transpose":
        node = makers.get(node.inputs[0])
    return node.inputs[1] if node is not None and node.op_type == DEQUANTIZE else None


def _constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _key(name: str) -> str:
    """Names of parameters must not have dots."""
    return name.replace(".", "/")


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _power_of_two(value: Tensor) -> Tensor:
    """The nearest, so that dividing and multiplying by it loses nothing."""
    return torch.exp2(value.clamp(min=_TINY).log2().round())
