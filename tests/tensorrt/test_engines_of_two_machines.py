"""One bundle, compiled on two machines: each takes its own engine, and says of the other's that it was not looked at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lmedge import FaceLandmarker, assert_parity
from lmedge.bundle import Artifact, Bundle, add_artifacts
from lmedge.errors import BackendUnavailableError, DeviceUnavailableError, DigestMismatchError, EngineMismatchError
from lmedge.export.engine_options import EngineOptions
from lmedge.runtimes import checks, tensorrt
from lmedge.runtimes.bench import Conditions, bench
from lmedge.runtimes.checks import plan_checks, select_here
from lmedge.runtimes.engine_record import record_path
from lmedge.runtimes.onnxruntime import OnnxRuntime
from lmedge.runtimes.tensorrt import TensorRtRuntime
from lmedge.runtimes.verify import verify_bundle
from tests import requirements
from tests.cli.command import DONE, UNAVAILABLE, lmedge
from tests.tensorrt.engines import engine_bundle, engine_of, with_record
from tests.tensorrt.fake_gpu import Device, FakeGpu
from tests.tensorrt.fixtures import check_clean, install

OLD, NEW, THIRD = "10.3.0", "10.13.3.9", "11.4.0"
OF_OLD, OF_NEW = "tensorrt/model.fp32.sm87-trt10.3.engine", "tensorrt/model.fp32.sm87-trt10.13.engine"
REBUILD = r"lmedge compile .* --target tensorrt"
NANO = "Orin Nano"

Move = Callable[[str], None]


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    requirements.require("onnx", "onnxruntime")
    machine = FakeGpu(driver_version=13020, runtime_version=13020)
    yield machine
    check_clean(machine)


@pytest.fixture
def move(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Goes on on a machine with another TensorRT."""
    return lambda version: install(gpu, version, monkeypatch) and None


def with_engine(bundle: Bundle) -> Bundle:
    """The bundle with an engine that was built on the machine of this moment."""
    (network,) = bundle.matching("onnxruntime", "fp32")
    return add_artifacts(bundle, [engine_of(network, bundle.root, EngineOptions())])


@pytest.fixture
def bundle(move: Move, tmp_path: Path) -> Bundle:
    """Compiled with the older TensorRT, then with the newer."""
    move(OLD)
    made = engine_bundle(tmp_path)
    move(NEW)
    return with_engine(made)


def taken(bundle: Bundle) -> str:
    """The path of the engine that opens."""
    with FaceLandmarker.open(bundle, backend="tensorrt") as landmarker:
        return landmarker.runtime.artifact.path


# ---- one of them is for this machine ----


@pytest.mark.parametrize(("version", "path"), [(OLD, OF_OLD), (NEW, OF_NEW)])
def test_each_machine_opens_its_own(bundle: Bundle, move: Move, version: str, path: str) -> None:
    move(version)
    assert taken(bundle) == path


def test_of_two_that_fit_the_last_is_taken(bundle: Bundle, move: Move) -> None:
    move(OLD)
    twice = add_artifacts(bundle, [copy_of(bundle.manifest.artifacts[1])])
    assert taken(twice) == "tensorrt/copy.engine"
    assert [row.artifact for row in bench(twice, ["tensorrt"], conditions=Conditions(iterations=3))] == ["tensorrt/copy.engine"]
    assert len(assert_parity(twice, ["tensorrt"])) == 2


def copy_of(engine: Artifact) -> Artifact:
    copied = Path(shutil.copy(engine.file, engine.file.with_name("copy.engine")))
    shutil.copy(f"{engine.file}.json", f"{copied}.json")
    others = {name: getattr(engine, name) for name in ("format", "precision", "inputs", "outputs", "made_from", "serves")}
    return Artifact.of_file(copied, engine.root, [Path(f"{copied}.json")], **others)


def test_the_device_decides_where_a_machine_has_two(bundle: Bundle, gpu: FakeGpu) -> None:
    other = next(a for a in bundle.manifest.artifacts if a.path == OF_NEW)
    both = add_artifacts(bundle, [with_record(copy_of(other), lambda record: record["machine"].update(gpu=NANO))])
    gpu.devices = (Device("Orin", "8.7"), Device(NANO, "8.7"))
    assert select_here(both, "tensorrt").path == OF_NEW
    assert select_here(both, "tensorrt", device="cuda:1").path == "tensorrt/copy.engine"
    planned, _ = plan_checks(both, ["tensorrt"], device="cuda:1")
    assert [check.artifact.path for check in planned] == ["tensorrt/copy.engine"]
    with FaceLandmarker.open(both, backend="tensorrt", device="cuda:1") as landmarker:
        assert landmarker.runtime.artifact.path == "tensorrt/copy.engine"
    for device, path in (("cuda", OF_NEW), ("cuda:1", "tensorrt/copy.engine")):
        assert [row.artifact for row in bench(both, ["tensorrt"], conditions=Conditions(device=device, iterations=3))] == [path]


@pytest.mark.parametrize(("version", "foreign"), [(OLD, OF_NEW), (NEW, OF_OLD)])
@pytest.mark.parametrize("backends", [None, ["tensorrt"]])
def test_the_others_are_named_and_not_verified(
    bundle: Bundle, move: Move, version: str, foreign: str, backends: list[str] | None
) -> None:
    move(version)
    outcome = verify_bundle(bundle, backends=backends)
    assert outcome.passed
    assert foreign not in [report.artifact for report in outcome.parity]
    (skipped,) = outcome.skipped
    assert skipped.backend == "tensorrt"
    there = NEW if version == OLD else OLD
    assert skipped.reason.startswith(f"{foreign} was built for another machine (TensorRT: built on {there}, here {version}). ")
    assert len(assert_parity(bundle, backends)) == len(outcome.parity)


def test_compiling_here_clears_an_engine_of_elsewhere(move: Move, tmp_path: Path) -> None:
    """What the message says to type is enough."""
    move(OLD)
    made = engine_bundle(tmp_path)
    move(NEW)
    with pytest.raises(BackendUnavailableError, match=rf"{OF_OLD} was built for another machine.*{REBUILD}"):
        verify_bundle(made, backends=["tensorrt"])
    assert verify_bundle(with_engine(made), backends=["tensorrt"]).passed


def test_only_the_fitting_one_is_measured(bundle: Bundle, move: Move) -> None:
    move(OLD)
    assert [row.artifact for row in bench(bundle, ["tensorrt"], conditions=Conditions(iterations=3))] == [OF_OLD]


def test_the_commands_name_what_they_left_out(bundle: Bundle, move: Move) -> None:
    move(OLD)
    verified = lmedge("verify", bundle.root)
    assert verified.code == DONE, verified
    assert f"NOT VERIFIED  tensorrt: {OF_NEW} was built for another machine" in verified.stdout
    timed = lmedge("bench", bundle.root, "--backend", "tensorrt", "--iterations", "3", "--json")
    assert timed.code == DONE, timed
    assert f"NOT MEASURED  tensorrt: {OF_NEW} was built for another machine" in timed.stderr
    assert [row["artifact"] for row in timed.json] == [OF_OLD]


# ---- none is ----


def test_on_a_third_machine_opening_tells_the_difference(bundle: Bundle, move: Move) -> None:
    move(THIRD)
    with pytest.raises(EngineMismatchError, match=rf"TensorRT: built on {NEW}, here 11\.4.*{REBUILD}"):
        taken(bundle)


def test_on_a_third_machine_the_rest_is_verified(bundle: Bundle, move: Move) -> None:
    move(THIRD)
    outcome = verify_bundle(bundle)
    assert outcome.passed
    assert {report.backend for report in outcome.parity} == {"onnxruntime"}
    assert [skip.reason.partition(" ")[0] for skip in outcome.skipped] == [OF_OLD, OF_NEW]


@pytest.mark.parametrize("precisions", [None, ["fp32"]])
def test_what_was_asked_for_and_cannot_be_checked_is_no_success(
    bundle: Bundle, move: Move, precisions: list[str] | None
) -> None:
    move(THIRD)
    for work in (assert_parity, plan_checks):
        with pytest.raises(BackendUnavailableError, match=rf"tensorrt.* cannot be checked here: {OF_OLD}.*{OF_NEW}"):
            work(bundle, ["onnxruntime", "tensorrt"], precisions=precisions)
    assert lmedge("verify", bundle.root, "--backend", "tensorrt").code == UNAVAILABLE


# ---- what is no other machine's ----


def test_a_damaged_record_is_an_error_and_no_other_machine(bundle: Bundle) -> None:
    (bundle.root / record_path(OF_NEW)).write_text("damaged")
    with pytest.raises(DigestMismatchError, match="was changed"):
        verify_bundle(bundle)
    assert TensorRtRuntime.misfit(bundle.matching("tensorrt")[-1]) == ""


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "cuda:7"])
def test_a_device_that_is_not_there_is_told_as_such(bundle: Bundle, device: str) -> None:
    with pytest.raises(DeviceUnavailableError, match=f"has no device '{device}'"):
        FaceLandmarker.open(bundle, backend="tensorrt", device=device)


def test_engines_of_processors_ask_no_gpu(bundle: Bundle, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a bundle with one engine: opening asks by itself."""
    gpu.calls.clear()
    monkeypatch.setattr(tensorrt, "probe_tensorrt", lambda *_, **__: pytest.fail("the GPU was asked for"))
    FaceLandmarker.open(bundle, backend="onnxruntime").close()
    plan_checks(bundle, ["onnxruntime"])
    assert OnnxRuntime.misfit(bundle.matching("onnxruntime")[0]) == ""
    only = Bundle(bundle.root, replace(bundle.manifest, artifacts=bundle.manifest.artifacts[:2]))
    assert checks.select_here(only, "tensorrt").path == OF_OLD
    assert gpu.calls == []
