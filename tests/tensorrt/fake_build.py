"""How the fake TensorRT makes a plan of a network and a configuration, and when it makes none."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.tensorrt.fake_gpu import FakeGpu
from tests.tensorrt.fake_layers import Style, layers_of
from tests.tensorrt.fake_logger import Reporter
from tests.tensorrt.fake_plan import Plan, Shapes

_PRECISION_FLAGS = ("FP16", "INT8", "BF16", "FP8", "INT4", "FP4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")
_STYLES: dict[str, Style] = {"8.6.0": "sentence", "10.3.0": "sentence", "10.13.3.9": "word", "11.4.0": "apart"}
_BUILD = "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error "
# Below this nothing can be built; only an absurd limit meets it.
_LEAST_WORKSPACE = 1 << 16


def build_plan(gpu: FakeGpu, log: Reporter, network: Any, config: Any) -> Plan | None:
    """A plan, or None with the reason in the log; None is all that the real one gives, too."""
    if not network._parsed.outputs:
        log.error("IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network must have at least one output.)")
        return None
    reason = _typing(network, config) or _profiles(network, config)
    if config.get_memory_pool_limit(config._trt.MemoryPoolType.WORKSPACE) < _LEAST_WORKSPACE:
        reason = reason or (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin (Tactic Selection: no tactics to implement the operation "
            "within workspace limit. Consider increase the allowed workspace size if applicable.)"
        )
    if reason:
        log.error(reason)
        return None
    flags = config._flag_names
    half = "FP16" in flags
    layers = layers_of(network._graph, style=_STYLES[config._version], half=half)
    tactics = _tactics(gpu, log, config, layers)
    if tactics is None:
        return None
    for layer in layers:
        layer["TacticValue"] = f"{tactics[layer['Name']]:#018x}"
    device = gpu.devices[gpu.device_index()]
    return Plan(
        onnx=network._graph.data,
        version=config._version,
        compute_capability=device.compute_capability,
        gpu_name=device.name,
        flags=flags,
        network_flags=network._flag_names,
        hardware_compatibility=config.hardware_compatibility_level.name,
        profiles=tuple(_static_profile(network) if not config._profiles else (p._shapes for p in config._profiles)),
        tactics=tactics,
        verbosity=config.profiling_verbosity.name,
        optimization_level=config.builder_optimization_level,
        workspace_bytes=config.get_memory_pool_limit(config._trt.MemoryPoolType.WORKSPACE),
        layers=layers,
    )


def _typing(network: Any, config: Any) -> str:
    """What is wrong with precision flags: a strongly typed network takes none, a weakly typed one needs INT8 for quantisers."""
    precision_flags = [name for name in config._flag_names if name in _PRECISION_FLAGS]
    if network._strongly_typed:
        if precision_flags:
            return (
                "Error Code 3: API Usage Error (Parameter check failed, condition: !config.getFlag(BuilderFlag::k"
                f"{precision_flags[0]}). Precision flags are not allowed in strongly typed networks.)"
            )
    elif network._graph.has_quantisers and "INT8" not in precision_flags:
        return (
            "Error Code 4: Internal Error (int8 precision has been set for a layer or layer output, "
            "but int8 is not configured in the builder)"
        )
    elif network._graph.has_half and "FP16" not in precision_flags:
        return (
            "Error Code 4: Internal Error (fp16 precision has been set for a layer or layer output, "
            "but fp16 is not configured in the builder)"
        )
    return ""


def _profiles(network: Any, config: Any) -> str:
    """What is wrong with the optimisation profiles for the inputs of a network."""
    varying = [value for value in network._graph.inputs if -1 in value.shape]
    if varying and not config._profiles:
        return _BUILD + "(Network has dynamic or shape inputs, but no optimization profile has been defined.)"
    for number, profile in enumerate(config._profiles):
        for value in varying:
            if value.name not in profile._shapes:
                return _BUILD + f"(Dynamic input tensor {value.name} is missing dimensions in profile {number}.)"
        for value in network._graph.inputs:
            for shape in profile._shapes.get(value.name, ()):
                fits = len(shape) == len(value.shape) and all(w in (-1, s) for w, s in zip(value.shape, shape, strict=True))
                if not fits:
                    return (
                        _BUILD + f"(Dimension mismatch for tensor {value.name} and profile {number}: {shape}, {value.shape}.)"
                    )
    return ""


def _static_profile(network: Any) -> list[dict[str, Shapes]]:
    """The profile that a network of fixed shapes gets by itself."""
    return [{value.name: (value.shape, value.shape, value.shape) for value in network._graph.inputs}]


def _tactics(gpu: FakeGpu, log: Reporter, config: Any, layers: list[dict[str, Any]]) -> dict[str, int] | None:
    """For each layer the kernel that is fastest: from the timing cache, else measured, which the cache then keeps."""
    cache = config._timing_cache
    known = {} if cache is None or "DISABLE_TIMING_CACHE" in config._flag_names else cache._entries
    # That a miss is an error changes no kernel; every other flag may.
    flags = [name for name in config._flag_names if name != "ERROR_ON_TIMING_CACHE_MISS"]
    options = [flags, config.builder_optimization_level, config._builder._version]
    chosen = {}
    for layer in layers:
        described = json.dumps([layer, options, [p._shapes for p in config._profiles]], sort_keys=True)
        key = hashlib.sha256(described.encode()).hexdigest()[:24]
        if key not in known:
            if "ERROR_ON_TIMING_CACHE_MISS" in config._flag_names:
                log.error(f"Error Code 10: Internal Error (Timing cache miss for node {layer['Name']}.)")
                return None
            known[key] = int.from_bytes(hashlib.sha256(f"{key} {gpu.noise()}".encode()).digest()[:7], "big")
        chosen[layer["Name"]] = known[key]
    return chosen
