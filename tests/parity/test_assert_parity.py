"""`lmedge.assert_parity`, as it is called from a user's own test suite, and `self_test`, as a device calls it."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

import lmedge
from lmedge.bundle import ANY_ARCH, Bundle, Manifest, file_digest, write_bundle
from lmedge.errors import BackendUnavailableError, BundleError, ConfigError, DigestMismatchError, InputError, ParityError
from lmedge.runtimes import find_runtime
from lmedge.runtimes.checks import plan_checks
from lmedge.runtimes.fake import FakeRuntime, fake_bundle
from lmedge.runtimes.gates import GateLimits
from lmedge.runtimes.parity import answer, compare, self_test
from tests import bundles
from tests.bundles import SCHEMA, SPEC, artifact_of, random_crops, tiny_answer, tiny_golden, tiny_onnx, tiny_program
from tests.requirements import require


@pytest.fixture
def fake(tmp_path: Path) -> Bundle:
    return fake_bundle(tmp_path / "bundle", SCHEMA, SPEC)


def test_a_good_bundle_passes_and_says_what_was_checked(fake: Bundle) -> None:
    (report,) = lmedge.assert_parity(fake.root)
    assert (report.backend, report.precision, report.reference, report.passed) == ("fake", "fp32", "golden", True)
    assert {gate.gate for gate in report.gates} == {"golden_crop", "golden_network", "golden_frame"}
    assert report == self_test(fake, "fake")


def test_other_golden_answers_fail_with_value_and_limit(tmp_path: Path, fake: Bundle) -> None:
    wrong = write_bundle(tmp_path / "wrong", fake.manifest, tiny_golden().to_bytes())
    with pytest.raises(ParityError, match=r"fake fp32 .* golden_network is \d.* px, allowed 0\.02"):
        lmedge.assert_parity(wrong)


def test_limits_can_be_narrowed(fake: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = FakeRuntime._infer
    off = np.float32(0.01 / SPEC.input_hw[0])
    monkeypatch.setattr(FakeRuntime, "_infer", lambda self, feeds: {k: v + off for k, v in exact(self, feeds).items()})
    lmedge.assert_parity(fake)
    with pytest.raises(ParityError, match="golden_network"):
        lmedge.assert_parity(fake, limits=GateLimits(golden_fp32_px=0.005))


def test_a_changed_file_is_named(fake: Bundle) -> None:
    (fake.root / "golden.npz").write_bytes(b"other")
    with pytest.raises(DigestMismatchError, match=r"golden\.npz"):
        lmedge.assert_parity(fake)


def test_a_bundle_without_golden_vectors_is_not_passed(tmp_path: Path, fake: Bundle) -> None:
    bare = write_bundle(tmp_path / "bare", dataclasses.replace(fake.manifest, golden=None))
    with pytest.raises(BundleError, match="no golden vectors"):
        lmedge.assert_parity(bare)


def test_golden_vectors_of_another_network_are_refused(tmp_path: Path, fake: Bundle) -> None:
    other = fake_bundle(tmp_path / "other", lmedge.get_schema("IBUG_68"), SPEC)
    mixed = write_bundle(tmp_path / "mixed", fake.manifest, (other.root / "golden.npz").read_bytes())
    with pytest.raises(BundleError, match="another network"):
        self_test(mixed, "fake")


def serving(fake: Bundle, *backends: str) -> Bundle:
    artifact = dataclasses.replace(fake.manifest.artifacts[0], serves=dict.fromkeys(backends, (ANY_ARCH,)))
    return dataclasses.replace(fake, manifest=dataclasses.replace(fake.manifest, artifacts=(artifact,)))


def test_what_cannot_be_checked_is_named_as_skipped(fake: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    bundle = serving(fake, "fake", "onnxruntime", "abacus")
    planned, skipped = plan_checks(bundle)
    assert [check.backend for check in planned] == ["fake"]
    assert [skip.backend for skip in skipped] == ["abacus", "onnxruntime"]
    assert "lmedge[onnxruntime]" in skipped[1].reason
    assert [report.backend for report in lmedge.assert_parity(bundle)] == ["fake"]


def test_a_backend_that_was_named_must_be_checked(fake: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match="onnxruntime cannot be checked here"):
        lmedge.assert_parity(serving(fake, "fake", "onnxruntime"), ["onnxruntime"])
    with pytest.raises(BackendUnavailableError, match=r"Nothing of .* can be checked"):
        lmedge.assert_parity(serving(fake, "onnxruntime"))


def test_what_the_bundle_lacks_is_an_error(fake: Bundle) -> None:
    with pytest.raises(BundleError, match="no int8 for fake"):
        lmedge.assert_parity(fake, ["fake"], ["int8"])
    with pytest.raises(BundleError, match="nothing for openvino"):
        plan_checks(fake, ["openvino"])


def test_every_dialect_is_checked(tmp_path: Path, fake: Bundle) -> None:
    artifact = fake.manifest.artifacts[0]
    second = fake.root / "model.x86.fake"
    second.write_text("x86")
    variant = dataclasses.replace(artifact, path=second.name, sha256=file_digest(second), dialect="x86")
    manifest = dataclasses.replace(fake.manifest, artifacts=(artifact, variant))
    both = write_bundle(tmp_path / "both", manifest, (fake.root / "golden.npz").read_bytes())
    assert [report.dialect for report in lmedge.assert_parity(both)] == ["", "x86"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_real_engine_passes_and_a_network_that_reads_rgb_does_not(tmp_path: Path, backend: str) -> None:
    if not find_runtime(backend).status().installed:
        require(backend)
    bundle = bundles.tiny_bundle(tmp_path)
    (report,) = lmedge.assert_parity(bundle, [backend])
    assert report.max_px < 0.001

    wrong = artifact_of(tiny_onnx(tmp_path / "rgb", color="rgb"), serves={backend: (ANY_ARCH,)})
    manifest = Manifest(name="rgb", schema=SCHEMA, preprocess=SPEC, artifacts=(wrong,))
    with pytest.raises(ParityError, match="golden_network"):
        lmedge.assert_parity(write_bundle(tmp_path / "wrong", manifest, tiny_golden().to_bytes()))


def test_a_run_folder_adds_parity_with_pytorch(tmp_path: Path) -> None:
    for package in ("torch", "onnxruntime"):
        require(package)
    program = tiny_program(tmp_path / "run" / "train")
    artifact = artifact_of(tiny_onnx(tmp_path / "source"), serves={"onnxruntime": (ANY_ARCH,)}, made_from=file_digest(program))
    manifest = Manifest(name="tiny", schema=SCHEMA, preprocess=SPEC, artifacts=(artifact,))
    bundle = write_bundle(tmp_path / "bundle", manifest, tiny_golden().to_bytes())
    crops = random_crops(20)
    golden, pytorch = lmedge.assert_parity(bundle, run=tmp_path / "run", crops=crops)
    assert (golden.reference, pytorch.reference, pytorch.crops) == ("golden", "pytorch", 20)

    program.write_bytes(tiny_program(tmp_path / "again").read_bytes() + b" ")
    with pytest.raises(ParityError, match="not the program of this run"):
        lmedge.assert_parity(bundle, run=tmp_path / "run")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, fake: Bundle) -> None:
    with pytest.raises(InputError, match=r"one model\.pt2; it has 0"):
        lmedge.assert_parity(fake, run=tmp_path)


@pytest.mark.parametrize("batch", [1, 3, 4, None])
def test_crops_are_answered_in_order_whatever_the_batch(fake: Bundle, batch: int | None) -> None:
    crops = random_crops(7)
    with FakeRuntime.open(fake.select("fake"), batch=1) as one, FakeRuntime.open(fake.select("fake"), batch=batch) as runtime:
        expected = np.concatenate([answer(one, crop[None]) for crop in crops])
        np.testing.assert_array_equal(answer(runtime, crops), expected)


def test_arrays_that_do_not_belong_together_are_refused(fake: Bundle) -> None:
    crops = random_crops(2)
    good = tiny_answer(crops)
    with FakeRuntime.open(fake.select("fake")) as runtime:
        for arrays in ((crops[:1], good), (crops, good[:, :3]), (crops.astype(np.float32), good), (crops[:0], good[:0])):
            with pytest.raises(InputError):
                compare(runtime, *arrays, schema=SCHEMA)
        with pytest.raises(InputError, match="labels"):
            compare(runtime, crops, good, schema=SCHEMA, true_fractions=good[:1])
        with pytest.raises(InputError, match="not all finite"):
            compare(runtime, crops, good * np.float32(np.nan), schema=SCHEMA)


def test_limits_come_from_a_table() -> None:
    assert GateLimits.from_mapping({"int8_p99_px": 2}) == GateLimits(int8_p99_px=2)
    with pytest.raises(ConfigError, match="Did you mean int8_p99_px"):
        GateLimits.from_mapping({"int8_p99": 2})
    for value in (-1, float("nan"), float("inf"), "1", True, None):
        with pytest.raises(ConfigError, match=r"gates\.fp32_max_px"):
            GateLimits.from_mapping({"fp32_max_px": value})


def test_the_golden_file_in_the_manifest_is_the_one_that_is_read(fake: Bundle) -> None:
    digest = hashlib.sha256(fake.golden_file().read_bytes()).hexdigest()
    assert fake.manifest.golden == digest
