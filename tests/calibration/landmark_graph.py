"""A landmark network of some twenty nodes with the parts of a MobileNetV2, made without torch, and crops for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lmedge.export.graph.compare import INPUT, IR_VERSION, OPSET, OUTPUT

CROP_PX, POINTS = 32, 5
# The pair that channel alignment may work on: a linear projection and the 1 × 1 expansion that alone reads it.
PROJECTION, EXPANSION = "project_1", "expand_2"


def landmark_graph(seed: int = 0, *, unequal: float = 1.0) -> onnx.ModelProto:
    """uint8 (N, 32, 32, 3) BGR crops → float32 (N, 5, 2) fractions of the crop.

    Args:
        unequal: how many times wider the widest channel behind the first projection is than the narrowest.
    """
    random = np.random.default_rng(seed)
    values: dict[str, npt.NDArray[np.generic]] = {
        "mean": np.array(128, np.float32),
        "std": np.array(64, np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "flat": np.array([0, 16 * 8 * 8]),
        "points": np.array([0, POINTS, 2]),
    }
    nodes = [
        helper.make_node("Transpose", [INPUT], ["planes"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "mean"], ["centred"], name="sub"),
        helper.make_node("Div", ["centred", "std"], ["normal"], name="div"),
    ]

    def conv(name: str, source: str, outside: int, inside: int, size: int = 1, stride: int = 1, groups: int = 1) -> str:
        weight = random.normal(0, 1.4 / np.sqrt(inside * size * size), (outside, inside, size, size))
        values[f"{name}.weight"], values[f"{name}.bias"] = (
            weight.astype(np.float32),
            random.normal(0, 0.3, outside).astype("f4"),
        )
        pads = [size // 2] * 4
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        nodes.append(
            helper.make_node("Conv", inputs, [f"{name}.out"], name=name, strides=[stride, stride], pads=pads, group=groups)
        )
        return f"{name}.out"

    def relu6(source: str) -> str:
        nodes.append(helper.make_node("Clip", [source, "zero", "six"], [f"{source}.clip"], name=f"{source}.clip"))
        return f"{source}.clip"

    features = relu6(conv("stem", "normal", 8, 3, size=3, stride=2))
    features = relu6(conv("depthwise_1", features, 8, 1, size=3, groups=8))
    features = conv(PROJECTION, features, 6, 8)
    features = relu6(conv(EXPANSION, features, 24, 6))
    features = relu6(conv("depthwise_2", features, 24, 1, size=3, stride=2, groups=24))
    skip = conv("project_2", features, 6, 24)
    features = relu6(conv("expand_3", skip, 24, 6))
    features = conv("project_3", relu6(conv("depthwise_3", features, 24, 1, size=3, groups=24)), 6, 24)
    nodes.append(helper.make_node("Add", [skip, features], ["sum"], name="add"))
    features = relu6(conv("last", "sum", 16, 6))
    values["head.weight"] = random.normal(0, 0.004, (16 * 8 * 8, POINTS * 2)).astype(np.float32)
    values["head.bias"] = random.uniform(0.3, 0.7, POINTS * 2).astype(np.float32)
    nodes += [
        helper.make_node("Reshape", [features, "flat"], ["row"], name="flatten"),
        helper.make_node("Gemm", ["row", "head.weight", "head.bias"], ["answer"], name="head"),
        helper.make_node("Reshape", ["answer", "points"], [OUTPUT], name="pairs"),
    ]
    widths = np.geomspace(1, unequal, 6).astype(np.float32)
    values[f"{PROJECTION}.weight"] = values[f"{PROJECTION}.weight"] * widths[:, None, None, None]
    values[f"{PROJECTION}.bias"] = values[f"{PROJECTION}.bias"] * widths
    values[f"{EXPANSION}.weight"] = values[f"{EXPANSION}.weight"] / widths[:, None, None]
    graph = helper.make_graph(
        nodes,
        "landmarks",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", CROP_PX, CROP_PX, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", POINTS, 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def smooth_crops(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Patches of colour, uint8 (N, 32, 32, 3)."""
    random = np.random.default_rng(seed)
    patches = random.normal(
        random.uniform(60, 190, (count, 1, 1, 3)), random.uniform(20, 60, (count, 1, 1, 1)), (count, 8, 8, 3)
    )
    return np.clip(patches.repeat(4, axis=1).repeat(4, axis=2), 0, 255).astype(np.uint8)


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """The graph's weights and other constants by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
