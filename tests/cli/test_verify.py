"""`lmedge verify`: what holds, what fails (3), what was changed (1), and what could not be looked at (said, never passed)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.bundle import ANY_ARCH, Bundle, Manifest, file_digest, write_bundle
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import RuntimeStatus
from lmedge.runtimes.golden import Golden
from tests import bundles, requirements
from tests.bundles import SCHEMA, SPEC
from tests.cli.command import DONE, ERROR, GATE_FAILED, UNAVAILABLE, lmedge
from tests.cli.conftest import FACES

OFF_BY_PX = 0.005
# The tiny network has learned nothing: its error on faces is whatever it is.
LENIENT = "[gates]\nmax_nme = 1000.0\n"


def bundle_answering(folder: Path, offset_px: float, made_from: str = "0" * 64) -> Bundle:
    """A tiny bundle whose golden answers lie `offset_px` of the crop beside those of its network."""

    def answer(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return (bundles.tiny_answer(crops) + [offset_px / SPEC.input_hw[1], 0]).astype(np.float32)

    golden = bundles.tiny_golden()
    recorded = Golden.record(golden.frames, golden.boxes_xyxy, SPEC, answer)
    serves = {"onnxruntime": (ANY_ARCH,), "openvino": (ANY_ARCH,)}
    artifact = bundles.artifact_of(bundles.tiny_onnx(folder / "source"), serves=serves, made_from=made_from)
    manifest = Manifest(name="tiny", schema=SCHEMA, preprocess=SPEC, artifacts=(artifact,))
    return write_bundle(folder / "bundle", manifest, recorded.to_bytes())


@pytest.fixture(scope="module")
def slightly_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Within the gates as they come, not within narrower ones."""
    requirements.require("onnxruntime")
    return bundle_answering(tmp_path_factory.mktemp("off"), OFF_BY_PX).root


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a gate that the bundle above does not pass."""
    file = tmp_path_factory.mktemp("config") / "narrow.toml"
    file.write_text(f"[gates]\ngolden_fp32_px = {OFF_BY_PX / 2}\n")
    return file


def written(folder: Path, text: str) -> Path:
    (folder / "gates.toml").write_text(text)
    return folder / "gates.toml"


class TestGates:
    def test_a_good_bundle_passes(self, slightly_off: Path) -> None:
        outcome = lmedge("verify", slightly_off, "--backend", "onnxruntime")
        assert (outcome.code, outcome.stderr) == (DONE, "")
        assert "2 files match their digests" in outcome.stdout
        assert "passed" in outcome.stdout
        assert "FAILED" not in outcome.stdout

    def test_limits_come_from_the_configuration(self, slightly_off: Path, narrow: Path) -> None:
        outcome = lmedge("verify", slightly_off, "--backend", "onnxruntime", "--config", narrow)
        assert outcome.code == GATE_FAILED
        assert "lmedge: gate failed" in outcome.stderr
        failed = [line.split() for line in outcome.stdout.splitlines() if "FAILED" in line]
        assert [line[4] for line in failed] == ["golden_network"]

    def test_programs_are_told_which_gate_it_was(self, slightly_off: Path, narrow: Path) -> None:
        outcome = lmedge("verify", slightly_off, "--backend", "onnxruntime", "--config", narrow, "--json")
        assert outcome.code == GATE_FAILED
        assert outcome.json["passed"] is False
        (report,) = outcome.json["parity"]
        gates = {gate["gate"]: gate for gate in report["gates"]}
        assert not gates["golden_network"]["passed"]
        assert gates["golden_network"]["value"] == pytest.approx(OFF_BY_PX, rel=0.05)
        assert gates["golden_crop"]["passed"]

    def test_a_network_that_answers_something_else_fails_the_gates_as_they_come(self, tmp_path: Path) -> None:
        wrong = bundle_answering(tmp_path, 1.0).root
        assert lmedge("verify", wrong, "--backend", "onnxruntime").code == GATE_FAILED

    def test_the_error_on_faces_is_a_gate(self, slightly_off: Path, faces: str, tmp_path: Path) -> None:
        arguments = ["verify", slightly_off, "--backend", "onnxruntime", "--data", faces, "--schema", "MMLAB_5", "--json"]
        lenient = lmedge(*arguments, "--config", written(tmp_path, LENIENT))
        assert lenient.code == DONE
        assert lenient.json["evaluations"][0]["count"] == FACES
        strict = lmedge(*arguments, "--config", written(tmp_path, "[gates]\nmax_nme = 0.0\n"))
        assert strict.code == GATE_FAILED
        labels = next(report for report in strict.json["parity"] if report["reference"] == "labels")
        assert [gate["gate"] for gate in labels["gates"] if not gate["passed"]] == ["nme"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the exported program and the bundle that was made from it."""
    requirements.require("torch", "onnxruntime")
    folder = tmp_path_factory.mktemp("run")
    program = bundles.tiny_program(folder / "train")
    bundle_answering(folder, 0.0, made_from=file_digest(program))
    return folder


class TestAgainstPyTorch:
    def test_engines_are_compared_with_the_program_of_the_run(self, run: Path) -> None:
        outcome = lmedge("verify", run / "bundle", "--run", run, "--backend", "onnxruntime", "--json")
        assert outcome.code == DONE
        reports = {report["reference"]: report for report in outcome.json["parity"]}
        assert set(reports) == {"golden", "pytorch"}
        assert reports["pytorch"]["max_px"] < 0.01

    def test_the_program_of_another_run_is_no_reference(self, run: Path, slightly_off: Path) -> None:
        outcome = lmedge("verify", slightly_off, "--run", run, "--backend", "onnxruntime")
        outcome.assert_clear_error(GATE_FAILED, "model.fp32.onnx is stale", "not the program of this run")

    def test_a_folder_without_a_program_is_told(self, slightly_off: Path, tmp_path: Path) -> None:
        outcome = lmedge("verify", slightly_off, "--run", tmp_path)
        outcome.assert_clear_error(ERROR, f"{tmp_path} must hold one model.pt2; it has 0", "lmedge build --out")


@pytest.mark.parametrize("name", ["model.fp32.onnx", "golden.npz"])
def test_a_changed_byte_is_named_and_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    content = bytearray((own / name).read_bytes())
    content[len(content) // 2] ^= 1
    (own / name).write_bytes(content)
    lmedge("verify", own).assert_clear_error(ERROR, f"{name} was changed", "Copy the bundle again")


class TestMissingEngines:
    @pytest.fixture(autouse=True)
    def without_openvino(self, monkeypatch: pytest.MonkeyPatch) -> None:
        absent = RuntimeStatus(False, None, (), "openvino does not import.", "Install it: pip install 'lmedge[openvino]'")
        monkeypatch.setattr(find_runtime("openvino"), "status", lambda: absent)

    def test_what_was_not_asked_for_is_shown_as_not_verified(self, slightly_off: Path) -> None:
        outcome = lmedge("verify", slightly_off)
        assert outcome.code == DONE
        assert "NOT VERIFIED  openvino: openvino does not import. Install it" in outcome.stdout
        document = lmedge("verify", slightly_off, "--json").json
        assert [skipped["backend"] for skipped in document["not_verified"]] == ["openvino"]
        assert {report["backend"] for report in document["parity"]} == {"onnxruntime"}

    def test_what_was_asked_for_is_an_error_after_the_rest_is_checked(self, slightly_off: Path) -> None:
        outcome = lmedge("verify", slightly_off, "--backend", "openvino", "--backend", "onnxruntime", "--json")
        assert outcome.code == UNAVAILABLE
        assert "Not verified, though asked for: openvino" in outcome.stderr
        assert outcome.json["passed"]
        assert [skipped["backend"] for skipped in outcome.json["not_verified"]] == ["openvino"]

    def test_a_failed_gate_outweighs_it(self, slightly_off: Path, narrow: Path) -> None:
        arguments = ["--backend", "openvino", "--backend", "onnxruntime", "--config", narrow]
        assert lmedge("verify", slightly_off, *arguments).code == GATE_FAILED

    def test_nothing_to_check_is_never_passed(self, slightly_off: Path) -> None:
        outcome = lmedge("verify", slightly_off, "--backend", "openvino")
        outcome.assert_clear_error(UNAVAILABLE, "openvino cannot be checked here", "pip install 'lmedge[openvino]'")


CONFIGURATIONS = {
    "no such file": (None, "Cannot read"),
    "no TOML": ("[gates", "is not valid TOML"),
    "no table": ("[train]\nepochs = 3\n", "has no [gates] table"),
    "not a table": ("gates = 3\n", "has no [gates] table"),
    "an unknown gate": ("[gates]\nint8_p99 = 2.0\n", "Did you mean int8_p99_px?"),
    "not a number": ('[gates]\nmax_nme = "low"\n', "gates.max_nme must be a number of at least 0; got 'low'"),
    "below zero": ("[gates]\nmax_nme = -1\n", "gates.max_nme must be a number of at least 0; got -1"),
}


@pytest.mark.parametrize(("text", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_limits_that_cannot_be_used_are_refused(text: str | None, message: str, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "nowhere.toml" if text is None else written(tmp_path, text)
    lmedge("verify", bundle, "--config", file).assert_clear_error(ERROR, message)
