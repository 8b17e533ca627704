"""`lmedge compile`: engines for the GPU of this machine into a bundle; what it prints, how it ends, what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmedge.bundle import Bundle, one_writer
from tests.cli.command import DONE, ERROR, GATE_FAILED, UNAVAILABLE, USAGE, lmedge
from tests.requirements import REPOSITORY, require
from tests.test_import_boundaries import BLOCK

require("onnx", "onnxruntime")

from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.fake_plan import Plan  # noqa: E402
from tests.tensorrt.fixtures import install, no_gpu  # noqa: E402
from tests.tensorrt.four_precisions import digests, four_precisions  # noqa: E402

__all__ = ["no_gpu"]

VERSION = "10.3.0"
TENSORRT = ("--target", "tensorrt")
QUICK = (*TENSORRT, "--precision", "fp32")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return four_precisions(tmp_path_factory.mktemp("four"))


@pytest.fixture
def bundle(four: Bundle, tmp_path: Path) -> Path:
    """A bundle of four precisions to change."""
    return Path(shutil.copytree(four.root, tmp_path / "bundle"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A device with TensorRT of JetPack 6.2."""
    machine = FakeGpu()
    install(machine, VERSION, monkeypatch)
    return machine


def engines_of(bundle: Path) -> list[str]:
    return [a.precision for a in Bundle.open(bundle).manifest.artifacts if a.format == "tensorrt"]


# What it does


@pytest.mark.usefixtures("gpu")
def test_every_precision_is_compiled_and_the_fastest_is_named(bundle: Path) -> None:
    outcome = lmedge("compile", bundle, *TENSORRT)
    assert outcome.code == DONE, outcome
    assert engines_of(bundle) == ["fp32", "fp16", "int8", "fp16-int8"]
    assert "TensorRT 10.3.0 on Orin, compute capability 8.7" in outcome.stderr
    assert "Fastest: " in outcome.stdout
    for precision in engines_of(bundle):
        assert f"tensorrt/model.{precision}.sm87-trt10.3.engine" in outcome.stdout
    assert "10 of 17" in outcome.stdout, "layers of the int8 engine in int8"
    verified = lmedge("verify", bundle, "--backend", "tensorrt")
    assert verified.code == DONE, verified


@pytest.mark.usefixtures("gpu")
def test_json_is_one_document_with_gates_times_and_layers(bundle: Path) -> None:
    document = lmedge("compile", bundle, *TENSORRT, "--json").json
    assert document["passed"] is True
    assert document["bundle"] == str(bundle)
    assert document["machine"]["gpu"] == "Orin"
    assert document["fastest"] in [engine["precision"] for engine in document["engines"]]
    assert document["left_out"] == []
    for engine in document["engines"]:
        assert engine["latency"]["p50_ms"] > 0
        assert engine["artifact"]["requires"]["compute_capability"] == "8.7"
        assert engine["parity"][0]["gates"]
    int8 = document["engines"][2]
    assert (int8["precision"], len(int8["layers"]["int8_convolutions"])) == ("int8", 10)


@pytest.mark.usefixtures("gpu")
def test_options_reach_the_build(bundle: Path) -> None:
    options = ("--batch", "1:8:32", "--workspace", "64", "--level", "4", "--version-compatible", "--hardware-compatible")
    assert lmedge("compile", bundle, *QUICK, *options).code == DONE
    (engine,) = [a for a in Bundle.open(bundle).manifest.artifacts if a.format == "tensorrt"]
    plan = Plan.from_bytes(engine.file.read_bytes())
    assert [shape[0] for shape in plan.profiles[0]["image"]] == [1, 8, 32]
    assert (plan.workspace_bytes, plan.optimization_level) == (64 << 20, 4)
    assert "VERSION_COMPATIBLE" in plan.flags
    assert plan.hardware_compatibility == "AMPERE_PLUS"


@pytest.mark.usefixtures("gpu")
def test_retime_measures_anew(bundle: Path) -> None:
    def tactics() -> dict[str, int]:
        (engine,) = (bundle / "tensorrt").glob("*.engine")
        return Plan.from_bytes(engine.read_bytes()).tactics

    lmedge("compile", bundle, *QUICK)
    first = tactics()
    lmedge("compile", bundle, *QUICK)
    assert tactics() == first
    lmedge("compile", bundle, *QUICK, "--retime")
    assert tactics() != first


# How it ends


@pytest.mark.usefixtures("gpu")
def test_a_gate_that_fails_is_named_and_the_others_are_kept(bundle: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[gates]\nfp16_max_px = 0.0\n")
    outcome = lmedge("compile", bundle, *TENSORRT, "--precision", "fp32", "--precision", "fp16", "--config", limits)
    assert outcome.code == GATE_FAILED
    assert "tensorrt fp16 (tensorrt/model.fp16.sm87-trt10.3.engine) against golden, batch 1: max_px is" in outcome.stderr
    assert "FAILED" in outcome.stdout
    assert "not kept" in outcome.stdout
    assert engines_of(bundle) == ["fp32"]


@pytest.mark.usefixtures("gpu")
def test_a_failed_gate_leaves_json_whole(bundle: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[gates]\nfp16_max_px = 0.0\n")
    outcome = lmedge("compile", bundle, *TENSORRT, "--precision", "fp16", "--config", limits, "--json")
    assert outcome.code == GATE_FAILED
    assert outcome.json["passed"] is False
    assert outcome.json["fastest"] is None
    assert engines_of(bundle) == []


def test_a_precision_that_cannot_be_built_is_told_and_the_others_are_kept(bundle: Path, gpu: FakeGpu) -> None:
    gpu.fail("OnnxParser.parse", message="No importer registered for op: Levitate", skip=2)
    outcome = lmedge("compile", bundle, *TENSORRT)
    assert outcome.code == ERROR
    assert engines_of(bundle) == ["fp32", "fp16", "fp16-int8"]
    assert "No TensorRT engine for int8; the others were built." in outcome.stderr
    assert "No importer registered for op: Levitate" in outcome.stderr
    assert "NOT BUILT" in outcome.stdout
    assert "Fastest: " in outcome.stdout


def test_json_has_the_reason_of_a_precision_that_cannot_be_built(bundle: Path, gpu: FakeGpu) -> None:
    gpu.fail("Builder.build_serialized_network", message="no kernel", skip=1)
    outcome = lmedge("compile", bundle, *TENSORRT, "--precision", "fp32", "--precision", "fp16", "--json")
    assert outcome.code == ERROR
    assert outcome.json["passed"] is False
    assert outcome.json["fastest"] == "fp32"
    (failed,) = outcome.json["failed"]
    assert failed["precision"] == "fp16"
    assert "no kernel" in failed["reason"]


def test_a_failed_gate_decides_the_exit_code_and_what_was_not_built_is_told_too(
    bundle: Path, gpu: FakeGpu, tmp_path: Path
) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[gates]\nfp16_max_px = 0.0\n")
    gpu.fail("Builder.build_serialized_network", message="no kernel", skip=2)
    outcome = lmedge("compile", bundle, *TENSORRT, "--config", limits)
    assert outcome.code == GATE_FAILED
    assert "No TensorRT engine for int8" in outcome.stderr
    assert "no kernel" in outcome.stderr
    assert "max_px is" in outcome.stderr
    assert engines_of(bundle) == ["fp32", "fp16-int8"]


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_says_why_and_where_to_run_it(bundle: Path) -> None:
    before = digests(bundle)
    outcome = lmedge("compile", bundle, *TENSORRT)
    outcome.assert_clear_error(
        UNAVAILABLE, "Engines are built on the GPU that runs them", "driver: ", "lmedge doctor", f"Copy the bundle {bundle}"
    )
    assert "lmedge compile BUNDLE --target tensorrt" in outcome.stderr
    assert digests(bundle) == before


def test_without_tensorrt_it_says_how_to_install_it(bundle: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    lmedge("compile", bundle, *TENSORRT).assert_clear_error(UNAVAILABLE, "tensorrt does not import", "--system-site-packages")


def test_a_file_that_tensorrt_does_not_take(bundle: Path, gpu: FakeGpu) -> None:
    gpu.fail("OnnxParser.parse", message="No importer registered for op: Levitate")
    before = digests(bundle)
    outcome = lmedge("compile", bundle, *QUICK)
    assert outcome.code == ERROR
    assert outcome.stdout == ""
    assert "does not take model.fp32.onnx" in outcome.stderr
    assert "No importer registered for op: Levitate" in outcome.stderr
    assert digests(bundle) == before


@pytest.mark.usefixtures("gpu")
def test_two_at_once(bundle: Path) -> None:
    with one_writer(bundle):
        outcome = lmedge("compile", bundle, *QUICK)
    assert outcome.code == ERROR
    assert "adds engines to" in outcome.stderr
    assert lmedge("compile", bundle, *QUICK).code == DONE


INPUTS = {
    "no target": ([], ERROR, ("--target tensorrt",)),
    "a target that is made by build": (["--target", "openvino"], ERROR, ("Only tensorrt", "lmedge build --target openvino")),
    "an engine that loads ONNX": ([*TENSORRT, "--target", "onnxruntime"], ERROR, ("got onnxruntime",)),
    "a batch that falls": ([*TENSORRT, "--batch", "8:1"], ERROR, ("LEAST:USUAL:MOST", "--batch 1:8:32", "got '8:1'")),
    "a least batch above one": ([*TENSORRT, "--batch", "2:4:8"], ERROR, ("least batch of an engine must be 1",)),
    "settings of a run": ([*TENSORRT, "--set", "name=x"], ERROR, ("--set changes the configuration of a run folder",)),
    "no device": ([*TENSORRT, "--device", "tpu"], ERROR, ("got 'tpu'",)),
    "a precision that does not exist": ([*TENSORRT, "--precision", "int4"], USAGE, ()),
    "no workspace": ([*TENSORRT, "--workspace", "0"], USAGE, ()),
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", INPUTS)
def test_input_that_cannot_be_used(name: str, bundle: Path) -> None:
    arguments, code, parts = INPUTS[name]
    before = digests(bundle)
    lmedge("compile", bundle, *arguments).assert_clear_error(code, *parts)
    assert digests(bundle) == before


def test_a_gpu_that_is_not_there(bundle: Path, gpu: FakeGpu) -> None:
    lmedge("compile", bundle, *TENSORRT, "--device", "cuda:3").assert_clear_error(UNAVAILABLE, "there is no device 3")


def test_a_folder_that_is_neither_bundle_nor_run(tmp_path: Path) -> None:
    outcome = lmedge("compile", tmp_path, *TENSORRT)
    outcome.assert_clear_error(ERROR, "neither a bundle (it has no manifest.json) nor a run folder (it has no config.json)")


def test_options_of_a_bundle_are_refused_on_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    outcome = lmedge("compile", tmp_path, *TENSORRT, "--batch", "1:2:4", "--retime")
    outcome.assert_clear_error(ERROR, "--batch, --retime are for bundles")


# What it needs


COMMAND = """
from lmedge.cli import main
sys.argv = ["lmedge", "compile", {bundle!r}, "--target", "tensorrt"]
main()
"""
FUNCTION = """
from lmedge.bundle import Bundle
from lmedge.errors import BackendUnavailableError
from lmedge.export.race_tensorrt import compile_bundle
try:
    compile_bundle(Bundle.open({bundle!r}))
except BackendUnavailableError as error:
    print("Engines are built on the GPU that runs them", error, asked, file=sys.stderr)
    sys.exit(4)
"""
ENGINES = ("torch", "onnx", "onnxruntime", "openvino", "jinja2", "matplotlib", "nncf")


# Some versions of typer, which reads the command line, bring pydantic; what compiles does not need it.
@pytest.mark.parametrize(("code", "blocked"), [(COMMAND, ENGINES), (FUNCTION, (*ENGINES, "pydantic", "typer"))])
def test_a_device_needs_neither_torch_nor_onnx_nor_pydantic(code: str, blocked: tuple[str, ...], bundle: Path) -> None:
    """It comes as far as the driver, with all that it uses imported on the way."""
    script = BLOCK.format(blocked=blocked) + code.format(bundle=str(bundle))
    ended = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == UNAVAILABLE, ended.stderr
    assert "Engines are built on the GPU that runs them" in ended.stderr
    assert "driver: " in ended.stderr
    if code is FUNCTION:
        assert "[]" in ended.stderr, "nothing that is blocked was asked for"
