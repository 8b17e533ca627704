"""ONNX → OpenVINO IR: the same bytes anywhere, the same answers, nothing sent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmedge.errors import BackendUnavailableError, ExportError
from lmedge.export import compile_openvino
from lmedge.export.compile_openvino import compile_ir
from tests import requirements
from tests.bundles import random_crops, tiny_answer, tiny_onnx

CROPS = random_crops(4)


def read_pair(xml: Path) -> tuple[bytes, bytes]:
    return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()


def test_the_ir_answers_as_the_onnx_file_does(tmp_path: Path) -> None:
    requirements.require("openvino")
    from lmedge.runtimes.openvino import import_openvino

    compile_ir(tiny_onnx(tmp_path), tmp_path / "ir" / "model.fp32.xml")
    core = import_openvino().Core()
    model = core.read_model(str(tmp_path / "ir" / "model.fp32.xml"))
    assert model.inputs[0].get_names() == {"image"}
    assert model.inputs[0].get_partial_shape()[0].is_dynamic
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(CROPS)["landmarks"], tiny_answer(CROPS), atol=1e-5)


def test_the_same_onnx_gives_the_same_files_in_another_folder(tmp_path: Path) -> None:
    requirements.require("openvino")
    first = tiny_onnx(tmp_path / "here")
    second = tmp_path / "far" / "away" / first.name
    second.parent.mkdir(parents=True)
    shutil.copy(first, second)
    compile_ir(first, tmp_path / "a.xml")
    compile_ir(tiny_onnx(tmp_path / "other", seed=1), tmp_path / "between.xml")  # moves OpenVINO's own counters
    compile_ir(second, tmp_path / "sub" / "a.xml")
    assert read_pair(tmp_path / "a.xml") == read_pair(tmp_path / "sub" / "a.xml")
    assert read_pair(tmp_path / "a.xml") != read_pair(tmp_path / "between.xml")
    assert str(tmp_path).encode() not in b"".join(read_pair(tmp_path / "a.xml"))


def test_weights_keep_their_precision(tmp_path: Path) -> None:
    requirements.require("openvino")
    onnx_file = tiny_onnx(tmp_path)
    compile_ir(onnx_file, tmp_path / "model.xml")
    assert (tmp_path / "model.bin").stat().st_size > 0.9 * onnx_file.stat().st_size


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_files_that_are_no_onnx_are_refused(content: bytes | None, tmp_path: Path) -> None:
    requirements.require("openvino")
    if content is not None:
        (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ExportError, match=r"cannot convert .*x\.onnx"):
        compile_ir(tmp_path / "x.onnx", tmp_path / "x.xml")
    assert not (tmp_path / "x.xml").exists()


def test_without_openvino_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ImportError("No module named 'openvino'")

    monkeypatch.setattr(compile_openvino, "import_openvino", absent)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'lmedge\[openvino\]'"):
        compile_ir(tmp_path / "model.onnx", tmp_path / "model.xml")


def test_compiling_sends_nothing_and_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    requirements.require("openvino")
    onnx_file = tiny_onnx(tmp_path)
    # Python's audit events see every connection, name look-up and child process, whatever library makes it.
    code = (
        "import sys; from pathlib import Path\n"
        "seen = []\n"
        "watched = ('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'subprocess.Popen', 'os.fork', 'os.posix_spawn')\n"
        "sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)\n"
        "sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from lmedge.export.compile_openvino import compile_ir\n"
        f"compile_ir(Path({str(onnx_file)!r}), Path({str(tmp_path / 'model.xml')!r}))\n"
        "assert not seen, seen\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=requirements.REPOSITORY
    )
    assert done.returncode == 0, done.stderr
