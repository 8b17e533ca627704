"""Help pages: every command has one, with an example that works, on a machine that has nothing yet."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer.main

from lmedge import bundle
from lmedge.cli import app, options
from lmedge.runtimes import evaluate
from tests.cli.command import DONE, USAGE, lmedge

HEAVY = ("numpy", "cv2", "torch", "onnx", "onnxruntime", "openvino", "nncf", "accelerate", "matplotlib", "jinja2")
ALL_PAGES = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Blocked())
from lmedge.cli import main
for path in {paths!r}:
    sys.argv = ["lmedge", *path, "--help"]
    try:
        main()
    except SystemExit as stop:
        assert stop.code in (0, None), path
"""


def find_commands(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Path → command, of all commands below a group."""
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        deeper = find_commands(command, (*path, name)) if hasattr(command, "commands") else {(*path, name): command}
        found.update(deeper)
    return found


COMMANDS = find_commands(typer.main.get_command(app))


def test_these_are_the_commands() -> None:
    assert {" ".join(path) for path in COMMANDS} == {
        "build",
        "train",
        "export",
        "quantize",
        "compile",
        "evaluate",
        "verify",
        "bench",
        "predict",
        "demo filter",
        "demo align",
        "demo pose",
        "demo driver",
        "inspect",
        "doctor",
        "data stats",
        "data show",
        "data pack",
        "data synth",
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_a_page_says_what_it_does_and_shows_an_example(path: tuple[str, ...], flag: str) -> None:
    page = lmedge(*path, flag)
    assert page.code == DONE
    assert page.stderr == ""
    assert page.stdout.startswith(f"Usage: lmedge {' '.join(path)} ")
    assert re.search(rf"Examples?:\s+lmedge\s+{' '.join(path)}\s", page.stdout)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    for parameter in COMMANDS[path].params:
        assert parameter.help, f"{parameter.name} of {' '.join(path)}"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_examples_can_be_typed(path: tuple[str, ...]) -> None:
    examples = [shlex.split(text) for text in re.findall(r"lmedge ([^|]+)", COMMANDS[path].epilog)]
    assert examples
    for words in examples:
        assert tuple(words[: len(path)]) == path
        COMMANDS[path].make_context(" ".join(path), words[len(path) :]).close()


def test_an_example_with_an_option_that_is_gone_would_be_noticed() -> None:
    command = COMMANDS["doctor",]
    with pytest.raises(Exception, match="--yaml"):
        command.make_context("doctor", ["--yaml"])


def test_help_needs_nothing_but_the_parser() -> None:
    code = ALL_PAGES.format(heavy=HEAVY, paths=[(), *COMMANDS])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Usage: lmedge") == len(COMMANDS) + 1


def test_without_a_command_the_page_is_shown_as_a_usage_error() -> None:
    page = lmedge()
    assert page.code == USAGE
    assert "Commands:" in page.stdout + page.stderr


def test_the_choices_of_options_are_those_of_the_package() -> None:
    assert options.PRECISIONS == bundle.PRECISIONS
    assert options.SPLITS == evaluate.SPLITS
    assert options.BOXES == evaluate.BOXES
