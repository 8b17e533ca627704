"""Commands for the machine that runs a bundle: verify, bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.bench import bench
from lmedge.cli.console import EXIT_GATE, note, percent, print_json, print_table, progress_bar, say
from lmedge.cli.faces import BundleArgument
from lmedge.cli.options import BackendsOption, JsonOption, SchemaOption, ThreadsOption
from lmedge.errors import BackendUnavailableError

# Enough for a 99th percentile to mean something.
_PARITY_FACES = 200


def register(app: typer.Typer) -> None:
    app.command(epilog="Example:  lmedge verify runs/faces/bundle --run runs/faces --data 300w:faces/300w")(verify)
    app.command(
        epilog="Examples:  lmedge bench runs/faces/bundle --backend openvino --threads 1 --iterations 10000   |   "
        "lmedge bench runs/faces/bundle --every-ms 33   |   lmedge bench new/bundle --compare old/bundle"
    )(bench)


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

    limits = _gate_limits(config, run)
    opened = Bundle.open(bundle)
    usable, missing = _usable(backend)
    samples, parity_samples = _read_samples(data, schema) if data else (None, None)
    with progress_bar() as progress:
        outcome = verify_bundle(
            opened,
            backends=usable,
            run=run,
            samples=samples,
            parity_samples=parity_samples,
            limits=limits,
            threads=threads,
            progress=progress,
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


def _gate_limits(config: Path | None, run: Path | None) -> Any:
    """Of the file that was named, else those that the run was built with, else lmedge's own."""
    from lmedge.runtimes.gates import GateLimits

    if config is not None:
        return GateLimits.from_toml(config)
    built_with = run / "config.json" if run is not None else None
    if built_with is not None and built_with.is_file():
        return GateLimits.from_mapping(json.loads(built_with.read_text(encoding="utf-8"))["gates"])
    return GateLimits()


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


def _read_samples(data: list[str], schema: str) -> tuple[list[Any], list[Any]]:
    """Faces for the NME: those of the validation split, since what a network was trained on says nothing of its error; and
    faces to compare engines on: the same, and training faces where they are few."""
    from lmedge.data.duplicates import share_keys_of_duplicates
    from lmedge.data.samples import split_samples
    from lmedge.data.sources import parse_source, read_sources
    from lmedge.schemas import get_schema

    chosen = get_schema(schema) if schema else None
    faces = share_keys_of_duplicates(read_sources([parse_source(text, chosen) for text in data]))
    training, validation = split_samples(faces)
    if not validation:
        note(f"None of these {len(faces)} faces is in the validation split; all are used.")
        return faces, faces
    missing = max(0, _PARITY_FACES - len(validation))
    return validation, [*validation, *training[:missing]]


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
            gate.basis or "–",
            f"{gate.limit:.4g}",
            "passed" if gate.passed else "FAILED",
        ]
        for report in outcome.parity
        for gate in report.gates
    ]
    print_table("Gates", ["engine", "precision", "against", "crops", "gate", "value", "of", "limit", "result"], rows)
    if outcome.evaluations:
        table = [
            [r.backend, r.precision, percent(r.nme), str(r.count), r.boxes, r.split, r.normalizer] for r in outcome.evaluations
        ]
        print_table("NME", ["engine", "precision", "NME", "faces", "boxes", "split", "normaliser"], table)
    for skipped in outcome.skipped:
        say(f"NOT VERIFIED  {skipped.backend}: {skipped.reason}")
