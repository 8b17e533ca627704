"""Each graph pass by itself: what it changes, and that the answers stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lmedge.errors import ExportError  # noqa: E402
from lmedge.export.graph.compare import check_graph, max_distance_px, run_onnx  # noqa: E402
from lmedge.export.graph.input_scale import find_normalisation  # noqa: E402
from lmedge.export.graph.inspect_onnx import inspect_onnx  # noqa: E402
from lmedge.export.graph.simplify import simplify  # noqa: E402
from lmedge.export.graph.strip import strip  # noqa: E402
from lmedge.export.graph.to_fp16 import sort_nodes, to_fp16, write_fp16  # noqa: E402
from tests.export.networks import CROP_PX, picture_crops  # noqa: E402

CROPS = picture_crops(16, seed=7)
HW = (CROP_PX, CROP_PX)


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model from `image` uint8 (batch, 4, 4, 3) to `landmarks` float32."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 4, 3])],
        [helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["batch", None, 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


# ---- simplify ----


def test_simplify_folds_constants_and_removes_what_does_nothing() -> None:
    nodes = [
        helper.make_node("Identity", ["image"], ["same"]),
        helper.make_node("Cast", ["same"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["half", "half"], ["one"]),
        helper.make_node("Div", ["levels", "one"], ["scaled"]),
        helper.make_node("Cast", ["image"], ["unread"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["scaled", "shape"], ["landmarks"]),
    ]
    model = graph_of(nodes, {"half": np.array(0.5, np.float32), "shape": np.array([-1, 24, 2])})
    simple = simplify(model)
    check_graph(simple, "simplify")
    assert {node.op_type for node in simple.graph.node} <= {"Cast", "Div", "Reshape"}
    crops = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(run_onnx(simple, crops), run_onnx(model, crops))


def test_simplify_keeps_every_answer(fp32_onnx: Path) -> None:
    model = onnx.load(fp32_onnx)
    np.testing.assert_array_equal(run_onnx(simplify(model), CROPS), run_onnx(model, CROPS))


# ---- strip ----


def test_strip_removes_traces_and_nothing_else(fp32_onnx: Path) -> None:
    marked = onnx.load(fp32_onnx)
    marked.doc_string = marked.graph.doc_string = "/home/someone"
    marked.producer_name, marked.producer_version = "pytorch", "9.9"
    helper.set_model_props(marked, {"source": "/home/someone"})
    for part in (*marked.graph.node, *marked.graph.initializer, *marked.graph.input):
        part.doc_string = "File /home/someone/net.py, line 1"
        part.metadata_props.add(key="trace", value="/home/someone/net.py")
    marked.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "s77"
    marked.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["s77"]))
    assert strip(marked).SerializeToString(deterministic=True) == fp32_onnx.read_bytes()
    assert marked.doc_string == "/home/someone", "the given model is left alone"


# ---- to_fp16 ----


def test_fp16_has_the_same_tensors_outside_and_half_precision_inside(fp32_onnx: Path) -> None:
    model = to_fp16(onnx.load(fp32_onnx))
    check_graph(model, "to_fp16")
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {tensor.data_type for tensor in model.graph.initializer} <= {TensorProto.FLOAT16, TensorProto.INT64}
    casts = [helper.get_attribute_value(node.attribute[0]) for node in model.graph.node if node.op_type == "Cast"]
    assert casts == [TensorProto.FLOAT16, TensorProto.FLOAT]
    assert model.graph.node[-1].op_type == "Cast", "the last step is the explicit return to float32"


def test_fp16_is_close_and_half_the_size(fp32_onnx: Path, tmp_path: Path) -> None:
    record = write_fp16(fp32_onnx, tmp_path / "model.fp16.onnx", CROPS)
    assert 0 < record.max_px < 0.25
    assert (tmp_path / "model.fp16.onnx").stat().st_size < 0.65 * fp32_onnx.stat().st_size


def test_fp16_runs_on_openvino_too(fp32_onnx: Path) -> None:
    requirements.require("openvino")
    from lmedge.runtimes.openvino import import_openvino

    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(to_fp16(onnx.load(fp32_onnx)).SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert max_distance_px(compiled(CROPS)["landmarks"], run_onnx(fp32_onnx, CROPS), HW) < 0.25


def test_fp16_of_the_same_file_is_the_same_file(fp32_onnx: Path, tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        write_fp16(fp32_onnx, tmp_path / name / "model.onnx", CROPS[:2])
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/c/model.onnx").read_bytes()


def test_weights_beyond_half_precision_are_refused(fp32_onnx: Path) -> None:
    model = onnx.load(fp32_onnx)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    with pytest.raises(ExportError, match="fp16 ends at 65504"):
        to_fp16(model)


def test_activations_beyond_half_precision_are_caught_by_the_comparison(fp32_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(fp32_onnx)
    for node in model.graph.node:  # std 64 becomes 1 / 64: the network works on values of up to 8,000, its kernels overflow
        if node.op_type == "Div":
            std = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
            std.CopyFrom(numpy_helper.from_array(np.array(1 / 512, np.float32), std.name))
    (tmp_path / "loud.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="px off"):
        write_fp16(tmp_path / "loud.onnx", tmp_path / "fp16.onnx", CROPS)
    assert not (tmp_path / "fp16.onnx").exists()


def test_an_old_opset_is_refused(fp32_onnx: Path) -> None:
    model = onnx.load(fp32_onnx)
    model.opset_import[0].version = 18
    with pytest.raises(ExportError, match="opset 19 or newer"):
        to_fp16(model)


@given(st.permutations(range(6)))
def test_sorting_gives_one_order_whatever_the_order_was(order: list[int]) -> None:
    chain = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], f"n{i}") for i in range(6)]
    graph = helper.make_graph([chain[i] for i in order], "chain", [], [])
    sort_nodes(graph)
    assert [node.name for node in graph.node] == [f"n{i}" for i in range(6)]


def test_sorting_leaves_a_sorted_graph_alone_and_refuses_a_cycle(fp32_onnx: Path) -> None:
    graph = onnx.load(fp32_onnx).graph
    before = [node.name for node in graph.node]
    sort_nodes(graph)
    assert [node.name for node in graph.node] == before
    ring = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["a"])]
    with pytest.raises(ExportError, match="wait for each other"):
        sort_nodes(helper.make_graph(ring, "ring", [], []))


# ---- input_scale ----


def test_the_normalisation_is_recognised_as_a_quantiser(fp32_onnx: Path) -> None:
    found = find_normalisation(onnx.load(fp32_onnx))
    assert found is not None
    assert (found.scale, found.zero_point) == (1 / 64, 128)


@pytest.mark.parametrize("mean", [-1.0, 127.5, 256.0])
def test_a_mean_that_is_no_level_of_the_image_is_no_zero_point(mean: float) -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "mean"], ["centred"]),
        helper.make_node("Reshape", ["centred", "shape"], ["landmarks"]),
    ]
    assert find_normalisation(graph_of(nodes, {"mean": np.array(mean, np.float32), "shape": np.array([-1, 24, 2])})) is None


def test_a_mean_per_channel_is_no_zero_point() -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "means"], ["centred"]),
        helper.make_node("Reshape", ["centred", "shape"], ["landmarks"]),
    ]
    model = graph_of(nodes, {"means": np.array([1, 2, 3], np.float32), "shape": np.array([-1, 24, 2])})
    found = find_normalisation(model)
    assert found is not None
    assert (found.tensor, found.scale, found.zero_point) == ("levels", 1.0, 0), "the chain ends where scalars end"


# ---- telemetry ----


def test_onnxruntime_is_silenced_before_it_is_imported(fp32_onnx: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.abc, os, sys; from pathlib import Path; import numpy as np\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    seen = []\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'onnxruntime': self.seen.append(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import lmedge.export.graph.to_fp16 as fp16, lmedge.calibration.quantize as quantize, onnx\n"
        "patches = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)\n"
        f"model, crops = Path({str(fp32_onnx)!r}), patches.repeat(16, axis=1).repeat(16, axis=2)\n"
        "calls = {'fp16': lambda: fp16.to_fp16(onnx.load(model)), 'run': lambda: fp16.run_onnx(model, crops),\n"
        f"    'int8': lambda: quantize.quantize_int8(model, crops, *(Path({str(tmp_path)!r}, name) for name in 'px'))}}\n"
        "calls[sys.argv[1]]()\n"
        "assert Watch.seen and set(Watch.seen) == {'1'}, Watch.seen\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for entry in ("fp16", "run", "int8"):
        command = [sys.executable, "-c", code, entry]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=requirements.REPOSITORY, env=environment
        )
        assert done.returncode == 0, done.stderr


# ---- inspect ----


def test_inspect_counts_what_is_there(fp32_onnx: Path) -> None:
    summary = inspect_onnx(fp32_onnx)
    model = onnx.load(fp32_onnx)
    assert (summary.opset, summary.producer, summary.size_bytes) == (20, "lmedge", fp32_onnx.stat().st_size)
    assert sum(summary.nodes.values()) == len(model.graph.node)
    assert summary.nodes["Add"] == 2
    assert summary.parameters == sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer)
    assert summary.quantize == summary.dequantize == {}
    document = summary.to_json()
    assert document["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["batch", CROP_PX, CROP_PX, 3]}]
    assert document["outputs"][0]["dtype"] == "float32"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xffno model"])
def test_inspect_refuses_other_files(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ExportError, match=r"x\.onnx"):
        inspect_onnx(tmp_path / "x.onnx")
