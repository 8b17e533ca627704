"""A folder that mixes layouts: each published one is found by the files that only it has, and read by its own reader.

faces/
  300w/afw/*.jpg *.pts …            300w
  wflw/WFLW_annotations/ …          wflw
  mmlab5/trainImageList.txt …       mmlab5
  cofw/COFW_train_color.mat         cofw
  aflw/AFLWinfo_release.mat …       aflw19
  own/faces.csv own/points.toml     csv; the point set is the file's neighbour, or the published one with as many points
  cache/faces.lmpack                pack
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lmedge.data.aflw import LISTS as AFLW_LISTS
from lmedge.data.aflw import RELEASE as AFLW_RELEASE
from lmedge.data.csv import header
from lmedge.data.fields import data_folder, read_lines
from lmedge.data.mmlab import LISTS as MMLAB_LISTS
from lmedge.data.pack import SUFFIX, pack_schema
from lmedge.data.samples import FaceSample
from lmedge.data.sources import KINDS, Source, read_sources, source_files, source_terms
from lmedge.errors import DataError, SchemaError
from lmedge.schemas import SCHEMAS, LandmarkSchema, get_schema

_WHAT = "a folder that holds published layouts, csv files and crop caches"
# Files and folders that only one layout has, in lower case; everything below belongs to it.
_MARKS = {
    "wflw": {"wflw_annotations"},
    "mmlab5": {name.lower() for name in MMLAB_LISTS},
    "cofw": {f"cofw_{split}{color}.mat" for split in ("train", "test") for color in ("", "_color")},
    "aflw19": {name.lower() for name in (AFLW_RELEASE, *AFLW_LISTS)},
}


def find_sources(folder: str | Path) -> list[Source]:
    """Every source in a folder tree, by path.

    Raises:
        DataError: no such folder, nothing in it that is known, ``.pts`` files among other layouts, or a csv file whose points
            nobody describes.
    """
    root = data_folder(folder, _WHAT)
    found = list(_found_below(root))
    if not found:
        known = ", ".join(name for name in KINDS if name not in ("synthetic", "mixed"))
        raise DataError(f"{root}: no layout that lmedge knows; expected one of {known} in it. See lmedge data stats KIND:PATH.")
    return found


def mixed_schema(folder: str | Path, schema: LandmarkSchema | None) -> LandmarkSchema:
    """The schema asked for, or the only one there is.

    Raises:
        DataError: as `find_sources`; or there are several schemas and none was asked for.
        SchemaError: no source has the schema that was asked for.
    """
    found = find_sources(folder)
    listed = ", ".join(f"{source} ({source.schema.name})" for source in found)
    names = {source.schema.name: source.schema for source in found}
    if schema is not None and schema not in names.values():
        raise SchemaError(f"mixed:{folder} has no faces of {schema.name}; found {listed}.")
    if schema is None and len(names) > 1:
        raise DataError(f"mixed:{folder} has faces of several schemas; say which with --schema NAME. Found {listed}.")
    return schema or next(iter(names.values()))


def mixed_parts(folder: str | Path, schema: LandmarkSchema) -> list[Source]:
    """The sources of one schema; see `find_sources`."""
    return [source for source in find_sources(folder) if source.schema == schema]


def read_mixed(folder: str | Path, schema: LandmarkSchema) -> list[FaceSample]:
    """The faces of one schema, source after source."""
    return read_sources(mixed_parts(folder, schema))


def files_mixed(folder: str | Path, schema: LandmarkSchema) -> list[Path]:
    """The files of the sources of one schema, sorted."""
    return sorted({file for source in mixed_parts(folder, schema) for file in source_files(source)})


def mixed_sources(folder: str | Path, schema: LandmarkSchema) -> list[dict[str, str]]:
    """Kind, what and terms of the sources of one schema."""
    return source_terms(mixed_parts(folder, schema))


def _found_below(folder: Path) -> Iterator[Source]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    lower = {name.lower() for name in names}
    for kind, marks in _MARKS.items():
        if lower & marks:
            schema = KINDS[kind].schema
            assert schema is not None
            yield Source(kind, str(folder), schema)
            return
    yield from _own_files(folder, names)
    below = [source for name in names if (folder / name).is_dir() for source in _found_below(folder / name)]
    others = [source for source in below if source.kind != "300w"]
    labelled = any(name.lower().endswith(".pts") for name in names)
    if labelled and others:
        raise DataError(
            f"{folder}: .pts files lie beside the folder of another layout, {others[0]}. Move them to their own folder."
        )
    if labelled or (below and not others):
        # One source for the family: its labels may lie in other folders than its images.
        schema = KINDS["300w"].schema
        assert schema is not None
        yield Source("300w", str(folder), schema)
    else:
        yield from below


def _own_files(folder: Path, names: list[str]) -> Iterator[Source]:
    for name in names:
        file = folder / name
        if name.lower().endswith(SUFFIX):
            yield Source("pack", str(file), pack_schema(file))
        elif name.lower().endswith(".csv") and (lines := read_lines(file)) and lines[0].lower().startswith("image,x_min,"):
            yield Source("csv", str(file), _csv_schema(file, lines[0], names))


def _csv_schema(file: Path, first_line: str, names: list[str]) -> LandmarkSchema:
    """The point set described by a .toml file beside it, else a published one with the same columns."""
    columns = first_line.strip().split(",")
    own = [get_schema(file.parent / name) for name in names if name.endswith(".toml")]
    fitting = [schema for schema in (*own, *SCHEMAS.values()) if header(schema) == columns]
    if not fitting:
        raise DataError(
            f"{file}:1: no point set has these {len(columns)} columns; describe the points in a .toml file beside it."
        )
    return fitting[0]
