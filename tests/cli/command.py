"""Runs the command line as a user would, and tells what came: exit code, stdout, stderr."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from lmedge.cli import main
from tests.requirements import REPOSITORY

DONE, ERROR, USAGE, GATE_FAILED, UNAVAILABLE = range(5)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document; fails when there is anything else on it, or a number that JSON does not know."""
        assert self.stdout, self
        return json.loads(self.stdout, parse_constant=_refuse)

    def assert_clear_error(self, code: int, *parts: object) -> None:
        """Fails unless this ended with `code`, every part in the message on stderr, no trace, and nothing on stdout."""
        assert self.code == code, self
        assert "Traceback" not in self.stderr, self
        assert self.stdout == "", self
        for part in parts:
            assert str(part) in self.stderr, self


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def lmedge(*arguments: object) -> Outcome:
    """`lmedge ARGUMENTS`, in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", ["lmedge", *map(str, arguments)]), redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main()
            code = DONE
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def lmedge_process(*arguments: object, before: Sequence[str] = (), stdout: Any = subprocess.PIPE) -> Outcome:
    """`lmedge ARGUMENTS`, in a process of its own; `before` is put in front of it."""
    command = [*before, sys.executable, "-m", "lmedge.cli", *map(str, arguments)]
    result = subprocess.run(command, cwd=REPOSITORY, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    return Outcome(result.returncode, result.stdout or "", result.stderr)
