"""The fake TensorRT's build half: what the parser refuses, what a build needs, and what it remembers."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import bundles, requirements
from tests.tensorrt.api_names import ONLY_8, ONLY_11
from tests.tensorrt.by_hand import Build, Run, make_logger
from tests.tensorrt.fake_gpu import Crash, FakeGpu
from tests.tensorrt.fake_plan import Plan

requirements.require("onnx", "onnxruntime")
import onnx  # noqa: E402

from lmedge.export.graph.lint_qdq import REFUSED, RULES  # noqa: E402
from tests.export import qdq_texts  # noqa: E402
from tests.export.qdq_texts import CASES, SOUND, Case, parse  # noqa: E402


@pytest.fixture
def trt(fake_gpu: FakeGpu) -> Any:
    return sys.modules["tensorrt"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return bundles.tiny_onnx(tmp_path)


def saved(text: str, folder: Path) -> Path:
    file = folder / "graph.onnx"
    onnx.save(parse(text), file)
    return file


# ---- what the parser refuses ----

# Unsigned quantisers with zero point 0 in pairs: TensorRT 10 and 11 warn, and go on with another network than the file holds.
MISREAD = "activation-type-uint8"
# Their quantisers have float16 scales, which 8.6 does not take.
HALF_SCALES = ("opset-fp16", "mixed-types")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_parser_refuses_what_the_linter_calls_refused(case: Case, trt: Any, tmp_path: Path, tensorrt_version: str) -> None:
    build = Build(trt, saved(case.broken, tmp_path))
    if str(case) == MISREAD and tensorrt_version not in ONLY_8:
        assert build.parsed
        assert "Defaulting to INT8 instead" in build.logger.text
    else:
        assert build.parsed == (RULES[case.rule].effect != REFUSED)
        assert bool(build.errors) != build.parsed
    if not (tensorrt_version in ONLY_8 and str(case) in HALF_SCALES):
        assert Build(trt, saved(case.sound, tmp_path)).parsed


# The words of TensorRT for RTX, which the tests of lmedge's own messages may rely on.
SAID = {
    "bias-int32": "input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8",
    "zero-point": "Non-zero zero point is not supported",
    "activation-type-uint8-input": "Found unsupported input type of UINT8",
    "scale-positive-zero": "Scale coefficients must all be positive",
    "mixed-types": "`input` and `kernel` must be of same type",
    "uint8-tensor": "first input has type UInt8 but must have type Float, Half, BFloat16",
}


@pytest.mark.parametrize("name", SAID)
def test_it_says_what_the_real_one_says(name: str, trt: Any, tmp_path: Path, tensorrt_version: str) -> None:
    case = next(case for case in CASES if str(case) == name)
    said = "scale must be of type FP32" if name in HALF_SCALES and tensorrt_version in ONLY_8 else SAID[name]
    build = Build(trt, saved(case.broken, tmp_path))
    assert said in build.errors[0]
    assert said in build.logger.text


def test_it_lists_all_operators_that_it_does_not_know_and_else_the_first_problem(trt: Any, tmp_path: Path) -> None:
    unknown = Build(trt, saved(qdq_texts.graph("[a] t = Det (x) [b] u = Unique (x) y = Relu (x)"), tmp_path))
    assert [unknown.parser.get_error(index).node() for index in range(unknown.parser.num_errors)] == [0, 1]
    pairs = f"{qdq_texts.pair('x', 'xd', zero='z3')} r = Relu (xd) {qdq_texts.pair('r', 'y', zero='z3')}"
    assert len(Build(trt, saved(qdq_texts.graph(pairs), tmp_path)).errors) == 1


def test_an_error_names_its_node_since_10(trt: Any, tmp_path: Path, tensorrt_version: str) -> None:
    build = Build(trt, saved(qdq_texts.graph("[a] t = Det (x) y = Relu (x)"), tmp_path))
    error = build.parser.get_error(0)
    assert error.code() == trt.ErrorCode.UNSUPPORTED_NODE
    assert ("Plugin not found" in error.desc()) == (tensorrt_version not in ONLY_11)
    if tensorrt_version in ONLY_8:
        assert not hasattr(error, "node_name")
    else:
        assert (error.node_name(), error.node_operator()) == ("a", "Det")


def test_8_takes_no_half_precision_scales(trt: Any, tmp_path: Path, tensorrt_version: str) -> None:
    case = next(case for case in CASES if str(case) == "opset-fp16")
    assert Build(trt, saved(case.sound, tmp_path)).parsed == (tensorrt_version not in ONLY_8)


def test_a_file_that_is_missing_broken_or_empty(trt: Any, tmp_path: Path) -> None:
    assert "cannot be found" in Build(trt, tmp_path / "nowhere.onnx").errors[0]
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not an ONNX file")
    assert "Failed to parse the ONNX model" in Build(trt, broken).errors[0]
    broken.write_bytes(b"")
    empty = Build(trt, broken)
    assert (empty.parsed, empty.network.num_inputs, empty.plan()) == (True, 0, None)
    assert "at least one output" in empty.logger.text
    with pytest.raises(TypeError, match="str expected"):
        empty.parser.parse_from_file(broken)


# ---- what a build needs ----


def test_8_needs_an_explicit_batch(trt: Any, network: Path, tensorrt_version: str) -> None:
    build = Build(trt, network, network_flags=0)
    assert build.parsed == (tensorrt_version not in ONLY_8)
    if not build.parsed:
        assert "explicit batch dimension" in build.errors[0]


def test_a_varying_batch_needs_a_profile_that_fits(trt: Any, network: Path) -> None:
    def plan_with(name: str, least: tuple[int, ...], most: tuple[int, ...]) -> tuple[int, bytes | None, str]:
        build = Build(trt, network)
        profile = build.builder.create_optimization_profile()
        profile.set_shape(name, least, least, most)
        return build.config.add_optimization_profile(profile), build.plan(), build.logger.text

    bare = Build(trt, network)
    assert bare.plan() is None
    assert "no optimization profile has been defined" in bare.logger.text
    number, _, said = plan_with("image", (2, 32, 32, 3), (1, 32, 32, 3))
    assert number == -1
    assert "MIN<=OPT<=MAX" in said
    number, plan, said = plan_with("picture", (1, 32, 32, 3), (1, 32, 32, 3))
    assert (number, plan) == (0, None)
    assert "image is missing dimensions in profile 0" in said
    number, plan, said = plan_with("image", (1, 31, 32, 3), (1, 31, 32, 3))
    assert (number, plan) == (0, None)
    assert "Dimension mismatch" in said


@pytest.mark.parametrize(("text", "flag"), [(SOUND, "INT8"), (SOUND.replace("float", "float16"), "FP16")])
def test_weakly_typed_networks_need_flags_and_strongly_typed_ones_take_none(
    text: str, flag: str, trt: Any, tmp_path: Path, tensorrt_version: str
) -> None:
    source = saved(text, tmp_path) if flag == "INT8" else half_network(tmp_path)
    plain = Build(trt, source)
    plain.add_profile()
    assert (plain.plan() is not None) == (tensorrt_version not in ONLY_8), plain.logger.text
    assert hasattr(trt.BuilderFlag, flag) == (tensorrt_version not in ONLY_11)
    if tensorrt_version in ONLY_11:
        return
    flagged = Build(trt, source)
    flagged.config.set_flag(getattr(trt.BuilderFlag, flag))
    flagged.add_profile()
    assert (flagged.plan() is not None) == (tensorrt_version in ONLY_8), flagged.logger.text
    if tensorrt_version not in ONLY_8:  # without the network's flag, 10 is as weakly typed as 8
        weak = Build(trt, source, network_flags=0)
        weak.add_profile()
        assert weak.plan() is None
        assert f"{flag.lower()} is not configured in the builder" in weak.logger.text


def half_network(folder: Path) -> Path:
    from lmedge.export.graph.to_fp16 import to_fp16

    onnx.save(to_fp16(onnx.load(bundles.tiny_onnx(folder / "full"))), folder / "half.onnx")
    return folder / "half.onnx"


def test_tf32_is_on_until_it_is_cleared_and_changes_answers(trt: Any, fake_gpu: FakeGpu, network: Path) -> None:
    crops = bundles.random_crops(1)
    answers = []
    for cleared in (False, True):
        build = Build(trt, network)
        if not cleared:
            build.config = build.builder.create_builder_config()
            assert build.config.get_flag(trt.BuilderFlag.TF32)
            assert build.config.flags == 1 << int(trt.BuilderFlag.TF32)
        build.add_profile()
        plan = build.plan()
        assert plan is not None
        run = Run(trt, sys.modules["cuda.bindings.runtime"], plan, {"image": crops})
        answers.append(run.whole()["landmarks"].copy())
        run.close()
    expected = bundles.tiny_answer(crops)
    assert np.abs(answers[1] - expected).max() < 1e-6
    assert 1e-4 < np.abs(answers[0] - expected).max() < 1e-3


def test_too_little_workspace_and_unknown_options(trt: Any, network: Path) -> None:
    build = Build(trt, network)
    build.add_profile()
    build.config.builder_optimization_level = 9
    assert build.config.builder_optimization_level == 5
    assert not build.config.set_tactic_sources(1 << 9)
    assert build.builder.create_network(1 << 9) is None
    build.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1)
    assert build.plan() is None
    assert "within workspace limit" in build.logger.text
    for wrong in (lambda: build.config.set_flag(6), lambda: setattr(build.config, "profiling_verbosity", 2)):
        with pytest.raises(TypeError):
            wrong()


# ---- what must stay alive, and what there must be ----


def test_the_parser_does_not_keep_its_network(trt: Any, network: Path) -> None:
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    parser = trt.OnnxParser(builder.create_network(0), logger)
    gc.collect()
    with pytest.raises(Crash, match="network was freed"):
        parser.parse_from_file(str(network))


def test_the_logger_must_outlive_what_speaks_to_it(trt: Any, network: Path) -> None:
    builder = trt.Builder(make_logger(trt))
    config = builder.create_builder_config()
    with pytest.raises(Crash, match="logger was freed"):
        builder.build_serialized_network(builder.create_network(0), config)


def test_each_speaks_to_its_own_logger_and_a_second_logger_hears_a_warning(trt: Any) -> None:
    first, second = make_logger(trt), make_logger(trt)
    builder = trt.Builder(first)
    runtime = trt.Runtime(second)
    assert runtime.deserialize_cuda_engine(b"no plan") is None
    assert not first.lines
    assert "differs from one already registered" in second.text
    assert "minBufferSize" in second.text
    del builder, runtime
    third = make_logger(trt)
    trt.Runtime(third)
    assert not third.lines


def test_the_first_logger_must_outlive_every_builder_and_runtime(trt: Any, fake_gpu: FakeGpu) -> None:
    """The library as a whole points to it: with TensorRT for RTX the next plugin library that was loaded ended the process."""
    loggers = [make_logger(trt), make_logger(trt)]
    builder = trt.Builder(loggers[0])
    runtime = trt.Runtime(loggers[1])
    del builder
    loggers.pop(0)
    gc.collect()
    assert fake_gpu.faults == ["the logger that TensorRT was given first was freed, and TensorRT still points to it"]
    fake_gpu.faults.clear()
    del runtime
    loggers.clear()
    gc.collect()
    assert fake_gpu.faults == []


def test_without_a_gpu_the_builder_raises_and_the_runtime_ends_the_process(no_gpu: FakeGpu) -> None:
    trt = sys.modules["tensorrt"]
    logger = make_logger(trt)
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        trt.Builder(logger)
    assert "CUDA initialization failure with error: 35" in logger.text
    with pytest.raises(Crash, match="SIGSEGV"):
        trt.Runtime(logger)


# ---- failures that are asked for ----


def test_failures_of_a_build_come_with_their_message(trt: Any, fake_gpu: FakeGpu, network: Path) -> None:
    fake_gpu.fail("Builder.build_serialized_network", message="OutOfMemory (Requested size was 1073741824 bytes.)")
    build = Build(trt, network)
    build.add_profile()
    assert build.plan() is None
    assert "OutOfMemory" in build.logger.text
    plan = build.plan()
    assert plan is not None
    assert Plan.from_bytes(plan).profiles == ({"image": ((1, 32, 32, 3), (2, 32, 32, 3), (8, 32, 32, 3))},)
    fake_gpu.fail("OnnxParser.parse", message="injected")
    assert Build(trt, network).errors == ["injected"]
    fake_gpu.fail("Builder")
    with pytest.raises(TypeError, match="nullptr"):
        Build(trt, network)
