"""From `model.pt2`, the exported program that training writes, to `model.fp32.onnx`.

Each step (torch's exporter, then the graph passes) is checked with the ONNX checker, and its answers are compared with
PyTorch's on real crops; a step that moves a point by more than `LIMIT_PX` stops the export.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from lmedge.bundle import CONFIDENCE, write_atomically
from lmedge.errors import ExportError
from lmedge.export.graph.cast_first import cast_first
from lmedge.export.graph.compare import INPUT, OPSET, OUTPUT, Pass, PassRecord, check_crops, check_step
from lmedge.export.graph.simplify import simplify
from lmedge.export.graph.strip import strip

# fp32 engines sum in another order than PyTorch; on a 112-px crop that is some 1e-4 px. The parity gate asks the same.
LIMIT_PX = 0.01
PASSES: tuple[tuple[str, Pass], ...] = (("simplify", simplify), ("cast first", cast_first), ("strip", strip))

_OUTPUTS = (OUTPUT, CONFIDENCE)
# Photographs of an infrared camera are gray: only colour noise shows exchanged channels there.
_NOISE_CROPS = 2
_BATCH = 16


def export_onnx(program: Path, onnx_file: Path, crops_uint8: npt.NDArray[np.uint8]) -> list[PassRecord]:
    """Writes the ONNX file of an exported program: opset 20, dynamic batch, weights inside, no traces of its making.

    Args:
        program: `model.pt2`; input uint8 (N, H, W, 3) BGR, output float32 (N, K, 2) fractions of the crop, N dynamic.
        onnx_file: what to write.
        crops_uint8: real crops (M, H, W, 3) to compare on; two crops of colour noise are added.

    Returns:
        One record per step: its largest distance from PyTorch's answers.

    Raises:
        ExportError: the program cannot be read or exported, or a step changed the answers; nothing is written.
        InputError: the crops are no crops.
    """
    check_crops(crops_uint8)
    exported = load_program(program)
    hw = _input_hw(exported, program)
    if crops_uint8.shape[1:3] != hw:
        raise ExportError(
            f"{program} takes crops of {hw[0]} × {hw[1]} px; the crops to compare on are {crops_uint8.shape[1:3]}."
        )
    noise = np.random.default_rng(0).integers(0, 256, (_NOISE_CROPS, *hw, 3), np.uint8)
    crops = np.concatenate([crops_uint8, noise])
    reference = run_program(exported, crops)

    model = _export(exported, program)
    records = [check_step("torch.onnx.export", model, crops, reference, LIMIT_PX)]
    for name, graph_pass in PASSES:
        model = graph_pass(model)
        records.append(check_step(name, model, crops, reference, LIMIT_PX))
    write_atomically(onnx_file, model.SerializeToString(deterministic=True))
    return records


def load_program(file: Path) -> torch.export.ExportedProgram:
    """Reads `model.pt2`.

    Raises:
        ExportError: missing, or not written by `torch.export.save`.
    """
    try:
        with quiet():
            return torch.export.load(file)
    except Exception as error:  # torch raises RuntimeError, zip, pickle and key errors here
        raise ExportError(
            f"{file} cannot be read as an exported program ({error}). Train again, or give the model.pt2."
        ) from error


def run_program(program: torch.export.ExportedProgram, crops_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """PyTorch's answers (N, K, 2) on crops (N, H, W, 3), as fractions of the crop."""
    module = program.module()
    parts: list[npt.NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(crops_uint8), _BATCH):
            answer = module(torch.tensor(crops_uint8[start : start + _BATCH]))
            parts.append((answer[0] if isinstance(answer, tuple | list) else answer).numpy())
    return np.concatenate(parts)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch's progress, its deprecation warnings about itself, and its remarks about torchvision off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _input_hw(program: torch.export.ExportedProgram, file: Path) -> tuple[int, int]:
    """Height and width of the crops, after checking that the program is a landmark network with a dynamic batch."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = program.graph_signature.user_inputs
    tensor = placeholders[str(names[0])].meta["val"] if len(names) == 1 else None
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[3] != 3:
        came = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else f"{len(names)} inputs"
        raise ExportError(f"{file} must take one uint8 tensor (N, H, W, 3); it takes {came}.")
    if isinstance(tensor.shape[0], int):
        raise ExportError(
            f"{file} takes batches of {tensor.shape[0]} only. Export it with a batch-2 example and "
            "dynamic_shapes=({0: torch.export.Dim('batch')},)."
        )
    return int(tensor.shape[1]), int(tensor.shape[2])


def _export(program: torch.export.ExportedProgram, file: Path) -> onnx.ModelProto:
    """torch's exporter with its optimiser, which folds batch norm; without it, a buffer named `mean` makes an invalid file."""
    outputs = _OUTPUTS[: len(program.graph_signature.user_outputs)]
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                optimize=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever an operator's translation raises
        raise ExportError(f"torch {torch.__version__} cannot export {file} to ONNX: {error}") from error
    if made is None:
        raise ExportError(f"torch {torch.__version__} gave no ONNX program for {file}.")
    model = made.model_proto
    opset = next((entry.version for entry in model.opset_import if not entry.domain), None)
    if opset != OPSET:
        raise ExportError(f"torch {torch.__version__} wrote opset {opset} for {file}; opset {OPSET} was asked for.")
    return model
