"""What is special to OpenVINO: IR files, the precision it computes in, and its silence."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from lmedge.bundle import Artifact
from lmedge.errors import BackendUnavailableError, BundleFormatError, DigestMismatchError
from lmedge.runtimes.openvino import OpenVinoRuntime, import_openvino
from lmedge.runtimes.telemetry import telemetry_off
from tests.bundles import artifact_of, random_crops, tiny_answer, tiny_onnx
from tests.requirements import require
from tests.telemetry import events

if not OpenVinoRuntime.status().installed:
    require("openvino")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact_of(tiny_onnx(tmp_path_factory.mktemp("openvino")))


@pytest.fixture
def ir(network: Artifact, tmp_path: Path) -> Artifact:
    openvino = import_openvino()
    file = tmp_path / "model.fp32.xml"
    openvino.save_model(openvino.Core().read_model(str(network.file)), str(file), compress_to_fp16=False)
    return artifact_of(file, format="openvino", companions=[file.with_suffix(".bin")])


@pytest.mark.parametrize("batch", [1, 3, None])
def test_ir_and_onnx_agree_with_numpy(network: Artifact, ir: Artifact, batch: int | None) -> None:
    crops = random_crops(batch or 2)
    for artifact in (network, ir):
        with OpenVinoRuntime.open(artifact, batch=batch, threads=1) as runtime:
            np.testing.assert_allclose(runtime.infer({"image": crops})["landmarks"], tiny_answer(crops), atol=1e-5)


def test_the_weights_beside_an_ir_are_checked_too(ir: Artifact) -> None:
    weights = ir.file.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[7] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DigestMismatchError, match=r"model\.fp32\.bin"):
        OpenVinoRuntime.open(ir)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.xml"
    file.write_text("<net/>")
    with pytest.raises(BundleFormatError, match=r"cannot read model\.xml"):
        OpenVinoRuntime.open(artifact_of(file, format="openvino"))


def test_a_file_with_other_tensors_than_declared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleFormatError, match="picture"):
        OpenVinoRuntime.open(artifact_of(tiny_onnx(tmp_path, input_name="picture")))


def test_it_computes_in_float32_whatever_the_processor_prefers(network: Artifact) -> None:
    with OpenVinoRuntime.open(network) as runtime:
        assert runtime.precision_used == ""
    with OpenVinoRuntime.open(dataclasses.replace(network, precision="fp16")) as runtime:
        assert runtime.precision_used == "f32"


def test_bfloat16_would_be_disclosed(network: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16 arithmetic")
    monkeypatch.setattr(OpenVinoRuntime, "_hints", lambda _: {"INFERENCE_PRECISION_HINT": "bf16"})
    with OpenVinoRuntime.open(network) as runtime:
        assert runtime.precision_used == "bf16"


def test_an_engine_that_does_not_import_is_reported(monkeypatch: pytest.MonkeyPatch, network: Artifact) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not OpenVinoRuntime.status().installed
    with pytest.raises(BackendUnavailableError, match=r"pip install 'lmedge\[openvino\]'"):
        OpenVinoRuntime.open(network)


def test_nothing_is_sent_and_nothing_written_to_the_home_folder(network: Artifact, tmp_path: Path) -> None:
    require("openvino_telemetry")
    how = f"""
from pathlib import Path
from lmedge.runtimes.openvino import OpenVinoRuntime, import_openvino
assert OpenVinoRuntime.status().installed
import_openvino().Core().read_model({str(network.file)!r})
"""
    assert events(how, tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_an_ordinary_import_does_send_so_the_test_above_can_fail(tmp_path: Path) -> None:
    require("openvino_telemetry")
    assert events("import openvino", tmp_path) > 0


def test_hiding_the_sender_leaves_no_trace() -> None:
    before = {name: module for name, module in sys.modules.items() if name.startswith("openvino_telemetry")}
    with telemetry_off(), pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401
    assert {name: module for name, module in sys.modules.items() if name.startswith("openvino_telemetry")} == before


def test_one_thread_is_the_callers_own_and_gives_the_same_bits(network: Artifact) -> None:
    """A stream of its own would make the caller wait for it whenever the machine is busy."""
    with OpenVinoRuntime.open(network, threads=1) as one, OpenVinoRuntime.open(network, threads=2) as two:
        assert one._request.get_compiled_model().get_property("NUM_STREAMS") == 0
        assert two._request.get_compiled_model().get_property("NUM_STREAMS") == 1
        crops = {"image": random_crops(1)}
        np.testing.assert_array_equal(one.infer(crops)["landmarks"], two.infer(crops)["landmarks"])
