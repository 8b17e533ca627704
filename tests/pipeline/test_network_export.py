"""Every head on every trunk leaves PyTorch as a program with a dynamic batch; heads with their own convolutions also in int8.

The int8 graph of the flat head is in test_mobilenet_v3.py.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmedge.pipeline.models import _HEADS, _TRUNKS, Architecture, build_network
from tests import requirements

CROP_PX, POINTS = 64, 7


class AllHeads(nn.Module):
    """One trunk under a network of each head, so that a test exports it once."""

    def __init__(self, trunk: str, confidence: bool) -> None:
        super().__init__()
        networks = {
            head: build_network(Architecture(trunk, 0.1, "relu", 8, CROP_PX, POINTS, head, confidence)) for head in _HEADS
        }
        self.trunk = next(iter(networks.values())).trunk
        self.heads = nn.ModuleDict({name: network.head for name, network in networks.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(images)
        return {name: head(features) for name, head in self.heads.items()}


def exported(network: nn.Module, example: Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    module: nn.Module = program.module()
    return module


@pytest.mark.parametrize("trunk", _TRUNKS)
def test_every_head_is_exported_with_a_dynamic_batch(trunk: str) -> None:
    torch.manual_seed(0)
    network = AllHeads(trunk, confidence=True).eval()
    for head in network.heads.values():
        head.keep_points([1, 2])
    program = exported(network, torch.zeros(2, 3, CROP_PX, CROP_PX))
    for faces in (1, 5):
        images = torch.randn(faces, 3, CROP_PX, CROP_PX)
        answers, expected = program(images), network(images)
        assert set(answers) == set(_HEADS)
        for name, points in expected.items():
            assert points.shape == (faces, 2, 3)
            torch.testing.assert_close(answers[name], points, atol=1e-5, rtol=0)


# Of this small network, taught for a moment; a head whose rounding were wrong moves points as far as they spread, some 10 px.
INT8_MEAN_PX = 1.0


@pytest.mark.parametrize("head", ["multiscale", "integral"])
def test_heads_are_quantised_for_every_engine(head: str) -> None:
    requirements.require("onnx", "onnxruntime", "onnxscript", "onnxslim")
    from lmedge.export.graph.compare import LITERAL, run_onnx
    from lmedge.export.graph.lint_qdq import lint_qdq
    from tests.pipeline.graph_modules import CROPS
    from tests.pipeline.int8_networks import int8_network

    network = int8_network(head)
    exact = run_onnx(network.fp32, CROPS)
    assert np.std(exact, axis=0).max() * CROP_PX > 3, "the network follows the picture"
    assert lint_qdq(network.int8["portable"]) == []
    for rounded in network.int8.values():
        distances_px = np.linalg.norm(run_onnx(rounded, CROPS, settings=LITERAL) - exact, axis=2) * CROP_PX
        assert 0 < distances_px.mean() < INT8_MEAN_PX
    kinds = {node.op_type for node in network.fp32.graph.node}
    assert "Shape" not in kinds, "nothing is computed from the batch"
