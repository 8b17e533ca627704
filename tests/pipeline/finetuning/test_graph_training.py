"""Training an ONNX graph in PyTorch: gradients where values lie in range, and the way back to the file."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
import torch  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lmedge.calibration.place_qdq import PORTABLE, X86  # noqa: E402
from lmedge.pipeline.finetuning.fake_quantize import fake_quantize, round_through  # noqa: E402
from lmedge.pipeline.finetuning.graph_module import GraphModule  # noqa: E402
from tests.pipeline.graph_modules import (  # noqa: E402
    CROPS,
    IMAGE_SCALE,
    INT8_MEAN_PX,
    arrays,
    assert_same,
    distances_px,
    every_dialect,
    every_network,
    small_graph,
)
from tests.pipeline.int8_networks import int8_network  # noqa: E402

# Gradients


@given(
    values=st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=20),
    scale=st.floats(2**-6, 2, width=32),
    limits=st.sampled_from([(-128, 127), (0, 255), (-37, 218), (-8, 7)]),
)
def test_gradients_of_a_quantiser(values: list[float], scale: float, limits: tuple[int, int]) -> None:
    x = torch.tensor(values, requires_grad=True)
    step = torch.tensor(scale, requires_grad=True)
    arriving = torch.linspace(1, 2, len(values))
    result = fake_quantize(x, step, *limits)
    result.backward(arriving)

    ratio = np.float32(values) / np.float32(scale)
    codes = np.clip(np.rint(ratio), *limits)
    np.testing.assert_allclose(result.detach().numpy(), codes * np.float32(scale), rtol=1e-6)
    edge = np.minimum(abs(ratio - limits[0] + 0.5), abs(ratio - limits[1] - 0.5)) < 1e-3
    if edge.any():
        return  # at the very edge of the range, either gradient will do
    inside = (ratio > limits[0] - 0.5) & (ratio < limits[1] + 0.5)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.where(inside, arriving.numpy(), 0))
    # Esser et al. 2020, equation 3.
    expected = np.sum(np.where(inside, codes - ratio, codes) * arriving.numpy())
    assert step.grad is not None
    assert float(step.grad) == pytest.approx(expected, rel=1e-3, abs=1e-2 + 1e-4 * float(np.abs(codes).max()))


def test_a_rounded_weight_gets_the_whole_gradient() -> None:
    weight = torch.tensor([0.5, 1.5, -0.5, 2.4], requires_grad=True)
    rounded = round_through(weight)
    rounded.backward(torch.arange(4.0))
    assert rounded.tolist() == [0, 2, 0, 2]
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 1, 2, 3]


@every_network
@every_dialect
def test_everything_that_is_trained_gets_a_gradient(name: str, dialect: str) -> None:
    module = GraphModule(int8_network(name).int8[dialect], learn_scales=True)
    module(torch.from_numpy(CROPS[:8])).square().sum().backward()
    without = [name for name, number in module.named_parameters() if number.requires_grad and not torch.any(number.grad != 0)]
    assert not without
    layers = sum(node.op_type in ("Conv", "Gemm") for node in int8_network(name).int8[dialect].graph.node)
    assert len(module.weights) == 2 * layers


# Where training starts


@every_dialect
def test_weights_start_between_the_integers_that_they_were_rounded_to(dialect: str) -> None:
    network = int8_network()
    stored, exact = GraphModule(network.int8[dialect]), GraphModule(network.int8[dialect], network.prepared)
    int8 = [name for name in stored.weights if name.endswith("weight_quantized")]
    assert len(int8) > 10
    for name in int8:
        apart = (stored.weights[name] - exact.weights[name]).detach().abs()
        assert 0.1 < apart.max() < 0.5
        assert torch.equal(exact.weights[name].round(), stored.weights[name].round())


def test_the_float_weights_of_another_network_are_left_alone() -> None:
    network = int8_network()
    other = onnx.ModelProto()
    other.CopyFrom(network.prepared)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(array * np.float32(1.5), tensor.name))
    stored, found = (GraphModule(network.int8[PORTABLE], float_model) for float_model in (None, other))
    assert all(torch.equal(stored.weights[name], found.weights[name]) for name in stored.weights)


@every_dialect
def test_the_image_keeps_its_scale_and_all_other_quantisers_learn_theirs(dialect: str) -> None:
    model = int8_network().int8[dialect]
    module = GraphModule(model, learn_scales=True)
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    [image] = [node.input[1] for node in quantisers if node.input[1] not in module.log_scales]
    assert arrays(model)[image] == IMAGE_SCALE
    assert len(module.log_scales) == len(quantisers) - 1
    assert not GraphModule(model).log_scales


# The way back


@every_network
@every_dialect
@pytest.mark.parametrize("learn_scales", [False, True])
def test_an_untrained_module_writes_what_it_read(name: str, dialect: str, learn_scales: bool) -> None:
    network = int8_network(name)
    model = network.int8[dialect]
    written = GraphModule(model, network.prepared, learn_scales=learn_scales).write_back()
    assert written.graph.node == model.graph.node
    before, after = arrays(model), arrays(written)
    assert list(before) == list(after)
    for key, array in before.items():
        assert after[key].dtype == array.dtype, key
        np.testing.assert_array_equal(after[key], array, err_msg=key)


def trained(model: onnx.ModelProto, steps: int = 3) -> GraphModule:
    """A module after some large steps somewhere."""
    module = GraphModule(model, learn_scales=True)
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.from_numpy(CROPS[:8])).square().sum().backward()
        optimizer.step()
    return module


@every_network
@every_dialect
def test_a_trained_module_and_its_file_answer_the_same(name: str, dialect: str) -> None:
    model = int8_network(name).int8[dialect]
    module = trained(model)
    written = module.write_back()
    onnx.checker.check_model(written, full_check=True)
    assert written.graph.node == model.graph.node
    assert [(t.name, t.data_type, list(t.dims)) for t in written.graph.initializer] == [
        (t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
    ]
    assert_same(distances_px(module, written))
    assert distances_px(module, model).mean() > 4 * INT8_MEAN_PX  # it has changed


def test_training_changes_weights_biases_and_scales_and_nothing_else() -> None:
    model = int8_network().int8[X86]
    before, after = arrays(model), arrays(trained(model).write_back())
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    makers = {node.output[0]: node for node in model.graph.node}
    weights = {makers[name].input[0] if name in makers else name for layer in layers for name in layer.input[1:]}
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    scales = {name for name in scales if before[name] != IMAGE_SCALE}
    bias_scales = {makers[layer.input[2]].input[1] for layer in layers if layer.input[2] in makers}
    assert changed >= {name for name in weights if before[name].dtype == np.float32}
    assert changed >= scales
    assert changed <= weights | scales | bias_scales


def test_an_int32_bias_keeps_to_the_scale_of_its_layer() -> None:
    model = int8_network().int8[X86]
    written = trained(model).write_back()
    numbers, makers = arrays(written), {node.output[0]: node for node in written.graph.node}
    checked = 0
    for layer in written.graph.node:
        if layer.op_type == "Conv" and layer.input[2] in makers:
            image, weight, bias = (numbers[makers[name].input[1]] for name in layer.input)
            np.testing.assert_array_equal(bias, image * weight)
            checked += 1
    assert checked > 10


def test_a_learnt_scale_moves_the_integers_of_the_bias_and_not_its_value() -> None:
    model = int8_network().int8[X86]
    module = GraphModule(model, learn_scales=True)
    with torch.no_grad():
        for logarithm in module.log_scales.values():
            logarithm.fill_(math.log(0.5))
    before, after = arrays(model), arrays(module.write_back())
    makers = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type == "Conv" and node.input[2] in makers]
    stored = [makers[layer.input[2]].input[:2] for layer in layers[1:]]  # the first one's image keeps its scale
    for integers, scale in stored:
        np.testing.assert_allclose(after[scale], before[scale] / 2, rtol=1e-6)
        np.testing.assert_allclose(after[integers], 2.0 * before[integers], rtol=1e-6, atol=1)


def test_the_model_that_came_in_is_not_changed() -> None:
    model = int8_network().int8[PORTABLE]
    before = model.SerializeToString(deterministic=True)
    trained(model, steps=1).write_back()
    assert model.SerializeToString(deterministic=True) == before


def test_integers_too_large_for_float32_stay_within_int32() -> None:
    bias = helper.make_tensor("b", TensorProto.INT32, [1], [2**31 - 1])
    model = small_graph(
        """q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z)  w = DequantizeLinear <axis = 0> (v, t, u)
           c = DequantizeLinear <axis = 0> (b, r, o)  a = Conv (y, w, c)  landmarks = Flatten (a)""",
        """float s = {1.0}, uint8 z = {0}, int8[1,3,1,1] v = {1, 2, 3}, float[1] t = {1e-6}, int8[1] u = {0},
           int32[1] b = {1}, float[1] r = {1e-6}, int32[1] o = {0}""",
    )
    for tensor in model.graph.initializer:
        if tensor.name == "b":
            tensor.CopyFrom(bias)
    assert arrays(GraphModule(model).write_back())["b"] == [2**31 - 128]
