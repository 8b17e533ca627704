"""One ONNX file → one engine, on every version: what TensorRT is told, what is kept, and what is said when it refuses."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import helper  # noqa: E402

from lmedge.bundle import Artifact, Bundle  # noqa: E402
from lmedge.errors import DigestMismatchError, ExportError, LmedgeError  # noqa: E402
from lmedge.export.race_tensorrt import onnx_sources  # noqa: E402
from lmedge.runtimes.engine_record import BatchProfile, EngineRecord  # noqa: E402
from lmedge.runtimes.tensorrt_machine import probe_tensorrt  # noqa: E402
from tests import bundles  # noqa: E402
from tests.tensorrt import fake_parser  # noqa: E402
from tests.tensorrt.compiling import Compile, plan_of  # noqa: E402
from tests.tensorrt.fake_gpu import Device, FakeGpu  # noqa: E402
from tests.tensorrt.four_precisions import digests  # noqa: E402

LEGACY = "8.6.0"


def changed_network(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Artifact:
    """The tiny network after a change, as an artifact."""
    file = bundles.tiny_onnx(folder)
    model = onnx.load(file)
    change(model)
    onnx.save(model, file)
    return bundles.artifact_of(file)


# What TensorRT is told


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp16-int8"])
def test_types_come_from_the_file_and_only_tensorrt_8_is_told_by_flags(
    precision: str, compile_one: Compile, tensorrt_version: str
) -> None:
    if (precision, tensorrt_version) == ("fp16-int8", LEGACY):
        with pytest.raises(ExportError, match="The scale must be of type FP32"):
            compile_one(precision)
        return
    plan = plan_of(compile_one(precision))
    typed = {"FP16", "INT8", "BF16", "FP8"} & set(plan.flags)
    if tensorrt_version == LEGACY:
        assert plan.network_flags == ("EXPLICIT_BATCH",)
        assert typed == {"fp32": set(), "fp16": {"FP16"}, "int8": {"INT8"}}[precision]
    else:
        assert plan.network_flags == ("STRONGLY_TYPED",)
        assert typed == set()


def test_tf32_is_off(compile_one: Compile) -> None:
    made = compile_one("fp32")
    assert "TF32" not in plan_of(made).flags
    assert made.record.options["tf32"] is False


def test_tensorrt_8_takes_no_kernel_of_cublas_and_cudnn(compile_one: Compile, fake_gpu: FakeGpu, tensorrt_version: str) -> None:
    compile_one("fp32")
    asked = fake_gpu.arguments("IBuilderConfig.set_tactic_sources")
    if tensorrt_version == LEGACY:
        import tensorrt

        kernels = (tensorrt.TacticSource.EDGE_MASK_CONVOLUTIONS, tensorrt.TacticSource.JIT_CONVOLUTIONS)
        assert asked == [(sum(1 << int(kernel) for kernel in kernels),)]
    else:
        assert asked == []


def test_an_engine_takes_the_batch_sizes_of_its_profile(compile_one: Compile) -> None:
    made = compile_one("fp32", batch=BatchProfile(1, 8, 32))
    image = (32, 32, 3)
    assert plan_of(made).profiles == ({"image": ((1, *image), (8, *image), (32, *image))},)
    assert made.record.profile == BatchProfile(1, 8, 32)


def test_the_profile_is_one_face_by_default(compile_one: Compile) -> None:
    (profile,) = plan_of(compile_one("fp32")).profiles
    assert {shape[0] for shape in profile["image"]} == {1}


def test_limits_and_levels_arrive(compile_one: Compile) -> None:
    made = compile_one("fp32", workspace_mib=64, optimisation_level=5)
    plan = plan_of(made)
    assert (plan.workspace_bytes, plan.optimization_level, plan.verbosity) == (64 << 20, 5, "DETAILED")
    assert (made.record.options["workspace_mib"], made.record.options["optimisation_level"]) == (64, 5)


def test_compatible_engines_are_asked_for_and_recorded(compile_one: Compile) -> None:
    made = compile_one("fp32", version_compatible=True, hardware_compatible=True)
    plan = plan_of(made)
    assert "VERSION_COMPATIBLE" in plan.flags
    assert plan.hardware_compatibility == "AMPERE_PLUS"
    assert (made.record.version_compatible, made.record.hardware_compatible) == (True, True)
    usual = compile_one("fp32")
    assert "VERSION_COMPATIBLE" not in plan_of(usual).flags
    assert plan_of(usual).hardware_compatibility == "NONE"


def test_an_option_that_this_tensorrt_lacks_is_refused_not_ignored(
    compile_one: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt

    monkeypatch.delattr(tensorrt.BuilderFlag, "VERSION_COMPATIBLE")
    with pytest.raises(ExportError, match=r"has no VERSION_COMPATIBLE\. Leave that option out"):
        compile_one("fp32", version_compatible=True)


def test_an_engine_is_for_the_gpu_that_was_asked_for(compile_one: Compile, fake_gpu: FakeGpu) -> None:
    fake_gpu.devices = (Device(), Device("Thor", "11.0"))
    made = compile_one("fp32", device=1)
    assert plan_of(made).compute_capability == "11.0"
    assert made.plan.name.startswith("model.fp32.sm110-trt")


def test_nothing_is_written_to_the_terminal_and_nothing_stays_allocated(compile_one: Compile, fake_gpu: FakeGpu) -> None:
    compile_one("int8")
    assert fake_gpu.terminal == []
    assert fake_gpu.allocations == []


# What is kept


def test_plan_layers_and_record_lie_side_by_side(compile_one: Compile, tensorrt_version: str, built: Bundle) -> None:
    made = compile_one("int8")
    release = ".".join(tensorrt_version.split(".")[:2])
    stem = f"model.int8.sm87-trt{release}"
    assert [file.name for file in made.files] == [f"{stem}.engine", f"{stem}.layers.json", f"{stem}.engine.json"]
    assert sorted(path.name for path in made.plan.parent.iterdir()) == sorted(file.name for file in made.files)
    record = EngineRecord.read(made.record_file)
    assert record == made.record
    source = onnx_sources(built)["int8"]
    assert (record.onnx, record.onnx_sha256, record.precision) == (source.path, source.sha256, "int8")
    assert (record.inputs, record.outputs) == (source.inputs, source.outputs)
    assert record.machine == probe_tensorrt().machine
    assert record.options["strongly_typed"] is (tensorrt_version != LEGACY)
    assert record.timing_cache_sha256 is None


def test_the_layers_in_int8_are_counted_and_named(compile_one: Compile) -> None:
    made = compile_one("int8")
    assert json.loads(made.layers_file.read_text())["Layers"]
    assert made.layers.by_precision["int8"] == 10
    assert len(made.layers.int8_convolutions) == 10
    assert made.layers.float_convolutions == ()
    assert made.record.layers == made.layers.by_precision
    assert compile_one("fp32").layers.int8_convolutions == ()


def test_the_record_is_written_last(compile_one: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: EngineRecord, file: Path) -> None:
        written.extend(sorted(path.suffix for path in file.parent.iterdir()))
        raise LmedgeError("disk full")

    written: list[str] = []
    monkeypatch.setattr(EngineRecord, "write", fail)
    with pytest.raises(LmedgeError, match="disk full"):
        compile_one("fp32", timing_cache=None)
    assert written == [".engine", ".json"]


# What TensorRT refuses


def two_bad_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Unique", ["landmarks"], ["values"], name="first_bad"))
    model.graph.node.append(helper.make_node("BitwiseNot", ["image"], ["flipped"], name="fine"))
    model.graph.node.append(helper.make_node("Det", ["landmarks"], ["area"], name="second_bad"))


def test_every_problem_of_the_parser_is_told_with_its_node(compile_one: Compile, tmp_path: Path, tensorrt_version: str) -> None:
    source = changed_network(tmp_path, two_bad_nodes)
    with pytest.raises(ExportError) as refused:
        compile_one(source=source)
    text = str(refused.value)
    assert f"TensorRT {tensorrt_version}" in text
    assert "does not take model.fp32.onnx" in text
    assert f"lmedge inspect {source.file} --lint" in text
    if tensorrt_version == LEGACY:  # it gives numbers of nodes, and what it has against them in its log
        assert text.count("  node ") == 2
        assert "name: first_bad and operator: Unique: " in text
        assert "name: second_bad and operator: Det: " in text
    else:
        assert "first_bad (Unique): " in text
        assert "second_bad (Det): " in text
    assert not (tmp_path / "tensorrt").exists()


def test_a_parser_that_gives_no_reason_is_quoted_from_its_log(
    compile_one: Compile, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.fail("OnnxParser.parse", message="out of cheese")
    monkeypatch.setattr(type(make_parser()), "num_errors", 0)
    with pytest.raises(ExportError, match="out of cheese"):
        compile_one("fp32")


def make_parser() -> Any:
    import tensorrt

    network = (builder := tensorrt.Builder(log := tensorrt.Logger())).create_network(0)
    return tensorrt.OnnxParser(network, log) if builder else None


def test_unsigned_values_that_the_parser_reads_as_signed_are_refused(
    compile_one: Compile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TensorRT's parser only warns, and goes on with another network than the file holds."""
    parse = fake_parser.OnnxParser._parse

    def misread(self: Any, data: bytes) -> bool:
        self._log.warning("TensorRT doesn't support UINT8 zero points: using INT8 instead.")
        return parse(self, data)

    monkeypatch.setattr(type(make_parser()), "_parse", misread)
    with pytest.raises(ExportError, match="using INT8 instead"):
        compile_one("fp32")
    assert not (tmp_path / "tensorrt").exists()


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("Builder.build_serialized_network", "builds no engine"),
        ("IBuilderConfig.add_optimization_profile", "takes no batch of 1:1:1"),
        ("Runtime.deserialize_cuda_engine", "does not open the engine that it built"),
        ("ICudaEngine.create_engine_inspector", "tells no layers of the engine that it built"),
    ],
)
def test_a_build_that_fails_quotes_tensorrts_log_and_writes_nothing(
    call: str, what: str, compile_one: Compile, fake_gpu: FakeGpu, tmp_path: Path
) -> None:
    fake_gpu.fail(call, message="Error Code 10: could not find any implementation")
    with pytest.raises(ExportError, match=f"{what} for model.fp32.onnx.*Error Code 10: could not find any implementation"):
        compile_one("fp32")
    assert not (tmp_path / "tensorrt").exists()


def test_a_fixed_batch_is_refused(compile_one: Compile, tmp_path: Path) -> None:
    def fix(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    with pytest.raises(ExportError, match=r"'image' must have a free batch and no other free size; it is \(4, 32, 32, 3\)"):
        compile_one(source=changed_network(tmp_path, fix))


def test_a_file_that_was_changed_is_not_compiled(compile_one: Compile, tmp_path: Path) -> None:
    source = replace(bundles.artifact_of(bundles.tiny_onnx(tmp_path)), sha256="0" * 64)
    with pytest.raises(DigestMismatchError):
        compile_one(source=source)


def test_the_inspector_goes_before_its_engine(compile_one: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bindings of older versions do not keep the engine alive for it, and its destructor then reads freed memory."""
    import tensorrt

    gone: list[str] = []
    inspect = tensorrt.ICudaEngine.create_engine_inspector

    def watched(self: Any) -> Any:
        inspector = inspect(self)
        inspector._engine = weakref.proxy(self)
        for name, thing in {"engine": self, "inspector": inspector}.items():
            weakref.finalize(thing, gone.append, name)
        return inspector

    monkeypatch.setattr(tensorrt.ICudaEngine, "create_engine_inspector", watched)
    compile_one("fp32")
    assert gone == ["inspector", "engine"]


def test_the_bundle_is_only_read(compile_one: Compile, built: Bundle) -> None:
    before = digests(built.root)
    compile_one("fp16")
    assert digests(built.root) == before
