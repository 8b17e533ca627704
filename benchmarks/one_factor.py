"""What each choice of network, head, loss and augmentation is worth: one factor at a time around a reference.

    python benchmarks/one_factor.py --data 300w:faces/300w --runs runs/one_factor [--minutes 5] [--only NAME...]

Every variant is trained for the same time on the same faces: its speed is measured first, and its epochs are chosen so that the
schedule ends then. Then it is built as any other run, so that its int8 files have passed calibration. Variants that are
already there are not trained again. At the end the int8 files of all are timed in turn, so that a machine that slows down slows
all of them. Writes one_factor.json, one_factor.md and one_factor.png to `--out`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lmedge.bundle import Bundle, write_atomically
from lmedge.data.augment import AugmentSpec
from lmedge.pipeline.build import build, make_context
from lmedge.pipeline.configuration.config import config_from, merge_documents
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.pipeline.models import Architecture, TrainedNetwork, build_network
from lmedge.pipeline.reporting.summary import summary_rows
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.training.joint import JointPoints
from lmedge.pipeline.training.objective import Objective
from lmedge.pipeline.training.optimisation import make_optimizer
from lmedge.runtimes import find_runtime
from lmedge.runtimes.checks import select_here
from lmedge.schemas import LandmarkSchema

# What is not said here is lmedge's default: MobileNetV4 conv-small 1.0, integral head, L1, 112 px.
REFERENCE: dict[str, Any] = {
    "targets": ["onnxruntime", "openvino"],
    "train": {"threads": 1},
    # A network that learned for five minutes is compared, not shipped.
    "gates": {"int8_p99_px": 5.0, "int8_nme_loss": 0.01, "int8_group_loss": 0.02},
    "bench": {"iterations": 500},
}
NO_LIGHT = {"contrast": 0.0, "brightness": 0.0, "color": 0.0, "gamma": 0.0, "gray": 0.0, "near_infrared": 0.0}
NO_SPOILING = {"cover": 0.0, "blur": 0.0, "noise": 0.0, "jpeg": 0.0}
NO_GEOMETRY = {"rotation_deg": 0.0, "scale": 0.0, "shift": 0.0, "flip": 0.0}
# factor → variant → what differs from the reference
FACTORS: dict[str, dict[str, Mapping[str, Any]]] = {
    "reference": {"mobilenet v4 conv-small 1.0, integral, l1": {}},
    "network": {
        "plain cnn": {"model": {"trunk": "plain_cnn"}},
        "resnet18 0.5": {"model": {"trunk": "resnet18", "width": 0.5}},
        "mobilenet v1 0.75": {"model": {"trunk": "mobilenet_v1", "width": 0.75}},
        "mobilenet v2 1.0": {"model": {"trunk": "mobilenet_v2"}},
        "mobilenet v3 small 1.0": {"model": {"trunk": "mobilenet_v3_small", "activation": "hardswish"}},
        "mobilenet v3 large 0.75": {"model": {"trunk": "mobilenet_v3_large", "width": 0.75, "activation": "hardswish"}},
        "mobilenet v4 conv-small 0.5": {"model": {"width": 0.5}},
    },
    "head": {
        "pooled": {"model": {"head": "pooled"}},
        "flatten": {"model": {"head": "flatten"}},
        "multiscale": {"model": {"head": "multiscale"}},
    },
    "loss": {
        "l2": {"train": {"loss": "l2"}},
        "smooth l1": {"train": {"loss": "smooth_l1"}},
        "wing": {"train": {"loss": "wing"}},
        "soft wing": {"train": {"loss": "soft_wing"}},
        "l1, normalised": {"train": {"normalized": True}},
    },
    "augmentation": {
        "none": {"augment": {**NO_GEOMETRY, **NO_LIGHT, **NO_SPOILING}},
        "geometry": {"augment": {**NO_LIGHT, **NO_SPOILING}},
        "geometry and light": {"augment": NO_SPOILING},
    },
    "training": {"without EMA": {"train": {"ema": 0.0}}, "another seed": {"train": {"seed": 1}}},
    "data": {
        "600 rendered faces more": {"data": {"sources": ["synthetic:600"]}},
        "600 rendered faces more, as many epochs": {"data": {"sources": ["synthetic:600"]}},
    },
}
# Takes as long as it takes: every photo is seen as often as in the reference.
AS_MANY_EPOCHS = "600 rendered faces more, as many epochs"
ENGINES = ("onnxruntime", "openvino")
_TIMED_STEPS, _WARM_STEPS = 12, 4
_BLOCKS, _BLOCK_CALLS = 10, 60


def main() -> None:
    options = _parse()
    rows = []
    for factor, variants in FACTORS.items():
        for name, change in variants.items():
            if options.only and name not in options.only:
                continue
            rows.append({"factor": factor, "variant": name, **_measure(name, change, options)})
            print(f"{factor}: {name}: {100 * rows[-1]['nme']:.2f} %", flush=True)
    for row, times in zip(rows, int8_times_ms([_folder(row["variant"], options) for row in rows]), strict=True):
        row["int8_engine_ms"] = times
    _write(rows, options)


def _measure(name: str, change: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    folder = _folder(name, options)
    document = merge_documents(REFERENCE, change)
    sources = [*options.data, *change.get("data", {}).get("sources", ())]
    document = merge_documents(document, {"name": folder.name, "data": {"sources": sources}})
    reference = next(iter(FACTORS["reference"]))
    epochs_file = _folder(reference if name == AS_MANY_EPOCHS else name, options) / "epochs.json"
    if not epochs_file.is_file():
        context = make_context(config_from(document), folder)
        build(context, until="faces")
        faces = run_files.read_faces(context)
        rate = faces_per_second(context.config, faces.schema)
        write_atomically(
            epochs_file, json.dumps({"epochs": max(3, round(60 * options.minutes * rate / len(faces.training))), "rate": rate})
        )
    planned = json.loads(epochs_file.read_text(encoding="utf-8"))
    context = make_context(config_from(merge_documents(document, {"train": {"epochs": planned["epochs"]}})), folder)
    build(context)
    facts = run_files.read_network(context)
    evaluation = run_files.read_json(context.file("evaluate", run_files.EVALUATION))
    rows = summary_rows(context)
    plain = next(row for row in evaluation if row["precision"] == "fp32" and row["backend"] == "onnxruntime")
    int8 = {row["backend"]: row["nme"] for row in rows if row["precision"] == "int8"}
    return {
        "epochs": planned["epochs"],
        "faces_per_s": planned["rate"],
        "minutes": sum(row.get("seconds", 0) for row in _history(context.folder)) / 60,
        "parameters": facts.training["parameters"],
        "macs": facts.training["macs"],
        "nme": plain["nme"],
        "eyes": plain["groups"]["eyes"],
        "mouth": plain["groups"]["mouth"],
        "int8_nme": int8,
    }


def int8_times_ms(runs: list[Path]) -> list[dict[str, float]]:
    """The bare engine call of each run's int8 files on one thread, in ms by engine: the median of the quietest block.

    A block is many calls of one file, so that its weights are in the caches; all files take turns.
    """
    bundles = [Bundle.open(run / "bundle") for run in runs]
    with contextlib.ExitStack() as stack:
        opened = []
        for place, bundle in enumerate(bundles):
            for engine in ENGINES:
                artifact = select_here(bundle, engine, "int8")
                runtime = stack.enter_context(find_runtime(engine).open(artifact, device=None, threads=1, batch=1))
                feed = {runtime.inputs[0].name: _noise((1, *bundle.manifest.preprocess.input_hw, 3))}
                opened.append((place, engine, runtime, feed))
        blocks: dict[tuple[int, str], list[float]] = {}
        for _ in range(_BLOCKS):
            for place, engine, runtime, feed in opened:
                times = []
                for _ in range(_BLOCK_CALLS):
                    started = time.perf_counter()
                    runtime.infer(feed)
                    times.append(time.perf_counter() - started)
                blocks.setdefault((place, engine), []).append(1e3 * statistics.median(times))
    return [{engine: min(blocks[place, engine]) for engine in ENGINES} for place in range(len(runs))]


def _noise(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _folder(variant: str, options: argparse.Namespace) -> Path:
    return Path(options.runs / variant.replace(" ", "_").replace(",", ""))


def faces_per_second(config: RunConfig, schema: LandmarkSchema) -> float:
    """Training steps alone, on random crops: the fastest of a few."""
    model = config.model
    size, count = config.crop.input_px, schema.num_points
    architecture = Architecture(model.trunk, model.width, model.activation, model.head_channels, size, count, model.head)
    network = build_network(architecture).to(memory_format=torch.channels_last)
    trained, optimizer = TrainedNetwork(network, 128.0, 64.0), make_optimizer(network, config.train)
    objective = Objective(JointPoints((schema,)), config.train)
    crops = torch.randint(0, 256, (config.train.batch_size, size, size, 3), dtype=torch.uint8)
    labels = torch.rand(config.train.batch_size, count, 2)
    times = []
    for _ in range(_WARM_STEPS + _TIMED_STEPS):
        started = time.perf_counter()
        loss = objective(trained(crops), labels, size)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return config.train.batch_size / sorted(times[_WARM_STEPS:])[_TIMED_STEPS // 2]


def _history(folder: Path) -> list[dict[str, float]]:
    lines = (folder / run_files.LOGS / "training.csv").read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    return [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines[1:]]


def _write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    machine = {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__, "minutes": options.minutes}
    document = {"machine": machine, "reference": REFERENCE, "augment": asdict(AugmentSpec()), "rows": rows}
    write_atomically(options.out / "one_factor.json", json.dumps(document, indent=1) + "\n")
    write_atomically(options.out / "one_factor.md", table(rows, options.minutes))
    draw(rows, options.out / "one_factor.png")


def table(rows: list[dict[str, Any]], minutes: float) -> str:
    """The rows as a Markdown table."""
    lines = [
        f"Each trained for {minutes:g} minutes on 300-W training faces; NME on its validation faces. int8: on ONNX Runtime and "
        "on OpenVINO, the bare engine call on one thread.",
        "",
        "| factor | variant | epochs | parameters | MACs | NME | eyes | mouth | int8 NME | int8 ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors = " / ".join(_percent(row["int8_nme"].get(engine)) for engine in ENGINES)
        times = " / ".join(f"{row['int8_engine_ms'][engine]:.2f}" for engine in ENGINES)
        cost = f"{row['epochs']} | {row['parameters'] / 1e6:.2f} M | {row['macs'] / 1e6:.0f} M"
        found = " | ".join(_percent(row[name]) for name in ("nme", "eyes", "mouth"))
        lines.append(f"| {row['factor']} | {row['variant']} | {cost} | {found} | {errors} | {times} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Networks and heads: NME against the time of int8 on OpenVINO."""
    from matplotlib.figure import Figure

    shown = [r for r in rows if r["factor"] in ("reference", "network", "head")]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for row in shown:
        x, y = row["int8_engine_ms"]["openvino"], 100 * row["nme"]
        axes.plot(x, y, "o" if row["factor"] != "head" else "s", color="#c0392b" if row["factor"] == "reference" else "#2c6fbb")
        axes.annotate(row["variant"], (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="int8 on OpenVINO, one thread, ms (bare engine)", ylabel="NME on 300-W validation faces, %")
    axes.grid(linewidth=0.4)
    figure.savefig(file, dpi=150)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="KIND:PATH of 68-point faces, e.g. 300w:faces/300w")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs go")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training for each variant")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
