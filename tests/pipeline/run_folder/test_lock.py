"""The lock: what a stage was made from, what differs now, and whether files are still what they were."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lmedge
from lmedge.pipeline.runs import lock as lock_module
from lmedge.pipeline.runs.lock import (
    LOCK,
    Lock,
    StageRecord,
    first_difference,
    option_components,
    tool_components,
)


@dataclass(frozen=True)
class Inner:
    limit: float = 0.5
    names: tuple[str, ...] = ("a", "b")


@dataclass(frozen=True)
class Outer:
    count: int = 3
    inner: Inner = field(default_factory=Inner)


def write(path: Path, content: str = "content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


# Components


def test_options_are_components_one_per_leaf() -> None:
    assert option_components({"train": Outer(), "name": "tiny", "empty": {}}) == {
        "option train.count": "3",
        "option train.inner.limit": "0.5",
        "option train.inner.names": '["a", "b"]',
        "option name": '"tiny"',
        "option empty": "{}",
    }


def test_the_order_of_a_table_does_not_matter() -> None:
    assert option_components({"a": {"x": 1, "y": {"p": 1, "q": 2}}}) == option_components(
        {"a": {"y": {"q": 2, "p": 1}, "x": 1}}
    )


@given(
    first=st.dictionaries(st.text("ab", min_size=1), st.integers() | st.text("12") | st.booleans()),
    key=st.text("ab", min_size=1),
)
def test_different_values_are_different_components(first: dict[str, Any], key: str) -> None:
    value = first.get(key)
    for other in (value if value is None else str(value), [value], 0.5, None):
        same = key in first and type(other) is type(value) and other == value
        assert (option_components({**first, key: other}) == option_components(first)) == same


def test_tools_are_named_with_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    components = tool_components(("lmedge", "numpy", "no-such-package"))
    assert components["tool lmedge"] == lmedge.__version__
    assert components["tool numpy"].count(".") == 2
    assert components["tool no-such-package"] == "absent"
    monkeypatch.setattr(lock_module, "version", {"numpy": "9.9"}.__getitem__)
    assert tool_components(["numpy"]) == {"tool numpy": "9.9"}


# Differences


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({}, {}, None),
        ({"option a": "1"}, {"option a": "1"}, None),
        ({"option a": "1", "option b": "2"}, {"option b": "2", "option a": "1"}, None),
        ({"option a": "1"}, {"option a": "2"}, "option a was 1, is 2"),
        ({"tool torch": "2.13.0"}, {"tool torch": "2.14.0"}, "tool torch was 2.13.0, is 2.14.0"),
        ({"input x.jpg": "ab"}, {"input x.jpg": "cd"}, "input x.jpg has other bytes"),
        ({}, {"input x.jpg": "ab"}, "input x.jpg is new"),
        ({"input x.jpg": "ab"}, {}, "input x.jpg is gone"),
        ({"machine cpu": "A"}, {"machine cpu": "B"}, "machine cpu was A, is B"),
        ({"input x": "1", "option a": "1"}, {"input x": "2", "option a": "2"}, "input x has other bytes"),
        ({"option a": "1", "option gone": "1"}, {"option a": "2"}, "option a was 1, is 2"),
    ],
)
def test_the_first_difference_is_said_in_words(old: dict[str, str], new: dict[str, str], words: str | None) -> None:
    assert first_difference(old, new) == words


# Records


def test_a_stage_is_done_while_key_and_files_stay(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    assert lock.reason_to_run("export", {"option a": "1"}) == "it has not run yet"
    lock.record("export", {"option a": "1"}, [write(tmp_path / "export/deep/model.onnx")])
    assert Lock.read(tmp_path).reason_to_run("export", {"option a": "1"}) is None
    assert Lock.read(tmp_path).reason_to_run("export", {"option a": "2"}) == "option a was 1, is 2"


def test_a_changed_output_is_named(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    file = write(tmp_path / "export/deep/model.onnx")
    lock.record("export", {}, [file])
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert Lock.read(tmp_path).reason_to_run("export", {}) == "its output export/deep/model.onnx was changed"
    file.unlink()
    assert Lock.read(tmp_path).reason_to_run("export", {}) == "its output export/deep/model.onnx is gone"


def test_a_lock_survives_moving_its_folder(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "first")
    lock.record("export", {}, [write(tmp_path / "first/export/model.onnx")])
    (tmp_path / "first").rename(tmp_path / "second")
    assert Lock.read(tmp_path / "second").reason_to_run("export", {}) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '"text"', "{}", '{"format_version": 1}', '{"format_version": 1, "stages": [], "digests": {}}',
     '{"format_version": 1, "stages": {"a": 3}, "digests": {}}',
     '{"format_version": 2, "stages": {}, "digests": {}}', "\udcff"],
)  # fmt: skip
def test_a_lock_that_cannot_be_read_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_bytes(content.encode("utf-8", "surrogateescape"))
    lock = Lock.read(tmp_path)
    assert (lock.records, lock.digests) == ({}, {})


def test_a_lock_is_plain_json(tmp_path: Path) -> None:
    Lock(tmp_path).record("export", {"option ä": '"ö"'}, [write(tmp_path / "export/model.onnx")])
    document = json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))
    assert document["stages"]["export"]["components"] == {"option ä": '"ö"'}
    sha256 = hashlib.sha256(b"content").hexdigest()
    assert Lock.read(tmp_path).records == {"export": StageRecord({"option ä": '"ö"'}, {"export/model.onnx": sha256})}


# Digests


def wait_for_the_clock(folder: Path) -> None:
    """Until the file system's clock, which may tick every few milliseconds only, gives another time."""
    probe = write(folder / "probe")
    before = probe.stat().st_ctime_ns
    while write(probe).stat().st_ctime_ns == before:
        pass


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    file = write(tmp_path / "file", "abc")
    assert Lock(tmp_path).digest(file) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path).digest(tmp_path / "missing")


def overwrite_and_restore_the_time(file: Path) -> None:
    before = file.stat()
    file.write_text("CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_another_file(file: Path) -> None:
    before = file.stat()
    other = write(file.with_name("other"), "CONTENT")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def change_one_byte_in_place(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(3)
        stream.write(b"T")


@pytest.mark.parametrize("change", [overwrite_and_restore_the_time, replace_by_another_file, change_one_byte_in_place])
def test_no_change_hides_behind_the_cache(tmp_path: Path, change: Any) -> None:
    lock, file = Lock(tmp_path), write(tmp_path / "file")
    before = lock.digest(file)
    wait_for_the_clock(tmp_path)
    change(file)
    assert file.stat().st_size == len("content")
    assert lock.digest(file) == hashlib.sha256(file.read_bytes()).hexdigest() != before


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, file = Lock(tmp_path), write(tmp_path / "file")
    first = lock.digest(file)
    lock.write()
    monkeypatch.setattr(lock_module, "file_digest", lambda path: pytest.fail(f"{path} was read again"))
    assert lock.digest(file) == Lock.read(tmp_path).digest(file) == first
