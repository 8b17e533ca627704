"""What is special to the PyTorch reference; what every runtime promises is in tests/runtimes/test_contract.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmedge.bundle import Artifact
from lmedge.errors import BundleFormatError
from lmedge.export.torch_reference import TorchReference
from tests import requirements
from tests.bundles import artifact_of, random_crops, tiny_answer, tiny_program

CROPS = random_crops(4)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact_of(tiny_program(tmp_path_factory.mktemp("program")), format="torch")


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_it_answers_what_the_formula_says(artifact: Artifact, batch: int) -> None:
    with TorchReference.open(artifact, batch=batch) as runtime:
        answer = runtime.infer({"image": CROPS[:batch]})["landmarks"]
    np.testing.assert_allclose(answer, tiny_answer(CROPS[:batch]), atol=1e-5)


def test_its_threads_are_its_own(artifact: Artifact) -> None:
    import torch

    before = torch.get_num_threads()
    with TorchReference.open(artifact, threads=before + 1, batch=None) as runtime:
        runtime.infer({"image": CROPS})
    assert torch.get_num_threads() == before


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    requirements.require("torch")
    (tmp_path / "model.pt2").write_bytes(b"no program")
    with pytest.raises(BundleFormatError, match="cannot be read as an exported program"):
        TorchReference.open(artifact_of(tmp_path / "model.pt2", format="torch"))


def test_status_does_not_import_torch() -> None:
    code = (
        "import sys; from lmedge.export.torch_reference import TorchReference\n"
        "status = TorchReference.status(); assert 'torch' not in sys.modules; print(status.installed)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=requirements.REPOSITORY
    )
    assert done.stdout.strip() in ("True", "False"), done.stderr


def test_without_torch_status_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmedge.export.torch_reference.find_spec", lambda _: None)
    monkeypatch.setattr("lmedge.export.torch_reference.version", _not_found)
    status = TorchReference.status()
    assert not status.installed
    assert status.devices == ()
    assert "lmedge[train]" in status.extra


def _not_found(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)
