"""The fake tensorrt has the names of each version and no others, and its classes behave as the bindings' do."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.tensorrt import api_names, api_values
from tests.tensorrt.api_names import ALL, ONLY_8, ONLY_10, SINCE_10_3, SINCE_10_13, UNTIL_10, VERSIONS
from tests.tensorrt.fake_gpu import FakeGpu, NotPlayed
from tests.tensorrt.fake_tensorrt import make_tensorrt


@pytest.fixture
def trt(tensorrt_version: str) -> Any:
    return make_tensorrt(tensorrt_version, FakeGpu())


def has(holder: Any, name: str) -> bool:
    """Whether there is such a name, played or not."""
    try:
        return hasattr(holder, name)
    except NotPlayed:
        return True


def test_the_module_has_the_names_of_its_version(trt: Any, tensorrt_version: str) -> None:
    every = {name for names in api_names.NAMES.values() for name in names.split()}
    assert {name for name in every if has(trt, name)} == api_names.module_names(tensorrt_version)


@pytest.mark.parametrize("kind", sorted(set(api_names.MEMBERS) - {"ILayer", "IHostMemory"}))
def test_classes_have_the_members_of_their_version(kind: str, trt: Any, tensorrt_version: str) -> None:
    every = {name for names in api_names.MEMBERS[kind].values() for name in names.split()}
    assert {name for name in every if has(getattr(trt, kind), name)} == api_names.members(tensorrt_version, kind)


@pytest.mark.parametrize("name", sorted(api_values.VALUES))
def test_enumerations_have_the_values_of_their_version(name: str, trt: Any, tensorrt_version: str) -> None:
    expected = api_values.values(tensorrt_version, name)
    assert hasattr(trt, name) == bool(expected)
    if expected:
        assert {member: int(value) for member, value in getattr(trt, name).__members__.items()} == expected


# What NVIDIA's pages on the changes from 8 to 10 and from 10 to 11 say, independently of the wheels.
DOCUMENTED = {
    "BuilderFlag.FP16": UNTIL_10,
    "BuilderFlag.INT8": UNTIL_10,
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": UNTIL_10,
    "BuilderFlag.TF32": ALL,
    "BuilderFlag.VERSION_COMPATIBLE": ALL,
    "BuilderFlag.ERROR_ON_TIMING_CACHE_MISS": SINCE_10_3,
    "BuilderFlag.EDITABLE_TIMING_CACHE": SINCE_10_13,
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": UNTIL_10,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": SINCE_10_3,
    "HardwareCompatibilityLevel.AMPERE_PLUS": ALL,
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": SINCE_10_13,
    "TacticSource.CUDNN": UNTIL_10,
    "Builder.platform_has_fast_int8": UNTIL_10,
    "IBuilderConfig.int8_calibrator": UNTIL_10,
    "IBuilderConfig.algorithm_selector": UNTIL_10,
    "IBuilderConfig.max_workspace_size": ONLY_8,
    "OnnxParser.supports_model": UNTIL_10,
    "OnnxParser.supports_model_v2": SINCE_10_3,
    "ICudaEngine.num_bindings": ONLY_8,
    "ICudaEngine.num_io_tensors": ALL,
    "ICudaEngine.device_memory_size": UNTIL_10,
    "ICudaEngine.device_memory_size_v2": SINCE_10_3,
    "IExecutionContext.execute_async_v2": ONLY_8,
    "IExecutionContext.execute_async_v3": ALL,
    "IExecutionContext.all_shape_inputs_specified": UNTIL_10,
    "IInt8EntropyCalibrator2": UNTIL_10,
    "IStreamReader": ONLY_10,
    "IRuntimeConfig": SINCE_10_13,
}


@pytest.mark.parametrize("path", DOCUMENTED)
def test_the_names_agree_with_what_is_documented(path: str) -> None:
    *kind, name = path.split(".")
    modules = {version: make_tensorrt(version, FakeGpu()) for version in VERSIONS}
    assert tuple(v for v in VERSIONS if has(getattr(modules[v], kind[0]) if kind else modules[v], name)) == DOCUMENTED[path]


def test_it_says_its_version_in_full(trt: Any, tensorrt_version: str) -> None:
    assert trt.__version__ == api_names.FULL_VERSION[tensorrt_version]


@pytest.mark.parametrize("path", ["Refitter", "IExecutionContext.execute_v2", "IBuilderConfig.max_aux_streams"])
def test_a_name_that_is_there_and_not_played_is_loud(path: str, trt: Any) -> None:
    *kind, name = path.split(".")
    with pytest.raises(NotPlayed, match=path):
        hasattr(getattr(trt, kind[0]) if kind else trt, name)


def test_what_is_not_there_cannot_be_set(fake_gpu: FakeGpu) -> None:
    trt = sys.modules["tensorrt"]
    logger = trt.Logger()
    config = trt.Builder(logger).create_builder_config()
    with pytest.raises(AttributeError, match="optimisation_level"):
        config.optimisation_level = 3
    with pytest.raises(AttributeError, match="num_optimization_profiles"):
        config.num_optimization_profiles = 3


def test_what_only_the_library_makes_has_no_constructor(trt: Any) -> None:
    for name in ("IBuilderConfig", "INetworkDefinition", "ICudaEngine", "IExecutionContext", "ITimingCache"):
        with pytest.raises(TypeError, match="No constructor defined"):
            getattr(trt, name)()


def test_enumerations_are_no_numbers(trt: Any) -> None:
    flag = trt.BuilderFlag.TF32
    assert flag == trt.BuilderFlag(int(flag))
    assert flag != int(flag)
    assert flag in {flag}
    assert (flag.name, flag.value, repr(flag)) == ("TF32", int(flag), f"<BuilderFlag.TF32: {int(flag)}>")
    with pytest.raises(TypeError):
        1 << flag
    with pytest.raises(TypeError):
        list(trt.BuilderFlag)


def test_shapes_compare_with_tuples_and_are_none(trt: Any) -> None:
    shape = trt.Dims((1, 2, 3))
    assert shape == (1, 2, 3)
    assert (len(shape), shape[0], tuple(shape), trt.volume(shape)) == (3, 1, (1, 2, 3), 6)
    assert not isinstance(shape, tuple)
    with pytest.raises(TypeError):
        shape == trt.Dims((1, 2, 3))  # noqa: B015
    with pytest.raises(TypeError):
        hash(shape)


def test_serialised_bytes_are_a_buffer_and_no_sequence(fake_gpu: FakeGpu) -> None:
    trt = sys.modules["tensorrt"]
    logger = trt.Logger()
    memory = trt.Builder(logger).create_builder_config().create_timing_cache(b"").serialize()
    assert bytes(memory) == bytes(memoryview(memory))
    assert memory.nbytes == len(bytes(memory))
    for broken in (len, iter, lambda memory: memory[0], lambda memory: memory.hex()):
        with pytest.raises((TypeError, AttributeError)):
            broken(memory)


def test_a_logger_must_start_its_base_class(fake_gpu: FakeGpu) -> None:
    trt = sys.modules["tensorrt"]

    class Careless(trt.ILogger):
        def __init__(self) -> None:
            self.lines: list[str] = []

    for make in (trt.Builder, trt.Runtime):
        with pytest.raises(TypeError, match="must be called when overriding __init__"):
            make(Careless())
        for other in (None, "logger", print):
            with pytest.raises(TypeError, match="incompatible constructor arguments"):
                make(other)


def test_data_types_have_their_numpy_types(trt: Any) -> None:
    assert trt.nptype(trt.DataType.UINT8).__name__ == "uint8"
    assert trt.nptype(trt.float16).__name__ == "float16"
    assert trt.float32 == trt.DataType.FLOAT
    with pytest.raises(TypeError, match="numpy datatype"):
        trt.nptype(trt.DataType.FP8)
