"""The eleven stages of a build: what each reads, and which settings and tools decide it."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lmedge.export.pack import OPENVINO_VARIANTS, VARIANTS, ir_name, onnx_name
from lmedge.pipeline import engines, steps
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.pipeline.reporting.commands import portable
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.network import NETWORK
from lmedge.pipeline.runs.stages import RunContext, Stage, index_input, source_inputs

# The quantize stage does not write it where half precision moves the network too far.
_MAY_BE_LEFT_OUT = onnx_name(VARIANTS[4])
_ENGINE_TOOLS = ("onnxruntime", "openvino", "numpy", "opencv-python")


def _data_options(context: RunContext) -> dict[str, Any]:
    sources = [f"{source.kind}:{source.path}" if source.kind == "synthetic" else source.kind for source in context.sources]
    return {"sources": sources, "schema": context.schema.to_json()}


def _train_inputs(context: RunContext) -> dict[str, Path]:
    given = {"init checkpoint": context.init, "teacher checkpoint": context.teacher}
    return {**index_input(context), **{name: path for name, path in given.items() if path}}


def _train_options(context: RunContext) -> dict[str, Any]:
    """What decides the weights: a teacher counts by its bytes, not by where they lie. Who makes the views does not count, nor
    how many threads add up: that moves the last bits only, and a run has to go on on another machine."""
    config = context.config
    options: dict[str, Any] = {"crop": config.crop, "model": config.model, "augment": config.augment}
    others = {"others": config.data.others} if len({source.schema.name for source in context.sources}) > 1 else {}
    return {**options, "train": replace(config.train, teacher="", threads=0, workers=0), **others}


def _network_inputs(context: RunContext) -> dict[str, Path]:
    return {
        **index_input(context),
        NETWORK: context.file("train", NETWORK),
        run_files.PROGRAM: context.file("train", run_files.PROGRAM),
    }


def _engine_files(context: RunContext) -> dict[str, Path]:
    files = {onnx_name(v): run_files.onnx_folders(context)[v.precision] / onnx_name(v) for v in VARIANTS}
    files = {name: file for name, file in files.items() if name != _MAY_BE_LEFT_OUT or file.exists()}
    if context.config.writes_ir:
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
    """What decides int8 beside its inputs: some settings bring in tools, other settings or the machine."""
    options = context.config.quantize
    decides: dict[str, Any] = {"quantize": options}
    tools = ("nncf",) * (options.base != "lmedge") + ("torch",) * (options.finetune_epochs > 0)
    if tools:
        decides["tools"] = {name: version(name) for name in tools}
    if options.finetune_epochs:
        decides["augment"] = context.config.augment
    if options.min_speedup is not None:  # a bound on speed is one for this machine
        from lmedge.runtimes.bench import describe_machine

        machine = describe_machine()
        decides["machine"] = {name: machine[name] for name in ("cpu", "arch", "cores_usable")}
    return decides


def _engine_options(context: RunContext) -> dict[str, Any]:
    """The GPU, and what engines are held to and timed by; all of it only where TensorRT is a target."""
    config, machine = context.config, engines.machine_text(context)
    return {"machine": machine, "gates": config.gates, "iterations": config.bench.iterations} if machine else {}


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
        _train_options,
        ("torch", "accelerate", "numpy", "opencv-python"),
        resumes=True,
        shared=True,
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
        lambda c: {"openvino": c.config.writes_ir},
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
    Stage(
        "bench",
        steps.measure_latency,
        lambda c: {**_checked_files(c), run_files.GOLDEN_FILE: c.file("parity", run_files.GOLDEN_FILE)},
        lambda c: {"bench": c.config.bench},
        _ENGINE_TOOLS,
        machine=True,
    ),
    Stage(
        engines.STAGE,
        engines.build_engines,
        _pack_inputs,
        _engine_options,
        ("tensorrt-rtx",),
        note=engines.plan_note,
        again=engines.reason_to_try_again,
    ),
    Stage(
        "bundle",
        steps.pack_bundle,
        lambda c: {**_pack_inputs(c), **engines.engine_files(c)},
        # The manifest names the tools that made its files, also where another version made the same bytes.
        lambda c: {
            "name": c.config.name,
            "files": c.config.bundle.files,
            "gates": _accuracy_limits(c.config),
            "made by": run_files.tool_versions(c),
        },
    ),
    Stage(
        "report",
        steps.write_report,
        lambda c: {
            **_pack_inputs(c),
            **engines.engine_files(c),
            run_files.PER_FACE: c.file("evaluate", run_files.PER_FACE),
            run_files.LATENCY: c.file("bench", run_files.LATENCY),
            run_files.AGREEMENT: c.file("parity", run_files.AGREEMENT),
            run_files.PASSES: c.file("export", run_files.PASSES),
            f"int8 {run_files.PASSES}": c.file("quantize", run_files.PASSES),
            run_files.RECIPES: c.file("quantize", run_files.RECIPES),
            run_files.FINETUNING: c.file("quantize", run_files.FINETUNING),
        },
        lambda c: {"config": portable(c.config)},
        ("Jinja2", "matplotlib"),
    ),
)
