"""The run half of the fake TensorRT: Runtime, engine and inspector. What executes is in `fake_context`."""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tests.tensorrt.api_names import ONLY_8, ONLY_11
from tests.tensorrt.fake_gpu import Crash, FakeGpu
from tests.tensorrt.fake_graph import Value, graph_of
from tests.tensorrt.fake_logger import Reporter, check_logger
from tests.tensorrt.fake_plan import Plan, PlanError
from tests.tensorrt.fake_pybind import Dims, HostMemory, Played, make

_AMPERE = 8


class Runtime(Played):
    """Ends the process where there is no GPU, so a caller has to ask the driver first."""

    def __init__(self, logger: Any) -> None:
        gpu: FakeGpu = self._gpu
        check_logger(self, "Runtime", logger)
        self._log = Reporter(gpu, logger, self)
        gpu.record("Runtime")
        if gpu.problem():
            self._log.warning(f"CUDA initialization failure with error: {gpu.problem()}")
            raise Crash("trt.Runtime was made on a machine without a usable GPU; the real one ends with SIGSEGV.")
        if gpu.failure("Runtime"):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._host_code = False

    @property
    def logger(self) -> Any:
        return self._log.logger

    @property
    def engine_host_code_allowed(self) -> bool:
        return bool(self._host_code)

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, allowed: bool) -> None:
        self._host_code = allowed

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        self._gpu.record("Runtime.deserialize_cuda_engine")
        data = bytes(memoryview(serialized_engine))
        if failure := self._gpu.failure("Runtime.deserialize_cuda_engine"):
            return self._refuse(failure.message or "Error Code 2: OutOfMemory (Requested size was 33554432 bytes.)")
        try:
            plan = Plan.from_bytes(data)
        except PlanError as error:
            return self._refuse(f"IRuntime::deserializeCudaEngine: {error}")
        device = self._gpu.devices[self._gpu.device_index()]
        if reason := self._other_version(plan) or _other_gpu(plan, device.compute_capability):
            return self._refuse(reason)
        if plan.gpu_name != device.name:
            self._log.warning(
                "Using an engine plan file across different models of devices is not recommended and is likely to affect "
                "performance or even cause errors."
            )
        return make(self._trt.ICudaEngine, plan, self._log, self._gpu.device_index())

    def _refuse(self, reason: str) -> None:
        self._log.error(reason)
        self._log.error("Error Code 4: Internal Error (Engine deserialization failed.)")

    def _other_version(self, plan: Plan) -> str:
        """Why a plan of another version, or with a runtime of its own inside, is not taken; "" when it is."""
        if "VERSION_COMPATIBLE" in plan.flags:
            if "EXCLUDE_LEAN_RUNTIME" not in plan.flags and not self._host_code:
                return "Error Code 3: API Usage Error (Plan has host code, and engine_host_code_allowed is not set.)"
            built, here = (int(version.partition(".")[0]) for version in (plan.version, self._version))
            if (built, here) in ((8, 8), (8, 10), (10, 10), (10, 11), (11, 11)):
                return ""
        if plan.version == self._version:
            return ""
        return (
            "Error Code 1: Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag "
            f"does not match. Note: Current Version: {self._version}, Serialized Engine Version: {plan.version})"
        )


def _other_gpu(plan: Plan, compute_capability: str) -> str:
    """Why a plan for another GPU is not taken; "" when it is."""
    built, here = plan.compute_capability, compute_capability
    ampere_plus = plan.hardware_compatibility == "AMPERE_PLUS"
    if built == here or (ampere_plus and int(here.partition(".")[0]) >= _AMPERE):
        return ""
    return (
        "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting compute "
        f"{here} got compute {built}, please rebuild.)"
    )


class ICudaEngine(Played):
    """A deserialised plan; its tensors go by name."""

    def _start(self, plan: Plan, log: Reporter, device: int) -> None:
        self._plan, self._log, self._device, self._gpu = plan, log, device, log._gpu
        graph = graph_of(plan.onnx)
        self._inputs, self._outputs, self._graph = graph.inputs, graph.outputs, graph
        self._profiles_in_use: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._values: dict[str, Value] = {value.name: value for value in (*graph.inputs, *graph.outputs)}

    def _value(self, name: str) -> Value | None:
        if name not in self._values:
            self._log.error(
                f"Error Code 3: API Usage Error (Given invalid tensor name: {name}. "
                "Get valid tensor names with getIOTensorName())"
            )
        return self._values.get(name)

    @property
    def name(self) -> str:
        return "Unnamed Network 0"

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    @property
    def num_layers(self) -> int:
        return len(self._plan.layers)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan.profiles)

    @property
    def device_memory_size(self) -> int:
        return 1 << 20

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    @property
    def hardware_compatibility_level(self) -> Any:
        return self._trt.HardwareCompatibilityLevel.__members__[self._plan.hardware_compatibility]

    @property
    def profiling_verbosity(self) -> Any:
        return self._trt.ProfilingVerbosity.__members__[self._plan.verbosity]

    @property
    def refittable(self) -> bool:
        return "REFIT" in self._plan.flags

    def __getitem__(self, index: int) -> str:
        return self.get_tensor_name(index)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> Any:
        value, modes = self._value(name), self._trt.TensorIOMode
        if value is None:
            return modes.NONE
        return modes.INPUT if value in self._inputs else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> Dims:
        value = self._value(name)
        return Dims(() if value is None else value.shape)

    def get_tensor_dtype(self, name: str) -> Any:
        value = self._value(name)
        return self._trt._data_type("float32" if value is None else value.dtype)

    def get_tensor_location(self, name: str) -> Any:
        return self._trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        value = self._value(name)
        if value is None or value not in self._inputs or profile_index not in range(len(self._plan.profiles)):
            return []
        shapes = self._plan.profiles[profile_index].get(name, (value.shape,) * 3)
        return [Dims(shape) for shape in shapes]

    def get_tensor_bytes_per_component(self, name: str) -> int:
        value = self._value(name)
        return -1 if value is None else int(np.dtype(value.dtype).itemsize)

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def serialize(self) -> HostMemory:
        return HostMemory(self._plan.to_bytes())

    def create_engine_inspector(self) -> Any:
        if failure := self._gpu.failure("ICudaEngine.create_engine_inspector"):
            self._log.error(failure.message)
            return None
        return make(self._trt.EngineInspector, self)

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        self._gpu.record("ICudaEngine.create_execution_context")
        if failure := self._gpu.failure("ICudaEngine.create_execution_context"):
            self._log.error(failure.message or "Error Code 2: OutOfMemory (Requested size was 1048576 bytes.)")
            return None
        context = make(self._trt.IExecutionContext, self)
        if self._version in ONLY_8 and any(profile == 0 for profile in self._profiles_in_use.values()):
            # TensorRT 8 lends a profile to one context at a time; later versions share it.
            self._log.warning("Profile 0 has been chosen by another IExecutionContext. Use another profileIndex.")
            context._profile = -1
        else:
            self._profiles_in_use[context] = 0
        return context


class EngineInspector(Played):
    """Tells the layers of an engine, in as much detail as it was built with."""

    def _start(self, engine: Any) -> None:
        self._engine, self._context = engine, None

    @property
    def execution_context(self) -> Any:
        return self._context

    @execution_context.setter
    def execution_context(self, context: Any) -> None:
        self._context = context

    def get_engine_information(self, format: Any) -> str:
        told = [self._told(layer, format) for layer in self._engine._plan.layers]
        if format != self._trt.LayerInformationFormat.JSON:
            return "\n".join(["Layers:", *map(str, told), "", "Bindings:", *self._engine._values]) + "\n"
        if self._version in ONLY_11:
            return json.dumps(
                {"Layers": told, "I/O Tensors": [self._io_tensor(name) for name in self._engine._values]}, indent=0
            )
        return json.dumps({"Layers": told, "Bindings": list(self._engine._values)}, indent=0)

    def get_layer_information(self, layer_index: int, format: Any) -> str:
        told = self._told(self._engine._plan.layers[layer_index], format)
        return json.dumps(told) if format == self._trt.LayerInformationFormat.JSON else f"{told}\n"

    def _io_tensor(self, name: str) -> dict[str, Any]:
        """What TensorRT 11 tells of an input or output instead of its bare name."""
        engine = self._engine
        shapes = [list(shape) for shape in engine.get_tensor_profile_shape(name, 0)]
        return {
            "Name": name,
            "IOMode": "Input" if shapes else "Output",
            "DataType": engine.get_tensor_dtype(name).name.capitalize(),
            "Dimensions": list(engine.get_tensor_shape(name)),
            "Location": "Device",
            "IsShapeInferenceIO": False,
            "ProfileInfo": [dict(zip(("MinShape", "OptShape", "MaxShape"), shapes, strict=False))],
        }

    def _told(self, layer: dict[str, Any], format: Any) -> Any:
        detailed = self._engine._plan.verbosity == "DETAILED"
        return layer if detailed and format == self._trt.LayerInformationFormat.JSON else layer["Name"]
