"""Every precision of a bundle as a TensorRT engine: compiled on this GPU, held to its gates, timed. The fastest is named.

    compile_bundle(Bundle.open("bundle/"))      # on the device: engines go into the bundle

Whether int8 is faster than fp16 depends on the GPU and the network, so all are tried and the clock decides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmedge.bundle import PRECISIONS, Artifact, Bundle, install_artifacts, one_writer
from lmedge.errors import BackendUnavailableError, BundleError, BundleFormatError, ExportError, InputError, LmedgeError
from lmedge.export.compile_tensorrt import FOLDER, CompiledEngine, compile_engine, is_strongly_typed
from lmedge.export.engine_options import EngineOptions
from lmedge.export.kept_timings import take_timings, timings_path, was_built_before, with_new_timings
from lmedge.export.race_outcome import FailedEngine, RacedEngine, RaceOutcome
from lmedge.progress import Progress
from lmedge.reports import GateResult, ParityReport
from lmedge.runtimes import find_runtime
from lmedge.runtimes.bench import Conditions, bench
from lmedge.runtimes.cuda_driver import DEVICE, device_number
from lmedge.runtimes.engine_record import EngineRecord
from lmedge.runtimes.gates import GOLDEN, QUANTISED, GateLimits
from lmedge.runtimes.golden import Golden
from lmedge.runtimes.landmarker import FaceLandmarker
from lmedge.runtimes.parity import check_golden, compare
from lmedge.runtimes.tensorrt_machine import EngineMachine, import_tensorrt, probe_tensorrt
from lmedge.runtimes.tensorrt_plan import trusting_engine_code

BACKEND = "tensorrt"
# An ONNX file that older TensorRT cannot hold: its scales are halves, which only strongly typed networks have.
_NEEDS_STRONG_TYPING = "fp16-int8"
_ITERATIONS = 300


def find_machine(device: str = DEVICE) -> EngineMachine:
    """What engines built here are bound to.

    Raises:
        BackendUnavailableError: there is no GPU, or no TensorRT, with the step that failed.
    """
    probe = probe_tensorrt(device_index(device))
    if probe.machine is None:
        raise BackendUnavailableError(f"{probe.reason}. Step by step: lmedge doctor")
    return probe.machine


def device_index(device: str) -> int:
    """ "cuda" → 0, "cuda:1" → 1.

    Raises:
        InputError: another kind of device.
    """
    number = device_number(device)
    if number < 0:
        raise InputError(f"TensorRT engines are built on {DEVICE}, {DEVICE}:1 and so on; got {device!r}.")
    return number


def compile_bundle(
    bundle: Bundle,
    precisions: Sequence[str] | None = None,
    *,
    machine: EngineMachine | None = None,
    options: EngineOptions | None = None,
    device: str = DEVICE,
    limits: GateLimits | None = None,
    retime: bool = False,
    iterations: int = _ITERATIONS,
    progress: Progress | None = None,
) -> RaceOutcome:
    """Compiles a bundle's ONNX files on this machine and adds the engines that pass their gates to it.

    Precisions that failed, a gate or before, are in the outcome and not raised; their engines are not kept. The bundle changes
    only at the end, and after an error it is as it was.

    Args:
        precisions: None takes all that the bundle has.
        machine: what `find_machine` found; None looks.
        retime: leave the timing cache of the bundle aside and measure every kernel anew.
        iterations: timed calls per engine.
        progress: called with (steps done, steps in all, what).

    Raises:
        BackendUnavailableError: no GPU or no TensorRT here.
        ExportError: TensorRT builds no engine of any of the files, with all that its parser says of each.
        BundleError: no such precision in the bundle, no golden vectors, or another process adds to it at this moment.
        LmedgeError: the bundle cannot be written.
    """
    machine = machine or find_machine(device)
    with one_writer(bundle.root), tempfile.TemporaryDirectory(prefix="lmedge-") as folder:
        # What another process added before this one had the lock must stay.
        bundle, root = Bundle.open(bundle.root), Path(folder)
        if not retime:
            take_timings(bundle, machine, root)
        outcome = race(
            bundle,
            root,
            machine,
            precisions,
            options=options,
            device=device,
            limits=limits,
            pin=not retime,
            iterations=iterations,
            progress=progress,
        )
        if outcome.kept:
            proof = [report.to_json() for engine in outcome.kept for report in engine.parity]
            artifacts = [engine.artifact for engine in outcome.kept]
            install_artifacts(bundle, [*with_new_timings(bundle, artifacts), *artifacts], proof)
    return outcome


def race(
    bundle: Bundle,
    folder: Path,
    machine: EngineMachine,
    precisions: Sequence[str] | None = None,
    *,
    options: EngineOptions | None = None,
    device: str = DEVICE,
    limits: GateLimits | None = None,
    pin: bool = True,
    iterations: int = _ITERATIONS,
    progress: Progress | None = None,
) -> RaceOutcome:
    """Compiles, checks and times engines in `folder`; the bundle is only read. The arguments are those of `compile_bundle`.

    Args:
        machine: what `find_machine` found.
        pin: where the bundle has the same engine and its timings lie in `folder`, build it from exactly these.

    Raises:
        LmedgeError: as `compile_bundle`.
    """
    options, limits = options or EngineOptions(), limits or GateLimits()
    golden = Golden.from_file(bundle.golden_file())
    sources, left_out = _sources(bundle, precisions, machine)
    timings = folder / timings_path(machine)
    can_pin = pin and timings.is_file()
    compiled: list[tuple[Artifact, CompiledEngine]] = []
    failures: dict[str, LmedgeError] = {}
    for done, source in enumerate(sources):
        if progress:
            progress(done, 2 * len(sources), f"compiling {source.precision}")
        pinned = can_pin and was_built_before(bundle, source, machine, options)
        try:
            made = compile_engine(
                source,
                folder / FOLDER,
                machine=machine,
                device=device_index(device),
                options=options,
                timing_cache=timings,
                pinned=pinned,
            )
        except ExportError as error:
            failures[source.precision] = error
            continue
        compiled.append((source, made))
        can_pin = can_pin and not made.notes  # the cache is another now than the engines of the bundle were made from
    # Only now is the timing cache complete, whose digest every engine's entry has.
    contenders = [(_artifact(source, made, folder, timings), made) for source, made in compiled]
    # With the golden vectors of the bundle, to which engines are held once more when they are timed.
    built = replace(bundle, manifest=replace(bundle.manifest, artifacts=tuple(artifact for artifact, _ in contenders)))
    how = Conditions(device=device, iterations=iterations, limits=limits)
    engines: list[RacedEngine] = []
    for done, (artifact, made) in enumerate(contenders, start=len(sources)):
        if progress:
            progress(done, 2 * len(sources), f"checking {artifact.precision}")
        latency = None
        try:
            with trusting_engine_code(bundle.root):  # of engines that were built here, a moment ago
                parity = _check(bundle, golden, artifact, made.record, device, limits)
                if all(report.passed for report in parity):
                    (latency,) = bench(built, [BACKEND], [artifact.precision], conditions=how)
        except BundleFormatError as error:  # TensorRT does not open what it built
            failures[artifact.precision] = error
            continue
        remarks = (latency.remark,) if latency is not None and latency.remark else ()
        engines.append(RacedEngine(artifact, parity, latency, made.layers, (*made.notes, *remarks)))
    failures = {source.precision: failures[source.precision] for source in sources if source.precision in failures}
    if not engines:
        raise _none_built(list(failures.values()))
    failed = tuple(FailedEngine(precision, str(error)) for precision, error in failures.items())
    return RaceOutcome(machine, tuple(engines), tuple(left_out), failed)


def onnx_sources(bundle: Bundle) -> dict[str, Artifact]:
    """Precision → the ONNX file that TensorRT takes for it: the portable dialect, not those for other processors."""
    return {a.precision: a for a in bundle.manifest.artifacts if a.format == "onnx" and not a.dialect}


def _sources(
    bundle: Bundle, precisions: Sequence[str] | None, machine: EngineMachine
) -> tuple[list[Artifact], list[tuple[str, str]]]:
    """The files to compile, and the precisions without one."""
    there = onnx_sources(bundle)
    reasons = {precision: "the bundle has no such ONNX file" for precision in PRECISIONS if precision not in there}
    if not is_strongly_typed(import_tensorrt()):
        weak = f"TensorRT {machine.tensorrt} has no strongly typed networks, which its half-precision scales need"
        reasons.setdefault(_NEEDS_STRONG_TYPING, weak)
    for precision in precisions or ():
        if precision in reasons:
            raise BundleError(f"{bundle.root} cannot be compiled in {precision}: {reasons[precision]}.")
    wanted = [precision for precision in PRECISIONS if precisions is None or precision in precisions]
    left_out = [(precision, reasons[precision]) for precision in wanted if precision in reasons]
    sources = [there[precision] for precision in wanted if precision not in reasons]
    if not sources:
        raise BundleError(f"{bundle.root} has no ONNX file to compile. Build it again: lmedge build --target tensorrt")
    return sources, left_out


def _none_built(errors: Sequence[LmedgeError]) -> LmedgeError:
    messages = dict.fromkeys(map(str, errors))  # an option that this TensorRT has not is told once
    return errors[0] if len(messages) == 1 else ExportError("\n".join(messages))


def _artifact(source: Artifact, made: CompiledEngine, folder: Path, timings: Path) -> Artifact:
    machine = made.record.machine
    return Artifact.of_file(
        made.plan,
        folder,
        [made.record_file, made.layers_file, timings],
        format=BACKEND,
        precision=source.precision,
        inputs=source.inputs,
        outputs=source.outputs,
        made_from=source.sha256,
        tool_versions={**source.tool_versions, BACKEND: machine.tensorrt},
        serves={BACKEND: (machine.arch,)},
        requires={
            "tensorrt": machine.tensorrt,
            "compute_capability": machine.compute_capability,
            "os": machine.os,
            "arch": machine.arch,
        },
    )


def _check(
    bundle: Bundle, golden: Golden, artifact: Artifact, record: EngineRecord, device: str, limits: GateLimits
) -> tuple[ParityReport, ...]:
    """The golden self-test, then the recorded answers of PyTorch at every batch that the engine is tuned for."""
    quantised = artifact.precision in QUANTISED
    reports = []
    for batch in sorted({1, record.profile.usual, record.profile.most}):
        with find_runtime(BACKEND).open(artifact, device=device, batch=batch) as runtime:
            if batch == 1:
                reports.append(check_golden(FaceLandmarker(bundle, runtime), limits))
            if batch == 1 and quantised:
                continue  # the self-test holds int8 to the limit for drawn faces already
            schema = bundle.manifest.schema
            report = compare(runtime, golden.crops, golden.answers, schema=schema, limits=limits, reference=GOLDEN)
            if quantised:
                limit = limits.golden_px(artifact.precision)
                sure = (gate for gate in report.gates if gate.gate.startswith(GOLDEN))
                report = replace(report, gates=(GateResult("golden_network", report.max_px, limit, "px"), *sure))
            reports.append(replace(report, reference=f"{GOLDEN}, batch {batch}"))
    return tuple(reports)
