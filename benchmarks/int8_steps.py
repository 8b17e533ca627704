"""What each step of quantisation is worth: the error that int8 adds, step by step, beside the plain tools.

    python benchmarks/int8_steps.py RUN... [--out benchmarks/results]

A RUN is a folder of `lmedge build` whose data is at hand. Every variant is quantised with the same calibration crops and judged
on the run's validation faces, on ONNX Runtime and on OpenVINO (float32 beside int8). Runs of the same network are pooled too.
Writes int8_steps.json and int8_steps.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from lmedge.calibration import place_qdq
from lmedge.calibration.bounded_network import choice_images
from lmedge.calibration.crop_store import Crops
from lmedge.calibration.images import CalibrationImages, calibration_images
from lmedge.calibration.place_qdq import DIALECTS, Dialect
from lmedge.calibration.recipe import BEST, Prepared, Recipe, candidates, choose, prepare
from lmedge.calibration.sensitivity import Judge
from lmedge.data.crops import labelled_crops
from lmedge.export.graph.compare import INPUT, OUTPUT, run_onnx
from lmedge.metrics import nme, upper_bound
from lmedge.pipeline.build import make_context
from lmedge.pipeline.configuration.config import config_from
from lmedge.pipeline.runs import run_files
from lmedge.runtimes.telemetry import telemetry_off
from lmedge.schemas import LandmarkSchema

CALIBRATION, CHOICE, SEED = 300, 400, 0
GROUPS = ("eyes", "mouth")
_BATCH = 16

Fractions = npt.NDArray[np.floating]
Answer = Callable[[onnx.ModelProto, npt.NDArray[np.uint8]], Fractions]


@dataclass(frozen=True)
class Network:
    """A run's float network, its validation faces, and faces to calibrate and to choose on."""

    name: str
    trunk: str
    model: onnx.ModelProto
    schema: LandmarkSchema
    crops: npt.NDArray[np.uint8]
    labels: Fractions
    calibration: CalibrationImages
    choice: CalibrationImages


@dataclass(frozen=True)
class Row:
    """One variant of one network on one engine; differences are per face, in fractions of the normaliser."""

    network: str
    trunk: str
    step: str
    dialect: str
    engine: str
    added: dict[str, npt.NDArray[np.float64]]
    mean_px: float
    p99_px: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for run in arguments.runs:
        network = _load(run)
        for step, dialect, model in _variants(network, run):
            rows += list(_measure(network, step, dialect, model))
            print(_line(rows[-1]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnxruntime", "openvino", "nncf", "onnx")},
    }
    summary = [_summary(row) for row in rows] + _pooled(rows)
    (arguments.out / "int8_steps.json").write_text(json.dumps({"machine": machine, "rows": summary}, indent=1) + "\n")
    (arguments.out / "int8_steps.md").write_text(_markdown(summary, machine))


def _load(run: Path) -> Network:
    config = config_from(json.loads((run / "config.json").read_text(encoding="utf-8")))
    context = make_context(config, run)
    faces, facts = run_files.read_faces(context), run_files.read_network(context)
    spec = facts.preprocess
    count = min(CALIBRATION, len(faces.training) // 2)
    calibration = calibration_images(faces.training, spec, count=count, seed=SEED)
    crops, labels = labelled_crops(faces.validation, spec)
    choice = choice_images(faces.training, calibration, spec, seed=SEED, count=CHOICE)
    model = onnx.load(run / "export" / "model.fp32.onnx")
    return Network(run.name, config.model.trunk, model, faces.schema, crops, labels, calibration, choice)


def _variants(network: Network, run: Path) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """The plain tools first, then lmedge's steps, each added to those before it."""
    model, crops = network.model, network.calibration.crops
    yield "NNCF defaults", "NNCF's own", _plain_nncf(model, crops)
    yield "ONNX Runtime quantize_static", "unsigned", _plain_onnxruntime(model, crops, unsigned=True)
    yield "ONNX Runtime quantize_static, symmetric", "signed", _plain_onnxruntime(model, crops, unsigned=False)
    plain = Recipe(equalise=False, correct_bias=False, ranges="min-max")
    with _whole_head_quantised():
        yield from _placed("quantisers placed, min-max", prepare(model, crops, [plain])[0])
    steps = {
        "+ head's convolution in float": plain,
        "+ channels equalised": Recipe(correct_bias=False, ranges="min-max"),
        "+ biases corrected": Recipe(ranges="min-max"),
    }
    for (name, _), prepared in zip(steps.items(), prepare(model, crops, list(steps.values())), strict=True):
        yield from _placed(name, prepared)
    judge = Judge(model, network.choice.crops, network.choice.fractions, network.schema)
    ours = prepare(model, crops, candidates(Recipe(), base="lmedge", ranges=BEST))
    nncf = prepare(model, crops, candidates(Recipe(), base="nncf", ranges=BEST))
    for dialect in DIALECTS:
        yield "+ ranges chosen by error", dialect, choose(ours, dialect, judge)[0].place(dialect)
        yield "NNCF as the base instead", dialect, nncf[0].place(dialect)
    for dialect, file in zip(DIALECTS, ("model.int8.onnx", "model.int8-x86.onnx"), strict=True):
        yield "the run's own file", dialect, onnx.load(run / "quantize" / file)


def _placed(name: str, prepared: Prepared) -> Iterator[tuple[str, Dialect, onnx.ModelProto]]:
    for dialect in DIALECTS:
        yield name, dialect, prepared.place(dialect)


class _whole_head_quantised:  # noqa: N801 used like a function
    """Lets the head's last convolution be quantised, as other tools do."""

    def __enter__(self) -> None:
        self.share, place_qdq._HEAD_SHARE = place_qdq._HEAD_SHARE, -1.0

    def __exit__(self, *_: object) -> None:
        place_qdq._HEAD_SHARE = self.share


def _plain_nncf(model: onnx.ModelProto, crops: Crops) -> onnx.ModelProto:
    telemetry_off()
    import nncf

    nncf.set_log_level(logging.ERROR)
    images = crops[0 : len(crops)]
    dataset = nncf.Dataset([{INPUT: images[row : row + 1]} for row in range(len(images))])
    quantized: onnx.ModelProto = nncf.quantize(model, dataset)
    return quantized


def _plain_onnxruntime(model: onnx.ModelProto, crops: Crops, *, unsigned: bool) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(range(len(crops)))

        def get_next(self) -> Any:
            row = next(self.rows, None)
            return None if row is None else {INPUT: crops[row : row + 1]}

    copied = onnx.ModelProto()
    copied.CopyFrom(model)  # its calibrator moves the weights of the model it is given into a file
    with tempfile.TemporaryDirectory() as folder:
        quantize_static(
            copied,
            f"{folder}/int8.onnx",
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": not unsigned, "WeightSymmetric": True},
        )
        return onnx.load(f"{folder}/int8.onnx")


def _measure(network: Network, step: str, dialect: str, model: onnx.ModelProto) -> Iterator[Row]:
    for engine, answer in (("onnxruntime", run_onnx), ("openvino", _run_openvino)):
        reference, found = answer(network.model, network.crops), answer(model, network.crops)
        schema, labels = network.schema, network.labels
        parts: dict[str, tuple[int, ...] | None] = {"all": None}
        parts |= {name: schema.groups[name] for name in GROUPS if name in schema.groups}
        added = {name: nme(found, labels, schema, part) - nme(reference, labels, schema, part) for name, part in parts.items()}
        distances = np.linalg.norm((found - reference) * network.crops.shape[2], axis=2)
        mean_px, p99_px = float(distances.mean()), float(np.percentile(distances.max(axis=1), 99))
        yield Row(network.name, network.trunk, step, dialect, engine, added, mean_px, p99_px)


def _run_openvino(model: onnx.ModelProto, crops: npt.NDArray[np.uint8]) -> Fractions:
    telemetry_off()
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    parts = [compiled({INPUT: crops[start : start + _BATCH]})[OUTPUT].copy() for start in range(0, len(crops), _BATCH)]
    return np.concatenate(parts)


def _summary(row: Row) -> dict[str, Any]:
    points = {name: _points(values) for name, values in row.added.items()}
    keys = ("network", "trunk", "step", "dialect", "engine", "mean_px", "p99_px")
    return {**{key: getattr(row, key) for key in keys}, "faces": len(row.added["all"]), "added_points": points}


def _pooled(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows of the same network on several data sets, their faces put together."""
    pooled = []
    kinds = dict.fromkeys((row.trunk, row.step, row.dialect, row.engine) for row in rows)
    for trunk, step, dialect, engine in kinds:
        own = [row for row in rows if (row.trunk, row.step, row.dialect, row.engine) == (trunk, step, dialect, engine)]
        if len(own) > 1:
            added = {name: np.concatenate([row.added[name] for row in own]) for name in own[0].added}
            name = " + ".join(row.network for row in own)
            faces = [len(row.added["all"]) for row in own]
            mean_px = float(np.average([row.mean_px for row in own], weights=faces))
            joined = Row(name, trunk, step, dialect, engine, added, mean_px, max(row.p99_px for row in own))
            pooled.append(_summary(joined))
    return pooled


def _points(values: npt.NDArray[np.float64]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    return {"mean": round(100 * float(known.mean()), 4), "upper": round(100 * upper_bound(known), 4)}


def _markdown(rows: list[dict[str, Any]], machine: dict[str, str]) -> str:
    lines = [
        "# What each step of int8 is worth",
        "",
        "Made by `python benchmarks/int8_steps.py`. Points of NME that int8 adds on validation faces: the mean and, behind the",
        "slash, the one-sided 95 % upper bound of a paired bootstrap over faces. Distances from the float network in pixels of",
        "the crop: mean over points, and the 99th percentile over crops of each crop's worst point.",
        "",
        ", ".join(f"{name} {text}" for name, text in machine.items()),
    ]
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        lines += ["", f"## {network} ({own[0]['trunk']}, {own[0]['faces']} faces)", ""]
        lines += ["| step | dialect | engine | all | eyes | mouth | mean px | p99 px |", "|---|---|---|---|---|---|---|---|"]
        for row in own:
            cells = [_cell(row["added_points"].get(name)) for name in ("all", *GROUPS)]
            numbers = f"{row['mean_px']:.3f} | {row['p99_px']:.2f}"
            lines.append(f"| {row['step']} | {row['dialect']} | {row['engine']} | {' | '.join(cells)} | {numbers} |")
    return "\n".join(lines) + "\n"


def _cell(points: dict[str, float] | None) -> str:
    return "–" if points is None else f"{points['mean']:+.3f} / {points['upper']:+.3f}"


def _line(row: Row) -> str:
    summary = _summary(row)
    return f"{row.network} {row.step} {row.dialect} {row.engine}: {_cell(summary['added_points']['all'])}, {row.mean_px:.3f} px"


if __name__ == "__main__":
    main()
