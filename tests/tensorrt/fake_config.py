"""What a build of the fake TensorRT is told: its configuration, optimisation profile and timing cache."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.tensorrt.fake_plan import Shapes
from tests.tensorrt.fake_pybind import Dims, HostMemory, Played, make

_CACHE_MAGIC = b"ftch"
_MOST_OPTIMIZATION_LEVEL = 5


class IOptimizationProfile(Played):
    """The shapes that an engine is built for."""

    def _start(self) -> None:
        self._shapes: dict[str, Shapes] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        # Whatever is given is taken; `add_optimization_profile` and the build judge it.
        self._shapes[input] = tuple(min), tuple(opt), tuple(max)

    def get_shape(self, input: str) -> list[Dims]:
        return [Dims(shape) for shape in self._shapes.get(input, ())]

    def _is_valid(self) -> bool:
        return all(
            len(least) == len(usual) == len(most) and all(0 <= a <= b <= c for a, b, c in zip(least, usual, most, strict=True))
            for least, usual, most in self._shapes.values()
        )


class ITimingCache(Played):
    """Which kernel was fastest for a layer, from earlier builds; for one version and, unless one looks away, one GPU."""

    def _start(self, version: str, compute_capability: str, entries: dict[str, int]) -> None:
        self._made_by, self._made_on, self._entries = version, compute_capability, entries

    def serialize(self) -> HostMemory:
        body = json.dumps([self._made_by, self._made_on, self._entries], sort_keys=True).encode()
        return HostMemory(_CACHE_MAGIC + hashlib.sha256(body).digest() + body)

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        if input_cache._made_by != self._made_by or (input_cache._made_on != self._made_on and not ignore_mismatch):
            return False
        self._entries = {**input_cache._entries, **self._entries}
        return True

    def reset(self) -> bool:
        self._entries = {}
        return True


def read_cache(data: bytes) -> list[Any] | None:
    """What a serialised timing cache holds, None where it is none or a byte changed."""
    digest, body = data[4:36], data[36:]
    if data[:4] != _CACHE_MAGIC or hashlib.sha256(body).digest() != digest:
        return None
    fields: list[Any] = json.loads(body)
    return fields


class IBuilderConfig(Played):
    """The options of a build; TF32 is on in a new one."""

    def _start(self, builder: Any) -> None:
        trt = self._trt
        self._builder, self._gpu, self._log = builder, builder._gpu, builder._log
        self._limits = {int(trt.MemoryPoolType.WORKSPACE): 8 << 30}
        self._profiles: list[Any] = []
        self._timing_cache: Any = None
        self._flags = 1 << int(trt.BuilderFlag.TF32)
        self._tactics = sum(1 << int(value) for value in trt.TacticSource.__members__.values())
        self._level, self._hardware = 3, trt.HardwareCompatibilityLevel.NONE
        self._verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY

    @property
    def _flag_names(self) -> tuple[str, ...]:
        known = self._trt.BuilderFlag.__members__
        return tuple(sorted(name for name, value in known.items() if self._flags >> int(value) & 1))

    @property
    def flags(self) -> int:
        return int(self._flags)

    @flags.setter
    def flags(self, flags: int) -> None:
        self._flags = int(flags)

    def _bit(self, flag: Any) -> int:
        if not isinstance(flag, self._trt.BuilderFlag):
            raise TypeError(f"incompatible function arguments: BuilderFlag expected, got {flag!r}")
        return 1 << int(flag)

    def set_flag(self, flag: Any) -> None:
        self._flags |= self._bit(flag)
        self._gpu.record("IBuilderConfig.set_flag", flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags &= ~self._bit(flag)
        self._gpu.record("IBuilderConfig.clear_flag", flag.name)

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags & self._bit(flag))

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        if pool_size < 0:
            raise TypeError("set_memory_pool_limit(): incompatible function arguments.")
        self._gpu.record("IBuilderConfig.set_memory_pool_limit", pool.name, pool_size)
        self._limits[int(pool)] = int(pool_size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits.get(int(pool), 0)

    def add_optimization_profile(self, profile: Any) -> int:
        if failure := self._gpu.failure("IBuilderConfig.add_optimization_profile"):
            self._log.error(failure.message or "IOptimizationProfile::isValid: Error Code 4: API Usage Error (injected)")
            return -1
        if not profile._is_valid():
            self._log.error(
                "IOptimizationProfile::isValid: Error Code 4: API Usage Error (Invalid optimization profiles for input tensors "
                f"{', '.join(profile._shapes)}, please ensure that the optimization profiles satisfy MIN<=OPT<=MAX.)"
            )
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._gpu.record("IBuilderConfig.set_tactic_sources", tactic_sources)
        known = sum(1 << int(value) for value in self._trt.TacticSource.__members__.values())
        if tactic_sources & ~known:
            return False
        self._tactics = tactic_sources
        return True

    def get_tactic_sources(self) -> int:
        return int(self._tactics)

    @property
    def builder_optimization_level(self) -> int:
        return int(self._level)

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        # A higher level than the highest is taken for that.
        self._level = min(level, _MOST_OPTIMIZATION_LEVEL)

    @property
    def hardware_compatibility_level(self) -> Any:
        return self._hardware

    @hardware_compatibility_level.setter
    def hardware_compatibility_level(self, level: Any) -> None:
        if not isinstance(level, self._trt.HardwareCompatibilityLevel):
            raise TypeError(f"incompatible function arguments: HardwareCompatibilityLevel expected, got {level!r}")
        self._hardware = level

    @property
    def profiling_verbosity(self) -> Any:
        return self._verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, verbosity: Any) -> None:
        if not isinstance(verbosity, self._trt.ProfilingVerbosity):
            raise TypeError(f"incompatible function arguments: ProfilingVerbosity expected, got {verbosity!r}")
        self._verbosity = verbosity

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        data = bytes(memoryview(serialized_timing_cache))
        here = (self._version, self._gpu.devices[self._gpu.device_index()].compute_capability)
        if not data:
            return make(self._trt.ITimingCache, *here, {})
        fields = read_cache(data)
        if fields is None or fields[0] != self._version:
            self._log.warning("The timing cache will not be used!")
            self._log.warning("Failed to deserialize timing cache. Returning an empty timing cache.")
            return make(self._trt.ITimingCache, *here, {})
        return make(self._trt.ITimingCache, *fields)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, self._trt.ITimingCache):
            raise TypeError(f"incompatible function arguments: ITimingCache expected, got {cache!r}")
        self._gpu.record("IBuilderConfig.set_timing_cache", ignore_mismatch)
        here = self._gpu.devices[self._gpu.device_index()].compute_capability
        if self._gpu.failure("IBuilderConfig.set_timing_cache") or (cache._made_on != here and not ignore_mismatch):
            self._log.error("Error Code 1: Internal Error (the timing cache was created on another device)")
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._timing_cache
