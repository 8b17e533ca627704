"""A bundle compiled on a device: what goes in, what stays out, and that any failure leaves every byte as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

import onnx  # noqa: E402

from lmedge.bundle import MANIFEST, WRITER, Bundle, add_artifacts, file_digest, one_writer  # noqa: E402
from lmedge.bundle import install as install_module  # noqa: E402
from lmedge.errors import (  # noqa: E402
    BackendUnavailableError,
    BundleError,
    DeviceUnavailableError,
    ExportError,
    InputError,
    LmedgeError,
)
from lmedge.export import race_tensorrt as module  # noqa: E402
from lmedge.export.engine_options import EngineOptions  # noqa: E402
from lmedge.export.race_outcome import RaceOutcome  # noqa: E402
from lmedge.export.race_tensorrt import compile_bundle, device_index, find_machine, timings_path  # noqa: E402
from lmedge.reports import LatencyReport  # noqa: E402
from lmedge.runtimes.engine_record import BatchProfile  # noqa: E402
from lmedge.runtimes.gates import GateLimits  # noqa: E402
from lmedge.runtimes.golden import Golden  # noqa: E402
from lmedge.runtimes.landmarker import FaceLandmarker  # noqa: E402
from lmedge.runtimes.verify import verify_bundle  # noqa: E402
from tests.requirements import REPOSITORY  # noqa: E402
from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.fake_plan import Plan  # noqa: E402
from tests.tensorrt.four_precisions import digests, four_precisions  # noqa: E402

LEGACY = "8.6.0"
P50_MS = {"fp32": 0.9, "fp16": 0.3, "int8": 0.4, "fp16-int8": 0.35}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return four_precisions(tmp_path_factory.mktemp("four"))


@pytest.fixture
def bundle(built: Bundle, tmp_path: Path) -> Bundle:
    """The bundle in a folder of its own."""
    return Bundle.open(shutil.copytree(built.root, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies that do not depend on this machine."""

    def measured(bundle: Bundle, backends: list[str], precisions: list[str], **options: Any) -> list[LatencyReport]:
        times = [P50_MS[precision] for precision in precisions]
        return [LatencyReport("tensorrt", p, None, 1, t, t, t, 9, t, t, t) for p, t in zip(precisions, times, strict=True)]

    monkeypatch.setattr(module, "bench", measured)


def compiled(bundle: Bundle, precisions: list[str] | None = None, **options: Any) -> RaceOutcome:
    return compile_bundle(Bundle.open(bundle.root), precisions, **options)


def engines_in(bundle: Bundle) -> dict[str, str]:
    """Precision → path of every engine that the manifest names."""
    return {a.precision: a.path for a in Bundle.open(bundle.root).manifest.artifacts if a.format == "tensorrt"}


def tactics(bundle: Bundle, precision: str) -> dict[str, int]:
    return Plan.from_bytes((bundle.root / engines_in(bundle)[precision]).read_bytes()).tactics


def raced(version: str) -> list[str]:
    """The precisions that a version takes."""
    return ["fp32", "fp16", "int8"] + (["fp16-int8"] if version != LEGACY else [])


# What goes in


def test_every_precision_that_passes_is_in_the_bundle_and_the_fastest_is_named(
    bundle: Bundle, fake_gpu: FakeGpu, tensorrt_version: str
) -> None:
    outcome = compiled(bundle)
    assert outcome.passed
    assert outcome.fastest is not None
    assert outcome.fastest.precision == "fp16"
    assert list(engines_in(bundle)) == raced(tensorrt_version)
    opened = Bundle.open(bundle.root)
    machine = find_machine()
    for artifact in opened.manifest.artifacts[-len(raced(tensorrt_version)) :]:
        parent = next(a for a in bundle.manifest.artifacts if a.path == f"model.{artifact.precision}.onnx")
        assert artifact.made_from == parent.sha256
        assert dict(artifact.serves) == {"tensorrt": (machine.arch,)}
        assert artifact.requires == {
            "tensorrt": machine.tensorrt,
            "compute_capability": "8.7",
            "os": machine.os,
            "arch": machine.arch,
        }
        assert [Path(path).suffix for path, _ in artifact.companions] == [".json", ".json", ".cache"]
    assert not (bundle.root / WRITER).exists()


def test_the_bundle_verifies_and_every_engine_answers(bundle: Bundle, fake_gpu: FakeGpu, tensorrt_version: str) -> None:
    compiled(bundle)
    opened = Bundle.open(bundle.root)
    named = {path for a in opened.manifest.artifacts for path in (a.path, *dict(a.companions))}
    assert set(digests(bundle.root)) == named | {MANIFEST, "golden.npz"}
    outcome = verify_bundle(opened, backends=["tensorrt"])
    assert outcome.passed
    assert [report.precision for report in outcome.parity] == raced(tensorrt_version)
    golden = Golden.from_file(opened.golden_file())
    with FaceLandmarker.open(opened, backend="tensorrt", precision="fp16", device="cuda") as landmarker:
        (face,) = landmarker.predict(golden.frames[0], golden.boxes_xyxy[:1])
    assert abs(face.points_px - golden.points_px[0]).max() < 0.1


def test_the_proof_goes_into_the_manifest(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    outcome = compiled(bundle)
    proof = [report for report in Bundle.open(bundle.root).manifest.parity if report["backend"] == "tensorrt"]
    assert proof == [report.to_json() for engine in outcome.engines for report in engine.parity]
    float_gates = {gate["gate"] for report in proof if report["precision"] == "fp32" for gate in report["gates"]}
    assert float_gates == {"golden_crop", "golden_network", "golden_frame", "max_px"}
    again = compiled(bundle)
    assert len(Bundle.open(bundle.root).manifest.parity) == sum(len(engine.parity) for engine in again.engines)


def test_float_engines_are_held_to_the_gates_of_parity(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    limits = {
        (report.precision, gate.gate): gate.limit
        for engine in compiled(bundle).engines
        for report in engine.parity
        for gate in report.gates
    }
    assert limits["fp32", "max_px"] == 0.01
    assert limits["fp16", "max_px"] == 0.25
    assert limits["int8", "golden_network"] == 4.0


def test_every_batch_that_an_engine_is_tuned_for_is_compared(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    outcome = compiled(bundle, ["fp32", "int8"], options=EngineOptions(batch=BatchProfile(1, 2, 5)))
    fp32, int8 = ([report.reference for report in engine.parity] for engine in outcome.engines)
    assert fp32 == ["golden", "golden, batch 1", "golden, batch 2", "golden, batch 5"]
    assert int8 == ["golden", "golden, batch 2", "golden, batch 5"]
    assert outcome.passed


def test_engines_of_the_portable_files_only(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle)
    parents = {a.made_from for a in Bundle.open(bundle.root).manifest.artifacts if a.format == "tensorrt"}
    x86 = next(a for a in bundle.manifest.artifacts if a.dialect == "x86")
    assert x86.sha256 not in parents


def test_version_compatible_engines_that_were_built_here_are_checked_without_a_word_of_trust(
    bundle: Bundle, fake_gpu: FakeGpu
) -> None:
    assert compiled(bundle, ["fp32"], options=EngineOptions(version_compatible=True)).passed


def test_a_graph_that_cannot_be_captured_is_told(bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object, **__: object) -> list[LatencyReport]:
        return [LatencyReport("tensorrt", "fp32", None, 1, 1, 1, 1, 9, 1, 1, 1, remark="without a CUDA graph")]

    monkeypatch.setattr(module, "bench", measured)
    (engine,) = compiled(bundle, ["fp32"]).engines
    assert engine.notes == ("without a CUDA graph",)


def test_tensorrt_8_leaves_out_what_needs_strong_typing_and_says_so(
    bundle: Bundle, fake_gpu: FakeGpu, tensorrt_version: str
) -> None:
    left_out = compiled(bundle, ["fp32"]).left_out
    assert left_out == ()
    every = dict(compiled(bundle).left_out)
    if tensorrt_version != LEGACY:
        assert every == {}
        return
    assert "has no strongly typed networks" in every["fp16-int8"]
    with pytest.raises(BundleError, match=r"cannot be compiled in fp16-int8: TensorRT 8\.6\.0 has no strongly typed"):
        compiled(bundle, ["fp16-int8"])


def without(bundle: Bundle, precision: str) -> Bundle:
    kept = tuple(a for a in bundle.manifest.artifacts if a.precision != precision)
    return add_artifacts(Bundle(bundle.root, replace(bundle.manifest, artifacts=kept)), ())


def test_a_precision_that_the_bundle_has_not_is_left_out_unless_asked_for(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    smaller = without(bundle, "fp16-int8")
    assert dict(compiled(smaller).left_out)["fp16-int8"].startswith(("the bundle has no such ONNX file", "TensorRT 8"))
    with pytest.raises(BundleError, match="cannot be compiled in fp16-int8"):
        compiled(smaller, ["fp16-int8"])


def test_a_bundle_without_onnx_files_says_how_to_make_one(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    empty = add_artifacts(Bundle(bundle.root, replace(bundle.manifest, artifacts=())), ())
    with pytest.raises(BundleError, match=r"no ONNX file to compile\. Build it again: lmedge build --target tensorrt"):
        compiled(empty)


# Gates


def test_an_engine_that_fails_its_gate_is_not_kept_and_the_others_are(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    outcome = compiled(bundle, ["fp32", "fp16"], limits=GateLimits(fp16_max_px=0))
    assert not outcome.passed
    assert [(engine.precision, engine.passed) for engine in outcome.engines] == [("fp32", True), ("fp16", False)]
    assert outcome.engines[1].latency is None
    assert list(engines_in(bundle)) == ["fp32"]
    assert not list(bundle.root.rglob("*fp16.sm*"))
    assert {report["precision"] for report in Bundle.open(bundle.root).manifest.parity} == {"fp32"}
    assert outcome.fastest is outcome.engines[0]


def test_a_wrong_answer_is_caught_before_the_manifest_names_the_engine(
    bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden vectors are of a network that answers elsewhere."""
    golden = Golden.from_file(bundle.golden_file())
    shifted = replace(golden, fractions=golden.fractions + 0.2)
    monkeypatch.setattr(Golden, "from_file", lambda path: shifted)
    before = digests(bundle.root)
    outcome = compiled(bundle)
    assert outcome.kept == ()
    assert outcome.fastest is None
    assert digests(bundle.root) == before


# Again


def test_compiling_again_replaces_the_engines_and_takes_the_kernels_that_were_measured(
    bundle: Bundle, fake_gpu: FakeGpu, tensorrt_version: str
) -> None:
    compiled(bundle)
    first = {precision: tactics(bundle, precision) for precision in raced(tensorrt_version)}
    before = set(digests(bundle.root))
    compiled(bundle)
    assert set(digests(bundle.root)) == before
    assert {precision: tactics(bundle, precision) for precision in raced(tensorrt_version)} == first
    pinned = [name for name in fake_gpu.arguments("IBuilderConfig.set_flag") if name == ("ERROR_ON_TIMING_CACHE_MISS",)]
    assert len(pinned) == (0 if tensorrt_version == LEGACY else 4)
    Bundle.open(bundle.root).verify_digests()


def test_other_options_are_measured_where_they_need_it(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32"])
    wider = EngineOptions(batch=BatchProfile(1, 4, 8))
    assert compiled(bundle, ["fp32"], options=wider).passed


def test_retime_measures_anew(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32"])
    first = tactics(bundle, "fp32")
    compiled(bundle, ["fp32"], retime=True)
    assert tactics(bundle, "fp32") != first


def test_a_precision_compiled_later_shares_the_timings_of_the_others(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32"])
    first = tactics(bundle, "fp32")
    compiled(bundle, ["int8"])
    assert set(engines_in(bundle)) == {"fp32", "int8"}
    Bundle.open(bundle.root).verify_digests()
    compiled(bundle, ["fp32"])
    assert tactics(bundle, "fp32") == first


@pytest.mark.parametrize("damage", ["timings", "record"])
def test_damaged_files_of_an_earlier_compile_are_replaced(damage: str, bundle: Bundle, fake_gpu: FakeGpu) -> None:
    compiled(bundle, ["fp32", "int8"])
    path = timings_path(find_machine()) if damage == "timings" else f"{engines_in(bundle)['fp32']}.json"
    (bundle.root / path).write_text("damaged")
    assert compiled(bundle, ["fp32", "int8"]).passed
    Bundle.open(bundle.root).verify_digests()


def test_timings_that_tensorrt_does_not_take_pin_nothing(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    """The bytes are those of the manifest; it is TensorRT that says no."""
    compiled(bundle, ["fp32", "int8"])
    fake_gpu.fail("IBuilderConfig.set_timing_cache")
    fp32, int8 = compiled(bundle, ["fp32", "int8"]).engines
    assert "all kernels were measured anew" in fp32.notes[0]
    assert int8.notes == ()


# What fails leaves no trace


def bad_onnx(bundle: Bundle) -> None:
    """The int8 file gets a node that TensorRT has no importer for; the manifest knows the new bytes."""
    path = bundle.root / "model.int8.onnx"
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Unique", ["landmarks"], ["values"], name="bad_node"))
    onnx.save(model, path)
    artifacts = [
        replace(a, sha256=file_digest(path)) if a.path == path.name else a for a in Bundle.open(bundle.root).manifest.artifacts
    ]
    add_artifacts(Bundle(bundle.root, replace(bundle.manifest, artifacts=())), artifacts)


def full_disk(bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = iter([None, None])

    def copy(source: Path, target: Path) -> None:
        if next(copies, "full") == "full":
            raise OSError(28, "No space left on device")
        shutil.copyfile(source, target)

    monkeypatch.setattr(
        install_module, "_copy", lambda source, target: (target.parent.mkdir(parents=True, exist_ok=True), copy(source, target))
    )


def no_manifest(bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LmedgeError("Cannot write manifest.json: No space left on device.")

    monkeypatch.setattr(install_module, "add_artifacts", fail)


def interrupted(bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    swap, swaps = install_module._swap, iter(range(3))

    def stop(*places: Path) -> None:
        if next(swaps, None) is None:
            raise KeyboardInterrupt
        swap(*places)

    monkeypatch.setattr(install_module, "_swap", stop)


FAILURES: dict[str, tuple[Callable[[Bundle, FakeGpu, pytest.MonkeyPatch], None], type[BaseException], str]] = {
    "a file that TensorRT does not take": (lambda b, g, m: bad_onnx(b), ExportError, "model.int8.onnx(.|\n)*bad_node"),
    "no engine for the third": (
        lambda b, g, m: g.fail("Builder.build_serialized_network", message="no kernel", skip=2),
        ExportError,
        "builds no engine for model.int8.onnx. It said: .*no kernel",
    ),
    "a lost device": (lambda b, g, m: g.fail("device", code=719, times=None), DeviceUnavailableError, "719"),
    "a changed file": (
        lambda b, g, m: (b.root / "model.fp16.onnx").write_bytes(b"other") and None,
        LmedgeError,
        "model.fp16.onnx was changed",
    ),
    "changed golden vectors": (lambda b, g, m: (b.root / "golden.npz").write_bytes(b"") and None, LmedgeError, "golden.npz"),
    "a full disk": (full_disk, LmedgeError, "Cannot write into the bundle .*: No space left on device. It is as it was"),
    "a manifest that cannot be written": (no_manifest, LmedgeError, "manifest.json"),
    "an interrupt between two files": (interrupted, KeyboardInterrupt, "^$"),
}


@pytest.mark.parametrize("compiled_before", [False, True], ids=["new", "compiled before"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_every_byte_as_it_was(
    failure: str, compiled_before: bool, bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled_before:
        compiled(bundle, ["fp32", "fp16", "int8"])
    prepare, kind, message = FAILURES[failure]
    prepare(Bundle.open(bundle.root), fake_gpu, monkeypatch)
    before = digests(bundle.root)
    folders = {path for path in bundle.root.rglob("*") if path.is_dir()}
    with pytest.raises(kind, match=message):
        compiled(bundle)
    assert digests(bundle.root) == before
    assert {path for path in bundle.root.rglob("*") if path.is_dir()} == folders


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_compiled(
    bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without the right is played: tests may run as one who has every right."""
    system_open = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).startswith(str(bundle.root)) and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return system_open(path, flags, *rest, **more)

    before = digests(bundle.root)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LmedgeError, match=r"Cannot write into .*: Permission denied. The bundle is as it was"):
        compiled(bundle)
    monkeypatch.undo()
    assert digests(bundle.root) == before
    assert fake_gpu.count("Builder.build_serialized_network") == 0


# Two at once


def test_a_second_compile_is_refused_while_one_runs(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    with one_writer(bundle.root):
        before = digests(bundle.root)
        with pytest.raises(BundleError, match=f"Process {os.getpid()} adds engines to .* Wait until it is done"):
            compiled(bundle, ["fp32"])
        assert digests(bundle.root) == before
    assert compiled(bundle, ["fp32"]).passed


def test_the_lock_goes_with_a_failed_compile(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    fake_gpu.fail("Builder.build_serialized_network")
    with pytest.raises(ExportError):
        compiled(bundle, ["fp32"])
    assert not (bundle.root / WRITER).exists()
    assert compiled(bundle, ["fp32"]).passed


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
def test_the_lock_is_released_with_its_file(bundle: Bundle) -> None:
    before = os.listdir("/proc/self/fd")
    with one_writer(bundle.root), pytest.raises(BundleError), one_writer(bundle.root):
        pass
    assert os.listdir("/proc/self/fd") == before
    with one_writer(bundle.root):
        pass


HOLD = """
import sys, time
from pathlib import Path
from lmedge.bundle import one_writer
with one_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(bundle: Bundle) -> Iterator[subprocess.Popen[str]]:
    """Another process that adds to the bundle."""
    command = [sys.executable, "-c", HOLD, str(bundle.root)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_killed_compile_locks_nobody_out(holder: subprocess.Popen[str], bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=f"Process {holder.pid} adds"), one_writer(bundle.root):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (bundle.root / WRITER).exists(), "nobody was left to remove it"
    with one_writer(bundle.root):
        assert (bundle.root / WRITER).read_text() == f"{os.getpid()}\n"
    assert not (bundle.root / WRITER).exists()


def test_what_a_killed_install_left_behind_is_removed(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    left = bundle.root / ".installing.abc" / "new"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"0")
    compiled(bundle, ["fp32"])
    assert not left.parent.exists()


# Where


def test_without_a_gpu_the_reason_is_told_and_tensorrt_is_not_started(bundle: Bundle, no_gpu: FakeGpu) -> None:
    with pytest.raises(BackendUnavailableError, match=r"driver: .* Step by step: lmedge doctor"):
        compile_bundle(bundle)
    assert no_gpu.count("Builder", "Runtime") == 0


def test_devices_go_by_number() -> None:
    assert (device_index("cuda"), device_index("cuda:2")) == (0, 2)


@pytest.mark.parametrize("device", ["cpu", "gpu:1", "cuda:one", "cuda:-1"])
def test_another_kind_of_device_is_refused(device: str) -> None:
    with pytest.raises(InputError, match=f"got '{device}'"):
        device_index(device)


def test_progress_counts_what_is_compiled_and_checked(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    told: list[tuple[int, int, str]] = []
    compiled(bundle, ["fp32", "int8"], progress=lambda *step: told.append(step))
    assert told == [(0, 4, "compiling fp32"), (1, 4, "compiling int8"), (2, 4, "checking fp32"), (3, 4, "checking int8")]
