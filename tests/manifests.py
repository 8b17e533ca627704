"""A manifest with every kind of entry, over files that hold a word each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmedge.bundle import Artifact, Manifest, network_specs
from lmedge.preprocess import BoxFit, PreprocessSpec
from lmedge.schemas import IBUG_68

SPEC = PreprocessSpec(box_fits={"yunet": BoxFit(0.79, 0.0, 0.12)})
INPUTS, OUTPUTS = network_specs(SPEC, IBUG_68)
GOLDEN = b"golden vectors"


def artifact_of(root: Path, path: str, content: bytes, precision: str = "fp32", **fields: Any) -> Artifact:
    """An artifact whose file (and companions, path → content) are written below `root`."""
    companions = []
    for name, data in {path: content, **fields.pop("companions", {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        if name != path:
            companions.append(root / name)
    fields = {"format": "onnx", "serves": {"onnxruntime": ("any",)}, **fields}
    return Artifact.of_file(root / path, root, companions, precision=precision, inputs=INPUTS, outputs=OUTPUTS, **fields)


def manifest_of(stages: Path) -> Manifest:
    """A manifest with every kind of entry, its files below `stages`."""
    fp32 = artifact_of(stages / "export", "model.fp32.onnx", b"fp32", tool_versions={"torch": "2.13.0", "onnx": "1.23"})
    int8 = artifact_of(
        stages / "quantize",
        "model.int8.onnx",
        b"int8",
        "int8",
        made_from=fp32.sha256,
        serves={"onnxruntime": ("any",), "openvino": ("aarch64",)},
    )
    x86 = artifact_of(
        stages / "quantize", "model.int8-x86.onnx", b"u8", "int8", dialect="x86", serves={"onnxruntime": ("x86_64",)}
    )
    ir = artifact_of(
        stages / "compile",
        "openvino/model.fp32.xml",
        b"<net/>",
        format="openvino",
        companions={"openvino/model.fp32.bin": b"weights"},
        serves={"openvino": ("any",)},
        requires={"os": "Linux"},
    )
    return Manifest(
        name="face",
        schema=IBUG_68,
        preprocess=SPEC,
        artifacts=(fp32, int8, x86, ir),
        calibration={"count": 300},
        evaluation={"nme": 0.043},
        parity=({"backend": "openvino", "max_px": 0.001},),
        provenance={"data": [{"kind": "synthetic", "licence": "none"}], "seen": ["ä", "b"]},
    )


# What a bundle of `manifest_of` holds beside its manifest.
FILES = [
    "model.fp32.onnx",
    "model.int8.onnx",
    "model.int8-x86.onnx",
    "openvino/model.fp32.xml",
    "openvino/model.fp32.bin",
    "golden.npz",
]
