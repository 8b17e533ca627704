"""A bundle of the tiny network that also says how sure it is, with the same calculation in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmedge.bundle import ANY_ARCH, Bundle, Manifest, network_specs, write_bundle
from lmedge.runtimes.answers import Answers
from lmedge.runtimes.golden import Golden
from tests import bundles

_SLOPE = 8.0


def confident_onnx(folder: Path, *, negated: bool = False) -> Path:
    """The tiny network with a second output; `negated` is the mutant that is sure where it should not be."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    file = bundles.tiny_onnx(folder)
    model = onnx.load(str(file))
    slope = np.float32(-_SLOPE if negated else _SLOPE)
    constants = {"middle": np.float32(0.5), "slope": slope, "first": np.array(0, np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["landmarks", "first"], ["columns"], axis=2),
            helper.make_node("Sub", ["columns", "middle"], ["from_middle"]),
            helper.make_node("Mul", ["from_middle", "slope"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["confidence"]),
        ]
    )
    shape = ["batch", bundles.SCHEMA.num_points]
    model.graph.output.append(helper.make_tensor_value_info("confidence", TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))
    return file


def confident_answers(crops: npt.NDArray[np.uint8]) -> Answers:
    """What that network answers."""
    fractions = bundles.tiny_answer(crops)
    return Answers(fractions, (1 / (1 + np.exp(-_SLOPE * (fractions[..., 0] - 0.5)))).astype(np.float32))


def confident_golden() -> Golden:
    plain = bundles.tiny_golden()
    return Golden.record(plain.frames, plain.boxes_xyxy, bundles.SPEC, confident_answers)


def confident_bundle(folder: Path, *, negated: bool = False) -> Bundle:
    """For ONNX Runtime and OpenVINO, with golden vectors from NumPy."""
    outputs = network_specs(bundles.SPEC, bundles.SCHEMA, confidence=True)[1]
    serves = {"onnxruntime": (ANY_ARCH,), "openvino": (ANY_ARCH,)}
    file = confident_onnx(folder / "source", negated=negated)
    artifact = bundles.artifact_of(file, outputs=outputs, serves=serves, made_from="0" * 64)
    manifest = Manifest(name="sure", schema=bundles.SCHEMA, preprocess=bundles.SPEC, artifacts=(artifact,))
    return write_bundle(folder / "bundle", manifest, confident_golden().to_bytes())
