"""TensorRT in a build: engines where this machine has a GPU, else the reason; and TensorRT-RTX's opinion of the ONNX files.

Both lie in the stage folder `engines`: `engines.json` with the engines beside it, and `tensorrt_rtx.json`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lmedge.bundle import Artifact, Bundle, file_digest
from lmedge.errors import BackendUnavailableError, LmedgeError
from lmedge.export.check_tensorrt import is_installed, parse_and_build
from lmedge.export.compile_tensorrt import FOLDER
from lmedge.export.kept_timings import timings_path
from lmedge.export.race_outcome import FailedEngine
from lmedge.export.race_tensorrt import find_machine, onnx_sources, race
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.stages import RunContext
from lmedge.reports import ParityReport
from lmedge.runtimes.tensorrt_machine import TensorRtProbe, probe_tensorrt

TARGET, STAGE = "tensorrt", "engines"
ENGINES, OPINION = "engines.json", "tensorrt_rtx.json"

State = Literal["no target", "unavailable", "refused", "raced"]


@dataclass(frozen=True)
class EnginesFound:
    """What the stage left.

    Attributes:
        state: "unavailable": no GPU, no TensorRT, or no memory left; "refused": no engine for another reason; "raced": engines
            were built.
        reason: of the two in the middle.
        race: as `RaceOutcome.to_json` writes it; empty where none was run.
        opinions: ONNX file → TensorRT-RTX's verdict; empty where it is not installed.
    """

    state: State
    reason: str
    race: Mapping[str, Any]
    opinions: Mapping[str, Mapping[str, Any]]

    @property
    def parity(self) -> list[ParityReport]:
        """The gates of every engine, passed or not."""
        return [ParityReport.from_json(report) for engine in self.race.get("engines", ()) for report in engine["parity"]]

    @property
    def failed(self) -> list[FailedEngine]:
        """The precisions that came to no engine while others did."""
        return [FailedEngine(entry["precision"], entry["reason"]) for entry in self.race.get("failed", ())]


def build_engines(context: RunContext, folder: Path) -> None:
    """The ONNX files of the bundle → engines that passed their gates, where TensorRT is a target and runs here."""
    bundle = Bundle(context.folder / "parity", run_files.packed(context))
    run_files.write_json(folder / OPINION, _opinions(bundle, context))
    run_files.write_json(folder / ENGINES, _compile(context, bundle, folder))


def read_engines(context: RunContext) -> EnginesFound:
    """What `build_engines` left in a run."""
    document = run_files.read_json(context.file(STAGE, ENGINES))
    opinions = run_files.read_json(context.file(STAGE, OPINION))
    return EnginesFound(document["state"], document["reason"], document["race"], opinions)


def kept_engines(context: RunContext) -> list[Artifact]:
    """The engines that passed their gates, for the bundle."""
    root = context.folder / STAGE
    engines = read_engines(context).race.get("engines", ())
    return [Artifact.from_json(engine["artifact"], root) for engine in engines if engine["passed"]]


def engine_files(context: RunContext) -> dict[str, Path]:
    """Everything that the stage made, by its name in the run."""
    root = context.folder / STAGE
    made = sorted(path for path in (root / FOLDER).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path for path in (root / ENGINES, root / OPINION, *made)}


def probe_target(context: RunContext) -> TensorRtProbe | None:
    """What this machine offers to TensorRT, without starting it; None where it is no target."""
    return probe_tensorrt(start=False) if TARGET in context.config.targets else None


def machine_text(context: RunContext) -> str:
    """What decides the engines beside the files: the machine, or why it is none; "" where TensorRT is no target."""
    probe = probe_target(context)
    if probe is None:
        return ""
    return probe.reason if probe.machine is None else json.dumps(probe.machine.to_json(), sort_keys=True)


def reason_to_try_again(context: RunContext) -> str:
    """Why the stage runs though nothing changed: what failed on a GPU may have been for want of memory, and a Builder that did
    not start may start now. "" where that would change nothing."""
    probe = probe_target(context)
    if probe is None or probe.machine is None:
        return ""
    found = read_engines(context)
    if found.state in ("unavailable", "refused"):
        return "no TensorRT engine was built"
    return f"TensorRT built no engine for {', '.join(failed.precision for failed in found.failed)}" if found.failed else ""


def plan_note(context: RunContext) -> str:
    """What a build would do about TensorRT on this machine; "" where it is no target."""
    probe = probe_target(context)
    if probe is None:
        return ""
    if probe.machine is None:
        return (
            "TensorRT engines are built on the GPU that runs them, so none is built here; the bundle gets everything else, "
            f"and the build ends with exit code 4. Then, there: lmedge compile BUNDLE --target tensorrt. Here: {probe.reason}"
        )
    machine = probe.machine
    return (
        f"TensorRT {machine.tensorrt} compiles every precision on {machine.gpu} (compute capability "
        f"{machine.compute_capability}); engines that pass their gates go into the bundle"
    )


def _compile(context: RunContext, bundle: Bundle, folder: Path) -> dict[str, Any]:
    if TARGET not in context.config.targets:
        return _found("no target")
    try:
        machine = find_machine()
    except BackendUnavailableError as error:
        return _found("unavailable", str(error))
    if not onnx_sources(bundle):
        return _found("refused", "No ONNX file passed its gates, so there was nothing to compile.")
    known = context.folder / STAGE / timings_path(machine)
    if known.is_file():
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(known, folder / timings_path(machine))
    config = context.config
    golden = file_digest(bundle.root / run_files.GOLDEN_FILE)
    checked = replace(bundle, manifest=replace(bundle.manifest, golden=golden))
    try:
        outcome = race(
            checked,
            folder,
            machine,
            limits=config.gates,
            pin=False,
            iterations=config.bench.iterations,
            progress=context.progress,
        )
    except LmedgeError as error:  # the bundle gets everything else, and `failure` tells this one at the end
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        return _found("unavailable" if isinstance(error, BackendUnavailableError) else "refused", str(error))
    return _found("raced", race=outcome.to_json())


def _opinions(bundle: Bundle, context: RunContext) -> dict[str, Any]:
    """TensorRT-RTX's verdict on each file that TensorRT would take; none where it is not installed."""
    if not is_installed():
        return {}
    opinions = {}
    sources = onnx_sources(bundle)
    for done, source in enumerate(sources.values(), start=1):
        try:
            verdict = parse_and_build(source.file).to_json()
        except BackendUnavailableError as error:
            return {source.path: {"outcome": "not checked", "reason": str(error)}}
        # Without the time it took, which differs from run to run.
        opinions[source.path] = {name: value for name, value in verdict.items() if name != "seconds"}
        if context.progress:
            context.progress(done, len(sources), "asking TensorRT-RTX")
    return opinions


def _found(state: State, reason: str = "", race: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"state": state, "reason": reason, "race": dict(race or {})}
