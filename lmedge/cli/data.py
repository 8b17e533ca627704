"""Commands on labelled faces: data stats, data show, data pack, data synth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmedge.cli.console import print_json, print_table, progress_bar, say
from lmedge.cli.options import JsonOption, SchemaOption

if TYPE_CHECKING:
    from lmedge.data.samples import FaceSample

_KINDS = "300w, wflw, mmlab5, cofw, aflw19, csv, pack, mixed or synthetic:COUNT."
SourceArgument = Annotated[str, typer.Argument(metavar="KIND:PATH", help=_KINDS)]
_LISTED = 10
# Tiles that hold numbers of points have to be larger.
_NAMED_TILE_PX, _NAMED_COLUMNS = 480, 3


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at labelled faces, cut them out for training, or render some.", no_args_is_help=True)
    group.command(epilog="Example:  lmedge data stats 300w:faces/300w --show stats.png")(stats)
    group.command(epilog="Example:  lmedge data show wflw:faces/wflw --out sheet.png --suspicious")(show)
    group.command(epilog="Example:  lmedge data pack 300w:faces/300w --out faces.lmpack")(pack)
    group.command(epilog="Example:  lmedge data synth faces/rendered --count 500 --schema WFLW_98")(synth)
    app.add_typer(group, name="data")


def stats(
    source: SourceArgument,
    schema: SchemaOption = "",
    picture: Annotated[
        Path | None, typer.Option("--show", metavar="FILE.png", help="Write histograms of pose and size as a picture.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Counts, sizes, head pose, split, duplicates, and the labels that look most unlike a face."""
    from lmedge.data.sources import check_sources
    from lmedge.data.statistics import data_statistics

    parsed = _parse(source, schema)
    check_sources([parsed])
    report = data_statistics(_faces(parsed))
    if picture is not None:
        from lmedge.data.pictures import save_picture
        from lmedge.data.statistics_picture import statistics_picture

        save_picture(picture, statistics_picture(report, source))
    document = report.to_json()
    if as_json:
        print_json(document)
        return
    suspects, groups, pairs = (document.pop(name) for name in ("suspicious", "duplicates", "relabelled"))
    histograms = {**document.pop("pose"), "face_px": document.pop("face_px")}
    document["near-duplicate photos"] = f"{len(groups)} groups, kept on one side of the split" if groups else "none found"
    print_table(source, ["what", "value"], [[name.replace("_", " "), _text(value)] for name, value in document.items()])
    for name, histogram in histograms.items():
        edges = histogram["edges"]
        bins = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        print_table(f"{name.replace('_', ', ')}: faces", bins, [[str(count) for count in histogram["counts"]]])
    if suspects:
        columns = ("photo_key", "deviation", "reason", "origin")
        rows = [[_text(entry[name]) for name in columns] for entry in suspects[:_LISTED]]
        print_table("Labels least like a face; look at these first: data show --suspicious", columns, rows)
    if groups:
        listed = [[" = ".join(group)] for group in groups[:_LISTED]]
        print_table(f"Near-duplicates (the first {len(listed)} groups; all with --json)", ["photos"], listed)
    if pairs:
        rows = [[f"{100 * p['difference']:.2f} %", p["worst_point"], " = ".join(p["origins"])] for p in pairs[:_LISTED]]
        title = "Copies labelled most differently, mean over the normaliser: data show --duplicates"
        print_table(title, ["difference", "worst point", "labels"], rows)
    if picture is not None:
        say(f"The histograms are in {picture}")


def show(
    source: SourceArgument,
    schema: SchemaOption = "",
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="The sheet to write.")] = Path("sheet.png"),
    count: Annotated[int, typer.Option("--count", min=1, help="Faces on the sheet, spread evenly over the set.")] = 40,
    seed: Annotated[int | None, typer.Option("--seed", help="Choose at random instead.")] = None,
    subset: Annotated[str, typer.Option("--subset", metavar="TAG", help="Only faces with this tag.")] = "",
    suspicious: Annotated[bool, typer.Option("--suspicious", help="The strangest labels first, with the reason.")] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Pairs of copies, the most differently labelled first.")
    ] = False,
    names: Annotated[bool, typer.Option("--names", help="Number the points, and list their names.")] = False,
) -> None:
    """A contact sheet: faces with their points and smooth curves through them, labels in red."""
    from lmedge.data.pictures import contact_sheet, save_picture
    from lmedge.errors import DataError

    if suspicious and duplicates:
        raise typer.BadParameter("--suspicious and --duplicates are two sheets; ask for one at a time.")
    samples = _faces(_parse(source, schema))
    if subset:
        tags = sorted({tag for sample in samples for tag in sample.subset})
        samples = [sample for sample in samples if subset in sample.subset]
        if not samples:
            raise DataError(f"{source}: no face has the tag {subset!r}; there are {', '.join(tags) or 'no tags'}.")
    if suspicious:
        chosen, captions = _most_suspicious(samples, count)
    elif duplicates:
        chosen, captions = _most_different_copies(source, samples, count)
    else:
        chosen, captions = _some(samples, count, seed), None
    if names:
        sheet = contact_sheet(chosen, captions=captions, names=True, tile_px=_NAMED_TILE_PX, columns=_NAMED_COLUMNS)
    else:
        sheet = contact_sheet(chosen, captions=captions)
    path = save_picture(out, sheet)
    say(f"{len(chosen)} of {len(samples)} faces on {path}")


def pack(
    sources: Annotated[list[str], typer.Argument(metavar="KIND:PATH...", help=f"Sources of one schema: {_KINDS}")],
    schema: SchemaOption = "",
    out: Annotated[Path, typer.Option("--out", metavar="FILE.lmpack", help="The file to write.")] = Path("faces.lmpack"),
    size: Annotated[int, typer.Option("--size", min=16, help="Longest side of a cut in pixels; none is enlarged.")] = 256,
    room: Annotated[
        float | None,
        typer.Option(
            "--room", min=1, max=10, help="Side of a cut over the extent of the points; what training needs without it."
        ),
    ] = None,
) -> None:
    """A crop cache: every face cut out with room around it, in one file that loads without decoding."""
    from lmedge.data.duplicates import share_keys_of_duplicates
    from lmedge.data.pack import write_pack
    from lmedge.data.sources import read_sources, source_terms

    parsed = [_parse(source, schema) for source in sources]
    faces = share_keys_of_duplicates(read_sources(parsed))
    with progress_bar() as progress:
        path = write_pack(out, faces, source_terms(parsed), size_px=size, room=room, progress=progress)
    megabytes = path.stat().st_size / 1e6
    say(
        f"{len(faces)} faces of {faces[0].schema.name} in {path}, {megabytes:.1f} MB. Use them: lmedge build --data pack:{path}"
    )


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


def _parse(source: str, schema: str) -> Any:
    from lmedge.data.sources import parse_source
    from lmedge.schemas import get_schema

    return parse_source(source, get_schema(schema) if schema else None)


def _faces(source: Any) -> list[FaceSample]:
    from lmedge.data.sources import read_sources

    return read_sources([source])


def _some(samples: list[FaceSample], count: int, seed: int | None) -> list[FaceSample]:
    import numpy as np

    count = min(count, len(samples))
    if seed is None:
        indices = np.linspace(0, len(samples) - 1, count).astype(int)
    else:
        indices = np.sort(np.random.default_rng(seed).permutation(len(samples))[:count])
    return [samples[index] for index in indices]


def _most_suspicious(samples: list[FaceSample], count: int) -> tuple[list[FaceSample], list[str]]:
    from lmedge.data.statistics import suspicious_labels

    ranked = suspicious_labels(samples)[:count]
    return [samples[entry.index] for entry in ranked], [entry.reason for entry in ranked]


def _most_different_copies(source: str, samples: list[FaceSample], count: int) -> tuple[list[FaceSample], list[str]]:
    """The two faces of each pair, one after the other."""
    from lmedge.data.duplicates import duplicate_pairs
    from lmedge.data.relabelled import relabelled_pairs
    from lmedge.errors import DataError

    pairs = relabelled_pairs(samples, duplicate_pairs(samples))[: max(1, count // 2)]
    if not pairs:
        raise DataError(f"{source}: no near-duplicate photos were found, so there are no pairs to show.")
    chosen = [samples[index] for pair in pairs for index in (pair.first, pair.second)]
    captions = [f"{100 * pair.difference:.1f} % apart: {pair.worst_point}" for pair in pairs for _ in range(2)]
    return chosen, captions


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_text(inner)}" for name, inner in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "–"
    return f"{value:.3g}" if isinstance(value, float) else ("–" if value is None else str(value))
