"""The documents are true: snippets run, commands parse, links lead somewhere, tables repeat what the code says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge.runtimes.gates import LEAST_FACES, GateLimits
from tests.bundles import tiny_bundle
from tests.requirements import REPOSITORY, require

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the one the README is read in: a built bundle, and a picture."""
    require("onnxruntime", "openvino", "onnx")
    tiny_bundle(tmp_path / "runs" / "demo")
    cv2.imwrite(str(tmp_path / "driver.png"), np.zeros((200, 200, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    # What "auto" remembers.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[-1][:40])
def test_python_snippets_run_as_they_stand(code: str) -> None:
    names: dict[str, object] = {}
    exec(compile(code.replace('precision="int8"', 'precision="fp32"'), "README.md", "exec"), names)
    for name, value in names.items():
        if name.startswith("test_") and callable(value):
            value()


def test_there_are_python_snippets_for_the_device_and_for_ci() -> None:
    assert any("FaceLandmarker" in code for code in blocks("python"))
    assert any("assert_parity" in code for code in blocks("python"))


@pytest.mark.parametrize(
    "name", ["RealTimeLandmarker", "HealthMonitor", "LatestFrame", "FaceTracker", "LandmarkerPool", 'backend="auto"']
)
def test_what_a_loop_for_hours_needs_is_shown_in_code(name: str) -> None:
    assert any(name in code for code in blocks("python"))


LINES = [line for block in blocks("bash") for line in block.splitlines()]
COMMAND_LINES = [line.partition("#")[0] for line in LINES if line.startswith("lmedge ")]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_lines_parse(line: str) -> None:
    require("typer")
    import typer.main

    from lmedge.cli import app

    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("lmedge", words, resilient_parsing=False)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    local = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    assert [link for link in local if not (REPOSITORY / link).exists()] == []


def test_the_table_of_gates_is_the_code_s() -> None:
    limits = GateLimits()
    golden = (limits.golden_fp32_px, limits.golden_fp16_px, limits.golden_int8_px)
    for value in (limits.fp32_max_px, limits.fp16_max_px, limits.int8_p99_px, limits.int8_shift_px, *golden):
        assert f"{value:g} px" in README
    for value in (limits.int8_nme_loss, limits.int8_group_loss):
        assert f"{100 * value:.2f} points" in README
    assert f"fewer than {LEAST_FACES} faces" in README
    assert f"{100 * limits.max_nme:g} %" in README


def test_nothing_is_left_to_fill_in() -> None:
    for document in DOCUMENTS:
        assert "@@" not in (REPOSITORY / document).read_text(encoding="utf-8"), document
