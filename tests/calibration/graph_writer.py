"""Small float networks, written layer by layer where a test needs a layout that `landmark_graph` does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lmedge.export.graph.compare import INPUT, IR_VERSION, OPSET, OUTPUT

POINTS = 5


class GraphWriter:
    """uint8 (N, S, S, 3) BGR crops → (N, 5, 2). Each method writes a layer behind a tensor and returns the name of its result.

    A convolution NAME has the constants NAME.weight and NAME.bias; the result of every layer NAME is NAME.out. The seed draws
    the weights.
    """

    def __init__(self, crop_px: int = 16, seed: int = 0) -> None:
        self.crop_px = crop_px
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._values: dict[str, npt.NDArray[Any]] = {"mean": np.float32(128), "std": np.float32(64)}
        self._channels: dict[str, int] = {}
        self._node("planes", "Transpose", INPUT, perm=[0, 3, 1, 2])
        self._node("floats", "Cast", "planes.out", to=TensorProto.FLOAT)
        self._node("centred", "Sub", "floats.out", "mean")
        self.image = self._node("normal", "Div", "centred.out", "std")
        self._channels[self.image] = 3

    def conv(
        self, name: str, source: str, outputs: int, size: int = 1, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> str:
        """A convolution, padded so that the height stays where the stride is 1."""
        inside = self._channels[source] // groups
        weight = self._random.normal(0, 1.4 / np.sqrt(inside * size * size), (outputs, inside, size, size))
        self._values[f"{name}.weight"] = weight.astype(np.float32)
        inputs = [source, f"{name}.weight"]
        if bias:
            self._values[f"{name}.bias"] = self._random.normal(0, 0.3, outputs).astype(np.float32)
            inputs.append(f"{name}.bias")
        self._channels[f"{name}.out"] = outputs
        return self._node(name, "Conv", *inputs, strides=[stride, stride], pads=[size // 2] * 4, group=groups)

    def depthwise(self, name: str, source: str, size: int = 3, *, stride: int = 1) -> str:
        channels = self._channels[source]
        return self.conv(name, source, channels, size, stride=stride, groups=channels)

    def relu(self, name: str, source: str) -> str:
        return self._elementwise(name, "Relu", source)

    def hard_swish(self, name: str, source: str) -> str:
        return self._elementwise(name, "HardSwish", source)

    def clip(self, name: str, source: str, least: float = 0.0, greatest: float = 6.0) -> str:
        self._values |= {f"{name}.least": np.float32(least), f"{name}.greatest": np.float32(greatest)}
        return self._elementwise(name, "Clip", source, f"{name}.least", f"{name}.greatest")

    def add(self, name: str, first: str, second: str) -> str:
        return self._elementwise(name, "Add", first, second)

    def squeeze_excite(self, name: str, source: str, squeezed: int = 4) -> str:
        """Channels weighed by two convolutions, NAME.squeeze and NAME.excite, on their means."""
        self._values["positions"] = np.array([2, 3])
        pooled = self._node(f"{name}.pool", "ReduceMean", source, "positions", keepdims=1)
        self._channels[pooled] = self._channels[source]
        hidden = self.relu(f"{name}.relu", self.conv(f"{name}.squeeze", pooled, squeezed))
        weights = self.conv(f"{name}.excite", hidden, self._channels[source])
        gate = self._elementwise(f"{name}.gate", "HardSigmoid", weights)
        return self._elementwise(name, "Mul", source, gate)

    def model(self, source: str, *, hidden: int = 0) -> onnx.ModelProto:
        """The network with its regression head behind a tensor; with `hidden`, of two linear layers and a Relu between."""
        values, flat = self._values, self._count(source)
        values |= {"flat": np.array([0, flat]), "points": np.array([0, POINTS, 2])}
        last = self._node("flatten", "Reshape", source, "flat")
        if hidden:
            values["hidden.weight"] = self._random.normal(0, 1 / np.sqrt(flat), (flat, hidden)).astype(np.float32)
            last = self._node("hidden.relu", "Relu", self._node("hidden", "Gemm", last, "hidden.weight"))
            flat = hidden
        values["head.weight"] = self._random.normal(0, 0.1 / np.sqrt(flat), (flat, 2 * POINTS)).astype(np.float32)
        values["head.bias"] = self._random.uniform(0.3, 0.7, 2 * POINTS).astype(np.float32)
        last = self._node("head", "Gemm", last, "head.weight", "head.bias")
        self._nodes.append(helper.make_node("Reshape", [last, "points"], [OUTPUT], name="pairs"))
        graph = helper.make_graph(
            self._nodes,
            "landmarks",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", self.crop_px, self.crop_px, 3])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", POINTS, 2])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _elementwise(self, name: str, kind: str, source: str, *others: str) -> str:
        self._channels[f"{name}.out"] = self._channels[source]
        return self._node(name, kind, source, *others)

    def _node(self, name: str, kind: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def _count(self, source: str) -> int:
        """How many values a tensor holds for one crop: its channels times its positions, by the strides before it."""
        makers = {node.output[0]: node for node in self._nodes}
        side, name = self.crop_px, source
        while name != self.image:
            node = makers[name]
            stride = next((item.ints[0] for item in node.attribute if item.name == "strides"), 1)
            side, name = -(-side // stride), node.input[0]
        return self._channels[source] * side**2


def constant(model: onnx.ModelProto, name: str) -> npt.NDArray[Any]:
    """The value of a constant."""
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def set_constant(model: onnx.ModelProto, name: str, value: npt.NDArray[Any]) -> None:
    """Gives a constant another value."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def with_activation(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """The network with another activation in place of every ReLU6."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.op_type == "Clip":
            node.op_type = kind
            del node.input[1:]
    return changed


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node of this name."""
    return next(node for node in model.graph.node if node.name == name)
