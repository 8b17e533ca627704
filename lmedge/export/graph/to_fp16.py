"""An fp32 graph → the same network in fp16: uint8 in, float32 out, everything between in half precision.

The precision is written into the file (TensorRT 11 has no fp16 flag). ONNX Runtime's converter does the types; it appends its
casts at the end of the node list, which the ONNX checker refuses, so the nodes are put in order afterwards.
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
from lmedge.export.graph.compare import PassRecord, check_crops, check_step, import_engine, run_onnx
from lmedge.export.graph.strip import strip

# One step of fp16 below 1 is 0.055 px of a 112-px crop; the parity gate asks the same.
LIMIT_PX = 0.25
# Scales of quantisers may be fp16 from here on.
_MIN_OPSET = 19
_FP16_MAX = 65504.0


def write_fp16(fp32_onnx: Path, fp16_onnx: Path, crops_uint8: npt.NDArray[np.uint8]) -> PassRecord:
    """Writes the fp16 file of an fp32 one, and says how far it is from it on real crops.

    Raises:
        ExportError: the answers move by more than 0.25 px; nothing is written.
        InputError: the crops are no crops.
    """
    check_crops(crops_uint8)
    converted = to_fp16(onnx.load(fp32_onnx))
    record = check_step("to fp16", converted, crops_uint8, run_onnx(fp32_onnx, crops_uint8), LIMIT_PX)
    write_atomically(fp16_onnx, converted.SerializeToString(deterministic=True))
    return record


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
