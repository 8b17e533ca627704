"""A confident network with heat maps, from float to int8: what is rounded, what is trained, and that both answers arrive."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
import torch  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from lmedge.calibration.finish_qdq import finish_qdq  # noqa: E402
from lmedge.calibration.place_qdq import DIALECTS, PORTABLE, X86, head_nodes  # noqa: E402
from lmedge.data.augment import AugmentSpec  # noqa: E402
from lmedge.export.graph.compare import LITERAL, import_engine, open_session  # noqa: E402
from lmedge.export.graph.lint_qdq import lint_qdq  # noqa: E402
from lmedge.export.graph.qdq_graph import DEQUANTIZE, QUANTIZE, QdqGraph  # noqa: E402
from lmedge.export.graph.to_fp16 import to_fp16  # noqa: E402
from lmedge.pipeline.finetuning.finetune_int8 import FinetuneOptions, finetune_int8  # noqa: E402
from lmedge.pipeline.finetuning.graph_module import GraphModule  # noqa: E402
from lmedge.pipeline.training.dataset import load_canvases  # noqa: E402
from lmedge.schemas import MMLAB_5  # noqa: E402
from tests.pipeline.drawn_faces import drawn_faces  # noqa: E402
from tests.pipeline.graph_modules import CROPS, FLOAT_PX, arrays, assert_same, distances_px, every_dialect  # noqa: E402
from tests.pipeline.int8_networks import HEAT_MAPS, SPEC, Int8Network, int8_network  # noqa: E402

Answers = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def network() -> Int8Network:
    return int8_network(HEAT_MAPS)


@pytest.fixture(scope="module")
def exact(network: Int8Network) -> Answers:
    return engine_answers(network.fp32)


def engine_answers(model: onnx.ModelProto, **settings: str) -> Answers:
    session = open_session(model, settings=settings)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": CROPS}), strict=True))


def module_answers(module: GraphModule) -> Answers:
    with torch.no_grad():
        return {name: value.numpy() for name, value in module.answers(torch.from_numpy(CROPS)).items()}


def test_the_network_answers_to_the_picture(exact: Answers) -> None:
    assert list(exact) == ["landmarks", "confidence"]
    assert exact["confidence"].shape == exact["landmarks"].shape[:2]
    assert np.std(exact["confidence"], axis=0).max() > 0.02


# The graph in PyTorch


def test_the_float_graph_answers_as_on_onnx_runtime(network: Int8Network, exact: Answers) -> None:
    module = GraphModule(network.fp32)
    assert distances_px(module, network.fp32).max() < FLOAT_PX
    np.testing.assert_allclose(module_answers(module)["confidence"], exact["confidence"], atol=1e-5)


@every_dialect
@pytest.mark.parametrize("learn_scales", [False, True])
def test_the_int8_graph_answers_as_on_onnx_runtime(network: Int8Network, dialect: str, learn_scales: bool) -> None:
    model = network.int8[dialect]
    module = GraphModule(model, network.prepared, learn_scales=learn_scales)
    assert_same(distances_px(module, model))
    apart = np.abs(module_answers(module)["confidence"] - engine_answers(model, **LITERAL)["confidence"])
    assert np.median(apart.max(axis=1)) < 1e-4
    written = module.write_back()
    assert written.graph.node == model.graph.node
    before, after = arrays(model), arrays(written)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


@every_dialect
def test_training_for_confidence_alone_changes_it_and_the_file_says_the_same(network: Int8Network, dialect: str) -> None:
    module = GraphModule(network.int8[dialect], learn_scales=True)
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.3)
    for _ in range(8):
        optimizer.zero_grad()
        module.answers(torch.from_numpy(CROPS[:8]))["confidence"].sum().backward()
        optimizer.step()
    after, written = module_answers(module)["confidence"], module.write_back()
    assert (engine_answers(network.int8[dialect], **LITERAL)["confidence"] - after).mean() > 0.03
    assert np.abs(after - engine_answers(written, **LITERAL)["confidence"]).mean() < 0.005


# What is rounded


def makers_back(view: QdqGraph, tensor: str) -> list[str]:
    """The operators on the way back from a tensor to the last convolution, that one included."""
    found: list[str] = []
    while (node := view.maker.get(tensor)) is not None:
        found.append(node.op_type)
        if node.op_type == "Conv":
            break
        tensor = node.input[0]
    return found


@every_dialect
def test_heat_maps_and_their_softmax_stay_in_float(network: Int8Network, dialect: str) -> None:
    model = finish_qdq(network.int8[dialect], dialect)
    view = QdqGraph(model.graph)
    [softmax] = [node for node in model.graph.node if node.op_type == "Softmax"]
    on_the_way = makers_back(view, softmax.input[0])
    assert on_the_way[-1] == "Conv"
    assert not {QUANTIZE, DEQUANTIZE}.intersection(on_the_way)
    head = head_nodes(network.fp32)
    heat, confidence = (node for node in model.graph.node if node.op_type == "Conv" and node.name in head)
    assert view.array(heat.input[1]).dtype == view.array(confidence.input[1]).dtype == np.float32, "their weights too"
    behind = list(model.graph.node)[list(model.graph.node).index(heat) :]
    assert not [node.name for node in behind if node.op_type == QUANTIZE]


def test_heat_maps_are_in_float_whatever_their_part_of_the_work(network: Int8Network, monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_nodes(network.fp32)
    monkeypatch.setattr("lmedge.calibration.place_qdq._HEAD_SHARE", 0.0)
    assert head_nodes(network.fp32) == head


def test_an_upsampling_has_one_scale_on_both_sides_for_x86(network: Int8Network) -> None:
    model = network.int8[X86]
    view = QdqGraph(model.graph)
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    assert len(resizes) == 2
    for resize in resizes:
        before = view.pair(resize.input[0])
        [quantize] = view.readers[resize.output[0]]
        assert before is not None
        assert quantize.op_type == QUANTIZE
        assert list(quantize.input[1:]) == list(before.quantize.input[1:])


def test_the_portable_file_rounds_an_upsampling_once(network: Int8Network) -> None:
    model = network.int8[PORTABLE]
    view = QdqGraph(model.graph)
    for resize in [node for node in model.graph.node if node.op_type == "Resize"]:
        assert view.pair(resize.input[0]) is None
        assert [reader.op_type for reader in view.readers[resize.output[0]]] == [QUANTIZE]
    assert lint_qdq(finish_qdq(model, PORTABLE)) == []


def test_onnx_runtime_moves_bytes_through_upsampling_and_pooling(network: Int8Network, tmp_path: Path) -> None:
    engine = import_engine()
    options = engine.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model = finish_qdq(network.int8[X86], X86)
    engine.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    view = QdqGraph(onnx.load(tmp_path / "optimised.onnx").graph)
    movers = [node for node in view.nodes if node.op_type in ("Resize", "MaxPool", "NhwcMaxPool")]
    assert len(movers) == 2 + 5
    for node in movers:
        assert view.op_type(node.input[0]) not in (DEQUANTIZE, "Conv"), node.name


# Both answers in every precision


@pytest.mark.parametrize("precision", ["fp16", *DIALECTS, "fp16-int8"])
def test_both_answers_are_there_in_every_precision(network: Int8Network, exact: Answers, precision: str) -> None:
    if precision == "fp16":
        model = to_fp16(network.fp32)
    elif precision == "fp16-int8":
        model = to_fp16(finish_qdq(network.int8[PORTABLE], PORTABLE))
    else:
        model = finish_qdq(network.int8[precision], precision)
    answers = engine_answers(model, **LITERAL)
    assert list(answers) == ["landmarks", "confidence"]
    apart = np.abs(answers["confidence"] - exact["confidence"])
    assert apart.max() < 0.005 if precision == "fp16" else apart.mean() < 0.02
    assert answers["confidence"].dtype == np.float32


# Fine-tuning


def test_fine_tuning_brings_a_shifted_confidence_back(network: Int8Network, exact: Answers) -> None:
    start = onnx.ModelProto()
    start.CopyFrom(network.int8[PORTABLE])
    _, confidence = (node for node in start.graph.node if node.op_type == "Conv" and node.name in head_nodes(network.fp32))
    for tensor in start.graph.initializer:
        if tensor.name == confidence.input[2]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name))

    improving = iter([NetworkLossOf(2.0, 2.0), NetworkLossOf(1.0, 1.0)])
    options = FinetuneOptions(epochs=4, batch_size=8, learning_rate=1.0, scale_learning_rate=0.0)
    result, _ = finetune_int8(
        start,
        network.fp32,
        load_canvases(drawn_faces(40, 1)[0], SPEC),
        lambda _: next(improving),
        schema=MMLAB_5,
        spec=SPEC,
        augment=AugmentSpec(rotation_deg=3, scale=0.02, shift=0.02, flip=0, contrast=0.05, brightness=0.02, color=0.02, gray=0),
        options=options,
        prepared=network.prepared,
    )
    before, after = (np.abs(engine_answers(model, **LITERAL)["confidence"] - exact["confidence"]) for model in (start, result))
    assert after.mean() < 0.75 * before.mean()


class NetworkLossOf(NamedTuple):
    """What the fine-tuning reads of a judge's word."""

    mean_px: float
    rms_px: float
