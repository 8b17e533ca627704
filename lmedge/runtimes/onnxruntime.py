"""ONNX Runtime (https://onnxruntime.ai): ONNX files on CPUs, and on NVIDIA GPUs with the onnxruntime-gpu package."""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np

from lmedge.bundle import TensorSpec, machine_arch
from lmedge.errors import BundleFormatError, DeviceUnavailableError
from lmedge.runtimes.base import Results, Runtime, RuntimeStatus, fixed_shape

_EXTRA = "Install it: pip install 'lmedge[onnxruntime]'"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 rounds the inputs of float32 products to 10 bits of mantissa; CUDA turns it on by default.
_PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
_LOG_ERRORS = 3
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


class OnnxRuntime(Runtime):
    """An ONNX file in an ONNX Runtime session with exactly one execution provider."""

    name = "onnxruntime"
    formats = ("onnx",)

    @classmethod
    def status(cls) -> RuntimeStatus:
        try:
            engine = import_onnxruntime()
        except ImportError as error:
            return RuntimeStatus(False, None, (), f"onnxruntime does not import ({error}).", _EXTRA)
        available = engine.get_available_providers()
        devices = tuple(device for device, provider in _PROVIDERS.items() if provider in available)
        reason = "" if "cuda" in devices else "cuda needs the package onnxruntime-gpu instead of onnxruntime."
        return RuntimeStatus(True, str(engine.__version__), devices, reason, _EXTRA)

    def _open(self) -> None:
        engine = import_onnxruntime()
        provider = _PROVIDERS[self.device]
        try:
            session = engine.InferenceSession(
                str(self.artifact.file), self._options(engine), providers=[(provider, _PROVIDER_OPTIONS[self.device])]
            )
        except Exception as error:  # the engine's own exceptions share no base but Exception
            if self.device != "cpu":
                raise DeviceUnavailableError(
                    f"ONNX Runtime cannot run {self.artifact.path} on {self.device} alone: {error}"
                ) from error
            raise BundleFormatError(f"ONNX Runtime cannot load {self.artifact.path}: {error}") from error
        if session.get_providers()[0] != provider:
            raise DeviceUnavailableError(
                f"ONNX Runtime was given {provider} and took {session.get_providers()}. Check the driver and the CUDA version."
            )
        self._check_signature(tuple(map(_spec_of, session.get_inputs())), tuple(map(_spec_of, session.get_outputs())))
        self._session = session
        self._names = [spec.name for spec in self.outputs]
        self._binding, self._bound = self._bind(session)
        self.precision_used = self._precision_used()

    def _options(self, engine: Any) -> Any:
        options = engine.SessionOptions()
        options.log_severity_level = _LOG_ERRORS
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if self.batch is not None:
            for spec in self.inputs:
                if isinstance(spec.shape[0], str):
                    options.add_free_dimension_override_by_name(spec.shape[0], self.batch)
        if self.device != "cpu":
            # Without this a node that the provider lacks, or all of them, would run on the CPU unasked.
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if self.artifact.precision == "fp16-int8":
            # The CPU provider's fusions of Q/DQ pairs around float16 answer nonsense (relative error 1.7, seen up to 1.31).
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        return options

    def _precision_used(self) -> str:
        if self.device != "cpu" or machine_arch() != "x86_64":
            return ""
        # The CPU provider has no float16 arithmetic on x86-64: it casts, computes in float32, and casts back.
        return {"fp16": "f32", "fp16-int8": "f32, rounded to int8 steps"}.get(self.artifact.precision, "")

    def _bind(self, session: Any) -> tuple[Any, Results]:
        """Arrays for all tensors of the one batch size, which the session reads and writes in place; else None and nothing.

        On another device an input is copied over when it is bound, so there it would have to be bound for every call.
        """
        shapes = {spec.name: fixed_shape(spec, self.batch) for spec in (*self.inputs, *self.outputs)}
        if self.device != "cpu" or None in shapes.values():
            return None, {}
        binding = session.io_binding()
        bound: Results = {}
        for spec in (*self.inputs, *self.outputs):
            bound[spec.name] = np.zeros(cast(tuple[int, ...], shapes[spec.name]), spec.dtype)
        for spec in self.inputs:
            binding.bind_cpu_input(spec.name, bound[spec.name])
        for spec in self.outputs:
            array = bound[spec.name]
            binding.bind_output(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return binding, bound

    def _infer(self, feeds: Results) -> Results:
        if self._binding is None:
            return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))
        for name, array in feeds.items():
            self._bound[name][...] = array
        self._session.run_with_iobinding(self._binding)
        return {name: self._bound[name].copy() for name in self._names}

    def _close(self) -> None:
        # The binding refers to the session and to the arrays.
        del self._binding, self._bound, self._session


def import_onnxruntime() -> Any:
    """The onnxruntime module, imported so that it reports nothing to its makers.

    Official Linux builds send usage events to Microsoft since 1.29, and keep an identifier below ``~/.cache/Microsoft``. Only
    this variable, set before the first import, stops all of it; `disable_telemetry_events` does not (seen; its Privacy.md).

    Raises:
        ImportError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _spec_of(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type) or node.type[len("tensor(") : -1], shape)
