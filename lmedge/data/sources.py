"""Where faces come from: ``KIND:PATH`` on the command line, one reader per kind.

Readers parse labels and look for the images; pixels are decoded later, by whoever needs them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmedge.data.csv import files_csv, read_csv
from lmedge.data.ibug import files_300w, read_300w
from lmedge.data.mmlab import files_mmlab5, read_mmlab5
from lmedge.data.samples import FaceSample
from lmedge.data.wflw import files_wflw, read_wflw
from lmedge.errors import DataError, SchemaError
from lmedge.preprocess import REFERENCE
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema


@dataclass(frozen=True)
class SourceKind:
    """A format of labelled faces.

    Attributes:
        what: the format in a few words.
        path: what PATH is.
        schema: the points it has; of kinds that take any schema, the default, or None where it must be given.
        any_schema: whether faces of other schemas can be asked for.
        zoo_prefix: how trained bundles of these points are called, or "".
        box_kind: the kind of box the labels come with.
        licence: the terms of the data, for the bundle's provenance, or "".
        read, files: the faces, and the files whose bytes define them, of a path and a schema.
    """

    what: str
    path: str
    schema: LandmarkSchema | None
    box_kind: str
    read: Callable[[str, LandmarkSchema], list[FaceSample]]
    files: Callable[[str, LandmarkSchema], list[Path]]
    zoo_prefix: str = ""
    any_schema: bool = False
    licence: str = ""


@dataclass(frozen=True)
class Source:
    """One ``KIND:PATH`` and the points its faces have."""

    kind: str
    path: str
    schema: LandmarkSchema

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}"


def parse_source(text: str, schema: LandmarkSchema | None = None) -> Source:
    """The source that ``KIND:PATH`` names, e.g. ``300w:faces/300w``, ``synthetic:500``.

    Args:
        schema: needed for kinds with a point set of the user's own (`csv`), a choice for `synthetic`.

    Raises:
        DataError: no such kind, no path, or a schema is needed.
        SchemaError: the kind's points are not those of the schema.
    """
    name, colon, path = text.partition(":")
    if not colon or not path or name not in KINDS:
        raise DataError(_expected(text, name if colon else ""))
    kind = KINDS[name]
    chosen = schema or kind.schema
    if chosen is None:
        raise DataError(f"{text}: {name} takes any point set; say which with --schema NAME or --schema FILE.toml.")
    if not kind.any_schema and chosen != kind.schema and kind.schema is not None:
        raise SchemaError(f"{text}: {name} has the points of {kind.schema.name}, not {chosen.name}. Leave --schema out.")
    if name == "synthetic":
        _synthetic_count(path)
    return Source(name, path, chosen)


def source_files(source: Source) -> list[Path]:
    """The files whose bytes define the data, sorted; none for rendered faces.

    Raises:
        DataError: the folder, file or lists are missing.
    """
    return KINDS[source.kind].files(source.path, source.schema)


def read_sources(sources: Sequence[Source]) -> list[FaceSample]:
    """The faces of all sources, in the given order.

    Raises:
        DataError: a source cannot be read, or has no faces.
        SchemaError: the sources have different points.
    """
    schemas = {source.schema.name: source for source in sources}
    if len(schemas) > 1:
        names = ", ".join(f"{source} has {name}" for name, source in schemas.items())
        raise SchemaError(f"Faces that are used together need one schema; {names}. Give the sources one at a time.")
    faces: list[FaceSample] = []
    for source in sources:
        found = KINDS[source.kind].read(source.path, source.schema)
        if not found:
            raise DataError(f"{source} has no labelled faces; expected {KINDS[source.kind].path}.")
        faces += found
    if not faces:
        raise DataError("No source of faces was given; give one as KIND:PATH, e.g. 300w:FOLDER or synthetic:500.")
    return faces


def _expected(text: str, name: str) -> str:
    near = difflib.get_close_matches(name.lower(), KINDS, n=1)
    hint = f" Did you mean {near[0]}?" if near and name not in KINDS else ""
    return f"Expected KIND:PATH, with KIND one of {', '.join(KINDS)}; got {text!r}.{hint}"


def _synthetic_count(path: str) -> int:
    if not (path.isascii() and path.isdigit()) or int(path) == 0:
        raise DataError(f"synthetic:{path}: expected how many faces to render, e.g. synthetic:500.")
    return int(path)


def _render(path: str, schema: LandmarkSchema) -> list[FaceSample]:
    from lmedge.data.synthetic import render_faces

    return list(render_faces(_synthetic_count(path), schema))


KINDS: dict[str, SourceKind] = {
    "synthetic": SourceKind(
        what="rendered faces with exact labels",
        path="how many faces to render",
        schema=IBUG_68,
        any_schema=True,
        box_kind=REFERENCE,
        read=_render,
        files=lambda path, schema: [],
    ),
    "300w": SourceKind(
        what="images with a .pts file of 68 points beside each: AFW, Helen, LFPW, iBUG, Multi-PIE, XM2VTS",
        path="a folder tree of .jpg or .png images with .pts files",
        schema=IBUG_68,
        zoo_prefix="ibug68",
        box_kind=REFERENCE,
        read=lambda path, schema: read_300w(path),
        files=lambda path, schema: files_300w(path),
        licence="300-W (iBUG): research only; use in training commercial algorithms is not allowed. "
        "The photos stay under the terms of their owners.",
    ),
    "wflw": SourceKind(
        what="lists of 98 points with boxes and attributes, 207 fields a line",
        path="WFLW's folder, or one of its lists",
        schema=WFLW_98,
        zoo_prefix="wflw98",
        box_kind="wflw",
        read=lambda path, schema: read_wflw(path),
        files=lambda path, schema: files_wflw(path),
        licence="WFLW: non-commercial research only. The photos (WIDER FACE) stay under the terms of their owners.",
    ),
    "mmlab5": SourceKind(
        what="lists of 5 points with boxes left right top bottom",
        path="a folder with trainImageList.txt or testImageList.txt, or one of these lists",
        schema=MMLAB_5,
        zoo_prefix="mmlab5",
        box_kind="mmlab5",
        read=lambda path, schema: read_mmlab5(path),
        files=lambda path, schema: files_mmlab5(path),
        licence="MMLAB five points (LFW and web photos): non-commercial research only.",
    ),
    "csv": SourceKind(
        what="comma-separated text: image,x_min,y_min,x_max,y_max,x0,y0,…",
        path="a .csv file with one face a line",
        schema=None,
        any_schema=True,
        box_kind="csv",
        read=read_csv,
        files=files_csv,
    ),
}
