"""What each choice of network, head, loss and augmentation is worth: one factor at a time around a reference.

    python benchmarks/one_factor.py --data 300w:faces/300w --runs runs/one_factor [--minutes 5] [--only NAME...]

Every variant is trained for the same time on the same faces: the epochs of the reference fill the minutes, and those of other
networks follow from the time of their steps, measured in turn with the reference's. Other networks and heads are then built as
any other run, so that their int8 files have passed calibration. Variants that are already there are not trained again. At the
end the int8 files of all are timed in turn, so that a machine that slows down slows all of them. Writes one_factor.json,
one_factor.md and one_factor.png to `--out`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8_times import ENGINES, int8_times_ms
from timed_step import timed_step

from lmedge.bundle import write_atomically
from lmedge.data.augment import AugmentSpec
from lmedge.data.crops import labelled_crops
from lmedge.data.samples import FaceSample
from lmedge.metrics import nme
from lmedge.pipeline.build import build, make_context
from lmedge.pipeline.configuration.config import config_from, merge_documents
from lmedge.pipeline.configuration.options import RunConfig
from lmedge.pipeline.models import Architecture, DeployedNetwork, build_network
from lmedge.pipeline.reporting.summary import summary_rows
from lmedge.pipeline.runs import run_files
from lmedge.pipeline.runs.stages import RunContext
from lmedge.pipeline.training.checkpoint import Checkpoint
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
        # After five minutes int8 still moves one point of the four golden faces by 9 px.
        "mobilenet v3 large 0.75": {
            "model": {"trunk": "mobilenet_v3_large", "width": 0.75, "activation": "hardswish"},
            "gates": {"golden_int8_px": 12.0},
        },
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
        "geometry and light": {"augment": NO_SPOILING},
    },
    "data": {
        "600 rendered faces more": {"data": {"sources": ["synthetic:600"]}},
        "600 rendered faces more, as many epochs": {"data": {"sources": ["synthetic:600"]}},
    },
}
# Takes as long as it takes: every photo is seen as often as in the reference.
AS_MANY_EPOCHS = "600 rendered faces more, as many epochs"
_TIMED_STEPS, _WARM_STEPS = 12, 4


def main() -> None:
    options = _parse()
    rows = []
    for factor, variants in FACTORS.items():
        for name, change in variants.items():
            if options.only and name not in options.only:
                continue
            rows.append({"factor": factor, "variant": name, **_measure(name, change, options)})
            print(f"{factor}: {name}: {100 * rows[-1]['nme']:.2f} %", flush=True)
    built = [row for row in rows if "int8_nme" in row]
    for row, times in zip(built, int8_times_ms([_folder(row["variant"], options) for row in built]), strict=True):
        row["int8_engine_ms"] = times
    _write(rows, options)


def _measure(name: str, change: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Another network is built as any other run, so that its int8 files have passed calibration; the same one, taught in
    another way, is only trained."""
    context = make_context(config_from(_document(name, change, options)), _folder(name, options))
    build(context, until="faces")
    faces = run_files.read_faces(context)
    epochs = _epochs(name, change, context, len(faces.training), options)
    context = make_context(replace(context.config, train=replace(context.config.train, epochs=epochs)), context.folder)
    same_network = bool(change) and "model" not in change
    build(context, until="train" if same_network else None)
    facts = run_files.read_network(context)
    row = {
        "epochs": epochs,
        "minutes": sum(record["seconds"] for record in _history(context.folder)) / 60,
        "parameters": facts.training["parameters"],
        "macs": facts.training["macs"],
        **validation_errors(context.file("train", run_files.BEST), faces.validation),
    }
    if same_network:
        return row
    return {
        **row,
        "int8_nme": {found["backend"]: found["nme"] for found in summary_rows(context) if found["precision"] == "int8"},
    }


def validation_errors(checkpoint: Path, samples: Sequence[FaceSample]) -> dict[str, float]:
    """NME of all points, of the eyes and of the mouth, in float, on boxes from labels."""
    best = Checkpoint.load(checkpoint)
    crops, fractions = labelled_crops(samples, best.preprocess)
    network = DeployedNetwork(best.network(), best.preprocess.mean, best.preprocess.std).eval()
    with torch.inference_mode():
        answers = np.concatenate([network(torch.from_numpy(crops[i : i + 32])).numpy() for i in range(0, len(crops), 32)])
    schema = best.schema
    groups = {"nme": range(schema.num_points), "eyes": schema.groups["eyes"], "mouth": schema.groups["mouth"]}
    return {name: float(np.nanmean(nme(answers, fractions, schema, tuple(group)))) for name, group in groups.items()}


def _epochs(name: str, change: Mapping[str, Any], context: RunContext, faces: int, options: argparse.Namespace) -> int:
    """As many as take as long as the reference's: what a network costs is measured against the reference, step by step in
    turn, and fewer faces are seen more often. Kept in the run's folder."""
    file, plan = context.folder / "epochs.json", options.runs / "reference.json"
    if not plan.is_file():
        own = seconds_per_step(context.config, context.schema)
        rate = context.config.train.batch_size / statistics.median(step() for step in [own] * _TIMED_STEPS)
        write_atomically(plan, json.dumps({"epochs": max(3, round(60 * options.minutes * rate / faces)), "faces": faces}))
    reference = json.loads(plan.read_text(encoding="utf-8"))
    if name == AS_MANY_EPOCHS or not change:
        return int(reference["epochs"])
    if not file.is_file():
        views = reference["epochs"] * reference["faces"]
        if "model" in change:
            views *= _speed(change, context)
        write_atomically(file, json.dumps({"epochs": max(3, round(views / faces))}))
    return int(json.loads(file.read_text(encoding="utf-8"))["epochs"])


def _speed(change: Mapping[str, Any], context: RunContext) -> float:
    """Steps of this network in the time of one of the reference."""
    base = config_from(merge_documents(REFERENCE, {"data": {"sources": context.config.data.sources}}))
    reference, own = seconds_per_step(base, context.schema), seconds_per_step(context.config, context.schema)
    pairs = [(reference(), own()) for _ in range(_WARM_STEPS + _TIMED_STEPS)][_WARM_STEPS:]
    return statistics.median(one for one, _ in pairs) / statistics.median(other for _, other in pairs)


def seconds_per_step(config: RunConfig, schema: LandmarkSchema) -> Callable[[], float]:
    """A function that takes one training step on random crops, and tells how long it took."""
    torch.set_num_threads(1)
    model = config.model
    size, count = config.crop.input_px, schema.num_points
    architecture = Architecture(model.trunk, model.width, model.activation, model.head_channels, size, count, model.head)
    network: Any = build_network(architecture)
    network.to(memory_format=torch.channels_last)
    return timed_step(network, schema, config.train, size, config.train.batch_size)


def _document(name: str, change: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    sources = [*options.data, *change.get("data", {}).get("sources", ())]
    own = {"name": _folder(name, options).name, "data": {"sources": sources}}
    return merge_documents(merge_documents(REFERENCE, change), own)


def _folder(variant: str, options: argparse.Namespace) -> Path:
    return Path(options.runs / variant.replace(" ", "_").replace(",", ""))


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
        f"Each trained as long as the reference, {minutes:g} minutes of one core, on 300-W training faces; NME on its "
        "validation faces. int8: on ONNX Runtime and on OpenVINO, the bare engine call on one thread.",
        "",
        "| factor | variant | epochs | parameters | MACs | NME | eyes | mouth | int8 NME | int8 ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors, times = (
            " / ".join(write(row[name][engine]) if engine in row[name] else "–" for engine in ENGINES) if name in row else ""
            for name, write in (("int8_nme", _percent), ("int8_engine_ms", "{:.2f}".format))
        )
        cost = f"{row['epochs']} | {row['parameters'] / 1e6:.2f} M | {row['macs'] / 1e6:.0f} M"
        found = " | ".join(_percent(row[name]) for name in ("nme", "eyes", "mouth"))
        lines.append(f"| {row['factor']} | {row['variant']} | {cost} | {found} | {errors} | {times} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Networks and heads: NME against the time of int8 on OpenVINO."""
    from matplotlib.figure import Figure

    shown = [r for r in rows if r["factor"] in ("reference", "network", "head") and "openvino" in r["int8_engine_ms"]]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    middle = statistics.mean(row["int8_engine_ms"]["openvino"] for row in shown)
    for place, row in enumerate(sorted(shown, key=lambda row: row["nme"])):
        x, y = row["int8_engine_ms"]["openvino"], 100 * row["nme"]
        axes.plot(x, y, "o" if row["factor"] != "head" else "s", color="#c0392b" if row["factor"] == "reference" else "#2c6fbb")
        # Towards the middle, every other one below its point, so that neighbours keep apart.
        offset, side = ((5, "left") if x < middle else (-5, "right")), (4, "bottom") if place % 2 else (-4, "top")
        aligned: dict[str, Any] = {"ha": offset[1], "va": side[1], "textcoords": "offset points", "fontsize": 8}
        axes.annotate(row["variant"], (x, y), xytext=(offset[0], side[0]), **aligned)
    axes.set(xlabel="int8 on OpenVINO, one thread, ms (bare engine)", ylabel="NME on 300-W validation faces, %")
    axes.grid(linewidth=0.4)
    figure.savefig(file, dpi=150)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


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
