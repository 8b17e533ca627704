"""What tests of an ONNX graph in PyTorch share: faces, distances to ONNX Runtime, and small graphs in text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
import torch  # noqa: E402
from onnx import numpy_helper, parser  # noqa: E402

from lmedge.calibration.place_qdq import DIALECTS  # noqa: E402
from lmedge.export.graph.compare import LITERAL, run_onnx  # noqa: E402
from lmedge.pipeline.finetuning.graph_module import GraphModule  # noqa: E402
from lmedge.pipeline.training.dataset import load_crops  # noqa: E402
from tests.export.networks import CROP_PX  # noqa: E402
from tests.pipeline.drawn_faces import drawn_faces  # noqa: E402
from tests.pipeline.int8_networks import NETWORKS, SPEC  # noqa: E402

CROPS = load_crops(drawn_faces(1, 24)[1], SPEC)[0].numpy()
# Both sum in float32, in another order: a millionth of a crop.
FLOAT_PX = 1e-3
# Rarely, two sums that differ in the last digit fall on both sides of a half. Then one of these untrained networks, which have
# learned no calm, answers that face by pixels differently; the others it answers as floats do.
INT8_MEAN_PX = 0.25

IMAGE_SCALE = np.float32(1 / 64)  # of these networks' normalisation

every_network = pytest.mark.parametrize("name", NETWORKS)
every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def distances_px(module: GraphModule, model: onnx.ModelProto) -> npt.NDArray[np.float64]:
    """Between the answers of the module and those of ONNX Runtime, which computes each quantiser as it is written."""
    with torch.no_grad():
        answers = module(torch.from_numpy(CROPS)).numpy()
    expected = run_onnx(model, CROPS, settings=LITERAL)
    assert np.std(expected, axis=0).max() * CROP_PX > 1  # a network that answers to its input
    return np.linalg.norm((answers - expected).astype(np.float64) * CROP_PX, axis=2)


def assert_same(apart_px: npt.NDArray[np.float64]) -> None:
    """Nearly every face to the last digits of floats, and all of them nearly."""
    assert np.median(apart_px.max(axis=1)) < FLOAT_PX
    assert apart_px.mean() < INT8_MEAN_PX


def arrays(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def small_graph(body: str, constants: str = "", output: str = "float[N,P]") -> onnx.ModelProto:
    """A graph from `image`, uint8 (N, 4, 4, 3), to `landmarks`; it starts with x = the image in float, channels first."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        small (uint8[N,4,4,3] image) => ({output} landmarks) <{constants}> {{
            moved = Transpose <perm = [0, 3, 1, 2]> (image)
            x = Cast <to = 1> (moved)
            {body}
        }}"""
    return parser.parse_model(text)
