"""`lmedge build`: the list of stages, a run over them, and what its user learns at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmedge.bundle import write_atomically
from lmedge.data.sources import Source, parse_source
from lmedge.errors import BackendUnavailableError, ConfigError, LmedgeError, SchemaError
from lmedge.export.pack import OPENVINO_VARIANTS, VARIANTS, ir_name, onnx_name
from lmedge.pipeline import run_files, steps
from lmedge.pipeline.commands import portable
from lmedge.pipeline.faces import SYNTHETIC
from lmedge.pipeline.findings import loss_notes, speed_notes
from lmedge.pipeline.lock import Lock
from lmedge.pipeline.network import NETWORK
from lmedge.pipeline.options import RunConfig
from lmedge.pipeline.outcome import failure, missed_bounds, missing_engine
from lmedge.pipeline.stages import (
    PlannedStage,
    Progress,
    RunContext,
    Stage,
    index_input,
    plan,
    run_stages,
    source_inputs,
)
from lmedge.pipeline.summary import summary_rows
from lmedge.runtimes import find_runtime
from lmedge.schemas import LandmarkSchema, get_schema

REPORT = "report.html"


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    Attributes:
        folder: of the run; `bundle` lies in it.
        stages: what was run or skipped, and why.
        rows: one per engine and file: NME, size, latency, parity.
        failure: the gate or the missing engine that decides the exit code, or None.
        notes: what the rows say in words: which precision is fastest on each engine, and what could not be judged well.
    """

    folder: Path
    stages: tuple[PlannedStage, ...]
    rows: tuple[dict[str, Any], ...]
    failure: LmedgeError | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "bundle": str(self.folder / "bundle"),
            "report": str(self.folder / REPORT),
            "stages": [stage.to_json() for stage in self.stages],
            "rows": list(self.rows),
            "notes": list(self.notes),
            "failure": None if self.failure is None else str(self.failure),
        }


def make_context(config: RunConfig, folder: Path, progress: Progress | None = None) -> RunContext:
    """A run of this configuration in this folder.

    Raises:
        DataError, SchemaError: a source that cannot be used.
        ConfigError: a configuration that contradicts itself.
    """
    schema = get_schema(config.data.schema) if config.data.schema else None
    sources = _parse_sources(config.data.sources, schema)
    _check_sources(sources)
    init = _find_init(config.init)
    return RunContext(folder, config, sources, Lock.read(folder), init, progress)


def plan_build(context: RunContext) -> list[PlannedStage]:
    """What `build` would do, and why."""
    return plan(context, STAGES)


def build(
    context: RunContext, *, until: str | None = None, on_stage: Callable[[PlannedStage], None] | None = None
) -> BuildResult:
    """Runs every stage that has to run.

    Args:
        until: the last stage to run; None runs all.
        on_stage: called when a stage is done or skipped.

    Raises:
        LmedgeError: a stage cannot be done. A gate that fails is no such error: everything is written, and `failure` says it.
    """
    _check_targets(context.config)
    chosen = STAGES if until is None else STAGES[: [stage.name for stage in STAGES].index(until) + 1]
    done: list[PlannedStage] = []
    for stage in run_stages(context, chosen):
        done.append(stage)
        if on_stage:
            on_stage(stage)
    if until is not None:
        ends = {"quantize": missed_bounds, "compile": missing_engine}
        return BuildResult(context.folder, tuple(done), (), ends[until](context) if until in ends else None)
    _publish_report(context)
    rows = summary_rows(context)
    gated = [*run_files.parity_reports(context), *run_files.accuracy_reports(context)]
    notes = (*speed_notes(rows), *loss_notes(gated))
    return BuildResult(context.folder, tuple(done), tuple(rows), failure(context), notes)


def _publish_report(context: RunContext) -> None:
    """The page lies where people look for it, beside the bundle; its stage folder keeps the one that the lock knows."""
    made, shown = context.file("report", REPORT), context.folder / REPORT
    if not shown.is_file() or context.lock.digest(shown) != context.lock.digest(made):
        write_atomically(shown, made.read_bytes())


def _check_targets(config: RunConfig) -> None:
    """An engine that is missing is said before an hour of training, not after it.

    Raises:
        BackendUnavailableError: a target (other than TensorRT, which is built elsewhere) is not installed.
    """
    for engine in config.engines:
        status = find_runtime(engine).status()
        if not status.installed:
            raise BackendUnavailableError(f"The target {engine} cannot be checked here: {status.reason} {status.extra}")


def _parse_sources(texts: Sequence[str], schema: LandmarkSchema | None) -> list[Source]:
    """Sources in the given order; rendered faces take the points of the real ones."""
    real = [parse_source(text, schema) for text in texts if not text.startswith(f"{SYNTHETIC}:")]
    points = schema or (real[0].schema if real else None)
    remaining = iter(real)
    return [parse_source(text, points) if text.startswith(f"{SYNTHETIC}:") else next(remaining) for text in texts]


def _check_sources(sources: Sequence[Source]) -> None:
    if len({(source.kind, str(Path(source.path))) for source in sources}) < len(sources):
        raise ConfigError(f"A source is given twice: {', '.join(map(str, sources))}. Give each once.")
    schemas = {source.schema.name: source for source in sources}
    if len(schemas) > 1:
        names = ", ".join(f"{source} has {name}" for name, source in schemas.items())
        raise SchemaError(f"Faces that train one network need one schema; {names}. Build one bundle for each.")


def _find_init(text: str) -> Path | None:
    if not text:
        return None
    path = Path(text)
    places = (path / "best.pt", path / "train" / "best.pt", path.parent / "train" / "best.pt") if path.is_dir() else (path,)
    for candidate in places:
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"--init {text}: no checkpoint there. Give a best.pt, a run folder (runs/NAME), or its bundle (runs/NAME/bundle)."
    )


def _data_options(context: RunContext) -> dict[str, Any]:
    sources = [f"{source.kind}:{source.path}" if source.kind == "synthetic" else source.kind for source in context.sources]
    return {"sources": sources, "schema": context.sources[0].schema.to_json()}


def _train_inputs(context: RunContext) -> dict[str, Path]:
    return {**index_input(context), **({"init checkpoint": context.init} if context.init else {})}


def _network_inputs(context: RunContext) -> dict[str, Path]:
    return {
        **index_input(context),
        NETWORK: context.file("train", NETWORK),
        run_files.PROGRAM: context.file("train", run_files.PROGRAM),
    }


def _engine_files(context: RunContext) -> dict[str, Path]:
    files = {onnx_name(v): run_files.onnx_folders(context)[v.precision] / onnx_name(v) for v in VARIANTS}
    if "openvino" in context.config.engines:
        for variant in OPENVINO_VARIANTS:
            xml = context.file("compile", ir_name(variant))
            files |= {ir_name(variant): xml, ir_name(variant)[:-4] + ".bin": xml.with_suffix(".bin")}
    return files


def _checked_files(context: RunContext) -> dict[str, Path]:
    return {**_network_inputs(context), **_engine_files(context), run_files.PARITY: context.file("parity", run_files.PARITY)}


def _pack_inputs(context: RunContext) -> dict[str, Path]:
    return {
        **_checked_files(context),
        run_files.BEST: context.file("train", run_files.BEST),
        run_files.CALIBRATION: context.file("quantize", run_files.CALIBRATION),
        run_files.LAYERS: context.file("quantize", run_files.LAYERS),
        run_files.EVALUATION: context.file("evaluate", run_files.EVALUATION),
        run_files.CALIBRATED_ON: context.file("evaluate", run_files.CALIBRATED_ON),
        run_files.GOLDEN_FILE: context.file("parity", run_files.GOLDEN_FILE),
    }


def _accuracy_limits(config: RunConfig) -> dict[str, float]:
    """The limits that what was evaluated is held to when the bundle is packed."""
    return {name: getattr(config.gates, name) for name in ("max_nme", "int8_nme_loss", "int8_group_loss")}


def _quantize_options(context: RunContext) -> dict[str, Any]:
    """A bound on speed is one for this machine."""
    options = context.config.quantize
    if options.min_speedup is None:
        return {"quantize": options}
    from lmedge.runtimes.bench import describe_machine

    machine = describe_machine()
    return {"quantize": options, "machine": {name: machine[name] for name in ("cpu", "arch", "cores_usable")}}


_ENGINE_TOOLS = ("onnxruntime", "openvino", "numpy", "opencv-python")

STAGES: tuple[Stage, ...] = (
    Stage(
        "faces",
        steps.index_faces,
        lambda c: {**source_inputs(c), **({"detector": Path(c.config.data.detector)} if c.config.data.detector else {})},
        _data_options,
        ("numpy", "opencv-python"),
    ),
    Stage(
        "train",
        steps.train_network,
        _train_inputs,
        lambda c: {"crop": c.config.crop, "model": c.config.model, "train": c.config.train, "augment": c.config.augment},
        ("torch", "accelerate", "numpy", "opencv-python"),
        resumes=True,
    ),
    Stage("export", steps.export_network, _network_inputs, tools=("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime")),
    Stage(
        "quantize",
        steps.quantize_network,
        lambda c: {
            **index_input(c),
            NETWORK: c.file("train", NETWORK),
            onnx_name(VARIANTS[0]): c.file("export", onnx_name(VARIANTS[0])),
        },
        _quantize_options,
        ("onnxruntime", "onnx", "numpy", "opencv-python"),
    ),
    Stage(
        "compile",
        steps.compile_engines,
        lambda c: {onnx_name(v): run_files.onnx_folders(c)[v.precision] / onnx_name(v) for v in OPENVINO_VARIANTS},
        lambda c: {"openvino": "openvino" in c.config.engines},
        ("openvino",),
    ),
    Stage(
        "parity",
        steps.check_parity,
        lambda c: {**_network_inputs(c), **_engine_files(c)},
        lambda c: {"gates": c.config.gates, "parity": c.config.parity, "engines": c.config.engines},
        ("torch", *_ENGINE_TOOLS),
        machine=True,
    ),
    Stage(
        "evaluate",
        steps.evaluate_bundle,
        lambda c: {**_checked_files(c), run_files.CALIBRATION: c.file("quantize", run_files.CALIBRATION)},
        lambda c: {"engines": c.config.engines},
        _ENGINE_TOOLS,
        machine=True,
    ),
    Stage("bench", steps.measure_latency, _checked_files, lambda c: {"bench": c.config.bench}, _ENGINE_TOOLS, machine=True),
    Stage(
        "bundle",
        steps.pack_bundle,
        _pack_inputs,
        # The manifest names the tools that made its files, also where another version made the same bytes.
        lambda c: {"name": c.config.name, "gates": _accuracy_limits(c.config), "made by": run_files.tool_versions(c)},
    ),
    Stage(
        "report",
        steps.write_report,
        lambda c: {
            **_pack_inputs(c),
            run_files.PER_FACE: c.file("evaluate", run_files.PER_FACE),
            run_files.LATENCY: c.file("bench", run_files.LATENCY),
            run_files.AGREEMENT: c.file("parity", run_files.AGREEMENT),
            run_files.PASSES: c.file("export", run_files.PASSES),
            f"int8 {run_files.PASSES}": c.file("quantize", run_files.PASSES),
        },
        lambda c: {"config": portable(c.config)},
        ("Jinja2", "matplotlib"),
    ),
)
