"""Commands that look and change nothing: inspect, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.console import EXIT_GATE, print_json, print_table, say
from lmedge.cli.options import JsonOption
from lmedge.errors import BundleError, InputError


def register(app: typer.Typer) -> None:
    app.command(epilog="Example:  lmedge inspect runs/faces/bundle   |   lmedge inspect model.onnx --lint")(inspect)
    app.command(epilog="Example:  lmedge doctor --json")(doctor)


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
