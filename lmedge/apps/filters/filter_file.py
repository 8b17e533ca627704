"""A filter on disk: a folder with filter.json and the PNG pictures that it names. Every mistake in it is told by its place.

    {
      "format": 1,
      "name": "glasses",
      "about": "Round glasses.",
      "layers": [{
        "kind": "sticker",
        "picture": "glasses.png",
        "bindings": [{"right_eye_outer": [101.5, 80], "left_eye_outer": [298.5, 80]}],
        "order": 30
      }]
    }

The keys of a layer are the fields of `Layer`; kind, picture and bindings are needed, the others have defaults.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lmedge.apps.filters.definition import Binding, FaceFilter, Layer
from lmedge.errors import DataError, InputError

FORMAT = 1
FILTER_FILE = "filter.json"
_BUILT_IN = Path(__file__).resolve().parent / "built_in"

_FILTER_KEYS = ("format", "name", "about", "layers")
_KINDS_OF_VALUES: dict[str, tuple[type, ...]] = {
    "kind": (str,), "picture": (str,), "bindings": (list,), "order": (int,), "blend": (str,), "opacity": (int, float),
    "behind_face": (bool,), "holes": (list,), "max_yaw_deg": (int, float, type(None)),
    "optional": (bool,),
}  # fmt: skip
_NEEDED = ("kind", "picture", "bindings")


def built_in_filters() -> dict[str, Path]:
    """The filters that come with lmedge: name → folder."""
    return {file.parent.name: file.parent for file in sorted(_BUILT_IN.glob(f"*/{FILTER_FILE}"))}


def load_filter(name_or_path: str | Path) -> FaceFilter:
    """A filter that comes with lmedge, by name, or one's own: its folder, or the JSON file in it.

    Raises:
        InputError: no filter of that name or at that place.
        DataError: a filter with a mistake: broken JSON, an unknown key or point, a picture that is missing or has no alpha.
    """
    known = built_in_filters()
    built_in = known.get(name_or_path) if isinstance(name_or_path, str) else None
    path = built_in or Path(name_or_path).expanduser()
    file = path / FILTER_FILE if path.is_dir() else path
    if not file.is_file():
        near = difflib.get_close_matches(str(name_or_path), known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"No filter at {file}; there are {', '.join(known)}, or give a folder with a {FILTER_FILE}, as a changed copy "
            f"of one in {_BUILT_IN}.{hint}"
        )
    return _read_filter(file)


def _read_filter(file: Path) -> FaceFilter:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not a JSON file that can be read: {error}.") from error
    if not isinstance(document, dict):
        raise DataError(f"{file}: a filter is a JSON object with {', '.join(_FILTER_KEYS)}; got {_told(document)}.")
    _check_keys(str(file), document, _FILTER_KEYS, ("format", "layers"))
    if document["format"] != FORMAT:
        raise DataError(f"{file}: format must be {FORMAT}; got {document['format']!r}. A newer lmedge may know it.")
    for key, kind in (("name", str), ("about", str), ("layers", list)):
        if not isinstance(document.get(key, kind()), kind):
            raise DataError(f"{file}: {key} must be {_kind_names((kind,))}; got {_told(document[key])}.")
    layers = [_read_layer(file, index, layer) for index, layer in enumerate(document["layers"])]
    name = document.get("name", file.parent.name)
    with _placed(str(file)):
        return FaceFilter(name, tuple(layers), document.get("about", ""))


def _read_layer(file: Path, index: int, document: Any) -> Layer:
    where = f"{file}: layers[{index}]"
    if not isinstance(document, dict):
        raise DataError(f"{where} must be an object; got {_told(document)}.")
    _check_keys(where, document, tuple(_KINDS_OF_VALUES), _NEEDED)
    for key, value in document.items():
        kinds = _KINDS_OF_VALUES[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise DataError(f"{where}: {key} must be {_kind_names(kinds)}; got {_told(value)}.")
    bindings = tuple(_read_binding(f"{where}: bindings[{n}]", binding) for n, binding in enumerate(document["bindings"]))
    holes = tuple(map(str, document.get("holes", ())))
    picture = _read_picture(where, file.parent, document["picture"])
    plain = {key: value for key, value in document.items() if key not in ("picture", "bindings", "holes")}
    with _placed(where):
        return Layer(picture_bgra=picture, bindings=bindings, holes=holes, **plain)


def _read_binding(where: str, document: Any) -> Binding:
    if not isinstance(document, dict):
        raise DataError(f"{where} must be an object of point: [x, y]; got {_told(document)}.")
    for name, place in document.items():
        numbers = isinstance(place, list) and len(place) == 2 and all(_is_number(value) for value in place)
        if not numbers:
            raise DataError(f"{where}: {name} must be [x, y] in pixels of the picture; got {_told(place)}.")
    return {name: (float(x), float(y)) for name, (x, y) in document.items()}


def _read_picture(where: str, folder: Path, name: str) -> npt.NDArray[np.uint8]:
    file = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{where}: picture must lie in the filter's own folder; got {name!r}.")
    if not file.is_file():
        others = ", ".join(sorted(path.name for path in folder.glob("*.png"))) or "none"
        raise DataError(f"{where}: there is no picture {file}; PNG files there: {others}.")
    try:
        picture = cv2.imdecode(np.frombuffer(file.read_bytes() or b"\0", np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        picture = None
    if picture is None:
        raise DataError(f"{where}: {file} is not a picture that OpenCV can read. Save it as PNG with 8 bits and alpha.")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 4:
        raise DataError(
            f"{where}: {file} has {picture.dtype} values of shape {picture.shape}; a filter's picture has 8 bits and an alpha "
            "channel. Save it as RGBA PNG."
        )
    return np.asarray(picture, np.uint8)


def _check_keys(where: str, document: dict[str, Any], known: tuple[str, ...], needed: Iterable[str]) -> None:
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{where}: unknown key {key!r}; known: {', '.join(known)}.{hint}")
    for key in needed:
        if key not in document:
            raise DataError(f"{where}: {key} is missing.")


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Puts the place in the file before what is wrong there."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind_names(kinds: tuple[type, ...]) -> str:
    names = {str: "text", list: "a list", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return " or ".join(dict.fromkeys("a number" if kind is int and float in kinds else names[kind] for kind in kinds))


def _told(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
