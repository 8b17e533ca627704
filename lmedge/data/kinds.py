"""The kinds of sources: for each format of labelled faces, its reader, its points, its boxes and its terms of use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmedge.data.aflw import files_aflw19, read_aflw19
from lmedge.data.cofw import files_cofw, read_cofw
from lmedge.data.csv import files_csv, read_csv
from lmedge.data.ibug import files_300w, read_300w
from lmedge.data.mmlab import files_mmlab5, read_mmlab5
from lmedge.data.pack import check_pack, files_pack, pack_schema, pack_sources, read_pack
from lmedge.data.samples import FaceSample
from lmedge.data.wflw import files_wflw, read_wflw
from lmedge.errors import DataError
from lmedge.preprocess import REFERENCE
from lmedge.schemas import AFLW_19, COFW_29, IBUG_68, MMLAB_5, WFLW_98, LandmarkSchema


@dataclass(frozen=True)
class SourceKind:
    """A format of labelled faces.

    Attributes:
        what: the format in a few words.
        path: what PATH is.
        schema: the points it has; of kinds that take any schema, the default, or None where it must be given.
        any_schema: whether faces of other schemas can be asked for.
        zoo_prefix: how trained bundles of these points are called, or "".
        box_kind: the kind of box the labels come with; "" where that is as in the sources that are inside.
        licence: the terms of the data, for the bundle's provenance, or "".
        read, files: the faces, and the files whose bytes define them, of a path and a schema.
        schema_of: for kinds whose points are written in what PATH is: the schema of a path, given the one asked for.
        sources_of: for kinds that hold other sources: kind, what and terms of each, of a path and a schema.
        holds_pixels: whether the pictures come with the labels, as arrays, and not as files of their own.
        check: for kinds with digests of their own: compares a path with them, and raises DataError.
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
    schema_of: Callable[[str, LandmarkSchema | None], LandmarkSchema] | None = None
    sources_of: Callable[[str, LandmarkSchema], list[dict[str, str]]] | None = None
    holds_pixels: bool = False
    check: Callable[[str], object] | None = None


def synthetic_count(path: str) -> int:
    """How many faces `synthetic:PATH` asks for.

    Raises:
        DataError: not a count.
    """
    if not (path.isascii() and path.isdigit()) or int(path) == 0:
        raise DataError(f"synthetic:{path}: expected how many faces to render, e.g. synthetic:500.")
    return int(path)


def _render(path: str, schema: LandmarkSchema) -> list[FaceSample]:
    from lmedge.data.synthetic import render_faces

    return list(render_faces(synthetic_count(path), schema))


def _read_mixed(path: str, schema: LandmarkSchema) -> list[FaceSample]:
    from lmedge.data.mixed import read_mixed

    return read_mixed(path, schema)


def _files_mixed(path: str, schema: LandmarkSchema) -> list[Path]:
    from lmedge.data.mixed import files_mixed

    return files_mixed(path, schema)


def _schema_of_mixed(path: str, schema: LandmarkSchema | None) -> LandmarkSchema:
    from lmedge.data.mixed import mixed_schema

    return mixed_schema(path, schema)


def _sources_of_mixed(path: str, schema: LandmarkSchema) -> list[dict[str, str]]:
    from lmedge.data.mixed import mixed_sources

    return mixed_sources(path, schema)


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
    "cofw": SourceKind(
        what="MATLAB files of pictures with 29 points and occlusion flags",
        path="a folder with COFW_train.mat or COFW_train_color.mat, or such a file",
        schema=COFW_29,
        zoo_prefix="cofw29",
        box_kind="cofw",
        read=lambda path, schema: read_cofw(path),
        files=lambda path, schema: files_cofw(path),
        licence="COFW: non-commercial research only. The photos stay under the terms of their owners.",
        holds_pixels=True,
    ),
    "aflw19": SourceKind(
        what="AFLW photos with 19 points: AFLWinfo_release.mat, or lists train.GTB and test.GTB",
        path="a folder with AFLWinfo_release.mat or the lists, and the photos",
        schema=AFLW_19,
        zoo_prefix="aflw19",
        box_kind="aflw19",
        read=lambda path, schema: read_aflw19(path),
        files=lambda path, schema: files_aflw19(path),
        licence="AFLW: non-commercial research only. The photos (Flickr) stay under the terms of their owners.",
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
    "pack": SourceKind(
        what="a crop cache that lmedge data pack wrote",
        path="a .lmpack file",
        schema=None,
        box_kind="",
        read=lambda path, schema: read_pack(path),
        files=lambda path, schema: files_pack(path),
        schema_of=lambda path, schema: pack_schema(path),
        sources_of=lambda path, schema: pack_sources(path),
        holds_pixels=True,
        check=check_pack,
    ),
    "mixed": SourceKind(
        what="a folder of sources of the other kinds",
        path="a folder that holds published layouts, csv files and crop caches",
        schema=None,
        box_kind="",
        read=_read_mixed,
        files=_files_mixed,
        schema_of=_schema_of_mixed,
        sources_of=_sources_of_mixed,
    ),
}
