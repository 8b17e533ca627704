"""A bundle compiled on a device: what goes into it, what its gates keep out, and where it can be compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

from lmedge.bundle import MANIFEST, WRITER, Bundle, add_artifacts  # noqa: E402
from lmedge.errors import BackendUnavailableError, BundleError, InputError  # noqa: E402
from lmedge.export import race_tensorrt as module  # noqa: E402
from lmedge.export.engine_options import EngineOptions  # noqa: E402
from lmedge.export.race_tensorrt import compile_bundle, device_index, find_machine  # noqa: E402
from lmedge.reports import LatencyReport  # noqa: E402
from lmedge.runtimes.engine_record import BatchProfile  # noqa: E402
from lmedge.runtimes.gates import GateLimits  # noqa: E402
from lmedge.runtimes.golden import Golden  # noqa: E402
from lmedge.runtimes.landmarker import FaceLandmarker  # noqa: E402
from lmedge.runtimes.verify import verify_bundle  # noqa: E402
from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.four_precisions import digests  # noqa: E402
from tests.tensorrt.raced_bundle import LEGACY, compiled, engines_in, raced  # noqa: E402

pytestmark = pytest.mark.usefixtures("clock")


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
