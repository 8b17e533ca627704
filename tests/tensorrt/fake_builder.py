"""The build half of the fake TensorRT: Builder and network. What a build is told is in `fake_config`."""

from __future__ import annotations

from typing import Any

from tests.tensorrt.api_names import members
from tests.tensorrt.fake_gpu import FakeGpu
from tests.tensorrt.fake_graph import OnnxGraph, graph_of
from tests.tensorrt.fake_logger import Reporter, check_logger
from tests.tensorrt.fake_pybind import Dims, HostMemory, Played, make


class Builder(Played):
    """Starts only where there is a GPU; all it makes keeps it alive as the bindings do."""

    def __init__(self, logger: Any) -> None:
        gpu: FakeGpu = self._gpu
        check_logger(self, "Builder", logger)
        self._log = Reporter(gpu, logger, self)
        gpu.record("Builder")
        if gpu.problem() or gpu.failure("Builder"):
            self._log.warning(f"CUDA initialization failure with error: {gpu.problem()}. Please check your CUDA installation.")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    @property
    def logger(self) -> Any:
        return self._log.logger

    @property
    def platform_has_fast_fp16(self) -> bool:
        return True

    @property
    def platform_has_fast_int8(self) -> bool:
        return True

    def create_network(self, flags: int = 0) -> Any:
        self._gpu.record("Builder.create_network", int(flags))
        if flags >> 1 + max((int(v) for v in self._trt.NetworkDefinitionCreationFlag.__members__.values()), default=-1):
            self._log.error("IBuilder::createNetworkV2: Error Code 3: API Usage Error (Parameter check failed: flagSet)")
            return None
        return make(self._trt.INetworkDefinition, self, int(flags))

    def create_builder_config(self) -> Any:
        self._gpu.record("Builder.create_builder_config")
        return make(self._trt.IBuilderConfig, self)

    def create_optimization_profile(self) -> Any:
        return make(self._trt.IOptimizationProfile)

    def is_network_supported(self, network: Any, config: Any) -> bool:
        return True

    def reset(self) -> None:
        """Nothing is kept between builds."""

    def build_serialized_network(self, network: Any, config: Any) -> HostMemory | None:
        from tests.tensorrt.fake_build import build_plan

        self._gpu.record("Builder.build_serialized_network", *config._flag_names)
        if failure := self._gpu.failure("Builder.build_serialized_network"):
            self._log.error(
                failure.message or "Error Code 10: Internal Error (Could not find any implementation for node conv.)"
            )
            return None
        plan = build_plan(self._gpu, self._log, network, config)
        return None if plan is None else HostMemory(plan.to_bytes())


class INetworkDefinition(Played):
    """A network; the parser fills it."""

    def _start(self, builder: Any, flags: int) -> None:
        self._builder, self._flags = builder, flags
        self._graph: OnnxGraph | None = None
        self._parsers: list[Any] = []
        known = self._trt.NetworkDefinitionCreationFlag.__members__
        self._flag_names = tuple(name for name, value in known.items() if flags >> int(value) & 1)

    @property
    def _parsed(self) -> OnnxGraph:
        return graph_of(b"") if self._graph is None else self._graph

    @property
    def _strongly_typed(self) -> bool:
        return "STRONGLY_TYPED" in self._flag_names or not hasattr(self._trt.BuilderFlag, "FP16")

    @property
    def builder(self) -> Any:
        return self._builder

    @property
    def flags(self) -> int:
        return int(self._flags)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flag_names or (flag.name == "STRONGLY_TYPED" and self._strongly_typed)

    @property
    def num_layers(self) -> int:
        return len(self._parsed.nodes)

    @property
    def num_inputs(self) -> int:
        return len(self._parsed.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._parsed.outputs)

    def get_input(self, index: int) -> Any:
        return self._tensor("getInput", self._parsed.inputs, index)

    def get_output(self, index: int) -> Any:
        return self._tensor("getOutput", self._parsed.outputs, index)

    def _tensor(self, called: str, values: tuple[Any, ...], index: int) -> Any:
        if not 0 <= index < len(values):
            self._builder._log.error(f"INetworkDefinition::{called}: Error Code 3: API Usage Error (invalid index {index})")
            return None
        return make(self._trt.ITensor, values[index])

    @property
    def has_implicit_batch_dimension(self) -> bool:
        # 8.6 has it unless told otherwise; 10 has explicit batches only, and ignores the flag.
        return "max_batch_size" in members(self._version, "Builder") and "EXPLICIT_BATCH" not in self._flag_names

    @property
    def name(self) -> str:
        return "Unnamed Network 0"


class ITensor(Played):
    """An input or output of a network."""

    def _start(self, value: Any) -> None:
        self._value = value

    @property
    def name(self) -> str:
        return str(self._value.name)

    @property
    def shape(self) -> Dims:
        return Dims(self._value.shape)

    @property
    def dtype(self) -> Any:
        return self._trt._data_type(self._value.dtype)

    @property
    def is_network_input(self) -> bool:
        return True
