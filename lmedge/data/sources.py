"""Where faces come from: ``KIND:PATH`` on the command line, one reader per kind.

Readers parse labels and look for the images; pixels are decoded later, by whoever needs them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmedge.data.kinds import KINDS, SourceKind, synthetic_count
from lmedge.data.samples import FaceSample
from lmedge.errors import DataError, SchemaError
from lmedge.schemas import LandmarkSchema

__all__ = [
    "KINDS",
    "Source",
    "SourceKind",
    "check_sources",
    "expand_sources",
    "parse_source",
    "read_sources",
    "source_files",
    "source_terms",
    "synthetic_count",
]

_UNKNOWN_TERMS = "not known to lmedge: those of whoever made the labels"
_TERMS = {"synthetic": "made by lmedge, no terms"}


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
    chosen = kind.schema_of(path, schema) if kind.schema_of else schema or kind.schema
    if chosen is None:
        raise DataError(f"{text}: {name} takes any point set; say which with --schema NAME or --schema FILE.toml.")
    own = chosen if kind.schema_of else kind.schema
    if not kind.any_schema and schema is not None and own is not None and schema != own:
        raise SchemaError(f"{text}: {name} has the points of {own.name}, not {schema.name}. Leave --schema out.")
    if name == "synthetic":
        synthetic_count(path)
    return Source(name, path, chosen)


def source_files(source: Source) -> list[Path]:
    """The files whose bytes define the data, sorted; none for rendered faces.

    Raises:
        DataError: the folder, file or lists are missing.
    """
    return KINDS[source.kind].files(source.path, source.schema)


def expand_sources(sources: Sequence[Source], *, other_points: bool = False) -> list[Source]:
    """The sources with each folder of kind `mixed` replaced by what was found in it: faces of its schema, and with
    `other_points` those of all others behind them."""
    from lmedge.data.mixed import find_sources

    expanded: list[Source] = []
    for source in sources:
        found = find_sources(source.path) if source.kind == "mixed" else [source]
        expanded += [part for part in found if part.schema == source.schema]
        expanded += [part for part in found if part.schema != source.schema and other_points]
    return expanded


def source_terms(sources: Sequence[Source]) -> list[dict[str, str]]:
    """What a manifest says of where faces come from: kind, what (the format) and terms of use, also of those inside others.

    Raises:
        DataError: a folder or file that holds other sources cannot be read.
    """
    found: list[dict[str, str]] = []
    for source in sources:
        kind = KINDS[source.kind]
        if kind.sources_of is not None:
            found += kind.sources_of(source.path, source.schema)
        else:
            terms = kind.licence or _TERMS.get(source.kind, _UNKNOWN_TERMS)
            found.append({"kind": source.kind, "what": kind.what, "terms": terms})
    return [entry for index, entry in enumerate(found) if entry not in found[:index]]


def check_sources(sources: Sequence[Source]) -> None:
    """Compares the pixels of crop caches with their digests; sources of other kinds have none.

    Raises:
        DataError: a file was changed since it was written.
    """
    for source in expand_sources(sources):
        check = KINDS[source.kind].check
        if check is not None:
            check(source.path)


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
