"""Layers of int8 files on the command line: how much they may cost, and what each of them does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.console import number, percent, print_table, say

LossOption = Annotated[
    float | None,
    typer.Option(
        "--max-nme-loss",
        metavar="POINTS",
        help="Leave layers in float until int8 adds at most so many points of NME (0.03 turns 4.00 % into 4.03 %), for its "
        "upper 95 % bound.",
    ),
]
SpeedOption = Annotated[
    float | None,
    typer.Option(
        "--min-speedup",
        metavar="X",
        help="How many times as fast as fp32 int8 has to be here, on one thread; if not, exit code 3.",
    ),
]
SensitivityOption = Annotated[
    bool, typer.Option("--sensitivity", help="Rank the layers by what their rounding does: some minutes.")
]
# As many layers as fit on a screen.
_SHOWN = 10


def bound_settings(max_nme_loss: float | None, min_speedup: float | None, sensitivity: bool = False) -> dict[str, Any]:
    """Settings from the options; points of NME become a fraction."""
    options = {
        "max_nme_loss": None if max_nme_loss is None else round(max_nme_loss / 100, 12),
        "min_speedup": min_speedup,
        "sensitivity": sensitivity or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return {"quantize": given} if given else {}


def read_layers(run: Path) -> dict[str, Any]:
    """What the quantize stage found out about layers, by dialect."""
    from lmedge.pipeline.runs.run_files import LAYERS

    document: dict[str, Any] = json.loads((run / "quantize" / LAYERS).read_text(encoding="utf-8"))
    return document


def print_layers(document: Mapping[str, Any]) -> None:
    """The most harmful layers of each file, and the way from int8 to float as far as it was gone and a bound was met."""
    from lmedge.calibration.report import layer_tables

    for table in layer_tables(document):
        if table.layers:
            faces = table.document["sensitivity"]["faces"]
            rows = [_row(table.document, layer) for layer in table.layers[:_SHOWN]]
            columns = ["layer", "kind", "part", "mean px", "points added", "points saved in float"]
            print_table(f"{table.dialect}: layers by what their rounding does, on {faces} training faces", columns, rows)
        if table.points and table.document["bound"]["met"]:
            say(f"{table.dialect}: {table.document['bound']['text']}")


def _row(document: Mapping[str, Any], layer: Mapping[str, Any]) -> list[str]:
    full, alone, freed = document["sensitivity"]["full"], layer["alone"], layer["freed"]
    saved = None if freed is None else 100 * (full["added"]["nme"] - freed["added"]["nme"])
    added = 100 * alone["added"]["nme"]
    return [
        layer["layer"],
        layer["what"],
        percent(layer["part"], 1),
        number(alone["mean_px"], 4),
        number(added, 4),
        number(saved, 4),
    ]
