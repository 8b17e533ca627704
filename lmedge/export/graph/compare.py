"""Is an ONNX graph valid, and does it still say what the reference said? Asked after every pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from lmedge.bundle import IMAGE, LANDMARKS
from lmedge.errors import BackendUnavailableError, ExportError, InputError
from lmedge.runtimes.onnxruntime import import_onnxruntime

# The newest that ONNX Runtime 1.23 reads, the last release for Python 3.10, is IR 11 and opset 23.
IR_VERSION = 10
OPSET = 20
INPUT, OUTPUT = IMAGE, LANDMARKS

# Crops per call: bounds the memory of a comparison, whatever the number of crops.
_BATCH = 16

# Session settings that make ONNX Runtime compute quantisers as they are written, without fusing them into integer kernels.
LITERAL: Mapping[str, str] = {"session.disable_quant_qdq": "1"}

Pass = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True)
class PassRecord:
    """What one step did to the answers.

    Attributes:
        name: of the step.
        max_px: largest distance of a point from the reference's, in pixels of the crop.
        crops: number of crops compared.
        nodes: in the graph after the step.
    """

    name: str
    max_px: float
    crops: int
    nodes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def import_engine() -> Any:
    """The onnxruntime module, that graphs are checked with.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed.
    """
    try:
        return import_onnxruntime()
    except ImportError as error:
        raise BackendUnavailableError("Working on graphs needs ONNX Runtime: pip install 'lmedge[onnxruntime]'") from error


def check_crops(crops_uint8: npt.NDArray[np.uint8]) -> None:
    """Refuses anything but a batch of crops.

    Raises:
        InputError: not uint8 (N, H, W, 3) with N ≥ 1.
    """
    crops = crops_uint8
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3 or not len(crops):
        came = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise InputError(f"Crops must be uint8 (N, H, W, 3), BGR, at least one; got {came}.")


def check_graph(model: onnx.ModelProto, step: str) -> None:
    """The ONNX checker with full type and shape inference.

    Raises:
        ExportError: the model is not valid ONNX, naming the step that made it so.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"After {step!r} the graph is not valid ONNX: {error}") from error


def run_onnx(
    model: onnx.ModelProto | Path, crops_uint8: npt.NDArray[np.uint8], *, settings: Mapping[str, str] | None = None
) -> npt.NDArray[np.float32]:
    """The answers (N, K, 2) of ONNX Runtime on the CPU, as fractions of the crop.

    Args:
        settings: of the session, as `open_session` takes them.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed.
        ExportError: it does not load or run the model.
    """
    session = open_session(model, settings=settings)
    try:
        parts = [
            session.run([OUTPUT], {INPUT: np.ascontiguousarray(crops_uint8[start : start + _BATCH])})[0]
            for start in range(0, len(crops_uint8), _BATCH)
        ]
    except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
        raise ExportError(f"ONNX Runtime does not run the graph: {error}") from error
    return np.concatenate(parts)


def open_session(model: onnx.ModelProto | Path, *, threads: int = 0, settings: Mapping[str, str] | None = None) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        threads: within one call; 0 takes what ONNX Runtime likes. With 1, sums have the same order on any number of cores.
        settings: session configuration entries by key.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed.
        ExportError: it does not load the model.
    """
    onnxruntime = import_engine()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} does not load the graph: {error}") from error


def max_distance_px(
    fractions: npt.NDArray[np.floating], reference: npt.NDArray[np.floating], crop_hw: tuple[int, int]
) -> float:
    """The largest distance between two answers (N, K, 2), in pixels of the crop; NaN when either holds one."""
    if fractions.shape != reference.shape:
        raise ExportError(f"The graph answers in the shape {fractions.shape}; the reference in {reference.shape}.")
    size_px = np.array([crop_hw[1], crop_hw[0]], np.float64)
    difference_px = (np.asarray(fractions, np.float64) - np.asarray(reference, np.float64)) * size_px
    return float(np.linalg.norm(difference_px, axis=-1).max())


def check_step(
    step: str,
    model: onnx.ModelProto,
    crops_uint8: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.floating],
    limit_px: float,
    *,
    settings: Mapping[str, str] | None = None,
) -> PassRecord:
    """Checks the graph that a step made: valid, and within `limit_px` of the reference on these crops.

    Args:
        reference: fractions (N, K, 2) that the step must keep.
        settings: of the session that runs the graph; give the reference's own.

    Raises:
        ExportError: invalid, or further off.
    """
    check_graph(model, step)
    hw = (crops_uint8.shape[1], crops_uint8.shape[2])
    found_px = max_distance_px(run_onnx(model, crops_uint8, settings=settings), reference, hw)
    if not found_px <= limit_px:  # NaN compares false
        raise ExportError(
            f"After {step!r} a point lies {found_px:.4g} px off on {len(crops_uint8)} crops; allowed are {limit_px:g} px. "
            "The step changed what the network computes, so nothing was written."
        )
    return PassRecord(step, found_px, len(crops_uint8), len(model.graph.node))
