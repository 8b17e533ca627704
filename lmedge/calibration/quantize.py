"""From `model.fp32.onnx` and calibration crops to the two int8 files, by one recipe.

A build goes further: it chooses among recipes, may leave layers in float to meet a bound, and may fine-tune (`pipeline.steps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmedge.bundle import write_atomically
from lmedge.calibration.checks import check_calibration
from lmedge.calibration.crop_store import Crops, crops_digest
from lmedge.calibration.finish_qdq import finish_qdq
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, Dialect, head_nodes
from lmedge.calibration.recipe import Prepared, Recipe, prepare
from lmedge.errors import CalibrationError
from lmedge.export.graph.compare import check_graph
from lmedge.export.graph.lint_qdq import lint_qdq
from lmedge.reports import CalibrationRecord

if TYPE_CHECKING:
    import onnx

_SHOWN_FINDINGS = 3


def quantize_int8(
    fp32_onnx: Path,
    crops_uint8: Crops,
    portable_file: Path,
    x86_file: Path,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    sources: Sequence[str] = (),
) -> CalibrationRecord:
    """Writes both int8 files of an fp32 one, and says what their ranges were measured on.

    The same crops in any order give the same bytes.

    Args:
        crops_uint8: (N, H, W, 3) BGR, as `calibration_images` gives them.
        recipe: without one, lmedge's own.
        seed: the one these crops were chosen by, for the record.
        sources: data sets they came from, for the record.

    Raises:
        CalibrationError: the crops cannot calibrate anything or do not fit the network, or a network whose portable graph would
            not be legal.
        ExportError: a quantised graph is not valid ONNX.
    """
    check_calibration(crops_uint8)
    model = read_network(fp32_onnx)
    check_fit(model, crops_uint8)
    [prepared] = prepare(model, crops_uint8, [recipe or Recipe()])
    for dialect, file in zip(DIALECTS, (portable_file, x86_file), strict=True):
        write_quantised(prepared.place(dialect), dialect, file)
    return calibration_record(model, prepared, crops_uint8, seed=seed, sources=sources)


def read_network(fp32_onnx: Path) -> onnx.ModelProto:
    """The float network of an ONNX file."""
    import onnx

    return onnx.load(fp32_onnx)


def check_fit(model: onnx.ModelProto, crops_uint8: Crops) -> None:
    """Refuses crops of another size than the network takes.

    Raises:
        CalibrationError: naming both sizes.
    """
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    if tuple(crops_uint8.shape[1:3]) != (height, width):
        came = " × ".join(map(str, crops_uint8.shape[1:3]))
        raise CalibrationError(f"The network takes crops of {height} × {width} px; the calibration crops have {came} px.")


def write_quantised(model: onnx.ModelProto, dialect: Dialect, file: Path) -> None:
    """Finishes an int8 network, and writes it once it is valid, and legal everywhere where its dialect is meant to be.

    Raises:
        CalibrationError: a portable graph that breaks a rule of `lint_qdq`.
        ExportError: it is not valid ONNX.
    """
    model = finish_qdq(model, dialect)
    if dialect == PORTABLE and (findings := lint_qdq(model)):
        shown = " ".join(map(str, findings[:_SHOWN_FINDINGS]))
        raise CalibrationError(f"{file.name} would break {len(findings)} rules of portable Q/DQ graphs: {shown}")
    check_graph(model, f"quantise to {file.name}")
    write_atomically(file, model.SerializeToString(deterministic=True))


def calibration_record(
    model: onnx.ModelProto, prepared: Prepared, crops_uint8: Crops, *, seed: int, sources: Sequence[str]
) -> CalibrationRecord:
    """What a quantised network was made from and how."""
    return CalibrationRecord(
        count=len(crops_uint8),
        method=str(prepared.recipe),
        seed=seed,
        digest=crops_digest(crops_uint8),
        sources=tuple(sources),
        excluded_nodes=tuple(head_nodes(model)),
        tool_versions=dict(prepared.tool_versions),
    )
