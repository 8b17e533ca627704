"""Filters on disk: one's own are read, and every mistake in one is told by its place."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lmedge.apps.filters import Layer, filter_file, load_filter
from lmedge.errors import DataError, InputError
from tests.apps.filters.faces import solid

EYES = {"right_eye": [60, 50.5], "left_eye": [140, 50]}


def layer(**fields: Any) -> dict[str, Any]:
    return {"kind": "sticker", "picture": "eyes.png", "bindings": [EYES], **fields}


def write(folder: Path, document: Any, *, picture: np.ndarray | None = None) -> Path:
    cv2.imwrite(str(folder / "eyes.png"), solid() if picture is None else picture)
    (folder / "filter.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_a_filter_of_ones_own_is_read_with_all_it_says(tmp_path: Path) -> None:
    fields = {
        "order": 7, "blend": "multiply", "opacity": 0.5, "behind_face": True, "holes": ["inner_lip"], "max_yaw_deg": 60,
        "optional": True,
    }  # fmt: skip
    document = {"format": 1, "name": "mine", "about": "Mine.", "layers": [layer(**fields), layer(order=2)]}
    mine = load_filter(write(tmp_path, document))
    assert (mine.name, mine.about) == ("mine", "Mine.")
    assert [one.order for one in mine.layers] == [2, 7], "sorted from low to high"
    read = mine.layers[1]
    assert read.bindings == ({"right_eye": (60, 50.5), "left_eye": (140, 50)},)
    assert (read.blend, read.opacity, read.behind_face, read.holes, read.max_yaw_deg) == (
        "multiply",
        0.5,
        True,
        ("inner_lip",),
        60,
    )
    assert read.optional
    np.testing.assert_array_equal(read.picture_bgra, solid())


def test_the_json_file_itself_can_be_named_and_its_folder_names_the_filter(tmp_path: Path) -> None:
    write(tmp_path, {"format": 1, "layers": [layer()]})
    assert load_filter(tmp_path / "filter.json").name == tmp_path.name


def test_a_path_is_never_taken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "glasses").mkdir()
    write(tmp_path / "glasses", {"format": 1, "name": "my own", "layers": [layer()]})
    monkeypatch.chdir(tmp_path)
    assert load_filter("glasses").name == "glasses"
    assert load_filter("./glasses").name == load_filter(Path("glasses")).name == "my own"


def test_every_field_of_a_layer_can_be_said_in_the_file() -> None:
    fields = {field.name for field in dataclasses.fields(Layer)}
    assert set(filter_file._KINDS_OF_VALUES) == fields - {"picture_bgra"} | {"picture"}


LINE = {"right_eye": [10, 50], "left_eye": [190, 50], "nose_tip": [100, 52]}
MISTAKES = {
    "no JSON": ("{", "is not a JSON file"),
    "a list": ([], "a filter is a JSON object"),
    "no format": ({"layers": [layer()]}, "format is missing"),
    "a later format": ({"format": 2, "layers": [layer()]}, "format must be 1; got 2"),
    "no layers": ({"format": 1}, "layers is missing"),
    "empty layers": ({"format": 1, "layers": []}, "has no layers"),
    "layers that are no list": ({"format": 1, "layers": {}}, "layers must be a list"),
    "an unknown key": ({"format": 1, "layer": [], "layers": [layer()]}, r"unknown key 'layer'.*Did you mean 'layers'"),
    "a layer that is text": ({"format": 1, "layers": ["eyes.png"]}, r"layers\[0\] must be an object"),
    "an unknown key of a layer": ({"format": 1, "layers": [layer(opacty=1)]}, r"layers\[0\]: unknown key 'opacty'.*'opacity'"),
    "no picture": ({"format": 1, "layers": [{"kind": "sticker", "bindings": [EYES]}]}, r"layers\[0\]: picture is missing"),
    "a missing picture": (
        {"format": 1, "layers": [layer(), layer(picture="hat.png")]},
        r"layers\[1\]: there is no picture .*hat\.png; PNG files there: eyes\.png",
    ),
    "a picture elsewhere": ({"format": 1, "layers": [layer(picture="../eyes.png")]}, "own folder"),
    "an unknown point": (
        {"format": 1, "layers": [layer(bindings=[{"right_eye_outr": [1, 2], "left_eye": [90, 3]}])]},
        r"layers\[0\]: no point is called 'right_eye_outr'. Did you mean 'right_eye_outer'",
    ),
    "one point": ({"format": 1, "layers": [layer(bindings=[{"chin": [1, 2]}])]}, "bound at 2 or more points; got 1: chin"),
    "a warp of three points": ({"format": 1, "layers": [layer(kind="warp")]}, "a warp is bound at 8 or more points"),
    "no bindings": ({"format": 1, "layers": [layer(bindings=[])]}, "at least one set of named points"),
    "a binding that is a list": ({"format": 1, "layers": [layer(bindings=[[1, 2]])]}, r"bindings\[0\] must be an object"),
    "a place of three numbers": (
        {"format": 1, "layers": [layer(bindings=[{**EYES, "chin": [1, 2, 3]}])]},
        r"bindings\[0\]: chin must be \[x, y\]",
    ),
    "a place that is not a number": ('{"format": 1, "layers": [{"kind": "sticker", "picture": "eyes.png", "bindings": '
                                     '[{"right_eye": [NaN, 1], "left_eye": [9, 9]}]}]}', r"right_eye must be \[x, y\]"),
    "a place far outside": (
        {"format": 1, "layers": [layer(bindings=[{**EYES, "left_eye": [1400, 50]}])]}, "far outside the picture"
    ),
    "points on one spot": ({"format": 1, "layers": [layer(bindings=[{"chin": [5, 5], "left_eye": [5, 5]}])]}, "on one spot"),
    "three points on a line": ({"format": 1, "layers": [layer(bindings=[LINE])]}, "nearly on a line"),
    "an unknown kind": ({"format": 1, "layers": [layer(kind="hat")]}, "kind must be one of sticker, warp; got 'hat'"),
    "an unknown blend": ({"format": 1, "layers": [layer(blend="add")]}, "blend must be one of normal, multiply"),
    "an unknown hole": ({"format": 1, "layers": [layer(holes=["nose"])]}, "holes must be one of"),
    "an opacity above 1": ({"format": 1, "layers": [layer(opacity=2)]}, "opacity must be 0 to 1; got 2"),
    "an opacity that is text": ({"format": 1, "layers": [layer(opacity="1")]}, 'opacity must be a number; got "1"'),
    "an order that is true": ({"format": 1, "layers": [layer(order=True)]}, "order must be a whole number; got true"),
    "a turn of 120": ({"format": 1, "layers": [layer(max_yaw_deg=120)]}, "max_yaw_deg must be above 0"),
    "a name that is a number": ({"format": 1, "name": 3, "layers": [layer()]}, "name must be text; got 3"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_by_its_place(mistake: str, tmp_path: Path) -> None:
    document, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message) as caught:
        load_filter(write(tmp_path, document))
    assert str(tmp_path / "filter.json") in str(caught.value)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), "alpha channel"),
        (np.zeros((4, 4), np.uint8), "alpha channel"),
        (np.zeros((4, 4, 4), np.uint16), "8 bits"),
        (np.zeros((1, 4097, 4), np.uint8), "at most 4096 px"),
    ],
)
def test_pictures_need_eight_bits_and_alpha(picture: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_filter(write(tmp_path, {"format": 1, "layers": [layer()]}, picture=picture))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


HUGE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 6, 0, 0, 0))
HUGE += chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"no picture", HUGE])
def test_a_broken_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, {"format": 1, "layers": [layer()]})
    (tmp_path / "eyes.png").write_bytes(content)
    with pytest.raises(DataError, match="not a picture that OpenCV can read"):
        load_filter(tmp_path)


def test_a_name_that_is_no_filter_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"glasses, hat, mask, moustache, tiger.*Did you mean moustache\?"):
        load_filter("mustache")
    with pytest.raises(InputError, match=r"give a folder with a filter\.json"):
        load_filter(tmp_path)
