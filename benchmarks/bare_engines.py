"""The engines without lmedge, as a careful engineer writes the loop: a session made for one crop and the given threads, and
memory that is bound once. A call copies the crop in, runs, and copies the answer out, so that the caller owns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import LANDMARKS, Artifact
from lmedge.runtimes.onnxruntime import import_onnxruntime
from lmedge.runtimes.openvino import import_openvino

Crops = npt.NDArray[np.uint8]
# A function of no arguments: from the crop that lies in a given array, to the outputs by name.
Call = Callable[[], dict[str, npt.NDArray[Any]]]


def bare_call(engine: str, artifact: Artifact, crop: Crops, threads: int) -> Call:
    """The loop's body on "onnxruntime" or "openvino".

    Args:
        crop: uint8 (1, h, w, 3), read anew by each call.
    """
    return {"onnxruntime": _onnxruntime_bound, "openvino": _openvino_bound}[engine](artifact, crop, threads)


def bare_call_as_it_likes(engine: str, artifact: Artifact, crop: Crops, threads: int) -> Call:
    """The same on OpenVINO, which chooses what it computes a float network in (`default_precision`)."""
    if engine != "openvino":
        raise ValueError(f"{engine} computes a file in its own precision; only openvino chooses another.")
    return _openvino_bound(artifact, crop, threads, precision=None)


def default_precision(artifact: Artifact, crop: Crops) -> str:
    """What OpenVINO computes a float network in unless told otherwise: "bf16" on processors that have it, else "f32"."""
    compiled = _compiled(artifact, crop, 1, None)[1]
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())


def plain_call(engine: str, artifact: Artifact, crop: Crops, threads: int) -> Call:
    """The same as the engines' tutorials have it: `session.run`, and a compiled model that is called."""
    return {"onnxruntime": _onnxruntime_plain, "openvino": _openvino_plain}[engine](artifact, crop, threads)


def _onnxruntime_bound(artifact: Artifact, crop: Crops, threads: int) -> Call:
    session = _session(artifact, threads)
    inputs = np.zeros_like(crop)
    outputs = {spec.name: np.zeros((1, *map(int, spec.shape[1:])), spec.dtype) for spec in artifact.outputs}
    binding = session.io_binding()
    binding.bind_cpu_input(artifact.inputs[0].name, inputs)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def call() -> dict[str, npt.NDArray[Any]]:
        np.copyto(inputs, crop)
        session.run_with_iobinding(binding)
        return {name: array.copy() for name, array in outputs.items()}

    return call


def _onnxruntime_plain(artifact: Artifact, crop: Crops, threads: int) -> Call:
    session = _session(artifact, threads)
    names, name = [spec.name for spec in artifact.outputs], artifact.inputs[0].name
    return lambda: dict(zip(names, session.run(names, {name: crop}), strict=True))


def _session(artifact: Artifact, threads: int) -> Any:
    engine = import_onnxruntime()
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_free_dimension_override_by_name(str(artifact.inputs[0].shape[0]), 1)
    return engine.InferenceSession(str(artifact.file), options, providers=["CPUExecutionProvider"])


def _openvino_bound(artifact: Artifact, crop: Crops, threads: int, precision: str | None = "f32") -> Call:
    # One thread can be the caller's own: no stream of the engine's has to be woken.
    engine, compiled = _compiled(artifact, crop, threads, precision, **({"NUM_STREAMS": 0} if threads == 1 else {}))
    request = compiled.create_infer_request()
    inputs = np.zeros_like(crop)
    outputs = {spec.name: np.zeros((1, *map(int, spec.shape[1:])), spec.dtype) for spec in artifact.outputs}
    for name, array in ((artifact.inputs[0].name, inputs), *outputs.items()):
        request.set_tensor(name, engine.Tensor(array, shared_memory=True))

    def call() -> dict[str, npt.NDArray[Any]]:
        np.copyto(inputs, crop)
        request.infer(share_outputs=True)
        return {name: array.copy() for name, array in outputs.items()}

    return call


def _openvino_plain(artifact: Artifact, crop: Crops, threads: int) -> Call:
    _, compiled = _compiled(artifact, crop, threads, "f32")

    def call() -> dict[str, npt.NDArray[Any]]:
        found = compiled(crop)
        return {spec.name: found[spec.name] for spec in artifact.outputs}

    return call


def _compiled(artifact: Artifact, crop: Crops, threads: int, precision: str | None, **more_hints: Any) -> tuple[Any, Any]:
    engine = import_openvino()
    model = engine.Core().read_model(str(artifact.file))
    model.reshape({artifact.inputs[0].name: list(crop.shape)})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **more_hints}
    if precision is not None:
        hints["INFERENCE_PRECISION_HINT"] = precision
    return engine, engine.Core().compile_model(model, "CPU", hints)


class BareEngine:
    """A loop behind the interface that `EngineCall` times.

    Attributes:
        inputs: of the artifact.
    """

    def __init__(
        self, make: Callable[[str, Artifact, Crops, int], Call], engine: str, artifact: Artifact, threads: int
    ) -> None:
        self._make, self._engine, self._artifact, self._threads = make, engine, artifact, threads
        self.inputs = artifact.inputs

    def engine_call(self, feeds: dict[str, Crops]) -> Call:
        """The loop's body on the array that each call's crop is written to."""
        call = self._make(self._engine, self._artifact, feeds[self.inputs[0].name], self._threads)
        if LANDMARKS not in call():
            raise RuntimeError(f"{self._engine} gives no {LANDMARKS}.")
        return call
