"""Writing files and bundles: the old content or the new, never a part, whatever fails on the way."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmedge.bundle import Bundle, replace_folder, write_atomically, write_bundle
from lmedge.errors import LmedgeError
from tests.manifests import FILES, GOLDEN, manifest_of


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", manifest_of(tmp_path / "stages"), GOLDEN)


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: the nearest thing to a full disk that needs no privileges."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestWriting:
    def test_a_file_appears_whole(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "new" / "folder" / "file", "ä")
        write_atomically(tmp_path / "new" / "folder" / "bytes", b"\0\xff")
        assert (tmp_path / "new" / "folder" / "file").read_text(encoding="utf-8") == "ä"
        assert (tmp_path / "new" / "folder" / "bytes").read_bytes() == b"\0\xff"
        assert (tmp_path / "new" / "folder" / "file").stat().st_mode & 0o777 == 0o644

    def test_an_open_reader_keeps_the_old_content(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        write_atomically(file, "old")
        with file.open() as reader:
            write_atomically(file, "new and longer")
            assert reader.read() == "old"
        assert file.read_text() == "new and longer"

    def test_a_write_that_fails_half_way_leaves_the_old_content(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        write_atomically(file, "old")
        with (
            files_limited_to(1000),
            pytest.raises(LmedgeError, match=rf"Cannot write {file}: File too large\. The previous content"),
        ):
            write_atomically(file, b"new" * 1000)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert file.read_text() == "old"

    @pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.chmod"])
    def test_a_full_disk_leaves_the_old_content(self, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "file"
        write_atomically(file, "old")
        monkeypatch.setattr(call, disk_full)
        with pytest.raises(LmedgeError, match="No space left on device"):
            write_atomically(file, "new")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert file.read_text() == "old"

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(LmedgeError, match=r"Cannot write .*/file/inner: "):
            write_atomically(tmp_path / "file" / "inner", "x")

    @pytest.mark.parametrize("call", ["shutil.copyfile", "os.fsync", "pathlib.Path.rename"])
    @pytest.mark.parametrize("calls_that_succeed", [0, 1])
    def test_a_full_disk_leaves_the_old_bundle(
        self, bundle: Bundle, tmp_path: Path, call: str, calls_that_succeed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One call fails: the first or second copy, either written file, or either rename."""
        module, _, name = call.rpartition(".")
        working = getattr(shutil if module == "shutil" else os if module == "os" else Path, name)
        calls = itertools.count()

        def fails_once(*args: Any, **kwargs: Any) -> Any:
            return disk_full() if next(calls) == calls_that_succeed else working(*args, **kwargs)

        newer = replace(manifest_of(tmp_path / "newer"), name="newer")
        monkeypatch.setattr(call, fails_once)
        with pytest.raises(LmedgeError, match=r"No space left on device.* untouched"):
            write_bundle(bundle.root, newer, b"newer vectors")
        monkeypatch.undo()
        assert Bundle.open(bundle.root).manifest == bundle.manifest
        assert Bundle.open(bundle.root).verify_digests() == len(FILES)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "newer", "stages"]

    def test_a_new_bundle_replaces_the_old_one_whole(self, bundle: Bundle, tmp_path: Path) -> None:
        (bundle.root / "stray").write_text("left by hand")
        newer = write_bundle(bundle.root, replace(manifest_of(tmp_path / "newer"), artifacts=(), name="newer"))
        assert newer.manifest.name == "newer"
        assert [path.name for path in bundle.root.iterdir()] == ["manifest.json"]

    def test_what_a_killed_writer_left_is_no_hindrance(self, bundle: Bundle, tmp_path: Path) -> None:
        for litter in (".bundle.partial", ".bundle.old"):
            (tmp_path / litter).mkdir()
            (tmp_path / litter / "half").write_text("x")
        write_bundle(bundle.root, manifest_of(tmp_path / "stages"), GOLDEN)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "stages"]

    def test_a_folder_takes_the_place_of_another(self, tmp_path: Path) -> None:
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        replace_folder(tmp_path / "new", tmp_path / "old")
        replace_folder(tmp_path / "old", tmp_path / "elsewhere")
        assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["elsewhere", "elsewhere/new"]
