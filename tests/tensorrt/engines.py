"""Engines of tiny networks, compiled by lmedge on whatever plays TensorRT at the moment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.bundle import ANY_ARCH, Artifact, Bundle, Manifest, TensorSpec, file_digest, network_specs, write_bundle
from lmedge.export.compile_tensorrt import compile_engine
from lmedge.export.engine_options import EngineOptions
from lmedge.runtimes.engine_record import BatchProfile, record_path
from lmedge.runtimes.tensorrt_machine import probe_tensorrt
from tests import bundles

PROFILE = BatchProfile(1, 2, 6)
MIRRORED = TensorSpec("mirrored", "float32", ("batch", bundles.SCHEMA.num_points, 2))


def tiny_engine(folder: Path, *, onnx_file: Path | None = None, batch: BatchProfile = PROFILE, **options: Any) -> Artifact:
    """An engine in `folder` as a bundle has it, beside the ONNX file that it was built from."""
    source = bundles.artifact_of(onnx_file or bundles.tiny_onnx(folder))
    return engine_of(source, folder, EngineOptions(batch=batch, **options))


def two_outputs(folder: Path) -> Artifact:
    """An engine with two outputs of the same size, "landmarks" and their mirror image; the manifest names the second first, so
    that nothing but the name tells them apart."""
    import onnx
    from onnx import helper

    file = bundles.tiny_onnx(folder)
    model = onnx.load(str(file))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "one"))
    model.graph.node.append(helper.make_node("Sub", ["one", "landmarks"], [MIRRORED.name]))
    shape = ["batch", *MIRRORED.shape[1:]]
    model.graph.output.append(helper.make_tensor_value_info(MIRRORED.name, onnx.TensorProto.FLOAT, shape))
    onnx.save(model, str(file))
    inputs, (landmarks,) = network_specs(bundles.SPEC, bundles.SCHEMA)
    source = Artifact.of_file(
        file, folder, format="onnx", precision="fp32", inputs=inputs, outputs=(MIRRORED, landmarks), serves={}
    )
    return engine_of(source, folder, EngineOptions(batch=PROFILE))


def engine_of(source: Artifact, folder: Path, options: EngineOptions) -> Artifact:
    """The engine of an ONNX artifact that lies in `folder`."""
    machine = probe_tensorrt().machine
    assert machine is not None
    plans = folder / "tensorrt"
    made = compile_engine(source, plans, machine=machine, options=options, timing_cache=plans / "timing.cache")
    return Artifact.of_file(
        made.plan,
        folder,
        [made.record_file, made.layers_file],
        format="tensorrt",
        precision=source.precision,
        inputs=source.inputs,
        outputs=source.outputs,
        made_from=source.sha256,
        serves={"tensorrt": (ANY_ARCH,)},
    )


def engine_bundle(folder: Path) -> Bundle:
    """A bundle of the tiny network with its engine, for ONNX Runtime and TensorRT, and golden vectors from NumPy."""
    source = folder / "source"
    engine = tiny_engine(source)
    network = bundles.artifact_of(source / "model.fp32.onnx", serves={"onnxruntime": (ANY_ARCH,)}, made_from="0" * 64)
    manifest = Manifest(name="tiny", schema=bundles.SCHEMA, preprocess=bundles.SPEC, artifacts=(network, engine))
    return write_bundle(folder / "bundle", manifest, bundles.tiny_golden().to_bytes())


def resealed(artifact: Artifact) -> Artifact:
    """The artifact with the digests that its files have now, as if the manifest had been written after the change."""
    companions = tuple((path, file_digest(artifact.root / path)) for path, _ in artifact.companions)
    return dataclasses.replace(artifact, sha256=file_digest(artifact.file), companions=companions)


def with_record(artifact: Artifact, change: Callable[[dict[str, Any]], None]) -> Artifact:
    """The artifact after a change of its record, digests and all."""
    file = artifact.root / record_path(artifact.path)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return resealed(artifact)


def with_plan(artifact: Artifact, change: Callable[[bytes], bytes]) -> Artifact:
    """The artifact after a change of its plan, digests and all."""
    artifact.file.write_bytes(change(artifact.file.read_bytes()))
    return resealed(artifact)


def answers(crops: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """What `two_outputs` answers."""
    landmarks = bundles.tiny_answer(crops)
    return {"landmarks": landmarks, "mirrored": 1 - landmarks}
