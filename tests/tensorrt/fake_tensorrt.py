"""Plays the Python module `tensorrt` in a version: exactly its names, its rules about order, and the graph run on the CPU.

From ONNX file to plan to results, as far as lmedge goes. The names are those of `api_names`; what they do follows NVIDIA's
documentation and what was seen of TensorRT 8.6, 10.16, 11.4 and TensorRT for RTX on a machine without a GPU.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from tests.tensorrt import api_names, api_values, fake_builder, fake_config, fake_context, fake_engine, fake_logger, fake_parser
from tests.tensorrt.fake_gpu import FakeGpu, NotPlayed
from tests.tensorrt.fake_pybind import Dims, Enumeration, HostMemory, enumeration, enumeration_of, expose

_CLASSES: dict[str, type] = {
    "Builder": fake_builder.Builder,
    "INetworkDefinition": fake_builder.INetworkDefinition,
    "ITensor": fake_builder.ITensor,
    "IBuilderConfig": fake_config.IBuilderConfig,
    "IOptimizationProfile": fake_config.IOptimizationProfile,
    "ITimingCache": fake_config.ITimingCache,
    "OnnxParser": fake_parser.OnnxParser,
    "ParserError": fake_parser.ParserError,
    "Runtime": fake_engine.Runtime,
    "ICudaEngine": fake_engine.ICudaEngine,
    "EngineInspector": fake_engine.EngineInspector,
    "IExecutionContext": fake_context.IExecutionContext,
}
_SEVERITIES = {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}
_NUMPY_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT64": "int64",
}


def make_tensorrt(version: str, gpu: FakeGpu) -> ModuleType:
    """The module `tensorrt` of one of `api_names.VERSIONS`, on a machine."""
    module = ModuleType("tensorrt", "A fake for tests.")
    module.__spec__ = ModuleSpec("tensorrt", None)
    names = api_names.module_names(version)
    shared = {"_trt": module, "_gpu": gpu}
    played: dict[str, Any] = {name: enumeration_of(version, name) for name in api_values.VALUES}
    played |= {"Dims": Dims, "IHostMemory": HostMemory, "volume": lambda sizes: int(np.prod(tuple(sizes)))}
    for name, implementation in _CLASSES.items():
        played[name] = expose(version, name, implementation, **shared)
    played["ILogger"], played["Logger"] = _loggers(version, shared)
    types = played["DataType"].__members__
    played |= {_NUMPY_TYPES[name]: value for name, value in types.items() if name in _NUMPY_TYPES}
    played["nptype"] = _nptype
    played["init_libnvinfer_plugins"] = lambda logger, namespace: True
    vars(module).update({name: value for name, value in played.items() if name in names})
    module.__version__ = api_names.FULL_VERSION[version]  # type: ignore[attr-defined]
    module._data_type = lambda dtype: next(types[n] for n, kind in _NUMPY_TYPES.items() if kind == dtype)  # type: ignore[attr-defined]

    def absent(name: str) -> Any:
        if name in names:
            raise NotPlayed(f"tensorrt.{name}")
        raise AttributeError(f"module 'tensorrt' has no attribute {name!r}")

    module.__getattr__ = absent  # type: ignore[method-assign]
    return module


def _loggers(version: str, shared: dict[str, Any]) -> tuple[type, type]:
    """ILogger, and Logger as a subclass of it; both carry the severities."""
    severity = enumeration("Severity", _SEVERITIES)
    levels = {"Severity": severity, **severity.__members__}
    base = expose(version, "ILogger", fake_logger.ILogger, **shared, **levels)
    own = {name: value for name, value in vars(fake_logger.Logger).items() if name not in ("__dict__", "__weakref__")}
    ready = type(base)("Logger", (base,), {**own, "_kind": "Logger"})
    return base, ready


def _nptype(data_type: Enumeration) -> Any:
    """The type of NumPy for a data type.

    Raises:
        TypeError: NumPy has none.
    """
    if data_type.name not in _NUMPY_TYPES:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return getattr(np, {"bool": "bool_"}.get(_NUMPY_TYPES[data_type.name], _NUMPY_TYPES[data_type.name]))
