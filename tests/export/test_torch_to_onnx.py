"""model.pt2 → model.fp32.onnx: what the file is, that it says what PyTorch says, and that mistakes stop the export."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import requirements

requirements.require("torch", "onnx", "onnxruntime")

import onnx  # noqa: E402
import torch  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from lmedge.errors import ExportError, InputError  # noqa: E402
from lmedge.export import torch_to_onnx  # noqa: E402
from lmedge.export.graph.compare import run_onnx  # noqa: E402
from lmedge.export.torch_to_onnx import export_onnx  # noqa: E402
from tests.export.networks import CROP_PX, POINTS, picture_crops, save_program, stand_in  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore::DeprecationWarning:torch")
CROPS = picture_crops(8)


def test_the_file_is_what_every_engine_reads(fp32_onnx: Path) -> None:
    model = onnx.load(fp32_onnx)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert model.ir_version <= 10
    assert not model.functions
    assert _signature(model.graph.input) == [("image", onnx.TensorProto.UINT8, ["batch", CROP_PX, CROP_PX, 3])]
    assert _signature(model.graph.output) == [("landmarks", onnx.TensorProto.FLOAT, ["batch", POINTS, 2])]
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_batch_norm_is_folded_and_no_shape_is_computed(fp32_onnx: Path) -> None:
    operators = {node.op_type for node in onnx.load(fp32_onnx).graph.node}
    assert operators.isdisjoint({"BatchNormalization", "Shape", "Gather", "Concat", "Identity", "Constant"})


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_answers_as_pytorch_does(fp32_onnx: Path, batch: int) -> None:
    with torch.inference_mode():
        reference = stand_in()(torch.from_numpy(CROPS[:batch])).numpy()
    np.testing.assert_allclose(run_onnx(fp32_onnx, CROPS[:batch]), reference, atol=1e-5)


def test_each_step_is_recorded_with_its_distance(exported: tuple[Path, list[Any]]) -> None:
    records = exported[1]
    assert [record.name for record in records] == ["torch.onnx.export", "simplify", "cast first", "strip"]
    assert all(0 <= record.max_px < 0.01 for record in records)
    assert records[-1].to_json() == {
        "name": "strip",
        "max_px": records[-1].max_px,
        "crops": len(CROPS) + 2,
        "nodes": len(onnx.load(exported[0]).graph.node),
    }


def test_another_folder_gives_the_same_bytes_in_silence(
    fp32_onnx: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.export import networks

    # Stack traces name the file that defines the network, so that one moves too.
    source = shutil.copy(networks.__file__, tmp_path / "moved_networks.py")
    spec = importlib.util.spec_from_file_location("moved_networks", source)
    assert spec is not None
    assert spec.loader is not None
    moved = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(moved)
    program = moved.save_program(moved.stand_in(), tmp_path / "elsewhere" / "program.pt2")
    capfd.readouterr()
    export_onnx(program, tmp_path / "model.onnx", CROPS)
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "model.onnx").read_bytes() == fp32_onnx.read_bytes()


def test_the_file_does_not_say_where_it_was_made(fp32_onnx: Path) -> None:
    model = onnx.load(fp32_onnx)
    parts = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
    assert not any(part.doc_string or part.metadata_props for part in parts)
    content = fp32_onnx.read_bytes()
    assert not any(trace in content for trace in (b"networks", b"StandIn", b".py", b"aten", b"pytorch"))


# ---- mutants: each is what a wrong pass or a wrong exporter could do, and the comparison must catch it ----


def _swap_channels(model: onnx.ModelProto) -> None:
    _edit_first_kernel(model, lambda kernel: kernel[:, ::-1])


def _omit_mean(model: onnx.ModelProto) -> None:
    _edit_operand(model, "Sub", lambda value: value * 0)


def _double(model: onnx.ModelProto) -> None:
    _edit_head(model, lambda weight: weight * 2)


def _swap_xy(model: onnx.ModelProto) -> None:
    _edit_head(model, lambda weight: weight.reshape(POINTS, 2, -1)[:, ::-1].reshape(weight.shape))


def _shift_half_a_pixel(model: onnx.ModelProto) -> None:
    _edit_head(model, lambda weight: weight + 0.5 / CROP_PX, biases=True)


def _drop_a_weight(model: onnx.ModelProto) -> None:
    _edit_head(model, lambda weight: weight * np.nan)


MUTANTS = [_swap_channels, _omit_mean, _double, _swap_xy, _shift_half_a_pixel, _drop_a_weight]


@pytest.mark.parametrize("mutate", MUTANTS)
@pytest.mark.parametrize("gray", [False, True], ids=["colour", "gray"])
def test_a_pass_that_changes_the_network_stops_the_export(
    mutate: Callable[[onnx.ModelProto], None],
    gray: bool,
    program: Path,
    fp32_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(model: onnx.ModelProto) -> onnx.ModelProto:
        mutate(model)
        return model

    monkeypatch.setattr(torch_to_onnx, "_export", lambda *_: onnx.load(fp32_onnx))
    monkeypatch.setattr(torch_to_onnx, "PASSES", (("wrong", wrong),))
    crops = np.repeat(CROPS.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3) if gray else CROPS
    with pytest.raises(ExportError, match=r"After 'wrong' a point lies .* px off"):
        export_onnx(program, tmp_path / "model.onnx", crops)
    assert not (tmp_path / "model.onnx").exists()


def test_a_pass_that_makes_invalid_onnx_is_named(
    program: Path, fp32_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(model: onnx.ModelProto) -> onnx.ModelProto:
        nodes = list(model.graph.node)[::-1]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return model

    monkeypatch.setattr(torch_to_onnx, "_export", lambda *_: onnx.load(fp32_onnx))
    monkeypatch.setattr(torch_to_onnx, "PASSES", (("backwards", backwards),))
    with pytest.raises(ExportError, match="After 'backwards' the graph is not valid ONNX"):
        export_onnx(program, tmp_path / "model.onnx", CROPS)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dynamic": False}, "batches of 2 only"), ({"dtype": torch.float32}, "one uint8 tensor")],
)
def test_programs_that_are_no_landmark_networks_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = save_program(stand_in(), tmp_path / "model.pt2", **options)
    with pytest.raises(ExportError, match=message):
        export_onnx(file, tmp_path / "model.onnx", CROPS)


@pytest.mark.parametrize("content", [None, b"", b"no program"])
def test_files_that_are_no_programs_are_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.pt2 cannot be read as an exported program"):
        export_onnx(tmp_path / "model.pt2", tmp_path / "model.onnx", CROPS)


def test_crops_of_another_size_are_refused(program: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="takes crops of 64 × 64 px"):
        export_onnx(program, tmp_path / "model.onnx", CROPS[:, :32, :32])


@pytest.mark.parametrize("crops", [CROPS.astype(np.float32), CROPS[0], CROPS[:0], CROPS[..., :1], [1, 2]])
def test_what_is_no_batch_of_crops_is_refused(crops: Any, program: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Crops must be uint8"):
        export_onnx(program, tmp_path / "model.onnx", crops)


@pytest.mark.slow
def test_the_real_network_exports(tmp_path: Path) -> None:
    from lmedge.pipeline.models import Architecture, DeployedNetwork, build_network

    torch.manual_seed(0)
    architecture = Architecture("mobilenet_v2", 0.25, "relu", 16, CROP_PX, POINTS)
    program = save_program(DeployedNetwork(build_network(architecture), 128.0, 64.0).eval(), tmp_path / "model.pt2")
    records = export_onnx(program, tmp_path / "model.onnx", CROPS)
    assert records[-1].max_px < 0.01
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def _signature(values: Any) -> list[tuple[str, int, list[Any]]]:
    tensors = [(value.name, value.type.tensor_type) for value in values]
    return [(name, t.elem_type, [dim.dim_param or dim.dim_value for dim in t.shape.dim]) for name, t in tensors]


def _edit(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(array), dtype=array.dtype).reshape(array.shape), name))


def _edit_operand(model: onnx.ModelProto, op_type: str, change: Callable[[Any], Any], operand: int = 1) -> None:
    node = next(node for node in model.graph.node if node.op_type == op_type)
    _edit(model, node.input[operand], change)


def _edit_first_kernel(model: onnx.ModelProto, change: Callable[[Any], Any]) -> None:
    _edit_operand(model, "Conv", change)


def _edit_head(model: onnx.ModelProto, change: Callable[[Any], Any], *, biases: bool = False) -> None:
    """Changes what the last layer answers: its bias, and unless told otherwise its weights."""
    _edit_operand(model, "Gemm", change, 2)
    if not biases:
        _edit_operand(model, "Gemm", change, 1)
