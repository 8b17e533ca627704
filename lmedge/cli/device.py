"""Commands for the machine that runs a bundle: verify, bench, inspect, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.console import EXIT_GATE, note, number, percent, print_json, print_table, progress_bar, say
from lmedge.cli.faces import BundleArgument
from lmedge.cli.options import BackendsOption, DeviceOption, JsonOption, PrecisionsOption, SchemaOption, ThreadsOption
from lmedge.errors import BackendUnavailableError, BundleError, ConfigError, InputError


def register(app: typer.Typer) -> None:
    app.command(epilog="Example:  lmedge verify runs/faces/bundle --run runs/faces --data 300w:faces/300w")(verify)
    app.command(epilog="Example:  lmedge bench runs/faces/bundle --backend openvino --threads 1 --iterations 2000")(bench)
    app.command(epilog="Example:  lmedge inspect runs/faces/bundle   |   lmedge inspect model.onnx --lint")(inspect)
    app.command(epilog="Example:  lmedge doctor --json")(doctor)


def verify(
    bundle: BundleArgument,
    backend: BackendsOption = None,
    run: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="The run folder: compare with PyTorch too.")] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="KIND:PATH", help="Faces to compare and measure NME on. Repeatable.")
    ] = None,
    schema: SchemaOption = "",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Its [gates] table sets the limits.")
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle on this machine: digests, golden answers, with --run parity, with --data NME. Exit 3 if a gate fails."""
    from dataclasses import replace

    from lmedge.bundle import Bundle
    from lmedge.runtimes.verify import verify_bundle

    limits = _gate_limits(config)
    opened = Bundle.open(bundle)
    usable, missing = _usable(backend)
    samples = _read_samples(data, schema) if data else None
    with progress_bar() as progress:
        outcome = verify_bundle(
            opened, backends=usable, run=run, samples=samples, limits=limits, threads=threads, progress=progress
        )
    outcome = replace(outcome, skipped=(*outcome.skipped, *missing))
    if as_json:
        print_json(outcome.to_json())
    else:
        _print_outcome(outcome)
    if not outcome.passed:
        note("lmedge: gate failed: see the rows marked FAILED")
        raise typer.Exit(EXIT_GATE)
    if missing:
        raise BackendUnavailableError(f"Not verified, though asked for: {', '.join(skip.backend for skip in missing)}.")


def bench(
    bundle: BundleArgument,
    backend: BackendsOption = None,
    precision: PrecisionsOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Timed calls per engine and precision.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Latency of predict and of the bare engine call, in the same run."""
    from lmedge.bundle import Bundle
    from lmedge.runtimes import find_runtime
    from lmedge.runtimes.bench import bench as run_bench
    from lmedge.runtimes.bench import describe_machine

    for name in backend or ():
        find_runtime(name)  # a name that no engine has is told as such, not as missing from the bundle
    with progress_bar() as progress:
        rows = run_bench(
            Bundle.open(bundle),
            backend,
            precision,
            device=device,
            threads=threads,
            iterations=iterations,
            progress=lambda done, total: progress(done, total, "measuring"),
        )
    machine = describe_machine()
    if as_json:
        print_json([{**row.to_json(), "machine": machine} for row in rows])
        return
    table = [
        [
            row.backend,
            row.precision,
            row.engine_precision or "–",
            "default" if row.threads is None else str(row.threads),
            *(number(value, 3) for value in (row.p50_ms, row.p90_ms, row.p99_ms)),
            *(number(value, 3) for value in (row.engine_p50_ms, row.engine_p90_ms, row.engine_p99_ms)),
            number(row.p50_ms - row.engine_p50_ms, 3),
        ]
        for row in rows
    ]
    columns = ["engine", "precision", "computes in", "threads", "p50", "p90", "p99", "engine p50", "p90", "p99", "overhead p50"]
    print_table(f"One face, {rows[0].count if rows else 0} calls each, milliseconds", columns, table)
    say(f"{machine['cpu']}, {machine['cores_usable']} cores, {machine['os']}, Python {machine['python']}")


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|FILE", help="A bundle folder or an .onnx file.")],
    lint: Annotated[
        bool, typer.Option("--lint", help="Say what TensorRT would refuse in a quantised file. Exit 3 if anything.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What is in a bundle or an ONNX file."""
    if path.is_dir():
        if lint:
            raise typer.BadParameter(f"--lint takes an ONNX file: lmedge inspect {path}/model.int8.onnx --lint")
        _inspect_bundle(path, as_json)
    elif not path.exists():
        raise InputError(f"There is nothing at {path}. Give a bundle folder or an .onnx file.")
    else:
        _inspect_onnx(path, lint, as_json)


def doctor(as_json: JsonOption = False) -> None:
    """What this machine can run, and why not."""
    from lmedge import __version__
    from lmedge.runtimes import find_runtime, runtime_names
    from lmedge.runtimes.bench import describe_machine

    statuses = {name: find_runtime(name).status() for name in runtime_names()}
    machine = describe_machine()
    if as_json:
        engines = {
            name: {
                "installed": s.installed,
                "version": s.version,
                "devices": list(s.devices),
                "reason": s.reason,
                "extra": s.extra,
            }
            for name, s in statuses.items()
        }
        print_json({"lmedge": __version__, "machine": machine, "engines": engines})
        return
    rows = [
        [
            name,
            "yes" if s.installed else "no",
            s.version or "–",
            ", ".join(s.devices) or "–",
            s.reason if s.installed else f"{s.reason} {s.extra}",
        ]
        for name, s in statuses.items()
    ]
    print_table(f"lmedge {__version__}: engines", ["engine", "usable", "version", "devices", "note"], rows)
    versions = machine.pop("versions")
    facts = {**machine, **versions}
    print_table("Machine", ["what", "value"], [[name.replace("_", " "), str(value)] for name, value in facts.items()])


def _gate_limits(config: Path | None) -> Any:
    from lmedge.runtimes.gates import GateLimits
    from lmedge.toml_file import read_toml

    if config is None:
        return GateLimits()
    table = read_toml(config, ConfigError).get("gates")
    if not isinstance(table, dict):
        raise ConfigError(f"{config} has no [gates] table, so it sets no limit. Leave --config out for lmedge's own limits.")
    return GateLimits.from_mapping(table)


def _usable(backends: list[str] | None) -> tuple[list[str] | None, list[Any]]:
    """The named backends that are here, and the others with the reason: a gate that fails outweighs a missing engine."""
    from lmedge.runtimes import find_runtime
    from lmedge.runtimes.checks import SkippedCheck

    if backends is None:
        return None, []
    usable, missing = [], []
    for name in dict.fromkeys(backends):
        try:
            status = find_runtime(name).status()
            reason = "" if status.installed else f"{status.reason} {status.extra}".strip()
        except BackendUnavailableError as error:
            reason = str(error)
        if reason:
            missing.append(SkippedCheck(name, reason))
        else:
            usable.append(name)
    if not usable:
        raise BackendUnavailableError("\n".join(f"{skip.backend} cannot be checked here: {skip.reason}" for skip in missing))
    return usable, missing


def _read_samples(data: list[str], schema: str) -> list[Any]:
    from lmedge.data.duplicates import share_keys_of_duplicates
    from lmedge.data.sources import parse_source, read_sources
    from lmedge.schemas import get_schema

    chosen = get_schema(schema) if schema else None
    return share_keys_of_duplicates(read_sources([parse_source(text, chosen) for text in data]))


def _print_outcome(outcome: Any) -> None:
    say(f"{outcome.files} files match their digests; every file was made from one that is here.")
    rows = [
        [
            report.backend,
            report.precision + (f" ({report.dialect})" if report.dialect else ""),
            report.reference,
            str(report.crops),
            gate.gate,
            f"{gate.value:.4g} {gate.unit}",
            f"{gate.limit:.4g}",
            "passed" if gate.passed else "FAILED",
        ]
        for report in outcome.parity
        for gate in report.gates
    ]
    print_table("Gates", ["engine", "precision", "against", "crops", "gate", "value", "limit", "result"], rows)
    if outcome.evaluations:
        table = [
            [r.backend, r.precision, percent(r.nme), str(r.count), r.boxes, r.split, r.normalizer] for r in outcome.evaluations
        ]
        print_table("NME", ["engine", "precision", "NME", "faces", "boxes", "split", "normaliser"], table)
    for skipped in outcome.skipped:
        say(f"NOT VERIFIED  {skipped.backend}: {skipped.reason}")


def _inspect_bundle(path: Path, as_json: bool) -> None:
    from lmedge.bundle import Bundle

    bundle = Bundle.open(path)
    manifest = bundle.manifest
    if as_json:
        print_json(manifest.to_json())
        return
    spec, provenance = manifest.preprocess, manifest.provenance
    facts = [
        ["name", manifest.name],
        ["points", f"{manifest.schema.num_points} ({manifest.schema.name})"],
        ["crop", f"{spec.input_hw[0]} px, {spec.crop_scale} × the extent of the points"],
        ["boxes understood", ", ".join(["reference", *sorted(spec.box_fits)])],
        *(
            [["network", f"{provenance['parameters']:,} parameters, {provenance['macs'] / 1e6:.0f} M MACs"]]
            if {"parameters", "macs"} <= set(provenance)
            else []
        ),
        *[["trained on", f"{source['kind']}: {source['terms']}"] for source in provenance.get("sources", ())],
    ]
    print_table(str(path), ["what", "value"], facts)
    rows = [
        [
            artifact.path,
            artifact.label,
            f"{artifact.file.stat().st_size / 1e6:.2f} MB" if artifact.file.is_file() else "missing",
            ", ".join(f"{backend} ({'/'.join(archs)})" for backend, archs in artifact.serves.items()) or "nothing here",
            artifact.sha256[:12],
        ]
        for artifact in manifest.artifacts
    ]
    print_table("Files", ["file", "precision", "size", "serves", "sha256"], rows)


def _inspect_onnx(path: Path, lint: bool, as_json: bool) -> None:
    from importlib.util import find_spec

    if find_spec("onnx") is None:
        raise BundleError("Reading an ONNX file needs onnx: pip install 'lmedge[export]'")
    from lmedge.export.graph.inspect_onnx import inspect_onnx

    summary = inspect_onnx(path).to_json()
    findings: list[str] = []
    if lint:
        from lmedge.export.graph.lint_qdq import lint_file

        findings = lint_file(path)
    if as_json:
        print_json({**summary, **({"lint": findings} if lint else {})})
    else:
        print_table(str(path), ["what", "value"], [[name.replace("_", " "), _text(value)] for name, value in summary.items()])
        if lint:
            say("\n".join(findings) if findings else "lint: nothing that TensorRT's rules for Q/DQ graphs refuse.")
    if findings:
        raise typer.Exit(EXIT_GATE)


def _text(value: Any) -> str:
    """A field of an ONNX file for people: counts as "Conv 52", tensors as "image uint8 (batch, 112, 112, 3)"."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {count:,}" for name, count in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(f"{spec['name']} {spec['dtype']} ({', '.join(map(str, spec['shape']))})" for spec in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
