"""The ONNX parser of the fake TensorRT, which refuses what the real one refuses."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from tests.tensorrt.api_names import ONLY_8, ONLY_11
from tests.tensorrt.fake_gpu import Crash, FakeGpu
from tests.tensorrt.fake_graph import MISREAD, NO_PLUGIN, Refusal, graph_of
from tests.tensorrt.fake_logger import Reporter, check_logger
from tests.tensorrt.fake_pybind import Played, make

_MODEL_DESERIALIZE_FAILED, _INVALID_VALUE, _UNSUPPORTED_NODE = 3, 4, 8
# TensorRT for RTX, of the family of 11, has no more to say of an operator that it does not know.
_UNKNOWN = {True: "false", False: NO_PLUGIN}
_NO_NODE = -1


class OnnxParser(Played):
    """Holds no reference to the network, as the bindings do not: a temporary network is gone before it is filled."""

    def __init__(self, network: Any, logger: Any) -> None:
        gpu: FakeGpu = self._gpu
        if not isinstance(network, self._trt.INetworkDefinition):
            raise TypeError(
                "__init__(): incompatible constructor arguments. The following argument types are supported:\n    1. "
                "tensorrt.tensorrt.OnnxParser(network: tensorrt.tensorrt.INetworkDefinition, logger: tensorrt.tensorrt.ILogger)"
            )
        check_logger(self, "OnnxParser", logger)
        gpu.record("OnnxParser")
        self._log = Reporter(gpu, logger)
        self._network = weakref.ref(network)
        self._errors: list[Refusal] = []
        network._parsers.append(self)

    def parse_from_file(self, model: str) -> bool:
        if not isinstance(model, str):
            raise TypeError(f"parse_from_file(): incompatible function arguments: str expected, got {model!r}")
        self._gpu.record("OnnxParser.parse_from_file", model)
        file = Path(model)
        if not file.is_file():
            return self._refuse(
                _INVALID_VALUE,
                "Assertion failed: stat(onnxModelFile, &sb) == 0 && S_ISREG(sb.st_mode): Input file cannot be found, or is not "
                f"a regular file: {model}",
            )
        return self._parse(file.read_bytes())

    def parse(self, model: Any, path: str | None = None) -> bool:
        self._gpu.record("OnnxParser.parse")
        return self._parse(bytes(memoryview(model)))

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return make(self._trt.ParserError, self._errors[index])

    def clear_errors(self) -> None:
        self._errors = []

    def supports_operator(self, op_name: str) -> bool:
        return True

    def _parse(self, data: bytes) -> bool:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        network = self._network()
        if network is None:
            raise Crash("The network was freed before the parser filled it. Keep a reference to it.")
        if failure := self._gpu.failure("OnnxParser.parse"):
            return self._refuse(_UNSUPPORTED_NODE, failure.message or NO_PLUGIN)
        try:
            graph = graph_of(data)
        except DecodeError:
            return self._refuse(
                _MODEL_DESERIALIZE_FAILED,
                "Assertion failed: model->ParseFromCodedStream(&codedInput): Failed to parse the ONNX model.",
            )
        if network.has_implicit_batch_dimension:
            return self._refuse(
                _INVALID_VALUE,
                "Assertion failed: !_importer_ctx.network()->hasImplicitBatchDimension() && This version of the ONNX parser "
                "only supports TensorRT INetworkDefinitions with an explicit batch dimension.",
            )
        later = self._version not in ONLY_8
        if later:
            for _ in graph.misread():
                self._log.warning(MISREAD)
        self._errors += graph.refusals(later=later, unknown=_UNKNOWN[self._version in ONLY_11])
        for error in self._errors:
            self._log.error(f"In node {error.index} with name: {error.node} and operator: {error.operator}: {error.what}")
        if self._errors:
            return False
        network._graph = graph
        return True

    def _refuse(self, code: int, what: str) -> bool:
        self._errors.append(Refusal("", "", _NO_NODE, code, what))
        self._log.error(what)
        return False


class ParserError(Played):
    """One thing that the parser has against a graph."""

    def _start(self, error: Refusal) -> None:
        self._error = error

    def code(self) -> Any:
        return self._trt.ErrorCode(self._error.code)

    def desc(self) -> str:
        return self._error.what

    def node(self) -> int:
        return self._error.index

    def node_name(self) -> str:
        return self._error.node

    def node_operator(self) -> str:
        return self._error.operator

    def file(self) -> str:
        return "onnxOpImporters.cpp"

    def func(self) -> str:
        return "importModel"

    def line(self) -> int:
        return 5417

    def local_function_stack(self) -> list[str]:
        return []

    def local_function_stack_size(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"In node {self._error.index}: {self._error.what}"
