"""From an ONNX file to a TensorRT engine, on the GPU that will run it; needs neither torch nor onnx.

The precision is the one in the ONNX file: the network is strongly typed, so TensorRT computes each tensor in its own type. One
path serves TensorRT 10 and 11. TensorRT 8.6 types weakly and is told by flags which types the file holds. What a version has is
found by looking for it, never by its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmedge.bundle import Artifact, check_digest, file_digest, write_atomically
from lmedge.errors import ExportError
from lmedge.export.engine_layers import EngineLayers, read_layers
from lmedge.export.engine_options import STRONGLY_TYPED, EngineOptions
from lmedge.runtimes.cuda_memory import CudaSession
from lmedge.runtimes.engine_record import BatchProfile, EngineRecord, record_path
from lmedge.runtimes.tensorrt_log import EngineLog
from lmedge.runtimes.tensorrt_machine import EngineMachine, import_tensorrt, version_numbers

FOLDER = "tensorrt"

_MIB = 1 << 20
# TensorRT 8.6 only: which types it may compute a file of each precision in, beside fp32.
_LEGACY_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8",), "fp16-int8": ("FP16", "INT8")}
# The parser goes on after this and reads unsigned values as signed ones, which is another network than the file holds.
_MISREAD = "INT8 instead"
_SHOWN_CHARACTERS = 400
_NOT_PINNED = "The build from the timing cache alone failed, so what was not in it was measured."
_DEFAULTS = EngineOptions()


@dataclass(frozen=True)
class CompiledEngine:
    """One engine on disk, with what is known of it.

    Attributes:
        plan, record_file, layers_file: in one folder.
        layers: the inspector's JSON, summed up.
        notes: what the user should know, e.g. that a timing cache did not fit or did not have every kernel.
    """

    plan: Path
    record_file: Path
    layers_file: Path
    record: EngineRecord
    layers: EngineLayers
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.plan, self.layers_file, self.record_file)


def engine_stem(precision: str, machine: EngineMachine) -> str:
    """The name of an engine's file without its suffix: what it computes in, for which GPU and which TensorRT."""
    return f"model.{precision}.{machine_tag(machine)}"


def machine_tag(machine: EngineMachine) -> str:
    """ "sm87-trt10.3": compute capability and TensorRT release, for file names."""
    release = ".".join(map(str, version_numbers(machine.tensorrt)[:2]))
    return f"sm{machine.compute_capability.replace('.', '')}-trt{release}"


def is_strongly_typed(trt: Any) -> bool:
    """Whether this TensorRT takes each tensor's type from the file; TensorRT 8 does not."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def compile_engine(
    source: Artifact,
    folder: Path,
    *,
    machine: EngineMachine,
    device: int = 0,
    options: EngineOptions = _DEFAULTS,
    timing_cache: Path | None = None,
    pinned: bool = False,
) -> CompiledEngine:
    """Builds the engine of one ONNX file for the GPU of this machine: plan, layers and, last, the record, each written whole.

    Args:
        source: the ONNX file as the manifest has it; its digest is checked first.
        machine: what `probe_tensorrt` found. Only call this when it found something: TensorRT ends the process without a GPU.
        device: index of the GPU.
        timing_cache: a file of measured kernels, read where it exists and written with what was measured besides.
        pinned: the cache already holds every kernel of this engine, so that the build should measure nothing. With it the same
            file gives the same kernels again. Where TensorRT misses one all the same, it measures, and a note says so.

    Raises:
        ExportError: TensorRT does not take the file (with every reason and node that its parser names), or builds no engine.
        DigestMismatchError: the ONNX file is not the one of the manifest.
        LmedgeError: the disk is full or the folder cannot be written.
    """
    check_digest(source)
    trt: Any = import_tensorrt()
    with _current_device(device):
        build = _Build(trt, source)
        build.configure(options, timing_cache, pinned)
        plan = build.plan()
        inspected = build.inspect(plan, options)
        timings = build.timings() if timing_cache is not None else b""
    stem = folder / engine_stem(source.precision, machine)
    plan_file, layers_file = stem.with_name(f"{stem.name}.engine"), stem.with_name(f"{stem.name}.layers.json")
    layers = read_layers(inspected)
    record = EngineRecord(
        onnx=source.path,
        onnx_sha256=source.sha256,
        precision=source.precision,
        machine=machine,
        profile=options.batch,
        inputs=source.inputs,
        outputs=source.outputs,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        options={**options.recorded, STRONGLY_TYPED: is_strongly_typed(trt)},
        layers=layers.by_precision,
    )
    write_atomically(plan_file, plan)
    write_atomically(layers_file, inspected)
    if timing_cache is not None:
        write_atomically(timing_cache, timings)
        record = replace(record, timing_cache_sha256=file_digest(timing_cache))
    # Last: a record that is there has its plan.
    record_file = plan_file.with_name(record_path(plan_file.name))
    record.write(record_file)
    return CompiledEngine(plan_file, record_file, layers_file, record, layers, tuple(build.notes))


@contextmanager
def _current_device(index: int) -> Iterator[None]:
    """TensorRT builds for the GPU that is the thread's current one."""
    session = CudaSession(index)
    try:
        yield
    finally:
        session.close()


class _Build:
    """One network on its way through TensorRT. Builder, network, parser and logger hold pointers to each other without keeping
    each other alive, so all of them are attributes here until the plan is made."""

    def __init__(self, trt: Any, source: Artifact) -> None:
        self.trt, self.source = trt, source
        self.pinned = False
        self.notes: list[str] = []  # what did not go as wished
        self.log = EngineLog(trt)
        self.builder = trt.Builder(self.log.logger)
        flags = trt.NetworkDefinitionCreationFlag
        flag = flags.STRONGLY_TYPED if is_strongly_typed(trt) else flags.EXPLICIT_BATCH
        self.network = self.builder.create_network(1 << int(flag))
        self.parser = trt.OnnxParser(self.network, self.log.logger)
        self._parse()
        self.config = self.builder.create_builder_config()

    def _parse(self) -> None:
        if not self.parser.parse_from_file(str(self.source.file)):
            errors = [self.parser.get_error(index) for index in range(self.parser.num_errors)]
            # Where its errors name no nodes and give no reason, as in TensorRT 8, its log does.
            named = bool(errors) and all(hasattr(error, "node_name") for error in errors)
            raise self._refused([*map(_problem, errors), *(() if named else self._said())])
        misread = [line for line in self._said() if _MISREAD in line]
        if misread:
            raise self._refused(misread)

    def _said(self) -> list[str]:
        return [line[:_SHOWN_CHARACTERS] for line in dict.fromkeys(self.log.lines)]

    def configure(self, options: EngineOptions, timing_cache: Path | None, pinned: bool) -> None:
        trt, config = self.trt, self.config
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # TF32 rounds the factors of an fp32 product to 10 bits, which moves points by more than the fp32 gate allows.
        config.clear_flag(trt.BuilderFlag.TF32)
        if not is_strongly_typed(trt):
            self._configure_legacy()
        if options.version_compatible:
            config.set_flag(self._feature(trt.BuilderFlag, "VERSION_COMPATIBLE"))
        if options.hardware_compatible:
            levels = self._feature(trt, "HardwareCompatibilityLevel")
            config.hardware_compatibility_level = levels.AMPERE_PLUS
        if options.optimisation_level is not None:
            config.builder_optimization_level = options.optimisation_level
        self._add_profile(options.batch)
        if timing_cache is not None:
            self._attach_timings(timing_cache, pinned)

    def _configure_legacy(self) -> None:
        """TensorRT 8.6: allows the types of the file, and only kernels that later versions have too, not cuBLAS and cuDNN."""
        trt = self.trt
        for name in _LEGACY_FLAGS[self.source.precision]:
            self.config.set_flag(getattr(trt.BuilderFlag, name))
        kernels = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        self.config.set_tactic_sources(sum(1 << int(kernel) for kernel in kernels))

    def _feature(self, holder: Any, name: str) -> Any:
        if not hasattr(holder, name):
            raise ExportError(f"TensorRT {self.trt.__version__} has no {name}. Leave that option out.")
        return getattr(holder, name)

    def _add_profile(self, batch: BatchProfile) -> None:
        profile = self.builder.create_optimization_profile()
        for index in range(self.network.num_inputs):
            value = self.network.get_input(index)
            first, *rest = tuple(value.shape)
            if first >= 0 or min(rest, default=0) < 0:
                raise ExportError(
                    f"{self.source.path}: input {value.name!r} must have a free batch and no other free size; "
                    f"it is {tuple(value.shape)}. Export it again with lmedge."
                )
            profile.set_shape(value.name, *((size, *rest) for size in (batch.least, batch.usual, batch.most)))
        if self.config.add_optimization_profile(profile) < 0:
            raise self._failed(f"takes no batch of {batch}")

    def _attach_timings(self, file: Path, pinned: bool) -> None:
        """Gives the build what was measured before. From its first build on a cache is editable where TensorRT has that, since
        its keys are others then."""
        flags, known = self.trt.BuilderFlag, file.read_bytes() if file.is_file() else b""
        if hasattr(flags, "EDITABLE_TIMING_CACHE"):
            self.config.set_flag(flags.EDITABLE_TIMING_CACHE)
        empty = self.config.create_timing_cache(b"")
        cache = self.config.create_timing_cache(known)
        # Of what it cannot read TensorRT makes an empty cache, or none.
        fits = known and cache is not None and bytes(cache.serialize()) != bytes(empty.serialize())
        if fits and self.config.set_timing_cache(cache, ignore_mismatch=False):
            self.pinned = pinned and hasattr(flags, "ERROR_ON_TIMING_CACHE_MISS")
            if self.pinned:
                self.config.set_flag(flags.ERROR_ON_TIMING_CACHE_MISS)
            return
        self.config.set_timing_cache(empty, ignore_mismatch=False)
        if known:
            self.notes.append(f"{file.name} is of another TensorRT or GPU, or damaged: all kernels were measured anew.")

    def plan(self) -> bytes:
        made = self.builder.build_serialized_network(self.network, self.config)
        if made is None and self.pinned:
            # A kernel that is not in the cache after all is measured: an engine with other kernels is better than none.
            self.config.clear_flag(self.trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
            self.notes.append(f"{_NOT_PINNED} TensorRT said: {self.log.tail or 'nothing'}")
            made = self.builder.build_serialized_network(self.network, self.config)
        if made is None:
            raise self._failed("builds no engine")
        return bytes(made)

    def timings(self) -> bytes:
        """The timing cache after the build."""
        return bytes(self.config.get_timing_cache().serialize())

    def inspect(self, plan: bytes, options: EngineOptions) -> str:
        """The inspector's JSON of the finished engine."""
        runtime = self.trt.Runtime(self.log.logger)
        if options.version_compatible:
            runtime.engine_host_code_allowed = True  # it was built here, a moment ago
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._failed("does not open the engine that it built")
        inspector = engine.create_engine_inspector()
        if inspector is None:
            raise self._failed("tells no layers of the engine that it built")
        told = str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))
        del inspector  # older bindings do not keep the engine alive for it, so it goes first
        return told

    def _refused(self, problems: list[str]) -> ExportError:
        listed = "\n".join(f"  {problem}" for problem in problems)
        return ExportError(
            f"TensorRT {self.trt.__version__} does not take {self.source.path}:\n{listed}\n"
            f"What its rules are and what to do: lmedge inspect {self.source.file} --lint"
        )

    def _failed(self, what: str) -> ExportError:
        return ExportError(
            f"TensorRT {self.trt.__version__} {what} for {self.source.path}. It said: {self.log.tail or 'nothing'}"
        )


def _problem(error: Any) -> str:
    """ "node (operator): what the parser has against it"; TensorRT 8 knows a node by its number only."""
    node = error.node_name() if hasattr(error, "node_name") else f"node {error.node()}"
    operator = f" ({error.node_operator()})" if hasattr(error, "node_operator") and error.node_operator() else ""
    return f"{node or 'graph'}{operator}: {' '.join(error.desc().split())[:_SHOWN_CHARACTERS]}"
