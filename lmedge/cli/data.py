"""Commands that look at labelled faces: data stats, data show, data synth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.console import print_json, print_table, progress_bar, say
from lmedge.cli.options import JsonOption, SchemaOption

SourceArgument = Annotated[str, typer.Argument(metavar="KIND:PATH", help="300w, wflw, mmlab5, csv or synthetic:COUNT.")]
_LISTED_SUSPECTS = 10


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at labelled faces: statistics, contact sheets, rendered faces.", no_args_is_help=True)
    group.command(epilog="Example:  lmedge data stats 300w:faces/300w")(stats)
    group.command(epilog="Example:  lmedge data show wflw:faces/wflw --out sheet.png --count 40")(show)
    group.command(epilog="Example:  lmedge data synth faces/rendered --count 500 --schema WFLW_98")(synth)
    app.add_typer(group, name="data")


def stats(source: SourceArgument, schema: SchemaOption = "", as_json: JsonOption = False) -> None:
    """Counts, sizes, split, duplicates, and the labels that look most unlike a face."""
    from lmedge.data.statistics import data_statistics

    report = data_statistics(_read(source, schema))
    document = report.to_json()
    if as_json:
        print_json(document)
        return
    suspects, groups = document.pop("suspicious"), document.pop("duplicates")
    document["near-duplicate photos"] = f"{len(groups)} groups, kept on one side of the split" if groups else "none found"
    print_table(source, ["what", "value"], [[name.replace("_", " "), _text(value)] for name, value in document.items()])
    if suspects:
        rows = [[_text(value) for value in entry.values()] for entry in suspects[:_LISTED_SUSPECTS]]
        print_table("Labels least like a face; look at these first", list(suspects[0]), rows)
    if groups:
        listed = [[" = ".join(group)] for group in groups[:_LISTED_SUSPECTS]]
        print_table(f"Near-duplicates (the first {len(listed)} groups; all with --json)", ["photos"], listed)


def show(
    source: SourceArgument,
    schema: SchemaOption = "",
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="The sheet to write.")] = Path("sheet.png"),
    count: Annotated[int, typer.Option("--count", min=1, help="Faces on the sheet, spread evenly over the set.")] = 40,
    seed: Annotated[int | None, typer.Option("--seed", help="Choose at random instead.")] = None,
) -> None:
    """A contact sheet: faces with their points and curves, labels in red."""
    import numpy as np

    from lmedge.data.pictures import contact_sheet, save_picture

    samples = _read(source, schema)
    count = min(count, len(samples))
    if seed is None:
        indices = np.linspace(0, len(samples) - 1, count).astype(int)
    else:
        indices = np.sort(np.random.default_rng(seed).permutation(len(samples))[:count])
    path = save_picture(out, contact_sheet([samples[index] for index in indices]))
    say(f"{count} of {len(samples)} faces on {path}")


def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the pictures and faces.csv go.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many faces.")] = 100,
    schema: SchemaOption = "IBUG_68",
    seed: Annotated[int, typer.Option("--seed", help="Other faces for another seed.")] = 0,
    size: Annotated[int, typer.Option("--size", min=32, help="Side of a picture in pixels.")] = 192,
) -> None:
    """Rendered faces with exact labels, as pictures and a csv list."""
    from dataclasses import replace

    from lmedge.data.csv import write_csv
    from lmedge.data.pictures import save_picture
    from lmedge.data.synthetic import render_faces
    from lmedge.schemas import get_schema

    points = get_schema(schema)
    samples = []
    with progress_bar() as progress:
        for done, sample in enumerate(render_faces(count, points, seed=seed, size_px=size), start=1):
            path = save_picture(folder / f"{sample.photo_key}.png", sample.read_image())
            samples.append(replace(sample, image=path, boxes={"csv": sample.box()}))
            progress(done, count, "rendering")
    write_csv(folder / "faces.csv", samples)
    say(f"{count} faces in {folder}. Use them: lmedge build --data csv:{folder / 'faces.csv'} --schema {points.name}")


def _read(source: str, schema: str) -> list[Any]:
    from lmedge.data.sources import parse_source, read_sources
    from lmedge.schemas import get_schema

    return read_sources([parse_source(source, get_schema(schema) if schema else None)])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_text(inner)}" for name, inner in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "–"
    return f"{value:.3g}" if isinstance(value, float) else ("–" if value is None else str(value))
