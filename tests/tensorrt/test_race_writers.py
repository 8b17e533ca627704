"""Two that add engines to one bundle: one waits outside, and nothing of the other's is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import requirements

requirements.require("onnx", "onnxruntime")

from lmedge.bundle import WRITER, Bundle, one_writer  # noqa: E402
from lmedge.errors import BundleError, ExportError  # noqa: E402
from lmedge.export.race_tensorrt import compile_bundle  # noqa: E402
from tests.requirements import REPOSITORY  # noqa: E402
from tests.tensorrt.fake_gpu import FakeGpu  # noqa: E402
from tests.tensorrt.four_precisions import digests  # noqa: E402
from tests.tensorrt.raced_bundle import compiled, engines_in  # noqa: E402

pytestmark = pytest.mark.usefixtures("clock")


def test_a_second_compile_is_refused_while_one_runs(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    with one_writer(bundle.root):
        before = digests(bundle.root)
        with pytest.raises(BundleError, match=f"Process {os.getpid()} adds engines to .* Wait until it is done"):
            compiled(bundle, ["fp32"])
        assert digests(bundle.root) == before
    assert compiled(bundle, ["fp32"]).passed


def test_what_another_process_added_since_the_bundle_was_opened_stays(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    opened_early = Bundle.open(bundle.root)
    compiled(bundle, ["fp32"])
    compile_bundle(opened_early, ["fp16"])
    assert set(engines_in(bundle)) == {"fp32", "fp16"}
    proven = {report["precision"] for report in Bundle.open(bundle.root).manifest.parity if report["backend"] == "tensorrt"}
    assert proven == {"fp32", "fp16"}
    Bundle.open(bundle.root).verify_digests()


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
