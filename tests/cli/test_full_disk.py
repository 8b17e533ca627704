"""A disk that fills up: writing stops with a message that names the file, and what is there is never a part of one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import ERROR, lmedge_process
from tests.data.faces import textured_image, write_image

PART_LEFT = 99


def on_a_disk_of_64_kib(folder: Path) -> list[str]:
    """Runs what follows where `folder` is a file system of 64 KiB, which only that process sees: it looks for parts itself."""
    script = f"""
        mount -t tmpfs -o size=64k tmpfs "$0" || exit
        "$@"
        code=$?
        if ls "$0"/*.part 2>/dev/null; then exit {PART_LEFT}; fi
        exit $code"""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare, and the right to mount a file system in a namespace")
    return command


def with_files_of_16_kib(folder: Path) -> list[str]:
    """Runs what follows so that no file can grow beyond 16 KiB: the nearest that needs no rights."""
    return ["sh", "-c", 'ulimit -f 32 && exec "$@"', "sh"]


full_disks = pytest.mark.parametrize(
    ("limit", "reason"),
    [(on_a_disk_of_64_kib, "No space left on device"), (with_files_of_16_kib, "File too large")],
    ids=["a small disk", "small files"],
)


@full_disks
def test_rendered_faces(limit: Callable[[Path], list[str]], reason: str, tmp_path: Path) -> None:
    outcome = lmedge_process("data", "synth", tmp_path, "--count", 40, before=limit(tmp_path))
    outcome.assert_clear_error(ERROR, f"Cannot write the picture {tmp_path}/synthetic_0_", reason)
    assert not list(tmp_path.glob("*.part"))


@full_disks
def test_a_drawn_picture(
    limit: Callable[[Path], list[str]], reason: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    large = write_image(tmp_path_factory.mktemp("photos") / "large.png", textured_image(1, 400, 400))
    out = tmp_path_factory.mktemp("out")
    outcome = lmedge_process("predict", bundle, large, "--box", "9,9,90,90", "--draw", out, before=limit(out))
    outcome.assert_clear_error(ERROR, f"Cannot write the picture {out / 'large.png'}: {reason}")
    assert not list(out.iterdir())
