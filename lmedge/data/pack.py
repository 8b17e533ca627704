"""The crop cache: faces cut out of their photos, with labels, boxes and terms of use, in one file to carry elsewhere.

    64 bytes     magic · offset and length of the header (uint64, little endian) · sha256 of the header · zeros
    pixels       uint8 BGR, face after face, without compression: an opened file is mapped, a face is a view of it
    points       float32 (faces, points, 2), little endian, NaN where unknown
    header       JSON: format version, schema, sources with their terms, and per face its keys, boxes, cut and sha256

A face is cut around its reference box with room for augmentation, at most `size_px` long and never enlarged. The part of
that square that lies outside the photo is left out, so a label outside the photo is outside the cut too. The header and
the points are checked against their digests when the file is opened, the pixels by `check_pack`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmedge.data.pack_cut import Cut, cut_face
from lmedge.data.samples import FaceSample
from lmedge.errors import DataError, LmedgeError, SchemaError
from lmedge.landmarks import FaceBox
from lmedge.progress import Progress
from lmedge.schemas import LandmarkSchema

SUFFIX = ".lmpack"
FORMAT_VERSION = 1
# Side of the cut over the extent of the points: a crop of 1.25, turned by 30 degrees, enlarged by 20 % and moved by 15 %.
ROOM = 2.4
# The same around points without the face's outline, whose extent is about half of it, also where they train with points that
# have it.
INNER_ROOM = 5.0
SIZE_PX = 256

# Its line ends and its end-of-file byte tell of transfers that took the file for text.
_MAGIC = b"\x89LMP\r\n\x1a\n"
_PREFIX = struct.Struct("<8sQQ32s")
_FIRST_PIXEL = 64


@dataclass(frozen=True, eq=False)
class Pack:
    """An opened crop cache.

    Attributes:
        path: the file; schema: what its points are.
        sources: kind, format and terms of use of each source the faces are from, as manifests name them.
        samples: the faces; their images are read-only views of the file.
        digests: sha256 of each face's pixels.
    """

    path: Path
    schema: LandmarkSchema
    sources: tuple[Mapping[str, str], ...]
    samples: tuple[FaceSample, ...]
    digests: tuple[str, ...]


def write_pack(
    path: str | Path,
    samples: Sequence[FaceSample],
    sources: Sequence[Mapping[str, str]],
    *,
    size_px: int = SIZE_PX,
    room: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Cuts faces of one schema out of their photos and writes them to one file, which appears whole or not at all.

    Args:
        samples: in the order in which they will be read; near-duplicates should share their keys already.
        sources: kind, what and terms of each source, see `sources.source_terms`.
        size_px: the longest side of a cut.
        room: side of the cut over the longer side of the extent of the points; without it, what any augmentation needs, which
            is more for points that lie inside the face.

    Raises:
        DataError: no faces, an image that cannot be read, a label far outside it, or a file that cannot be written.
        SchemaError: faces of several schemas.
    """
    target = Path(path).expanduser()
    names = sorted({sample.schema.name for sample in samples})
    if not names:
        raise DataError(f"{target}: a crop cache needs at least one labelled face; got none.")
    if len(names) > 1:
        raise SchemaError(f"{target}: a crop cache holds faces of one schema; got {', '.join(names)}. Pack them one at a time.")
    if room is None:
        room = ROOM if "contour" in samples[0].schema.groups else INNER_ROOM
    if size_px < 16 or not 1 <= room <= 10:
        raise DataError(f"{target}: a cut needs a size of 16 px or more and room of 1 to 10; got {size_px} px and {room:g}.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            _write(stream, samples, list(sources), size_px, room, progress)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"Cannot write the crop cache {target}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return target


def open_pack(path: str | Path) -> Pack:
    """Maps a crop cache; no picture is decoded or even read.

    Raises:
        DataError: no such file, another file, a newer format, or one that was cut or changed.
    """
    file = Path(path).expanduser()
    content = _map(file)
    document, end = _header(file, content)
    try:
        schema = LandmarkSchema.from_json(document["schema"])
        entries = document["faces"]
        sides = [(int(height), int(width)) for height, width in (entry["cut"]["hw"] for entry in entries)]
        starts = _FIRST_PIXEL + np.cumsum([0, *(3 * height * width for height, width in sides)])
        points = _points(file, content, document["points_sha256"], (len(entries), schema.num_points), int(starts[-1]), end)
        samples = [
            _sample(entry, points[i], schema, content[starts[i] : starts[i + 1]].reshape(*sides[i], 3), f"{file}, face {i + 1}")
            for i, entry in enumerate(entries)
        ]
        sources = tuple({str(k): str(v) for k, v in source.items()} for source in document["sources"])
        return Pack(file, schema, sources, tuple(samples), tuple(str(entry["sha256"]) for entry in entries))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LmedgeError):
            raise
        raise DataError(
            f"{file}: the header of this crop cache lacks something or has it in another form ({error!r})."
        ) from error


def read_pack(path: str | Path) -> list[FaceSample]:
    """The faces of a crop cache; see `open_pack`."""
    return list(open_pack(path).samples)


def files_pack(path: str | Path) -> list[Path]:
    """The file itself."""
    return [Path(path).expanduser()]


def pack_schema(path: str | Path) -> LandmarkSchema:
    """The points of a crop cache, from its header alone; see `open_pack`."""
    file = Path(path).expanduser()
    return LandmarkSchema.from_json(_header(file, _map(file))[0]["schema"])


def pack_sources(path: str | Path) -> list[dict[str, str]]:
    """Kind, format and terms of the sources of a crop cache, from its header alone; see `open_pack`."""
    file = Path(path).expanduser()
    return [dict(source) for source in _header(file, _map(file))[0]["sources"]]


def check_pack(path: str | Path, progress: Progress | None = None) -> Pack:
    """Opens a crop cache and compares every pixel with the digests.

    Raises:
        DataError: as `open_pack`; or the picture of a face is not the one that was written (with its number).
    """
    pack = open_pack(path)
    for number, (sample, digest) in enumerate(zip(pack.samples, pack.digests, strict=True), 1):
        assert isinstance(sample.image, np.ndarray)
        if hashlib.sha256(sample.image.tobytes()).hexdigest() != digest:
            raise DataError(
                f"{pack.path}: the picture of face {number} ({sample.photo_key}) was changed since it was packed. "
                "Copy the file again, or pack the faces again."
            )
        if progress:
            progress(number, len(pack.samples), "checking pictures")
    return pack


def _write(
    stream: Any,
    samples: Sequence[FaceSample],
    sources: list[Mapping[str, str]],
    size_px: int,
    room: float,
    progress: Progress | None,
) -> None:
    stream.write(bytes(_FIRST_PIXEL))
    entries = []
    points = np.empty((len(samples), samples[0].schema.num_points, 2), "<f4")
    for index, (sample, cut) in enumerate(_cuts(samples, size_px, room)):
        pixels = cut.image_bgr.tobytes()
        stream.write(pixels)
        points[index] = cut.moved(sample.points_px)
        entries.append(_entry(sample, cut, hashlib.sha256(pixels).hexdigest()))
        if progress:
            progress(index + 1, len(samples), "cutting faces")
    stream.write(points.tobytes())
    document = {
        "format_version": FORMAT_VERSION,
        "schema": samples[0].schema.to_json(),
        "sources": [dict(source) for source in sources],
        "size_px": size_px,
        "room": room,
        "points_sha256": hashlib.sha256(points.tobytes()).hexdigest(),
        "faces": entries,
    }
    header = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    offset = stream.tell()
    stream.write(header)
    stream.seek(0)
    stream.write(_PREFIX.pack(_MAGIC, offset, len(header), hashlib.sha256(header).digest()))


def _cuts(samples: Sequence[FaceSample], size_px: int, room: float) -> Iterator[tuple[FaceSample, Cut]]:
    """Each face with its cut; a photo whose faces follow one another is decoded once."""
    path, image = None, None
    for sample in samples:
        if image is None or not isinstance(sample.image, Path) or sample.image != path:
            path, image = (sample.image if isinstance(sample.image, Path) else None), sample.read_image()
        yield sample, cut_face(image, sample, size_px, room)


def _entry(sample: FaceSample, cut: Cut, sha256: str) -> dict[str, Any]:
    boxes = {kind: cut.moved(box.xyxy.reshape(2, 2)).ravel().tolist() for kind, box in sample.boxes.items()}
    return {
        "photo_key": sample.photo_key,
        "origin": Path(sample.origin).name if sample.origin else "",
        "subset": list(sample.subset),
        "boxes": boxes,
        "cut": {"hw": list(cut.image_bgr.shape[:2]), "zoom": cut.zoom, "shift_px": list(cut.shift_px)},
        "sha256": sha256,
    }


def _map(file: Path) -> npt.NDArray[np.uint8]:
    try:
        if os.path.getsize(file) < _FIRST_PIXEL:
            raise DataError(f"{file} is not a crop cache of lmedge: it has less than {_FIRST_PIXEL} bytes.")
        return np.memmap(file, np.uint8, "r").view(np.ndarray)
    except OSError as error:
        raise DataError(f"Cannot read the crop cache {file}: {error.strerror or error}.") from error


def _header(file: Path, content: npt.NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """The checked header, and where it begins."""
    magic, offset, length, digest = _PREFIX.unpack(content[: _PREFIX.size].tobytes())
    if magic != _MAGIC:
        raise DataError(
            f"{file} is not a crop cache of lmedge, or was changed on its way. Write one: lmedge data pack KIND:PATH."
        )
    if offset + length != len(content):
        raise DataError(
            f"{file} is cut or damaged: {offset + length} bytes were written, it has {len(content)}. Copy or pack it again."
        )
    header = content[offset:].tobytes()
    if hashlib.sha256(header).digest() != digest:
        raise DataError(f"{file} was changed: its header is not the one that was written. Copy or pack it again.")
    document = json.loads(header)
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{file} has version {version} of the format, this lmedge reads {FORMAT_VERSION}. Pack the faces again."
        )
    return document, offset


def _points(
    file: Path, content: npt.NDArray[np.uint8], sha256: str, shape: tuple[int, int], start: int, end: int
) -> npt.NDArray[np.float32]:
    """The points (faces, points, 2), which fill the file between the pixels and the header."""
    block = content[start:end].tobytes()
    if len(block) != shape[0] * shape[1] * 8 or hashlib.sha256(block).hexdigest() != sha256:
        raise DataError(f"{file} was changed: its points are not the ones that were written. Copy or pack it again.")
    return np.frombuffer(block, "<f4").reshape(*shape, 2)


def _sample(
    entry: dict[str, Any],
    points_px: npt.NDArray[np.float32],
    schema: LandmarkSchema,
    image_bgr: npt.NDArray[np.uint8],
    origin: str,
) -> FaceSample:
    return FaceSample(
        image=image_bgr,
        points_px=points_px,
        schema=schema,
        photo_key=entry["photo_key"],
        boxes={kind: FaceBox.from_xyxy(corners, kind=kind) for kind, corners in entry["boxes"].items()},
        subset=tuple(entry["subset"]),
        origin=f"{origin} ({entry['origin']})" if entry["origin"] else origin,
    )
