"""An fp32 graph → the same network in fp16, and a Q/DQ graph → the same int8 network with fp16 between the quantisers.

Both take uint8 and give float32; everything between is in half precision, the scales of quantisers too. The precision is
written into the file (TensorRT 11 has no fp16 flag). ONNX Runtime's converter does the types; it appends its casts behind all
other nodes, which the ONNX checker refuses, so the nodes are put in order afterwards.
"""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from lmedge.bundle import write_atomically
from lmedge.errors import ExportError
from lmedge.export.graph.compare import LITERAL, PassRecord, check_crops, check_step, import_engine, max_distance_px, run_onnx
from lmedge.export.graph.qdq_graph import QdqGraph
from lmedge.export.graph.strip import strip

# A broken conversion is further off than this. Whether the network bears fp16 is the parity gate's question, which asks for
# less: one step of fp16 below 1 is 0.055 px of a 112-px crop, but a network with large activations moved by 0.5 px.
LIMIT_PX = 2.5
# Half precision moves values across the boundary between two int8 levels, and each such step grows on its way through the
# network, as it does between two ways to compute one int8 file: 0.6 to 1.2 px for the worst of 64 crops on four networks, 0.5
# to 1.7 times what ONNX Runtime's own fusions make of the int8 file. Where those move points far, this may too.
INT8_LIMIT_PX, INT8_LIMIT_RATIO = 2.5, 3.0
# Scales of quantisers may be fp16 from here on.
_MIN_OPSET = 19
_FP16_MAX = 65504.0
# Rounding to 11 bits, and below 6e-5 to multiples of the smallest fp16 number.
_SCALE_ROUNDING, _SMALLEST_FP16 = 2.0**-11, 2.0**-24


def write_fp16(fp32_onnx: Path, fp16_onnx: Path, crops_uint8: npt.NDArray[np.uint8]) -> PassRecord:
    """Writes the fp16 file of an fp32 one, and says how far it is from it on real crops.

    Raises:
        ExportError: the answers move by more than 2.5 px; nothing is written.
        InputError: the crops are no crops.
    """
    check_crops(crops_uint8)
    converted = to_fp16(onnx.load(fp32_onnx))
    record = check_step("to fp16", converted, crops_uint8, run_onnx(fp32_onnx, crops_uint8), LIMIT_PX)
    write_atomically(fp16_onnx, converted.SerializeToString(deterministic=True))
    return record


def write_fp16_int8(int8_onnx: Path, fp16_int8_onnx: Path, crops_uint8: npt.NDArray[np.uint8]) -> PassRecord:
    """Writes the portable int8 network with fp16 between its quantisers, for TensorRT.

    No engine for CPUs serves such a file: ONNX Runtime answers nonsense with its fusions of Q/DQ pairs on. With them off it
    computes both files as they are written, and that is how they are compared here.

    Raises:
        ExportError: the answers move by more than 2.5 px and more than three times as far as those fusions move the answers of
            the int8 file, or a quantiser changes its numbers; nothing is written.
        InputError: the crops are no crops.
    """
    check_crops(crops_uint8)
    model = onnx.load(int8_onnx)
    converted = to_fp16(model)
    check_quantisers(model, converted)
    expected = run_onnx(model, crops_uint8, settings=LITERAL)
    fused_px = max_distance_px(run_onnx(model, crops_uint8), expected, (crops_uint8.shape[1], crops_uint8.shape[2]))
    limit_px = max(INT8_LIMIT_PX, INT8_LIMIT_RATIO * fused_px)
    record = check_step("int8 to fp16-int8", converted, crops_uint8, expected, limit_px, settings=LITERAL)
    write_atomically(fp16_int8_onnx, converted.SerializeToString(deterministic=True))
    return record


def check_quantisers(model: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Asks that a converted graph has the quantisers of the first one: the same integers, and scales rounded once to fp16.

    Raises:
        ExportError: naming the first quantiser that differs.
    """
    before, after = QdqGraph(model.graph), QdqGraph(converted.graph)
    made = {node.output[0]: node for node in after.quantisers}
    if len(before.quantisers) != len(made):
        raise ExportError(f"Of {len(before.quantisers)} quantisers {len(made)} are left in the fp16 graph.")
    for node in before.quantisers:
        twin = made.get(node.output[0])
        if twin is None or not _same_quantiser(before, node, after, twin):
            raise ExportError(f"The quantiser {node.name!r} has other numbers in the fp16 graph; nothing was written.")


def _same_quantiser(before: QdqGraph, node: onnx.NodeProto, after: QdqGraph, twin: onnx.NodeProto) -> bool:
    scale, rounded = before.array(node.input[1]), after.array(twin.input[1])
    integers = [name for name in (*node.input[2:], node.input[0]) if before.is_constant(name)]
    if scale is None or rounded is None or scale.shape != rounded.shape or len(node.input) != len(twin.input):
        return False
    wide = scale.astype(np.float64)
    allowed = np.maximum(wide * _SCALE_ROUNDING, _SMALLEST_FP16)
    return bool((np.abs(rounded.astype(np.float64) - wide) <= allowed).all()) and all(
        np.array_equal(np.asarray(before.array(name)), np.asarray(after.array(name))) for name in integers
    )


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in fp16; each float32 output keeps its type through a Cast of its own, the last node before it.

    Raises:
        ExportError: an opset below 19, or a weight beyond ±65,504.
    """
    import_engine()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    if opset < _MIN_OPSET:
        raise ExportError(f"fp16 needs opset {_MIN_OPSET} or newer; the graph has {opset}. Export it again.")
    _check_weights(model)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    converted = convert_float_to_float16(copied, keep_io_types=True)
    sort_nodes(converted.graph)
    return strip(converted)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts every node behind those it reads from, and changes the order no more than that.

    Raises:
        ExportError: nodes that wait for each other.
    """
    nodes = list(graph.node)
    maker = {output: index for index, node in enumerate(nodes) for output in node.output}
    waits = [{maker[name] for name in node.input if name in maker} for node in nodes]
    readers: dict[int, list[int]] = {index: [] for index in range(len(nodes))}
    for index, makers in enumerate(waits):
        for made in makers:
            readers[made].append(index)
    ready = [index for index, makers in enumerate(waits) if not makers]
    ordered: list[onnx.NodeProto] = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(nodes[index])
        for reader in readers[index]:
            waits[reader].remove(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(ordered) != len(nodes):
        raise ExportError(f"{len(nodes) - len(ordered)} of {len(nodes)} nodes of the graph wait for each other.")
    del graph.node[:]
    graph.node.extend(ordered)


def _check_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            largest = float(np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0))
            if not largest <= _FP16_MAX:
                raise ExportError(
                    f"The weight {tensor.name!r} reaches {largest:.4g}; fp16 ends at 65504. Use fp32 for this network."
                )
