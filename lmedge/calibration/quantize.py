"""From `model.fp32.onnx` and calibration crops to the two int8 files, by ONNX Runtime's quantiser.

Ranges are measured once, from the extremes of each activation on each crop (`ranges`), and both dialects use them:

* portable: signed, symmetric, zero point 0, per-channel weights, float bias, residual adds quantised on the skip input only;
  legal on TensorRT, OpenVINO and ONNX Runtime alike (`lint_qdq` is its gate).
* x86: unsigned, zero point 0 behind ReLU, so that all 8 bits serve positive values and the activation itself falls away;
  int32 biases, and adds quantised on both sides.

The regression head stays in float in both: it costs next to nothing and carries the coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import write_atomically
from lmedge.calibration.images import check_informative, crops_digest
from lmedge.calibration.ranges import COVERAGE, measure_extremes
from lmedge.errors import CalibrationError
from lmedge.export.graph.compare import check_graph, import_engine
from lmedge.export.graph.input_scale import Normalisation, find_normalisation
from lmedge.export.graph.legalize_qdq import legalize_qdq
from lmedge.export.graph.lint_qdq import lint_qdq
from lmedge.export.graph.strip import strip
from lmedge.export.graph.to_fp16 import sort_nodes
from lmedge.reports import CalibrationRecord

if TYPE_CHECKING:
    import onnx

_LAYERS = ("Conv", "Add")
_ACTIVATIONS = ("Relu", "Clip")
_SIGNED_MEAN = 128  # the uint8 value that int8 calls 0


def quantize_int8(
    fp32_onnx: Path,
    crops_uint8: npt.NDArray[np.uint8],
    portable_file: Path,
    x86_file: Path,
    *,
    coverage: float = COVERAGE,
    seed: int = 0,
    sources: Sequence[str] = (),
) -> CalibrationRecord:
    """Writes both int8 files of an fp32 one, and says what their ranges were measured on.

    The same crops in any order give the same bytes.

    Args:
        crops_uint8: (N, H, W, 3) BGR, as `calibration_crops` gives them.
        coverage: the part of the crops on which a range holds every value, above 0.5; 1 is plain min-max.
        seed: the one these crops were chosen by, for the record.
        sources: data sets they came from, for the record.

    Raises:
        CalibrationError: the crops cannot calibrate anything or do not fit the network, a coverage out of range, or a network
            whose portable graph would not be legal.
        ExportError: a quantised graph is not valid ONNX.
    """
    import onnx

    import_engine()
    check_informative(crops_uint8)
    if not 0.5 < coverage <= 1:
        raise CalibrationError(f"coverage must be above 0.5 and at most 1 (plain min-max); got {coverage}.")
    model = onnx.load(fp32_onnx)
    _check_fit(model, crops_uint8)
    normalisation = find_normalisation(model)
    float_nodes = _float_nodes(model)
    ranges = _as_tensors_data(measure_extremes(fp32_onnx, _tensors(model), crops_uint8).ranges(coverage))

    portable = legalize_qdq(_quantize(model, ranges, float_nodes, _portable_options(normalisation), unsigned=False))
    if problems := lint_qdq(portable):
        raise CalibrationError(
            f"The portable int8 graph of {fp32_onnx} would break {len(problems)} rules: " + " ".join(problems[:3])
        )
    x86 = _quantize(model, ranges, float_nodes, _x86_options(normalisation), unsigned=True)
    for file, quantized in ((portable_file, portable), (x86_file, x86)):
        finished = strip(quantized)
        check_graph(finished, f"quantise to {file.name}")
        write_atomically(file, finished.SerializeToString(deterministic=True))
    return CalibrationRecord(
        count=len(crops_uint8),
        method=f"min-max, coverage {coverage:g}",
        seed=seed,
        digest=crops_digest(crops_uint8),
        sources=tuple(sources),
        excluded_nodes=tuple(float_nodes),
        tool_versions={"onnxruntime": version("onnxruntime"), "onnx": version("onnx")},
    )


def _check_fit(model: onnx.ModelProto, crops_uint8: npt.NDArray[np.uint8]) -> None:
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    if crops_uint8.shape[1:3] != (height, width):
        came = " × ".join(map(str, crops_uint8.shape[1:3]))
        raise CalibrationError(f"The network takes crops of {height} × {width} px; the calibration crops have {came} px.")


def _float_nodes(model: onnx.ModelProto) -> list[str]:
    """What stays in float: every node behind the last convolution and its activation, i.e. the regression head."""
    nodes = list(model.graph.node)
    last = max((index for index, node in enumerate(nodes) if node.op_type == "Conv"), default=None)
    if last is None:
        raise CalibrationError("The network has no convolution, so there is nothing to quantise.")
    return [node.name for node in nodes[last + 1 :] if node.op_type not in _ACTIVATIONS]


def _tensors(model: onnx.ModelProto) -> list[str]:
    """The activations that either dialect quantises: what its layers read and make."""
    weights = {tensor.name for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in (*_LAYERS, *_ACTIVATIONS)]
    return sorted({name for node in layers for name in (*node.input, *node.output) if name} - weights)


def _as_tensors_data(ranges: dict[str, tuple[np.float32, np.float32]]) -> Any:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import TensorsData

    return TensorsData(CalibrationMethod.MinMax, {name: tuple(map(np.array, pair)) for name, pair in ranges.items()})


def _quantize(
    model: onnx.ModelProto, ranges: Any, float_nodes: list[str], options: dict[str, Any], *, unsigned: bool
) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType

    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if unsigned else QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=float_nodes,
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
