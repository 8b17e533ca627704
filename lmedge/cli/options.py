"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="KIND:PATH", help="Labelled faces: 300w, wflw, mmlab5, csv or synthetic:COUNT. Repeatable."),
]
SchemaOption = Annotated[str, typer.Option("--schema", metavar="NAME|FILE.toml", help="Point set of csv and synthetic faces.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="One setting of the configuration, e.g. train.epochs=20. Repeatable.")
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; runs/NAME by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
BackendOption = Annotated[str, typer.Option("--backend", help="Engine: onnxruntime, openvino or torch.")]
BackendsOption = Annotated[
    list[str] | None, typer.Option("--backend", help="Engine to check; repeatable. All that the bundle serves by default.")
]
PrecisionOption = Annotated[str, typer.Option("--precision", help="fp32, fp16 or int8.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, or what `lmedge doctor` lists for the engine.")]
DialectOption = Annotated[
    str | None, typer.Option("--dialect", help="Overrides which int8 file is taken: '' the portable one, 'x86' the unsigned one.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; the engine's default if not given.")]
DetectorOption = Annotated[
    Path | None, typer.Option("--detector", metavar="MODEL.onnx", help="A YuNet face detector file for OpenCV.")
]
