"""A bundle of one small network in every precision, as a build leaves it for a device with TensorRT."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx

from lmedge.bundle import ANY_ARCH, PRECISIONS, Artifact, Bundle, Manifest, file_digest, network_specs, write_bundle
from lmedge.export.graph.cast_first import cast_first
from lmedge.export.graph.compare import INPUT, OUTPUT, open_session
from lmedge.export.graph.to_fp16 import to_fp16
from lmedge.export.pack import VARIANTS, onnx_name
from lmedge.runtimes.golden import Golden
from tests import bundles
from tests.calibration.landmark_graph import landmark_graph, smooth_crops
from tests.export.quantised import quantised

PARENTS = {"fp32": None, "fp16": "fp32", "int8": "fp32", "fp16-int8": "int8"}


def four_precisions(folder: Path) -> Bundle:
    """A bundle in `folder / "bundle"` with the five ONNX files of a build and golden vectors of the fp32 one."""
    source = folder / "source"
    source.mkdir(parents=True)
    network = cast_first(landmark_graph())
    int8 = quantised(network, "portable", smooth_crops(32))
    made = {
        "model.fp32.onnx": network,
        "model.fp16.onnx": to_fp16(network),
        "model.int8.onnx": int8,
        "model.int8-x86.onnx": quantised(network, "x86", smooth_crops(32)),
        "model.fp16-int8.onnx": to_fp16(int8),
    }
    for name, model in made.items():
        onnx.save(model, source / name)
    golden = golden_of(network)
    manifest = Manifest("four", bundles.SCHEMA, bundles.SPEC, tuple(_artifacts(source)))
    return write_bundle(folder / "bundle", manifest, golden.to_bytes())


def golden_of(network: onnx.ModelProto) -> Golden:
    """Three frames of smooth noise with the answers of a network."""
    drawn = bundles.tiny_golden()
    session = open_session(network, threads=1)
    return Golden.record(
        drawn.frames, drawn.boxes_xyxy, bundles.SPEC, lambda crops: np.asarray(session.run([OUTPUT], {INPUT: crops})[0])
    )


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, hidden ones too, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _artifacts(source: Path) -> Iterable[Artifact]:
    inputs, outputs = network_specs(bundles.SPEC, bundles.SCHEMA)
    for variant in VARIANTS:
        parent = PARENTS[variant.precision]
        yield Artifact.of_file(
            source / onnx_name(variant),
            source,
            format="onnx",
            precision=variant.precision,
            dialect=variant.dialect,
            inputs=inputs,
            outputs=outputs,
            made_from=file_digest(source / f"model.{parent}.onnx") if parent else "0" * 64,
            serves={"onnxruntime": (ANY_ARCH,)} if variant.engines else {},
        )


assert set(PARENTS) == set(PRECISIONS)
