"""ONNX operators as PyTorch functions: those that exported landmark networks are made of (https://onnx.ai/onnx/operators).

`operation` takes a node to a function of the node's inputs, in their order, that gives one tensor, or where the node has
several outputs a tuple of them. What a node reads from constants (axes, shapes, bounds) is looked up once, when the function is
made. Quantisers are not among them: see `graph_module`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor

from lmedge.errors import ExportError

Operation = Callable[..., Tensor | tuple[Tensor, ...]]
Constants = Mapping[str, npt.NDArray[Any]]


class Node:
    """A node with its attributes as Python values, and the constants that it reads."""

    def __init__(self, node: onnx.NodeProto, constants: Constants) -> None:
        self.op_type, self.name = node.op_type, node.name or node.output[0]
        self.inputs, self.outputs = tuple(node.input), tuple(node.output)
        self._constants = constants
        self._attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def get(self, attribute: str, default: Any) -> Any:
        value = self._attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, slot: int) -> npt.NDArray[Any] | None:
        """The constant in an input; None where the input is left out.

        Raises:
            ExportError: the input is computed.
        """
        name = self.inputs[slot] if slot < len(self.inputs) else ""
        if not name:
            return None
        if name not in self._constants:
            raise self.refused(f"input {name!r} is computed; expected a constant")
        return self._constants[name]

    def refused(self, reason: str) -> ExportError:
        return ExportError(f"{self.name}: {self.op_type}, {reason}. Training runs the graphs that lmedge export writes.")

    def needed(self, slot: int) -> npt.NDArray[Any]:
        """The constant in an input.

        Raises:
            ExportError: the input is computed, or left out.
        """
        value = self.constant(slot)
        if value is None:
            raise self.refused(f"has no input {slot}; expected a constant there")
        return value


def operation(node: Node) -> Operation:
    """The function of a node's inputs, absent ones as None.

    Raises:
        ExportError: the operator, or a setting of it, is not known here; names the node.
    """
    if len(node.outputs) > 1 and node.op_type not in _SEVERAL_OUTPUTS:
        raise node.refused(f"has {len(node.outputs)} outputs; expected one")
    if node.op_type in _PLAIN:
        return _PLAIN[node.op_type]
    if node.op_type in _WITH_SETTINGS:
        return _WITH_SETTINGS[node.op_type](node)
    raise node.refused(f"is not among {', '.join(sorted((*_PLAIN, *_WITH_SETTINGS)))}")


def _transpose(node: Node) -> Operation:
    order = node.get("perm", None)
    return lambda x: x.permute(order if order is not None else tuple(reversed(range(x.ndim))))


def _cast(node: Node) -> Operation:
    if node.get("to", None) != TensorProto.FLOAT:
        raise node.refused("to another type than float32")
    return lambda x: x.to(torch.float32)


def _conv(node: Node) -> Operation:
    weight = node.inputs[1]
    strides = node.get("strides", (1, 1))
    if node.get("auto_pad", "NOTSET") != "NOTSET" or len(strides) != 2:
        raise node.refused(f"of {weight!r} pads by itself or is not over two dimensions")
    top, left, bottom, right = node.get("pads", (0, 0, 0, 0))
    dilations, groups = node.get("dilations", (1, 1)), node.get("group", 1)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if (top, left) == (bottom, right):
            return F.conv2d(x, weight, bias, strides, (top, left), dilations, groups)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, strides, 0, dilations, groups)

    return convolve


def _gemm(node: Node) -> Operation:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    transposed_a, transposed_b = node.get("transA", 0), node.get("transB", 0)

    def multiply(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.mT if transposed_a else a) @ (b.mT if transposed_b else b)
        scaled = product if alpha == 1 else alpha * product
        return scaled if c is None else scaled + (c if beta == 1 else beta * c)

    return multiply


def _clip(node: Node) -> Operation:
    low, high = (node.constant(1), node.constant(2))
    least = -np.inf if low is None else float(low)
    greatest = np.inf if high is None else float(high)
    return lambda x, *_: F.hardtanh(x, least, greatest)


def _hard_sigmoid(node: Node) -> Operation:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0, 1)


def _reduce(node: Node, reduced: Callable[..., Tensor]) -> Operation:
    if node.get("axes", None) is not None:
        raise node.refused("has its axes as an attribute, as before opset 18")
    axes = node.constant(1)
    keep = bool(node.get("keepdims", 1))
    if axes is None or not axes.size:
        if node.get("noop_with_empty_axes", 0):
            return lambda x, *_: x
        return lambda x, *_: reduced(x, tuple(range(x.ndim)), keepdim=keep)
    dims = tuple(axes.tolist())
    return lambda x, *_: reduced(x, dims, keepdim=keep)


def _max_pool(node: Node) -> Operation:
    kernel = node.get("kernel_shape", ())
    if node.get("auto_pad", "NOTSET") != "NOTSET" or node.get("ceil_mode", 0) or len(kernel) != 2:
        raise node.refused("pads by itself, rounds its size up, or is not over two dimensions")
    top, left, bottom, right = node.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise node.refused("has other margins at the end than at the start")
    # Without strides ONNX moves by 1, torch by the size of the kernel.
    strides, dilations = node.get("strides", (1, 1)), node.get("dilations", (1, 1))
    return lambda x: F.max_pool2d(x, kernel, strides, (top, left), dilations)


def _resize(node: Node) -> Operation:
    scales = node.constant(2)
    settings = (("mode", "nearest"), ("coordinate_transformation_mode", "half_pixel"), ("nearest_mode", "round_prefer_floor"))
    how = tuple(node.get(name, default) for name, default in settings)
    if how != ("nearest", "asymmetric", "floor") or node.get("axes", None) is not None:
        raise node.refused(f"is {', '.join(how)}; expected nearest, asymmetric, floor, over all axes")
    if scales is None or scales.size != 4 or any(scales[:2] != 1) or any(scales < 1) or any(scales % 1):
        raise node.refused("does not repeat rows and columns a whole number of times that a constant says")
    rows, columns = map(float, scales[2:])
    return lambda x, *_: F.interpolate(x, scale_factor=(rows, columns), mode="nearest")


def _slice(node: Node) -> Operation:
    starts, ends = node.needed(1).tolist(), node.needed(2).tolist()
    axes, steps = node.constant(3), node.constant(4)
    dims = list(range(len(starts))) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    if min(strides, default=1) < 1:
        raise node.refused("goes backwards")

    def cut(x: Tensor, *_: Tensor | None) -> Tensor:
        parts = [slice(None)] * x.ndim
        for dim, start, end, stride in zip(dims, starts, ends, strides, strict=True):
            parts[dim] = slice(start, end, stride)
        return x[tuple(parts)]

    return cut


def _split(node: Node) -> Operation:
    axis, sizes = node.get("axis", 0), node.constant(1)
    if sizes is not None:
        wanted = sizes.tolist()
        return lambda x, *_: torch.split(x, wanted, axis)
    count = len(node.outputs)
    # All but the last are of the same size.
    return lambda x: torch.split(x, -(-x.shape[axis] // count), axis)


def _concat(node: Node) -> Operation:
    axis = node.get("axis", 0)
    return lambda *parts: torch.cat(parts, axis)


def _gather(node: Node) -> Operation:
    axis, indices = node.get("axis", 0), node.needed(1)
    if indices.ndim > 1:
        raise node.refused(f"has indices of {indices.ndim} dimensions; expected one index, or a list")
    wanted = indices.reshape(-1).tolist()

    def gather(x: Tensor, *_: Tensor | None) -> Tensor:
        if indices.ndim == 0:
            return x.select(axis, wanted[0])
        return torch.stack([x.select(axis, index) for index in wanted], axis)

    return gather


def _softmax(node: Node) -> Operation:
    axis = node.get("axis", -1)
    return lambda x: torch.softmax(x, axis)


def _unsqueeze(node: Node) -> Operation:
    axes = node.needed(1).reshape(-1).tolist()

    def insert(x: Tensor, *_: Tensor | None) -> Tensor:
        rank = x.ndim + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return insert


def _reshape(node: Node) -> Operation:
    shape = node.constant(1)
    wanted = [] if shape is None else shape.tolist()
    copies = not node.get("allowzero", 0)  # a 0 stands for the input's own size there
    return lambda x, *_: x.reshape([x.shape[i] if size == 0 and copies else size for i, size in enumerate(wanted)])


def _flatten(node: Node) -> Operation:
    axis = node.get("axis", 1)
    return lambda x: x.reshape(int(np.prod(x.shape[:axis])), -1)


_PLAIN: dict[str, Operation] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "MatMul": torch.matmul,
    "Relu": F.relu,
    "HardSwish": F.hardswish,
    "Sigmoid": torch.sigmoid,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
}
_WITH_SETTINGS: dict[str, Callable[[Node], Operation]] = {
    "Transpose": _transpose,
    "Cast": _cast,
    "Conv": _conv,
    "Gemm": _gemm,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "ReduceMean": lambda node: _reduce(node, torch.mean),
    "ReduceSum": lambda node: _reduce(node, torch.sum),
    "MaxPool": _max_pool,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "Softmax": _softmax,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
}
_SEVERAL_OUTPUTS = ("Split",)
