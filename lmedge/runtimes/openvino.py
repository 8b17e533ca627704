"""OpenVINO (https://docs.openvino.ai): IR and ONNX files on x86 and ARM CPUs, Intel GPUs and NPUs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from lmedge.bundle import TensorSpec
from lmedge.errors import BundleFormatError, DeviceUnavailableError
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus, fixed_shape
from lmedge.runtimes.telemetry import telemetry_off

_EXTRA = "Install it: pip install 'lmedge[openvino]'"


class OpenVinoRuntime(Runtime):
    """A network compiled for one device, with a static batch unless `batch` is None.

    Recent CPUs would compute float32 networks in bf16 by default, half a pixel off on a 112-pixel crop; here they compute in
    float32, and `precision_used` says what the compiled network reports.
    """

    name = "openvino"
    formats = ("openvino", "onnx")

    @classmethod
    def status(cls) -> RuntimeStatus:
        try:
            engine = import_openvino()
            return RuntimeStatus(True, str(engine.__version__).partition("-")[0], _devices(), "", _EXTRA)
        except (ImportError, RuntimeError) as error:
            return RuntimeStatus(False, None, (), f"openvino does not import ({error}).", _EXTRA)

    def _open(self) -> None:
        engine = import_openvino()
        core = engine.Core()
        try:
            model = core.read_model(str(self.artifact.file))
            self._check_signature(tuple(map(_spec_of, model.inputs)), tuple(map(_spec_of, model.outputs)))
            if self.batch is not None:
                model.reshape({spec.name: [self.batch, *_sizes(spec)] for spec in self.inputs})
        except RuntimeError as error:
            raise BundleFormatError(f"OpenVINO cannot read {self.artifact.path}: {error}") from error
        try:
            compiled = core.compile_model(model, self.device.upper(), self._hints())
        except RuntimeError as error:
            raise DeviceUnavailableError(f"OpenVINO cannot compile {self.artifact.path} for {self.device}: {error}") from error
        used = compiled.get_property("EXECUTION_DEVICES")
        if any(not name.upper().startswith(self.device.upper()) for name in used):
            raise DeviceUnavailableError(f"OpenVINO was asked for {self.device} and took {used}.")
        self._engine = engine
        self._request = compiled.create_infer_request()
        self._numbers = {name: _number_of(compiled.outputs, name) for name in (spec.name for spec in self.outputs)}
        self._bound = self._bind()
        self.precision_used = self._precision_used(str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string()))

    def _hints(self) -> dict[str, Any]:
        float16 = self.artifact.precision in ("fp16", "fp16-int8") and self.device != "cpu"
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f16" if float16 else "f32"}
        if self.threads is not None:
            hints["INFERENCE_NUM_THREADS"] = self.threads
        if self.threads == 1 and self.device == "cpu":
            # No stream is the caller's own thread. A stream of one thread waits its turn beside other work: on a machine with
            # both cores busy a call took 55 ms instead of 1.6, with the same bits (2026.4).
            hints["NUM_STREAMS"] = 0
        return hints

    def _precision_used(self, reported: str) -> str:
        same = {"fp32": "f32", "int8": "f32", "fp16": "f16", "fp16-int8": "f16"}[self.artifact.precision]
        return "" if reported == same else reported

    def _bind(self) -> Results:
        """Arrays for all tensors of the one batch size, which the request reads and writes in place; else nothing."""
        bound: Results = {}
        for spec in (*self.inputs, *self.outputs):
            shape = fixed_shape(spec, self.batch)
            if shape is None:
                return {}
            bound[spec.name] = np.zeros(shape, spec.dtype)
        for name, array in bound.items():
            self._request.set_tensor(name, self._engine.Tensor(array, shared_memory=True))
        return bound

    def _infer(self, feeds: Results) -> Results:
        if self._bound:
            for name, array in feeds.items():
                self._bound[name][...] = array
            # Else every call would copy the outputs once more, to make a dictionary of them.
            self._request.infer(share_outputs=True)
            return {name: self._bound[name].copy() for name in self._numbers}
        for name, array in feeds.items():
            # Copied into the engine's own memory: the caller may change the array at once.
            self._request.set_tensor(name, self._engine.Tensor(array))
        self._request.infer()
        return {name: self._request.get_output_tensor(number).data.copy() for name, number in self._numbers.items()}

    def _close(self) -> None:
        del self._request, self._bound


def import_openvino() -> Any:
    """The openvino module, imported so that it reports nothing to its makers.

    Raises:
        ImportError: it is not installed.
    """
    with telemetry_off():
        import openvino
    return openvino


@lru_cache(maxsize=1)
def _devices() -> tuple[str, ...]:
    # Loads every device plugin, 0.15 s: once per process.
    return tuple(name.lower() for name in import_openvino().Core().available_devices)


def _spec_of(port: Any) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else str(size) for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), str(port.get_element_type().to_dtype().name), shape)


def _sizes(spec: TensorSpec) -> list[Any]:
    return [size if isinstance(size, int) else -1 for size in spec.shape[1:]]


def _number_of(ports: Any, name: str) -> int:
    return next(number for number, port in enumerate(ports) if name in port.get_names())
