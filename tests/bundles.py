"""Tiny networks and bundles that tests make for themselves; no binary file is kept in the repository."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.bundle import ANY_ARCH, Artifact, Bundle, Manifest, network_specs, write_bundle
from lmedge.preprocess import PreprocessSpec
from lmedge.runtimes.golden import Golden
from lmedge.schemas import MMLAB_5
from tests import requirements

SCHEMA = MMLAB_5
SPEC = PreprocessSpec(input_hw=(32, 32))

_CHANNELS, _STRIDE = 6, 4
_CELLS = (SPEC.input_hw[0] // _STRIDE) ** 2


def tiny_weights(seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of one convolution and one linear layer; the answers lie around 0.5 and follow every pixel."""
    rng = np.random.default_rng(seed)
    outputs = 2 * SCHEMA.num_points
    return {
        "kernel": rng.normal(0, 0.3, (_CHANNELS, 3, _STRIDE, _STRIDE)).astype(np.float32),
        "offset": rng.normal(0, 0.1, _CHANNELS).astype(np.float32),
        "weight": rng.normal(0, 0.02, (_CHANNELS * _CELLS, outputs)).astype(np.float32),
        "bias": np.full(outputs, 0.5, np.float32),
    }


def tiny_onnx(folder: Path, *, seed: int = 0, input_name: str = "image", color: str = "bgr") -> Path:
    """Writes a small landmark network with its preprocessing inside: uint8 (N, 32, 32, 3) BGR → (N, 5, 2) fractions.

    `color="rgb"` is the mutant that takes the channels in reverse. Where the package onnx is missing, the network is taken from
    the folder LMEDGE_TINY_NETWORKS, which `python -m tests.bundles FOLDER` filled elsewhere; else the test is skipped.
    """
    prebuilt = Path(os.environ.get("LMEDGE_TINY_NETWORKS", "")) / f"{seed}-{input_name}-{color}.onnx"
    if prebuilt.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(prebuilt, folder / "model.fp32.onnx"))
    requirements.require("onnx")
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weights = tiny_weights(seed)
    if color == "rgb":
        weights["kernel"] = np.ascontiguousarray(weights["kernel"][:, ::-1])
    weights |= {"mean": np.float32(SPEC.mean), "std": np.float32(SPEC.std), "points": np.array([-1, SCHEMA.num_points, 2])}
    nodes = [
        helper.make_node("Cast", [input_name], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Transpose", ["normalised"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "offset"], ["features"], strides=[_STRIDE, _STRIDE]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["coordinates"]),
        helper.make_node("Reshape", ["coordinates", "points"], ["landmarks"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(input_name, TensorProto.UINT8, ["batch", *SPEC.input_hw, 3])],
        [helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["batch", SCHEMA.num_points, 2])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model, full_check=True)
    file = folder / "model.fp32.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    save(model, str(file))
    return file


def tiny_answer(crops: npt.NDArray[np.uint8], seed: int = 0, mean: float = SPEC.mean) -> npt.NDArray[np.float32]:
    """What the tiny network answers, computed with NumPy in float64: the reference that engines are held to."""
    weights = {name: array.astype(np.float64) for name, array in tiny_weights(seed).items()}
    planes = ((crops.astype(np.float64) - mean) / SPEC.std).transpose(0, 3, 1, 2)
    count, _, height, width = planes.shape
    cells = planes.reshape(count, 3, height // _STRIDE, _STRIDE, width // _STRIDE, _STRIDE)
    features = np.einsum("nciajb,ocab->noij", cells, weights["kernel"]) + weights["offset"][:, None, None]
    flat = np.maximum(features, 0).reshape(count, -1)
    return (flat @ weights["weight"] + weights["bias"]).reshape(count, -1, 2).astype(np.float32)


def tiny_program(folder: Path) -> Path:
    """Writes the same network as an exported PyTorch program; without torch the test is skipped."""
    requirements.require("torch")
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, array in tiny_weights().items():
                self.register_buffer(name, torch.from_numpy(array))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            planes = ((image.float() - SPEC.mean) / SPEC.std).permute(0, 3, 1, 2)
            features = torch.nn.functional.conv2d(planes, self.kernel, self.offset, stride=_STRIDE).relu()
            return (features.flatten(1) @ self.weight + self.bias).unflatten(1, (SCHEMA.num_points, 2))

    example = torch.zeros((2, *SPEC.input_hw, 3), dtype=torch.uint8)
    program = torch.export.export(Tiny(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    file = folder / "model.pt2"
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, file)
    return file


def artifact_of(file: Path, **fields: object) -> Artifact:
    """The artifact of a tiny network's file, in the folder where it lies."""
    inputs, outputs = network_specs(SPEC, SCHEMA)
    values = {"format": "onnx", "precision": "fp32", "inputs": inputs, "outputs": outputs, **fields}
    return Artifact.of_file(file, file.parent, **values)


def tiny_bundle(folder: Path) -> Bundle:
    """A bundle of the tiny network for ONNX Runtime and OpenVINO, with golden vectors from NumPy; needs the package onnx."""
    serves = {"onnxruntime": (ANY_ARCH,), "openvino": (ANY_ARCH,)}
    artifact = artifact_of(tiny_onnx(folder / "source"), serves=serves, made_from="0" * 64)
    manifest = Manifest(name="tiny", schema=SCHEMA, preprocess=SPEC, artifacts=(artifact,))
    return write_bundle(folder / "bundle", manifest, tiny_golden().to_bytes())


def tiny_golden() -> Golden:
    """Three frames of smooth noise with a box each, one reaching over the border, and what the tiny network answers."""
    coarse = np.random.default_rng(1).integers(0, 256, (3, 15, 20, 3), np.uint8)
    frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
    boxes = np.array([[30.0, 20.0, 90.0, 80.0], [10.5, 12.25, 100.5, 102.75], [110.0, 60.0, 170.0, 120.0]])
    return Golden.record(frames, boxes, SPEC, tiny_answer)


def random_crops(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Crops (count, 32, 32, 3) of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, *SPEC.input_hw, 3), np.uint8)


def write_networks(folder: Path) -> None:
    """The tiny networks that tests of the runtimes ask for, for an environment without the package onnx."""
    folder.mkdir(parents=True, exist_ok=True)
    for input_name in ("image", "picture"):
        tiny_onnx(folder, input_name=input_name).rename(folder / f"0-{input_name}-bgr.onnx")


if __name__ == "__main__":
    write_networks(Path(sys.argv[1]))
