"""`lmedge build`: a run over the stages, and what its user learns at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmedge.bundle import write_atomically
from lmedge.data.sources import KINDS, Source, expand_sources, parse_source
from lmedge.errors import BackendUnavailableError, ConfigError, LmedgeError
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.pipeline.reporting.findings import loss_notes, speed_notes
from lmedge.pipeline.reporting.outcome import failure, missed_bounds, missing_engine
from lmedge.pipeline.reporting.summary import summary_rows
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.faces import SYNTHETIC
from lmedge.pipeline.runs.lock import Lock
from lmedge.pipeline.runs.stages import PlannedStage, RunContext, help_stages, plan, run_stages
from lmedge.pipeline.stage_table import STAGES
from lmedge.pipeline.training.processes import is_helper
from lmedge.progress import Progress
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
    sources = expand_sources(_parse_sources(config.data.sources, schema), other_points=True)
    _check_sources(sources)
    init = _find_checkpoint("--init", config.init, folder)
    teacher = _find_checkpoint("train.teacher", config.train.teacher, folder)
    return RunContext(folder, config, sources, Lock.read(folder), init, teacher, progress)


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
    if is_helper():
        help_stages(context, chosen)
        return BuildResult(context.folder, (), (), None)
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
    """Sources in the given order; rendered faces take the points that are exported.

    Raises:
        SchemaError: no source has the points that the run shall export.
    """
    real = [_parse_photos(text, schema) for text in texts if not text.startswith(f"{SYNTHETIC}:")]
    points = schema or (real[0].schema if real else None)
    if schema and real and len(real) == len(texts) and schema not in [source.schema for source in real]:
        # The one message for a single source that has other points.
        parse_source(texts[0], schema)
    remaining = iter(real)
    return [parse_source(text, points) if text.startswith(f"{SYNTHETIC}:") else next(remaining) for text in texts]


def _parse_photos(text: str, schema: LandmarkSchema | None) -> Source:
    """Photos with points of their own keep them: they help to train where the run exports others."""
    kind = KINDS.get(text.partition(":")[0])
    return parse_source(
        text, schema if kind is None or kind.any_schema or (kind.sources_of and not kind.holds_pixels) else None
    )


def _check_sources(sources: Sequence[Source]) -> None:
    # Rendered faces are the same from the first one on, however many are asked for.
    places = [(s.kind, "" if s.kind == SYNTHETIC else str(Path(s.path).resolve())) for s in sources]
    if len(set(places)) < len(places):
        raise ConfigError(f"A source is given twice: {', '.join(map(str, sources))}. Give each once.")


def _find_checkpoint(option: str, text: str, folder: Path) -> Path | None:
    """The checkpoint that was named, in any other folder than the run's own, which training replaces."""
    if not text:
        return None
    path = Path(text)
    places = (path / "best.pt", path / "train" / "best.pt", path.parent / "train" / "best.pt") if path.is_dir() else (path,)
    for candidate in places:
        if candidate.is_file():
            if candidate.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{option} {text}: this run would replace {candidate} by what it trains from it. Give the run another "
                    f"folder (--out {folder}-2)."
                )
            return candidate
    raise ConfigError(
        f"{option} {text}: no checkpoint there. Give a best.pt, a run folder (runs/NAME), or its bundle (runs/NAME/bundle)."
    )
