"""One runtime per thread and process: everyone else gets an error that names both, and does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from lmedge import Bundle, FaceLandmarker
from lmedge.errors import InputError, OwnershipError
from tests.requirements import REPOSITORY, require
from tests.runtimes.engines_for_tests import BOX, IMAGE

# Forks with an open engine; the child uses it, closes it, forgets it, and ends as programs do.
FORK = """
import os, sys
import numpy as np
from lmedge import FaceLandmarker
from lmedge.errors import OwnershipError
image, boxes = np.random.default_rng(3).integers(0, 256, (160, 200, 3), np.uint8), [[40.0, 30.0, 120.0, 110.0]]
folder, engine, fake_folder = sys.argv[1:]
with FaceLandmarker.open(folder, backend=engine, threads=2) as landmarker:
    before = landmarker.predict(image, boxes)[0].points_px
    child = os.fork()
    if child == 0:
        try:
            landmarker.predict(image, boxes)
        except OwnershipError as error:
            assert f"process {os.getppid()}" in str(error) and f"process {os.getpid()}" in str(error), error
            print("refused", flush=True)
        with FaceLandmarker.open(fake_folder, backend="fake") as other:
            assert other.predict(image, boxes)
        landmarker.close()
        del landmarker
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert np.array_equal(landmarker.predict(image, boxes)[0].points_px, before)
print("parent goes on")
"""


def in_another_thread(work: object) -> BaseException | None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, name="second camera")
    thread.start()
    thread.join()
    return caught[0] if caught else None


def test_another_thread_is_refused_and_both_are_named(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        before = landmarker.predict(IMAGE, [BOX])[0].points_px
        error = in_another_thread(lambda: landmarker.predict(IMAGE, [BOX]))
        assert isinstance(error, OwnershipError)
        assert isinstance(error, InputError)
        assert repr(threading.current_thread().name) in str(error)
        assert "'second camera'" in str(error)
        assert "LandmarkerPool" in str(error)
        np.testing.assert_array_equal(landmarker.predict(IMAGE, [BOX])[0].points_px, before)


def test_another_thread_does_not_touch_the_crops_in_work(fake_faces: Bundle) -> None:
    with FaceLandmarker.open(fake_faces, backend="fake") as landmarker:
        faces = landmarker.cut(IMAGE, [BOX])
        kept = faces.crops.copy()
        assert isinstance(in_another_thread(lambda: landmarker.predict(IMAGE[::-1], [BOX])), OwnershipError)
        np.testing.assert_array_equal(faces.crops, kept)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("engine", ["fake", "onnxruntime", "openvino"])
def test_a_forked_child_is_refused_and_can_end(engine: str, request: pytest.FixtureRequest) -> None:
    """OpenVINO would wait for ever for its threads when the child frees it."""
    if engine != "fake":
        require(engine)
    bundle: Bundle = request.getfixturevalue("fake_faces" if engine == "fake" else "tiny_bundle")
    fake: Bundle = request.getfixturevalue("fake_faces")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(bundle.root), engine, str(fake.root)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["refused", "parent goes on"]
