"""The command line: each command parses, calls one function of the package, prints, and ends with an exit code.

0 done · 1 error · 2 usage · 3 a gate failed · 4 backend or device unavailable. Heavy imports are inside the commands.
"""

from __future__ import annotations

import errno
import os
import sys

import typer

from lmedge.cli import build as build_commands
from lmedge.cli import compile as compile_command
from lmedge.cli import data as data_commands
from lmedge.cli import demo as demo_commands
from lmedge.cli import device as device_commands
from lmedge.cli import faces as face_commands
from lmedge.cli import look as look_commands
from lmedge.cli.console import EXIT_ERROR, exit_code, print_error
from lmedge.errors import LmedgeError

# What the machine refuses, whatever lmedge does: no trace helps.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
_INTERRUPTED = 130

app = typer.Typer(
    name="lmedge",
    help="Facial landmarks on edge devices: from labelled faces to verified engines.",
    epilog="Start here: lmedge build --target onnxruntime --target openvino, then lmedge predict runs/faces/bundle photo.jpg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
build_commands.register(app)
compile_command.register(app)
data_commands.register(app)
face_commands.register(app)
demo_commands.register(app)
device_commands.register(app)
look_commands.register(app)


def main() -> None:
    """Runs the command line; an expected error is a message and an exit code, not a traceback."""
    try:
        app(prog_name="lmedge")
    except LmedgeError as error:
        print_error(error)
        sys.exit(exit_code(error))
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            print_error(
                LmedgeError("Interrupted. A build or training goes on where it stopped when the same command is run again.")
            )
        raise
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        print_error(
            LmedgeError(f"Cannot write {error.filename or 'the output'}: {os.strerror(error.errno)}. Make room, and run again.")
        )
        sys.exit(EXIT_ERROR)
