"""NNCF's post-training algorithms on an fp32 graph → the same graph with better weights, and the ranges of its activations.

NNCF (https://github.com/openvinotoolkit/nncf) is used for what it computes, not for the graph it writes, which has quantisers
that TensorRT refuses and ONNX Runtime does not fuse. Its quantisers are read off, its biases are carried over into the float
graph, and `place_qdq` writes the Q/DQ of both dialects. NNCF's defaults give way where they differ from `place_qdq`, so that it
corrects for the weights as they will be: the same layers are quantised, the first one to 8 bits too (not 7), activations per
tensor.

* Bias correction makes up for what rounded weights shift; rounded activations play no part in it. "fast" takes one layer at a
  time, without the depthwise ones, and feeds it a flat picture of its mean input, which goes wrong at padded borders. "full"
  goes through the network in order with real crops, so that a layer also makes up for those before it.
* Channel alignment is `align_channels`: NNCF leaves it out for ONNX models without a word.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lmedge.calibration.align_channels import align_channels
from lmedge.calibration.crop_store import Crops, as_crops
from lmedge.calibration.place_qdq import Ranges, quantised_layers, quantised_tensors
from lmedge.calibration.ranges import Extremes, measure_extremes
from lmedge.errors import BackendUnavailableError, CalibrationError
from lmedge.export.graph.compare import INPUT, import_engine
from lmedge.runtimes.telemetry import telemetry_off

if TYPE_CHECKING:
    import onnx

BiasCorrection = Literal["none", "fast", "full"]
RangeEstimator = Literal["mean-min-max", "min-max", "histogram"]
BIAS_CORRECTIONS: tuple[BiasCorrection, ...] = ("none", "fast", "full")
RANGE_ESTIMATORS: tuple[RangeEstimator, ...] = ("mean-min-max", "min-max", "histogram")

# NNCF keeps the mean of every channel of every crop it sees, and full correction the features of a fifth of them (its own
# choice): 300 crops are its default, and more would make memory grow with their number.
_CROPS = 300


@dataclass(frozen=True, eq=False)
class NncfBase:
    """What NNCF made of a network.

    Attributes:
        float_model: the fp32 graph with the same nodes and names, its weights aligned and its biases corrected.
        ranges: least and greatest value of every tensor in `quantised_tensors(float_model)`.
        measured: those of them on which NNCF puts no quantiser, so that lmedge measured them: what lies between a convolution
            and its activation, and what the head reads.
        tool_versions: what made it, by package.
    """

    float_model: onnx.ModelProto
    ranges: Ranges
    measured: tuple[str, ...]
    tool_versions: Mapping[str, str]


def nncf_base(
    model: onnx.ModelProto,
    crops: Any,
    *,
    bias_correction: BiasCorrection,
    range_estimator: RangeEstimator,
    channel_alignment: bool = True,
    seed: int = 0,
) -> NncfBase:
    """Aligns channels, measures ranges and corrects biases as NNCF does; the given model is not changed.

    The result depends on the crops and the seed, not on the order of the crops. Memory does not grow with their number.

    Args:
        crops: uint8 (N, H, W, 3) BGR, an array or a `CropStore`. NNCF sees at most 300 of them, drawn by the seed.
        bias_correction: "full" takes as long as all the rest together, and uses 60 of the 300 crops.
        range_estimator: "mean-min-max" is NNCF's default: the mean over crops of the extremes. It clips what lies beyond, which
            a network with rare large activations needs (MobileNetV3 0.75 on 300-W, portable file: points move by 0.30 px on
            average; 0.92 with "min-max", 0.72 with "histogram") and others hardly mind (MobileNetV2: 0.14, 0.13 and 0.13).
            "histogram" searches the range with the least squared error and takes twice as long.

    Raises:
        BackendUnavailableError: NNCF or ONNX Runtime is not installed.
        CalibrationError: a name that is none of the above, no crops, or crops that do not fit the network.
    """
    _check_choice("bias_correction", bias_correction, BIAS_CORRECTIONS)
    _check_choice("range_estimator", range_estimator, RANGE_ESTIMATORS)
    drawn = _draw(as_crops(crops), seed)
    _check_size(model, drawn)
    start = align_channels(model, drawn) if channel_alignment else model
    quantised = _quantise(start, drawn, bias_correction, range_estimator)
    float_model = _with_biases(start, _biases(quantised))
    found = _ranges(quantised)
    needed = quantised_tensors(float_model)
    missing = [name for name in needed if name not in found]
    found.update(_measured_ranges(measure_extremes(float_model, missing, drawn), range_estimator))
    versions = {name: version(name) for name in ("nncf", "onnx", "onnxruntime")}
    return NncfBase(float_model, {name: found[name] for name in needed}, tuple(missing), versions)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise CalibrationError(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def _check_size(model: onnx.ModelProto, crops_uint8: npt.NDArray[np.uint8]) -> None:
    expected = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])
    if crops_uint8.shape[1:] != expected:
        raise CalibrationError(
            f"The network takes crops of the shape {expected}; the calibration crops have {crops_uint8.shape[1:]}."
        )


def _draw(crops: Crops, seed: int) -> npt.NDArray[np.uint8]:
    """The crops that NNCF sees, in an order that depends on what they show and the seed alone."""
    lots = [hashlib.sha256(b"%d:" % seed + crops[row : row + 1].tobytes()).digest() for row in range(len(crops))]
    winners = sorted(range(len(crops)), key=lots.__getitem__)[:_CROPS]
    return np.concatenate([crops[row : row + 1] for row in winners])


def _quantise(
    model: onnx.ModelProto, crops_uint8: npt.NDArray[np.uint8], bias_correction: BiasCorrection, estimator: RangeEstimator
) -> onnx.ModelProto:
    """NNCF's own quantised graph, its weights still in float in front of their quantisers."""
    import_engine()  # before NNCF imports ONNX Runtime, which must not report home either
    layers = set(quantised_layers(model))
    others = [node.name for node in model.graph.node if node.name not in layers]
    with telemetry_off():
        nncf = _import_nncf()
        with _quiet():
            quantised: onnx.ModelProto = nncf.quantize(
                model,
                nncf.Dataset(range(len(crops_uint8)), lambda row: {INPUT: crops_uint8[row : row + 1]}),
                preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations, so that ranges keep both ends
                subset_size=len(crops_uint8),
                fast_bias_correction=bias_correction != "full",
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
                advanced_parameters=_parameters(nncf, bias_correction, estimator),
            )
    return quantised


def _parameters(nncf: Any, bias_correction: BiasCorrection, estimator: RangeEstimator) -> Any:
    from nncf.onnx.quantization.backend_parameters import BackendParameters
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    estimators = {
        "mean-min-max": RangeEstimatorParametersSet.MEAN_MINMAX,
        "min-max": RangeEstimatorParametersSet.MINMAX,
        "histogram": RangeEstimatorParametersSet.HISTOGRAM,
    }
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.DISABLE,
        disable_bias_correction=bias_correction == "none",
        activations_quantization_params=QuantizationParameters(per_channel=False),
        activations_range_estimator_params=estimators[estimator],
        backend_params={BackendParameters.COMPRESS_WEIGHTS: False},
    )


def _import_nncf() -> Any:
    kind = logging.getLoggerClass()
    try:
        import nncf
    except ImportError as error:
        raise BackendUnavailableError("Quantising with NNCF needs NNCF: pip install 'lmedge[export]'") from error
    finally:
        logging.setLoggerClass(kind)  # the import changes it for the whole program
    return nncf


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps NNCF's progress bars and remarks off the terminal; its warnings go where the program's own logging sends them."""
    from rich import get_console

    console, logger = get_console(), logging.getLogger("nncf")
    kept = console.quiet, logger.handlers, logger.propagate, logger.level
    console.quiet, logger.handlers, logger.propagate = True, [], True
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        console.quiet, logger.handlers, logger.propagate = kept[:3]
        logger.setLevel(kept[3])


def _ranges(quantised: onnx.ModelProto) -> Ranges:
    """What the quantiser of each activation can express, by the tensor's name."""
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    ranges: Ranges = {}
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            scale, zero_point = constants[node.input[1]], constants[node.input[2]]
            levels = np.iinfo(zero_point.dtype)
            least, greatest = (np.float32(scale * (level - int(zero_point))) for level in (levels.min, levels.max))
            ranges[node.input[0]] = (least, greatest)
    return ranges


def _measured_ranges(extremes: Extremes, estimator: RangeEstimator) -> Ranges:
    """Ranges where NNCF has no quantiser: by its rule, where that asks for extremes only, else by lmedge's."""
    if estimator == "mean-min-max":
        return {name: (extremes.least[name].mean(), extremes.greatest[name].mean()) for name in extremes.least}
    return extremes.ranges(1.0) if estimator == "min-max" else extremes.ranges()


def _biases(quantised: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The bias of each convolution that has one, by the node's name."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    biased = (node for node in quantised.graph.node if node.op_type == "Conv" and len(node.input) > 2)
    return {node.name: numpy_helper.to_array(constants[node.input[2]]) for node in biased}


def _with_biases(model: onnx.ModelProto, biases: Mapping[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    import onnx

    corrected = onnx.ModelProto()
    corrected.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for node in corrected.graph.node:
        if node.name in biases:
            constants[node.input[2]].CopyFrom(onnx.numpy_helper.from_array(biases[node.name], node.input[2]))
    return corrected
