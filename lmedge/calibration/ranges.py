"""Which values an activation takes: its least and greatest on each calibration crop, and the range that a quantiser gets.

One crop at a time, and two numbers per tensor and crop are kept, so memory does not grow with the size of the features; the
range depends on the crops but not on their order. (ONNX Runtime's own calibrators offer either the extremes over all crops or
histograms that keep every feature in memory, and `CalibMaxIntermediateOutputs`, meant to save it, forgets what it flushed:
onnxruntime issue 32577.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.export.graph.compare import INPUT, import_engine

# A network with ReLU can answer one face in a hundred with values forty times larger than on all others. A range that covers
# those leaves a handful of levels for the rest: on such a network, mean distances of 6.4 px with 1, 0.47 px with 0.99, 0.38 px
# with 0.98 and 0.36 px with 0.95 (portable file, 200 validation faces of 300-W).
COVERAGE = 0.95


@dataclass(frozen=True, eq=False)
class Extremes:
    """Least and greatest value of each tensor on each crop, arrays (N,) by name."""

    least: dict[str, npt.NDArray[np.float32]]
    greatest: dict[str, npt.NDArray[np.float32]]

    def ranges(self, coverage: float = COVERAGE) -> dict[str, tuple[np.float32, np.float32]]:
        """The range of each tensor that holds all of its values on at least this part of the crops; 1 is plain min-max."""
        return {
            name: (
                np.quantile(self.least[name], 1 - coverage, method="lower"),
                np.quantile(self.greatest[name], coverage, method="higher"),
            )
            for name in self.least
        }


def measure_extremes(fp32_onnx: Path, tensors: list[str], crops_uint8: npt.NDArray[np.uint8]) -> Extremes:
    """Runs the network on each crop (N, H, W, 3) and keeps the extremes of the named tensors."""
    import onnx
    from onnx import TensorProto, helper

    onnxruntime = import_engine()
    model = onnx.load(fp32_onnx)
    graph = model.graph
    del graph.output[:]
    probes = [(name, kind, f"{name}/{kind}") for name in tensors for kind in ("ReduceMin", "ReduceMax")]
    for name, kind, probe in probes:
        graph.node.append(helper.make_node(kind, [name], [probe], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(probe, TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same sums on any number of cores
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = np.array([session.run(None, {INPUT: crop[None]}) for crop in crops_uint8], np.float32)
    columns = {probe: rows[:, number] for number, (_, _, probe) in enumerate(probes)}
    least, greatest = ({name: columns[f"{name}/{kind}"] for name in tensors} for kind in ("ReduceMin", "ReduceMax"))
    return Extremes(least, greatest)
