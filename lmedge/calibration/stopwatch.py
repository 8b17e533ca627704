"""How fast a network is beside the float one: single crops on one thread of a CPU engine, the two in turn.

Both have their turns again and again, a burst of calls each, so that a machine that slows down slows both. What counts is time
on the processor: where nothing else runs it is the time that passes, and where something does, waiting for a turn is no part of
it (on a machine with ten processes on two cores, the ratio of two networks came out as 7.8, 1.2 and 38.9 by the clock on the
wall).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import Artifact, TensorSpec
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import Runtime
from lmedge.runtimes.bench import alternate

if TYPE_CHECKING:
    import onnx

THREADS = 1
_CALLS = 120
# One after the other call by call, two networks came out at a ratio of 1.5 that were at 2.0 by themselves.
_BURST = 12


@dataclass(frozen=True)
class Timing:
    """Median processor times of one crop, in milliseconds: of a network, and of the float one between its calls."""

    latency_ms: float
    fp32_ms: float

    @property
    def speedup(self) -> float:
        return self.fp32_ms / self.latency_ms

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "speedup": self.speedup}


class Stopwatch:
    """Times networks on an engine of this machine. Called with a network; a context manager.

    Args:
        fp32: the float network.
        engine: "onnxruntime", "openvino", or another runtime that reads ONNX.
        calls: of each of the two networks.

    Raises:
        BackendUnavailableError: the engine is not installed.
    """

    def __init__(self, fp32: onnx.ModelProto, *, engine: str = "onnxruntime", calls: int = _CALLS) -> None:
        self.engine, self._calls = engine, calls
        self._folder = TemporaryDirectory(prefix="lmedge-")
        try:
            self._fp32 = self._open(fp32, "fp32")
        except Exception:
            self._folder.cleanup()
            raise
        height, width = self._fp32.inputs[0].shape[1:3]
        # Noise, since no engine's time depends on what it sees.
        self._crop = np.random.default_rng(0).integers(0, 256, (1, int(height), int(width), 3), np.uint8)

    def __call__(self, model: onnx.ModelProto) -> Timing:
        with self._open(model, "int8") as runtime:
            feeds = {runtime.inputs[0].name: self._crop}
            calls = runtime.engine_call(feeds), self._fp32.engine_call(feeds)
            ours, theirs = alternate(*calls, self._calls, time.process_time_ns, burst=_BURST)
        return Timing(_median(ours), _median(theirs))

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._fp32.close()
        self._folder.cleanup()

    def _open(self, model: onnx.ModelProto, precision: str) -> Runtime:
        root = Path(self._folder.name)
        file = root / f"model.{precision}.onnx"
        file.write_bytes(model.SerializeToString())
        inputs, outputs = (tuple(map(_spec_of, part)) for part in (model.graph.input, model.graph.output))
        artifact = Artifact.of_file(file, root, format="onnx", precision=precision, inputs=inputs, outputs=outputs)
        return find_runtime(self.engine).open(artifact, threads=THREADS)


def _median(times_ms: npt.NDArray[np.float64]) -> float:
    return float(np.median(times_ms))


def _spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)
