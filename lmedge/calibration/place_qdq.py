"""An fp32 graph and the ranges of its activations → a Q/DQ graph in one of two dialects.

* portable: signed, symmetric, zero point 0, per-channel weights, float bias, residual adds quantised on the skip input only,
  of the gates of squeeze-and-excite the weights only; legal on TensorRT, OpenVINO and ONNX Runtime alike (`lint_qdq` is its
  gate).
* x86: unsigned, zero point 0 behind ReLU, so that all 8 bits serve positive values and the activation itself falls away;
  int32 biases, and adds quantised on both sides. What is only moved, as by an upsampling that repeats values, keeps its
  integers.

The regression head stays in float in both: it costs next to nothing and carries the coordinates. Scales are moved a little, to
where engines cannot round differently (`snap_scales`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmedge.errors import CalibrationError
from lmedge.export.graph.input_scale import Normalisation, find_normalisation
from lmedge.export.graph.legalize_qdq import legalize_qdq
from lmedge.export.graph.moved_integers import keep_moved_integers
from lmedge.export.graph.qdq_graph import MOVES
from lmedge.export.graph.qdq_rewrites import float_pooled
from lmedge.export.graph.snap_scales import snap_scales
from lmedge.export.graph.strip import strip
from lmedge.export.graph.to_fp16 import sort_nodes

if TYPE_CHECKING:
    import onnx

Dialect = Literal["portable", "x86"]
Ranges = dict[str, tuple[np.float32, np.float32]]
PORTABLE: Dialect = "portable"
X86: Dialect = "x86"
DIALECTS: tuple[Dialect, ...] = (PORTABLE, X86)

_LAYERS = ("Conv", "Add")
_ACTIVATIONS = ("Relu", "Clip")
# The last convolution belongs to the head when it does at most this part of the work.
_HEAD_SHARE = 0.02
_SIGNED_MEAN = 128  # the uint8 value that int8 calls 0


def place_qdq(model: onnx.ModelProto, ranges: Ranges, dialect: Dialect, float_layers: Collection[str] = ()) -> onnx.ModelProto:
    """The quantised graph, stripped; the fp32 one is not changed.

    Args:
        ranges: least and greatest value of every tensor in `quantised_tensors(model)`.
        float_layers: names of convolutions and adds that stay in float.

    Raises:
        CalibrationError: a float layer that the graph does not have, or no convolution at all.
    """
    known = {node.name for node in model.graph.node}
    if unknown := sorted(set(float_layers) - known):
        raise CalibrationError(f"The graph has no layer {unknown[0]!r}. lmedge inspect FILE lists the layers.")
    normalisation = find_normalisation(model)
    excluded = [*head_nodes(model), *sorted(float_layers), *_activations_behind(model, float_layers)]
    if dialect == PORTABLE:
        quantised = legalize_qdq(_quantize(model, ranges, excluded, _portable_options(normalisation), unsigned=False))
        float_pooled(quantised.graph)
    else:
        quantised = _quantize(model, ranges, excluded, _x86_options(normalisation), unsigned=True)
        keep_moved_integers(quantised.graph)
    return strip(snap_scales(quantised, model))


def head_nodes(model: onnx.ModelProto) -> list[str]:
    """What always stays in float, the regression head: every node behind the last convolution and its activation, and these two
    as well where they are a small part of the network's work (the convolution that squeezes channels in front of the regressor:
    a quarter of the whole rounding error of a MobileNetV2 came from its input, for half a percent of the work), or where a
    softmax reads what it or a convolution of the same features makes: heat maps in 8 bits change its weights by some 3 % (a
    MobileNetV4 with the integral head, x86 dialect: points move by 0.14 px on average, 0.12 with the maps in float, for 2 %
    more time on ONNX Runtime).

    Raises:
        CalibrationError: the network has no convolution, or layers that names do not tell apart.
    """
    nodes = list(model.graph.node)
    names = Counter(node.name for node in nodes if node.op_type in (*_LAYERS, *_ACTIVATIONS))
    if doubtful := [name for name, count in names.items() if count > 1 or not name]:
        raise CalibrationError(
            f"Layers are known by their names, and {names[doubtful[0]]} layers of the graph are called {doubtful[0]!r}. "
            "Give every node a name of its own, as lmedge's export does."
        )
    last = max((index for index, node in enumerate(nodes) if node.op_type == "Conv"), default=None)
    if last is None:
        raise CalibrationError("The network has no convolution, so there is nothing to quantise.")
    macs = conv_macs(model)
    made = nodes[last].output[0]
    # Maps of several kinds come from as many convolutions of the same features.
    beside = [index for index, node in enumerate(nodes) if node.op_type == "Conv" and node.input[0] == nodes[last].input[0]]
    heat = any(_softmax_reads(nodes[index].output[0], nodes[index + 1 :]) for index in beside)
    is_head = heat or macs[nodes[last].name] <= _HEAD_SHARE * sum(macs.values())
    first = beside[0] if heat else last
    behind = [n.name for n in nodes[first + 1 :] if is_head or n.op_type not in _ACTIVATIONS or n.input[0] != made]
    return [nodes[first].name, *behind] if is_head else behind


def conv_macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of each convolution for one crop, by name."""
    positions = _positions(model)
    weights = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    return {
        node.name: weights.get(node.input[1], 0) * positions.get(node.output[0], 0)
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def quantised_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the layers that get quantisers, in graph order. Squeeze-and-excite is among them: left in float, its weights
    double the file of a MobileNetV3, and the points come no nearer to the float network's than 0.23 px instead of 0.26.
    """
    left_out = set(head_nodes(model))
    return [node.name for node in model.graph.node if node.op_type in _LAYERS and node.name not in left_out]


def quantised_tensors(model: onnx.ModelProto) -> list[str]:
    """The activations that either dialect quantises: what its layers read and make."""
    weights = {tensor.name for tensor in model.graph.initializer}
    left_out = set(head_nodes(model))
    layers = [n for n in model.graph.node if n.op_type in (*_LAYERS, *_ACTIVATIONS) and n.name not in left_out]
    return sorted({name for node in layers for name in (*node.input, *node.output) if name} - weights)


def _softmax_reads(tensor: str, nodes: list[onnx.NodeProto]) -> bool:
    """Whether a tensor, or a part of it, is what a softmax reads."""
    moved = {tensor}
    for node in nodes:
        if node.input and node.input[0] in moved:
            if node.op_type == "Softmax":
                return True
            if node.op_type in MOVES:
                moved.update(node.output)
    return False


def _positions(model: onnx.ModelProto) -> dict[str, int]:
    """Height times width of each tensor (N, C, H, W), by name."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    return {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim[2:])
        for value in inferred.graph.value_info
        if len(value.type.tensor_type.shape.dim) == 4
    }


def _activations_behind(model: onnx.ModelProto, layers: Collection[str]) -> list[str]:
    """Activations that read what the named layers make: they share their layer's precision."""
    made = {output for node in model.graph.node if node.name in layers for output in node.output}
    return [node.name for node in model.graph.node if node.op_type in _ACTIVATIONS and node.input[0] in made]


def _quantize(
    model: onnx.ModelProto, ranges: Ranges, excluded: list[str], options: dict[str, Any], *, unsigned: bool
) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    extremes = {name: tuple(map(np.array, pair)) for name, pair in ranges.items()}
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(copied),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if unsigned else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, extremes),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=[*_LAYERS, *_ACTIVATIONS] if unsigned else list(_LAYERS),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": not unsigned, **options},
    )
    quantized: onnx.ModelProto = quantizer.quantize_model()
    sort_nodes(quantized.graph)
    return quantized


def _portable_options(normalisation: Normalisation | None) -> dict[str, Any]:
    # Inputs of layers are quantised, not their outputs: nothing stands between a convolution and its activation.
    options: dict[str, Any] = {"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": list(_LAYERS)}
    if normalisation and normalisation.zero_point == _SIGNED_MEAN:
        options["TensorQuantOverrides"] = _input_override(normalisation, np.int8(0))
    return options


def _x86_options(normalisation: Normalisation | None) -> dict[str, Any]:
    options: dict[str, Any] = {"QuantizeBias": True}
    if normalisation:
        options["TensorQuantOverrides"] = _input_override(normalisation, np.uint8(normalisation.zero_point))
    return options


def _input_override(normalisation: Normalisation, zero_point: Any) -> dict[str, Any]:
    """Quantises the normalised image with its own scale, which loses nothing."""
    from onnxruntime.quantization import QuantType

    kind = QuantType.QInt8 if zero_point.dtype == np.int8 else QuantType.QUInt8
    scale = np.array(normalisation.scale, np.float32)
    return {normalisation.tensor: [{"quant_type": kind, "scale": scale, "zero_point": np.array(zero_point)}]}
