"""Options that several commands share, spelled once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

# Spelled here too, since reading them where they belong would load NumPy for every help page.
PRECISIONS = ("fp32", "fp16", "int8", "fp16-int8")
SPLITS = ("validation", "train", "all")
BOXES = ("annotated", "landmarks", "detector")

Value = TypeVar("Value", str, list[str], None)


def one_of(choices: tuple[str, ...]) -> Callable[[Value], Value]:
    """A check of an option's value, or of each where it can be repeated; any other is a usage error that lists the choices."""

    def check(value: Value) -> Value:
        every: list[str] = [value] if isinstance(value, str) else value or []
        for given in every:
            if given not in choices:
                raise typer.BadParameter(f"expected one of {', '.join(choices)}; got {given!r}.")
        return value

    return check


DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="KIND:PATH",
        help="Labelled faces: 300w, wflw, mmlab5, cofw, aflw19, csv, mixed, pack, or synthetic:COUNT. Repeatable.",
    ),
]
SchemaOption = Annotated[str, typer.Option("--schema", metavar="NAME|FILE.toml", help="Point set of csv and synthetic faces.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="One setting of the configuration, e.g. train.epochs=20. Repeatable."),
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; runs/NAME by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
BackendOption = Annotated[str, typer.Option("--backend", help="Engine: onnxruntime, openvino or tensorrt.")]
BackendsOption = Annotated[
    list[str] | None, typer.Option("--backend", help="Engine to check; repeatable. All that the bundle serves by default.")
]
PrecisionOption = Annotated[str, typer.Option("--precision", callback=one_of(PRECISIONS), help="fp32, fp16 or int8.")]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option("--precision", callback=one_of(PRECISIONS), help="fp32, fp16 or int8; repeatable. All by default."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="What `lmedge doctor` lists for the engine; cpu by default, where it has that.")
]
DialectOption = Annotated[
    str | None,
    typer.Option("--dialect", help="Overrides which int8 file is taken: '' the portable one, 'x86' the unsigned one."),
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; the engine's default if not given.")]
DetectorOption = Annotated[
    Path | None, typer.Option("--detector", metavar="MODEL.onnx", help="A YuNet face detector file for OpenCV.")
]
