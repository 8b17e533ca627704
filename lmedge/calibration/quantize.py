"""From `model.fp32.onnx` and calibration crops to the two int8 files, by ONNX Runtime's quantiser.

Ranges are measured once, as the least and the greatest value of each activation over all crops, and both dialects use them:

* portable: signed, symmetric, zero point 0, per-channel weights, float bias, residual adds quantised on the skip input only;
  legal on TensorRT, OpenVINO and ONNX Runtime alike (`lint_qdq` is its gate).
* x86: unsigned, zero point 0 behind ReLU, so that all 8 bits serve positive values and the activation itself falls away;
  int32 biases, adds quantised on both sides, and the image read as the uint8 that it is.

The regression head stays in float in both: it costs next to nothing and carries the coordinates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import write_atomically
from lmedge.calibration.images import check_informative, crops_digest
from lmedge.errors import CalibrationError
from lmedge.export.graph.compare import INPUT, check_graph
from lmedge.export.graph.input_scale import Normalisation, dequantize_input, find_normalisation
from lmedge.export.graph.legalize_qdq import legalize_qdq
from lmedge.export.graph.lint_qdq import lint_qdq
from lmedge.export.graph.strip import strip
from lmedge.export.graph.to_fp16 import sort_nodes
from lmedge.reports import CalibrationRecord

if TYPE_CHECKING:
    import onnx

METHOD = "min-max"
_LAYERS = ("Conv", "Add")
_ACTIVATIONS = ("Relu", "Clip")
_SIGNED_MEAN = 128  # the uint8 value that int8 calls 0


def quantize_int8(
    fp32_onnx: Path,
    crops_uint8: npt.NDArray[np.uint8],
    portable_file: Path,
    x86_file: Path,
    *,
    seed: int = 0,
    sources: Sequence[str] = (),
) -> CalibrationRecord:
    """Writes both int8 files of an fp32 one, and says what their ranges were measured on.

    The same crops in any order give the same bytes.

    Args:
        crops_uint8: (N, H, W, 3) BGR, as `calibration_crops` gives them.
        seed: the one these crops were chosen by, for the record.
        sources: data sets they came from, for the record.

    Raises:
        CalibrationError: the crops cannot calibrate anything or do not fit the network, or the portable graph is not legal.
        ExportError: a quantised graph is not valid ONNX.
    """
    import onnx

    check_informative(crops_uint8)
    model = onnx.load(fp32_onnx)
    _check_fit(model, crops_uint8)
    normalisation = find_normalisation(model)
    float_nodes = _float_nodes(model)
    ranges = _measure_ranges(fp32_onnx, crops_uint8)

    portable = legalize_qdq(_quantize(model, ranges, float_nodes, _portable_options(normalisation), unsigned=False))
    if problems := lint_qdq(portable):
        raise CalibrationError(
            f"The portable int8 graph of {fp32_onnx} would break {len(problems)} rules: " + " ".join(problems[:3])
        )
    x86 = _quantize(model, ranges, float_nodes, _x86_options(normalisation), unsigned=True)
    if normalisation:
        x86 = dequantize_input(x86, normalisation)
    for file, quantized in ((portable_file, portable), (x86_file, x86)):
        finished = strip(quantized)
        check_graph(finished, f"quantise to {file.name}")
        write_atomically(file, finished.SerializeToString(deterministic=True))
    return CalibrationRecord(
        count=len(crops_uint8),
        method=METHOD,
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


def _measure_ranges(fp32_onnx: Path, crops_uint8: npt.NDArray[np.uint8]) -> Any:
    """Least and greatest value of every activation.

    One crop at a time, and only these two numbers of each tensor are kept, so memory does not grow with the size of the
    network's features; and least and greatest do not depend on the order. `CalibMaxIntermediateOutputs`, the quantiser's own
    way to save memory, forgets what it flushed (onnxruntime issue 32577).
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Crops(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, Any]] = ({INPUT: crop[None]} for crop in crops_uint8)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory(prefix="lmedge-") as folder:
        augmented = str(Path(folder) / "augmented.onnx")
        operators = [*_LAYERS, *_ACTIVATIONS]
        calibrator = create_calibrator(fp32_onnx, operators, augmented, calibrate_method=CalibrationMethod.MinMax)
        calibrator.collect_data(Crops())
        return calibrator.compute_data()


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
