"""Commands that look and change nothing: inspect, doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmedge.cli.console import EXIT_GATE, print_json, print_table, say
from lmedge.cli.options import JsonOption
from lmedge.errors import BackendUnavailableError, BundleError, InputError

if TYPE_CHECKING:
    from lmedge.export.check_tensorrt import Verdict
    from lmedge.export.graph.lint_qdq import Finding

# The rules that the dialect for x86 CPUs breaks on purpose.
_X86_RULES = {"activation-type", "bias-int32"}
# Verdicts of the second opinion that fail the gate; no answer in time is none.
_NO = ("refused", "crashed")


def register(app: typer.Typer) -> None:
    app.command(epilog="Example:  lmedge inspect runs/faces/bundle   |   lmedge inspect model.onnx --lint")(inspect)
    app.command(epilog="Example:  lmedge doctor --json")(doctor)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|FILE", help="A bundle folder or an .onnx file.")],
    lint: Annotated[
        bool,
        typer.Option("--lint", help="Say what TensorRT would refuse or slow in an ONNX file. Exit 3 if it would refuse it."),
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
    from lmedge.runtimes.tensorrt_machine import probe_tensorrt

    statuses = {name: find_runtime(name).status() for name in runtime_names()}
    probe = probe_tensorrt()
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
        tensorrt = {
            "usable": probe.machine is not None,
            "steps": [{"step": s.step, "passed": s.passed, "detail": s.detail} for s in probe.steps],
            "machine": None if probe.machine is None else probe.machine.to_json(),
            "tensorrt_rtx": _second_opinion_version(),
        }
        print_json({"lmedge": __version__, "machine": machine, "engines": engines, "tensorrt": tensorrt})
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
    steps = [[s.step, "yes" if s.passed else "no", s.detail] for s in probe.steps]
    print_table("TensorRT, step by step: what it needs to build and run engines", ["step", "passed", "found"], steps)
    if probe.machine is None:
        say("The steps after one that fails are not tried: without a driver and a GPU, starting TensorRT ends the process.")
    opinion = _second_opinion_version()
    say(f"TensorRT-RTX, for a second opinion on ONNX files without a GPU: {opinion or 'not installed'}")
    say()
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
        ["answers", ", ".join(dict.fromkeys(spec.name for file in manifest.artifacts for spec in file.outputs))],
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
    findings = []
    opinion: Verdict | str = ""
    if lint:
        from lmedge.export.graph.lint_qdq import lint_file

        findings, opinion = lint_file(path), _second_opinion(path)
    refused = any(finding.effect == "refused" for finding in findings) or getattr(opinion, "outcome", "") in _NO
    if as_json:
        told = {"outcome": "not checked", "reason": opinion} if isinstance(opinion, str) else opinion.to_json()
        linted = {"lint": [finding.to_json() for finding in findings], "tensorrt_rtx": told}
        print_json({**summary, **(linted if lint else {})})
    else:
        print_table(str(path), ["what", "value"], [[name.replace("_", " "), _text(value)] for name, value in summary.items()])
        if lint:
            _say_findings(findings, quantised=bool(summary["quantize"] or summary["dequantize"]))
            _say_opinion(opinion)
    if refused:
        raise typer.Exit(EXIT_GATE)


def _second_opinion_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tensorrt-rtx")
    except PackageNotFoundError:
        return None


def _second_opinion(path: Path) -> Verdict | str:
    """TensorRT-RTX's verdict, or why there is none."""
    from lmedge.export.check_tensorrt import parse_and_build

    try:
        return parse_and_build(path)
    except BackendUnavailableError as error:
        return str(error)


def _say_findings(findings: Sequence[Finding], *, quantised: bool) -> None:
    """One row per broken rule, with the first of its nodes."""
    if not findings:
        say(f"lint: {'' if quantised else 'no quantisers, and '}nothing that TensorRT's rules refuse or slow.")
        return
    by_rule: dict[str, list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    rows = [
        [name, found[0].effect, _few([entry.node for entry in found]), found[0].what, found[0].why, found[0].cure]
        for name, found in by_rule.items()
    ]
    print_table("lint", ["rule", "TensorRT", "node", "what", "why", "what to do"], rows)
    if set(by_rule) >= _X86_RULES:
        say(
            "Unsigned activations and int32 biases are what x86 CPU engines compute fastest. If this is the x86 file of a "
            "bundle, it is right for them; for TensorRT take the portable one beside it, model.int8.onnx."
        )
    if not any(finding.effect == "refused" for finding in findings):
        say("TensorRT takes this graph, but is slower or less accurate with it than need be.")


def _say_opinion(opinion: Verdict | str) -> None:
    if isinstance(opinion, str):
        say(f"TensorRT-RTX, a second opinion: not checked. {opinion}")
        return
    engine = f"TensorRT-RTX {opinion.version}, a second opinion without a GPU"
    if opinion.outcome == "accepted":
        done = (
            "parses and builds"
            if opinion.built
            else "parses (it has dynamic dimensions besides the batch, so it was not built)"
        )
        say(f"{engine}: {done} it.")
    elif opinion.outcome == "timed out":
        say(f"{engine}: no answer within {opinion.seconds:.0f} s.")
    else:
        say(f"{engine}: its {opinion.stage} {'refuses it' if opinion.outcome == 'refused' else 'crashes'}.")
        for problem in opinion.problems:
            say(f"  {problem.node or problem.operator or 'graph'}: {problem.message}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _text(value: Any) -> str:
    """A field of an ONNX file for people: counts as "Conv 52", tensors as "image uint8 (batch, 112, 112, 3)"."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {count:,}" for name, count in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(f"{spec['name']} {spec['dtype']} ({', '.join(map(str, spec['shape']))})" for spec in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
