"""What each part of MobileNetV4 conv-small costs in int8 and is worth to a trained network: how mobilenet_v4_trimmed was found.

    python benchmarks/trim_search.py --run runs/ibug68 --data 300w:faces/300w [--rounds 12] [--out benchmarks/results]

RUN holds a trained mobilenet_v4_conv_small. Each variant is this network with fewer blocks, fewer channels inside a block
(those stay that count most, `cut_channels`) or a smaller crop, and is not trained again:

- NME: on the validation faces. What a little training brings back is not in it;
- µs: one call of the bare engine on one thread, int8 (x86) as lmedge quantises it; all variants in turns;
- saved, lost: against the whole network at its own crop size, in µs and in points of NME.

Writes trim_search.json and .md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from engine_rows import ENGINES, write_results
from layer_profiles import engine_call

from lmedge.calibration.quantize import quantize_int8
from lmedge.data.samples import FaceSample, split_samples
from lmedge.data.sources import parse_source, read_sources
from lmedge.export.torch_to_onnx import export_onnx
from lmedge.pipeline import models
from lmedge.pipeline.models import count_macs, count_parameters
from lmedge.pipeline.models.mobilenet_v4 import _STEM, _STRIDE_32, _TRIMMED_32, _TRIMMED_STEM, MobileNetV4ConvSmall
from lmedge.pipeline.training.checkpoint import Checkpoint, export_program, start_from
from lmedge.pipeline.training.dataset import load_crops
from lmedge.pipeline.training.validation import ValidationFaces

VARIANT = "variant of mobilenet_v4_conv_small"
CALIBRATION_CROPS = 100
_BURST, _SKIPPED = 60, 8


@dataclass(frozen=True)
class Variant:
    """A crop size, or the network's own, and the tables of the trunk that differ."""

    input_px: int | None = None
    tables: Mapping[str, Any] = field(default_factory=dict)


_NARROW_LATE = (_STEM[0], _STEM[1], _STEM[2], (3, 64, 2), _STEM[4])
VARIANTS = {
    "whole": Variant(),
    **{f"crops of {px} px": Variant(px) for px in (112, 104, 96)},
    "first layer: 16 of 32 channels": Variant(tables={"_stem": ((3, 16, 2), *_STEM[1:])}),
    "fourth layer: 64 of 96 channels": Variant(tables={"_stem": _NARROW_LATE}),
    "first block at stride 32: 4-fold, not 6-fold": Variant(
        tables={"_bottlenecks_32": ((3, 3, 4, 128, 2, 1), *_STRIDE_32[1:])}
    ),
    "5 of 6 blocks at stride 32": Variant(tables={"_bottlenecks_32": (*_STRIDE_32[:4], (0, 3, 4, 128, 1, 1))}),
    **{f"{count} of 6 blocks at stride 32": Variant(tables={"_bottlenecks_32": _STRIDE_32[:count]}) for count in (4, 3, 2, 1)},
    "trimmed": Variant(tables={"_stem": _TRIMMED_STEM, "_bottlenecks_32": _TRIMMED_32}),
    **{
        f"trimmed, crops of {px} px": Variant(px, {"_stem": _TRIMMED_STEM, "_bottlenecks_32": _TRIMMED_32})
        for px in (112, 104, 96)
    },
}


def main() -> None:
    given = _parse()
    torch.set_num_threads(1)
    whole = Checkpoint.load(given.run / "train" / "best.pt")
    training, validation = split_samples(read_sources([parse_source(text) for text in given.data]))
    with tempfile.TemporaryDirectory() as folder:
        made = {name: _make(name, variant, whole, training, validation, Path(folder)) for name, variant in VARIANTS.items()}
        times = _times_us({name: (file, px) for name, (file, px, _) in made.items()}, given.rounds)
    rows = [{**facts, **{engine: times[name, engine] for engine in ENGINES}} for name, (_, _, facts) in made.items()]
    nme_of_whole = rows[0]["NME"]
    for row in rows:
        row["saved on openvino"] = round(rows[0]["openvino"] - row["openvino"], 1)
        row["lost"] = f"{row['NME'] - nme_of_whole:.2f}"
        row["NME"] = f"{row['NME']:.2f} %"
    intro = "Times in µs on one thread. The script says what each column is."
    write_results(given.out, "trim_search", "What parts of MobileNetV4 conv-small cost and are worth", intro, rows)


def _make(
    name: str,
    variant: Variant,
    whole: Checkpoint,
    training: list[FaceSample],
    validation: list[FaceSample],
    folder: Path,
) -> tuple[Path, int, dict[str, Any]]:
    """The int8 file of a variant, its crop size, and what is known of it without a clock."""
    px = variant.input_px or whole.architecture.input_px
    # A trunk of this name for as long as it takes to build the networks.
    models._TRUNKS[VARIANT] = type("Variant", (MobileNetV4ConvSmall,), dict(variant.tables))
    architecture = replace(whole.architecture, trunk=VARIANT, input_px=px)
    network = models.build_network(architecture)
    start_from(network, whole)
    spec = replace(whole.preprocess, input_hw=(px, px))
    checkpoint = replace(whole, weights=network.state_dict(), architecture=architecture, preprocess=spec)
    crops = load_crops(training[:CALIBRATION_CROPS], spec)[0].numpy()
    file = folder / f"{len(list(folder.iterdir()))}.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        program, fp32 = Path(scratch) / "model.pt2", Path(scratch) / "fp32.onnx"
        export_program(checkpoint, program)
        export_onnx(program, fp32, crops[:8])
        quantize_int8(fp32, crops, Path(scratch) / "portable.onnx", file)
    error = 100 * ValidationFaces.load(validation, spec).nme(network.eval())
    macs, parameters = count_macs(network, px) / 1e6, count_parameters(network) / 1e6
    print(f"{name}: {error:.2f} %", flush=True)
    return file, px, {"variant": name, "parameters": f"{parameters:.2f} M", "MACs": f"{macs:.1f} M", "NME": error}


def _times_us(files: Mapping[str, tuple[Path, int]], rounds: int) -> dict[tuple[str, str], float]:
    calls = {(name, engine): engine_call(engine, file, _noise(px)) for name, (file, px) in files.items() for engine in ENGINES}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            for number in range(_BURST):
                begun = time.perf_counter_ns()
                call()
                if number >= _SKIPPED:  # its weights are in the caches by now
                    times[key].append((time.perf_counter_ns() - begun) / 1e3)
    return {key: round(statistics.median(values), 1) for key, values in times.items()}


def _noise(px: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, px, px, 3), np.uint8)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a run folder with a trained network")
    parser.add_argument("--data", action="append", required=True, help="KIND:FOLDER of faces, as for lmedge build")
    parser.add_argument("--rounds", type=int, default=12, help="bursts of calls per variant")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
