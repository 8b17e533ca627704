"""The command that makes engines: of a bundle, on the device that will run it, or of a run folder, where it is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmedge.cli.build import CONFIG_COPY, TargetOption, context_of, finish, run_until
from lmedge.cli.console import note, number, print_error, print_json, print_table, progress_bar, say
from lmedge.cli.options import JsonOption, PrecisionsOption, SetOption
from lmedge.errors import BackendUnavailableError, InputError

if TYPE_CHECKING:
    from lmedge.export.race_outcome import RacedEngine, RaceOutcome

TENSORRT = "tensorrt"
# Spelled here too, since reading it where it belongs would load NumPy for every help page.
MANIFEST = "manifest.json"
_NO_GPU = (
    "Engines are built on the GPU that runs them, and TensorRT finds none here. {reason}\n"
    "Copy the bundle {bundle} to the device, and run there: lmedge compile BUNDLE --target tensorrt"
)


def register(app: typer.Typer) -> None:
    app.command(
        name="compile",
        epilog="Examples:  lmedge compile bundle --target tensorrt --batch 1:8:32   |   "
        "lmedge compile runs/faces --target openvino",
    )(compile_)


def compile_(
    where: Annotated[Path, typer.Argument(metavar="BUNDLE|RUN", help="A bundle on the device, or a run folder.")],
    target: TargetOption = None,
    precision: PrecisionsOption = None,
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="LEAST:USUAL:MOST", help="Batch sizes of an engine; 1:1:1 by default.")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option("--workspace", metavar="MIB", min=1, help="Scratch memory on the GPU; 1024 by default.")
    ] = None,
    level: Annotated[
        int | None, typer.Option("--level", min=0, max=5, help="How long TensorRT looks for fast kernels; its own default.")
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Engines for later TensorRT versions too. They hold code that runs when they are opened: only for people who "
            "trust you, and who say so with LMEDGE_TRUST_ENGINE_CODE=1.",
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Engines for every GPU from Ampere on; slower. Not on Jetson.")
    ] = False,
    retime: Annotated[
        bool, typer.Option("--retime", help="Measure kernels anew, not as the bundle's timing cache says.")
    ] = False,
    device: Annotated[str, typer.Option("--device", metavar="cuda[:N]", help="The GPU to build on.")] = "cuda",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Its [gates] table sets the limits.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a bundle for the GPU of this machine: every precision raced, checked against golden answers, the fastest named.

    On a run folder, the stage of a build: OpenVINO IRs, and TensorRT engines where there is a GPU. Exit 3 if a gate fails,
    1 if a precision came to no engine; the others are kept.
    """
    options = {
        "--precision": precision,
        "--batch": batch,
        "--workspace": workspace,
        "--level": level,
        "--version-compatible": version_compatible,
        "--hardware-compatible": hardware_compatible,
        "--retime": retime,
        "--config": config,
    }
    if (where / MANIFEST).is_file():
        if settings:
            raise InputError("--set changes the configuration of a run folder; this is a bundle. Leave it out.")
        _check_target(target, where)
        outcome = _compile_bundle(where, device, options, as_json)
        _finish_bundle(where, outcome, as_json)
    elif (where / CONFIG_COPY).is_file():
        given = [name for name, value in options.items() if value]
        if given:
            raise InputError(f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} for bundles; {where} is a run folder.")
        _compile_run(where, target, settings, as_json)
    else:
        raise InputError(
            f"{where} is neither a bundle (it has no {MANIFEST}) nor a run folder (it has no {CONFIG_COPY}). "
            "Make one: lmedge build --target tensorrt"
        )


def _check_target(target: Sequence[str] | None, bundle: Path) -> None:
    wanted = list(dict.fromkeys(target or ()))
    if wanted == [TENSORRT]:
        return
    if not wanted:
        raise InputError(f"What for? Say it: lmedge compile {bundle} --target {TENSORRT}")
    others = ", ".join(name for name in wanted if name != TENSORRT)
    raise InputError(
        f"Only {TENSORRT} engines are compiled into a finished bundle; got {others}. What OpenVINO and ONNX Runtime load is "
        "the same on every machine and is made where the bundle is built: lmedge build --target openvino"
    )


def _compile_run(run: Path, target: list[str] | None, settings: list[str] | None, as_json: bool) -> None:
    context = context_of(run, target, settings)
    from lmedge.pipeline.reporting.outcome import missing_engine

    # Engines are made of files that have passed their gates, so with a GPU the stages up to them run too.
    with_engines = TENSORRT in context.config.targets and missing_engine(context) is None
    finish(run_until(context, "engines" if with_engines else "compile", as_json), as_json)


def _compile_bundle(path: Path, device: str, given: dict[str, Any], as_json: bool) -> RaceOutcome:
    from lmedge.bundle import Bundle
    from lmedge.export.engine_options import EngineOptions, parse_batch
    from lmedge.export.race_tensorrt import compile_bundle, find_machine
    from lmedge.runtimes.gates import GateLimits

    chosen = {
        "batch": parse_batch(given["--batch"]) if given["--batch"] else None,
        "workspace_mib": given["--workspace"],
        "optimisation_level": given["--level"],
        "version_compatible": given["--version-compatible"],
        "hardware_compatible": given["--hardware-compatible"],
    }
    options = EngineOptions(**{name: value for name, value in chosen.items() if value is not None})
    limits = GateLimits.from_toml(given["--config"]) if given["--config"] else GateLimits()
    bundle = Bundle.open(path)
    try:
        machine = find_machine(device)
    except BackendUnavailableError as error:
        raise BackendUnavailableError(_NO_GPU.format(reason=error, bundle=path)) from error
    if not as_json:
        note(f"TensorRT {machine.tensorrt} on {machine.gpu}, compute capability {machine.compute_capability}")
    with progress_bar() as progress:
        return compile_bundle(
            bundle,
            given["--precision"],
            machine=machine,
            options=options,
            device=device,
            limits=limits,
            retime=given["--retime"],
            progress=progress,
        )


def _finish_bundle(bundle: Path, outcome: RaceOutcome, as_json: bool) -> None:
    from lmedge.export.race_outcome import unbuilt
    from lmedge.runtimes.parity import require

    if as_json:
        print_json({"bundle": str(bundle), **outcome.to_json()})
    else:
        columns = ["precision", "int8 layers", "p50 ms", "p99 ms", "engine p50", "max px", "gates", "file"]
        rows = [*map(_row, outcome.engines), *([failed.precision, *"–––––", "NOT BUILT", "–"] for failed in outcome.failed)]
        print_table("Engines: latency of one face, copies included", columns, rows)
        for precision, reason in outcome.left_out:
            say(f"{precision}: not compiled, {reason}.")
        for engine in outcome.engines:
            for text in engine.notes:
                say(f"{engine.precision}: {text}")
        if outcome.fastest is not None and outcome.fastest.latency is not None:
            say(f"Fastest: {outcome.fastest.precision}, {number(outcome.fastest.latency.p50_ms, 3)} ms (median of one face)")
    no_engine = unbuilt(outcome.failed)
    if no_engine and not all(report.passed for report in outcome.parity):
        print_error(no_engine)  # the failed gate decides the exit code, and both are told
    require(outcome.parity)
    if no_engine:
        raise no_engine


def _row(engine: RacedEngine) -> list[str]:
    layers, latency = engine.layers, engine.latency
    times = ("–", "–", "–") if latency is None else (latency.p50_ms, latency.p99_ms, latency.engine_p50_ms)
    return [
        engine.precision,
        f"{layers.by_precision.get('int8', 0)} of {layers.count}" if layers.count else "not told",
        *(time if isinstance(time, str) else number(time, 3) for time in times),
        number(max((report.max_px for report in engine.parity), default=None), 4),
        "passed" if engine.passed else "FAILED",
        engine.artifact.path if engine.passed else "not kept",
    ]
