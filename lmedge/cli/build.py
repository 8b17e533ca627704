"""Commands that make bundles: build, and its stages one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.console import (
    exit_code,
    megabytes,
    note,
    number,
    percent,
    print_error,
    print_json,
    print_table,
    progress_bar,
    say,
)
from lmedge.cli.layers import LossOption, SensitivityOption, SpeedOption, bound_settings, print_layers, read_layers
from lmedge.cli.options import DataOption, JsonOption, OutOption, SchemaOption, SetOption
from lmedge.errors import InputError

ConfigArgument = Annotated[Path | None, typer.Argument(metavar="CONFIG.toml", help="Settings; defaults without it.")]
TargetOption = Annotated[
    list[str] | None, typer.Option("--target", metavar="NAME", help="onnxruntime, openvino or tensorrt. Repeatable.")
]
InitOption = Annotated[
    str, typer.Option("--init", metavar="PATH", help="Start from this checkpoint, run folder, or bundle in a run folder.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `lmedge build` or `lmedge train` made.")]
CONFIG_COPY = "config.json"


def register(app: typer.Typer) -> None:
    app.command(epilog="Examples:  lmedge build --data 300w:faces/300w --target openvino   |   lmedge build run.toml --plan")(
        build
    )
    app.command(
        epilog="Examples:  lmedge train --data 300w:faces/300w --set train.epochs=60   |   "
        "lmedge train --data 300w:faces/300w --data wflw:faces/wflw --schema IBUG_68   |   "
        "torchrun --nproc-per-node 2 -m lmedge.cli train --data 300w:faces/300w"
    )(train)
    app.command(name="export", epilog="Example:  lmedge export runs/faces")(export)
    app.command(
        epilog="Examples:  lmedge quantize runs/faces --set quantize.images=1000   |   lmedge quantize runs/faces --sensitivity"
        "   |   lmedge quantize runs/faces --max-nme-loss 0.03 --min-speedup 1.5"
    )(quantize)


def build(
    config: ConfigArgument = None,
    target: TargetOption = None,
    data: DataOption = None,
    schema: SchemaOption = "",
    init: InitOption = "",
    out: OutOption = None,
    max_nme_loss: LossOption = None,
    min_speedup: SpeedOption = None,
    settings: SetOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would run, and why.")] = False,
    as_json: JsonOption = False,
) -> None:
    """From labelled faces to a verified bundle: train, export, quantise, compile, verify, pack."""
    bounds = bound_settings(max_nme_loss, min_speedup)
    context = _context(config, target, data, schema, init, out, settings, bounds)
    if plan:
        _print_plan(context, as_json)
        return
    if context.config.data.sources[0].startswith("synthetic") and not as_json:
        note("Training on rendered faces. For real ones: lmedge build --data 300w:FOLDER (or wflw:, mmlab5:, csv:)")
    result = run_until(context, None, as_json)
    if as_json:
        print_json(result.to_json())
    else:
        _print_summary(result)
    if result.failure is not None:
        print_error(result.failure)
        raise typer.Exit(exit_code(result.failure))


def train(
    config: ConfigArgument = None,
    data: DataOption = None,
    schema: SchemaOption = "",
    init: InitOption = "",
    out: OutOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train only: best.pt, last.pt and model.pt2 in the run folder. Run it again to resume."""
    finish(run_until(_context(config, None, data, schema, init, out, settings), "train", as_json), as_json)


def export(run: RunArgument, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Export a trained run to fp32 and fp16 ONNX, compared with PyTorch."""
    finish(run_until(context_of(run, None, settings), "export", as_json), as_json)


def quantize(
    run: RunArgument,
    sensitivity: SensitivityOption = False,
    max_nme_loss: LossOption = None,
    min_speedup: SpeedOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quantise a run's network to int8 with crops of its training faces."""
    bounds = bound_settings(max_nme_loss, min_speedup, sensitivity)
    result = run_until(context_of(run, None, settings, bounds), "quantize", as_json)
    layers = read_layers(result.folder)
    if not as_json:
        print_layers(layers)
    finish(result, as_json, {"layers": layers})


def _context(
    config: Path | None,
    target: list[str] | None,
    data: list[str] | None,
    schema: str,
    init: str,
    out: Path | None,
    settings: list[str] | None,
    more: dict[str, Any] | None = None,
) -> Any:
    _require_build_extra()
    from lmedge.pipeline.build import make_context
    from lmedge.pipeline.configuration.config import load_config

    overrides: dict[str, Any] = {**(more or {})}
    if target:
        overrides["targets"] = list(dict.fromkeys(target))
    if init:
        overrides["init"] = init
    if data:
        overrides.setdefault("data", {})["sources"] = data
    if schema:
        overrides.setdefault("data", {})["schema"] = schema
    loaded = load_config(config, settings or (), overrides)
    return make_context(loaded, out or Path("runs") / loaded.name)


def context_of(run: Path, target: list[str] | None, settings: list[str] | None, more: dict[str, Any] | None = None) -> Any:
    """The context of an existing run: the configuration it was made with, changed by the options."""
    _require_build_extra()
    import json

    from lmedge.pipeline.build import make_context
    from lmedge.pipeline.configuration.config import apply_settings, config_from, merge_documents

    file = run / CONFIG_COPY
    if not file.is_file():
        raise InputError(f"{run} is no run folder: it has no {CONFIG_COPY}. Make one: lmedge train --out {run}")
    document = json.loads(file.read_text(encoding="utf-8"))
    if target:
        # Further targets, so that what the run already serves stays.
        document = merge_documents(document, {"targets": list(dict.fromkeys([*document["targets"], *target]))})
    return make_context(config_from(merge_documents(apply_settings(document, settings or ()), more or {})), run)


def _require_build_extra() -> None:
    from importlib.util import find_spec

    missing = [
        name
        for name in ("torch", "accelerate", "onnx", "onnxruntime", "pydantic", "jinja2", "matplotlib")
        if find_spec(name) is None
    ]
    if missing:
        raise InputError(f"Building needs {', '.join(missing)}: pip install 'lmedge[all]'. A device only needs a bundle.")


def run_until(context: Any, until: str | None, as_json: bool) -> Any:
    """Runs the stages of a run up to one of them, with a bar, and a line for each."""
    import json
    from dataclasses import asdict

    from lmedge.bundle import write_atomically
    from lmedge.pipeline.build import build as run_build
    from lmedge.pipeline.training.processes import is_helper

    if is_helper():
        run_build(context, until=until)
        raise typer.Exit(0)
    write_atomically(context.folder / CONFIG_COPY, json.dumps(_portable(asdict(context.config)), indent=1, default=str) + "\n")
    with progress_bar() as progress:
        context.progress = progress

        def on_stage(stage: Any) -> None:
            if not as_json:
                note(f"  {stage.stage:<9} " + ("unchanged" if stage.reason is None else f"done ({stage.reason})"))

        return run_build(context, until=until, on_stage=on_stage)


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with absolute paths, so that stages run from any folder."""
    absolute = dict(config)
    data = dict(config["data"])
    kinds = [source.partition(":") for source in data["sources"]]
    data["sources"] = [
        text if kind == "synthetic" else f"{kind}:{Path(path).resolve()}"
        for text, (kind, _, path) in zip(data["sources"], kinds, strict=True)
    ]
    data["detector"] = data["detector"] and str(Path(data["detector"]).resolve())
    data["schema"] = str(Path(data["schema"]).resolve()) if data["schema"].endswith(".toml") else data["schema"]
    training = {**config["train"], "teacher": config["train"]["teacher"] and str(Path(config["train"]["teacher"]).resolve())}
    absolute |= {"data": data, "init": config["init"] and str(Path(config["init"]).resolve()), "train": training}
    return absolute


def finish(result: Any, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """What a command that ends with one stage says, and its exit code."""
    if as_json:
        print_json({**result.to_json(), **(more or {})})
    else:
        say(f"{result.stages[-1].stage} is up to date in {result.folder / result.stages[-1].stage}")
    if result.failure is not None:
        print_error(result.failure)
        raise typer.Exit(exit_code(result.failure))


def _print_plan(context: Any, as_json: bool) -> None:
    from lmedge.pipeline.build import plan_build

    planned = plan_build(context)
    if as_json:
        print_json([stage.to_json() for stage in planned])
        return
    rows = [[stage.stage, "skip" if stage.reason is None else "run", stage.reason or "nothing changed"] for stage in planned]
    print_table(f"Plan for {context.folder}", ["stage", "action", "why"], rows)
    for stage in planned:
        if stage.note:
            say(f"{stage.stage}: {stage.note}.")


def _print_summary(result: Any) -> None:
    rows = [
        [
            row["backend"],
            row["precision"] + (f" ({row['dialect']})" if row["dialect"] else ""),
            percent(row["nme"]),
            megabytes(row["bytes"]),
            number(row["p50_ms"]),
            number(row["p99_ms"]),
            number(row["max_px"], 4),
            "passed" if row["passed"] else "FAILED",
        ]
        for row in result.rows
    ]
    columns = ["engine", "precision", "NME", "size", "p50 ms", "p99 ms", "max px", "gates"]
    print_table("Validation NME, latency of one face, largest distance from PyTorch", columns, rows)
    for text in result.notes:
        say(text)
    say(f"Bundle  {result.folder / 'bundle'}")
    say(f"Report  {result.folder / 'report.html'}")
