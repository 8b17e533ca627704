"""What every runtime promises, tested once and run for each of them."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lmedge.bundle import Artifact
from lmedge.errors import BundleFormatError, DeviceUnavailableError, DigestMismatchError, InputError
from lmedge.runtimes import find_runtime
from lmedge.runtimes.base import Runtime
from tests.bundles import SCHEMA, random_crops

OpenRuntime = Callable[..., Runtime]

CROPS = random_crops(4)
ONE = CROPS[:1]


def answer(runtime: Runtime, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return runtime.infer({"image": crops})["landmarks"]


def test_status_names_a_version_and_the_devices(backend: str) -> None:
    status = find_runtime(backend).status()
    assert status.installed
    assert status.version
    assert status.devices[0] == status.default_device == ("cuda" if backend == "tensorrt" else "cpu")


def test_without_a_device_it_opens_on_its_default(open_runtime: OpenRuntime, backend: str) -> None:
    default = find_runtime(backend).status().default_device
    assert open_runtime().device == open_runtime(device=default).device == default


def test_declared_specs_match_what_comes_out(open_runtime: OpenRuntime) -> None:
    runtime = open_runtime()
    assert [spec.name for spec in runtime.inputs] == ["image"]
    results = runtime.infer({"image": ONE})
    assert list(results) == [spec.name for spec in runtime.outputs] == ["landmarks"]
    assert results["landmarks"].dtype == np.float32
    assert results["landmarks"].shape == (1, SCHEMA.num_points, 2)


def test_the_answer_follows_the_pixels(open_runtime: OpenRuntime) -> None:
    runtime = open_runtime()
    swapped = np.ascontiguousarray(ONE[..., ::-1])
    assert np.abs(answer(runtime, ONE) - answer(runtime, swapped)).max() > 1e-3


@pytest.mark.parametrize(
    "feeds",
    [
        pytest.param({"picture": ONE}, id="another name"),
        pytest.param({}, id="nothing"),
        pytest.param({"image": ONE, "extra": ONE}, id="one too many"),
        pytest.param({"image": ONE.astype(np.float32)}, id="float"),
        pytest.param({"image": ONE.astype(np.int8)}, id="signed"),
        pytest.param({"image": ONE[0]}, id="no batch"),
        pytest.param({"image": ONE.transpose(0, 3, 1, 2)}, id="planes first"),
        pytest.param({"image": ONE[..., :1]}, id="gray"),
        pytest.param({"image": ONE[:, :16]}, id="another size"),
        pytest.param({"image": ONE.tolist()}, id="a list"),
    ],
)
def test_a_wrong_feed_is_refused_by_name(open_runtime: OpenRuntime, feeds: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="image"):
        open_runtime().infer(feeds)


def test_a_batch_it_was_not_compiled_for_is_refused(open_runtime: OpenRuntime) -> None:
    with pytest.raises(InputError, match="batch 1"):
        answer(open_runtime(batch=1), CROPS)


def test_an_answer_survives_the_next_call(open_runtime: OpenRuntime) -> None:
    runtime = open_runtime()
    first = answer(runtime, ONE)
    kept = first.copy()
    second = answer(runtime, CROPS[1:2])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # the caller owns it


@pytest.mark.parametrize("batch", [4, None])
def test_one_face_equals_the_first_of_four(open_runtime: OpenRuntime, batch: int | None) -> None:
    one, four = open_runtime(batch=1), open_runtime(batch=batch)
    # Sums may run in another order; 1e-6 of a crop is 0.0001 px.
    np.testing.assert_allclose(answer(one, ONE)[0], answer(four, CROPS)[0], rtol=0, atol=1e-6)


def test_any_batch_follows_any_batch(open_runtime: OpenRuntime) -> None:
    runtime = open_runtime(batch=None)
    for count in (1, 4, 2):
        assert answer(runtime, CROPS[:count]).shape[0] == count


def test_the_same_crop_gives_the_same_bits(open_runtime: OpenRuntime) -> None:
    runtime = open_runtime(threads=2)
    np.testing.assert_array_equal(answer(runtime, ONE), answer(runtime, ONE))


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(np.asfortranarray(ONE), id="columns first"),
        pytest.param(np.repeat(ONE, 2, axis=2)[:, :, ::2], id="every second column"),
        pytest.param(np.ascontiguousarray(ONE[:, ::-1])[:, ::-1], id="negative strides"),
    ],
)
def test_memory_layout_does_not_matter(open_runtime: OpenRuntime, view: npt.NDArray[np.uint8]) -> None:
    runtime = open_runtime()
    np.testing.assert_array_equal(answer(runtime, view), answer(runtime, ONE))


def test_the_bare_engine_call_gives_the_same_answer(open_runtime: OpenRuntime) -> None:
    runtime = open_runtime()
    np.testing.assert_array_equal(runtime.engine_call({"image": ONE})()["landmarks"], answer(runtime, ONE))


def test_closing_twice_is_fine_and_then_it_answers_no_more(open_runtime: OpenRuntime) -> None:
    with open_runtime() as runtime:
        answer(runtime, ONE)
    runtime.close()
    with pytest.raises(InputError, match="closed"):
        answer(runtime, ONE)


def test_a_device_that_is_not_here_is_an_error_never_another_device(open_runtime: OpenRuntime, backend: str) -> None:
    here = find_runtime(backend).status().devices
    for device in {"cpu", "cuda", "gpu", "npu", "CPU", "cpu:1", "cuda:7", ""} - set(here):
        with pytest.raises(DeviceUnavailableError, match=f"has no device '{device}'"):
            open_runtime(device=device)


@pytest.mark.parametrize("options", [{"threads": 0}, {"batch": 0}, {"threads": -1}, {"threads": "1"}, {"batch": 2.0}])
def test_counts_below_one_and_what_is_no_count_are_refused(open_runtime: OpenRuntime, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        open_runtime(**options)


def copied(artifact: Artifact, folder: Path) -> Artifact:
    for path in (artifact.path, *(name for name, _ in artifact.companions)):
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(artifact.root / path, folder / path)
    return dataclasses.replace(artifact, root=folder)


def test_a_changed_byte_is_refused(open_runtime: OpenRuntime, artifact: Artifact, tmp_path: Path) -> None:
    copy = copied(artifact, tmp_path)
    content = bytearray(copy.file.read_bytes())
    content[len(content) // 2] ^= 1
    copy.file.write_bytes(content)
    with pytest.raises(DigestMismatchError, match="was changed"):
        open_runtime(artifact=copy)


def test_a_missing_file_is_named(open_runtime: OpenRuntime, artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatchError, match=artifact.path):
        open_runtime(artifact=dataclasses.replace(artifact, root=tmp_path))


def test_a_format_it_does_not_read_is_refused(open_runtime: OpenRuntime, artifact: Artifact) -> None:
    with pytest.raises(BundleFormatError, match="papyrus"):
        open_runtime(artifact=dataclasses.replace(artifact, format="papyrus"))


def test_another_thread_is_refused(open_runtime: OpenRuntime) -> None:
    runtime = open_runtime()
    errors: list[Exception] = []

    def use() -> None:
        try:
            answer(runtime, ONE)
        except InputError as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "thread" in str(errors[0])
    answer(runtime, ONE)


def test_two_of_them_live_in_one_process(open_runtime: OpenRuntime) -> None:
    first, second = open_runtime(), open_runtime()
    expected = answer(first, ONE)
    answer(second, CROPS[1:2])
    first.close()
    np.testing.assert_array_equal(answer(second, ONE), expected)
