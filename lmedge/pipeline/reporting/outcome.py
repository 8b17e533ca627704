"""How a build ends: the gate or the missing engine that decides its exit code, with what to do about it."""

from __future__ import annotations

from lmedge.bundle import MANIFEST
from lmedge.calibration.report import LOSS_GATE, TIME_GATE, bound_failures
from lmedge.errors import AccuracyError, BackendUnavailableError, ExportError, LmedgeError, ParityError
from lmedge.export.pack import VARIANTS, onnx_name
from lmedge.export.race_outcome import unbuilt
from lmedge.pipeline.engines import probe_target, read_engines
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.stages import RunContext
from lmedge.runtimes.gates import GROUP_GATES, LEAST_FACES
from lmedge.runtimes.parity import require

_TENSORRT_REASON = (
    "Engines are built on the GPU that runs them. The Q/DQ ONNX is at {onnx}; run `lmedge compile BUNDLE --target tensorrt` "
    "there{bundle}. Here: {reason}"
)
_LOSS_GATES = {"nme_loss", *GROUP_GATES.values()}
_GOLDEN_GATES = {"golden_crop", "golden_network", "golden_frame"}
_NAMED_PHOTOS = 10


def failure(context: RunContext) -> LmedgeError | None:
    """What a finished build failed of; a failed gate wins over a missing engine."""
    engines = read_engines(context)
    parity = [*run_files.parity_reports(context), *engines.parity]
    accuracy = run_files.accuracy_reports(context)
    try:
        require([*parity, *accuracy])
    except ParityError as error:
        broken = {gate.gate for report in (*parity, *accuracy) for gate in report.gates if not gate.passed}
        besides = unbuilt(engines.failed)
        lines = [f"Files that failed a gate stay out of the bundle:\n{error}", *_advice(context, broken)]
        text = "\n".join([*lines, *([str(besides)] if besides else [])])
        return AccuracyError(text) if all(report.passed for report in parity) else ParityError(text)
    if engines.state == "refused":
        return ExportError(f"No TensorRT engine was built; the bundle has everything else. {engines.reason}")
    return _no_gpu(context, engines.reason) if engines.state == "unavailable" else unbuilt(engines.failed)


def missed_bounds(context: RunContext) -> LmedgeError | None:
    """What the quantize stage was asked for and could not find, with the best that it found."""
    missed = bound_failures(run_files.read_json(context.file("quantize", run_files.LAYERS)))
    if not missed:
        return None
    file = context.file("quantize", run_files.LAYERS)
    return AccuracyError("\n".join([*missed, f"All that was measured is in {file}."]))


def missing_engine(context: RunContext) -> LmedgeError | None:
    """A target that this machine cannot build for, said before the bundle is packed."""
    probe = probe_target(context)
    return _no_gpu(context, probe.reason) if probe is not None and probe.machine is None else None


def _no_gpu(context: RunContext, reason: str) -> LmedgeError:
    bundle = context.folder / "bundle"
    copy = f", on a copy of {bundle}, which is complete otherwise" if (bundle / MANIFEST).is_file() else ""
    onnx = context.file("quantize", onnx_name(VARIANTS[2]))
    return BackendUnavailableError(_TENSORRT_REASON.format(onnx=onnx, bundle=copy, reason=reason))


def _advice(context: RunContext, broken: set[str]) -> list[str]:
    """What to do about each kind of gate that does not hold."""
    config, advice = context.config, []
    if broken & _GOLDEN_GATES:
        advice.append(
            "An engine of this machine disagrees with the golden answers, so its self-test (lmedge verify) would fail wherever "
            "the bundle runs like here. lmedge doctor shows which engines and versions these are."
        )
    if broken & {LOSS_GATE, TIME_GATE}:
        advice.append(str(missed_bounds(context)))
    if "nme" in broken:
        advice.append(
            "The error on validation faces is above gates.max_nme: train longer "
            f"(--set train.epochs={2 * config.train.epochs}), give more faces, or set another limit (--set gates.max_nme=0.3)."
        )
    if broken & _LOSS_GATES:
        advice.append(
            f"int8 adds too much error, or the faces are too few to show that it does not: an upper bound gets lower with more "
            f"validation faces, and from {LEAST_FACES} on there is one. "
            f"Calibrate on more faces (--set quantize.images={2 * config.quantize.images}), or set other limits "
            "(--set gates.int8_nme_loss=0.001 --set gates.int8_group_loss=0.002)."
        )
    if "calibration_photos" in broken:
        photos = run_files.calibrated_on(context) or []
        named = ", ".join(photos[:_NAMED_PHOTOS]) + (" and others" if len(photos) > _NAMED_PHOTOS else "")
        advice.append(
            f"int8 was calibrated on {len(photos)} of the photos that its error is measured on ({named}), so that error says "
            "nothing. Calibrate on training faces only: remove the folder quantize of the run, and build again."
        )
    return advice
