"""Draws the filters that come with lmedge: `python -m lmedge.apps.filters.draw_built_in [FOLDER]`.

Everything is drawn in millimetres over the average head, so bound points are where that head has them. An example for own ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmedge.apps.filters.definition import STICKER, WARP
from lmedge.apps.filters.filter_file import FILTER_FILE, FORMAT
from lmedge.apps.filters.sheet import Line, Sheet, both_sides, ellipse, symmetric
from lmedge.bundle.files import write_atomically
from lmedge.data.pictures import save_picture
from lmedge.schemas import IBUG_68

# From the skin outward. Filters are sorted together when several are worn.
_ON_SKIN, _HAIR, _MASK, _GLASSES, _HAT_BACK, _HAT = 0, 10, 20, 30, 40, 50

_BLACK, _DARK, _WHITE = (20, 18, 18), (45, 38, 35), (245, 245, 245)

Layers = list[tuple[str, Sheet, dict[str, Any]]]


def glasses() -> Layers:
    sheet = Sheet(-70, -26, 70, 30, 2.5)
    for lens in both_sides([(-54, -14), (-33, -18), (-13, -13), (-9.5, 2), (-17, 17), (-34, 21), (-52, 16), (-58, 1)]):
        sheet.fill(lens, (150, 110, 70), 0.28)
        sheet.stroke([*lens, lens[0]], 4.2, _DARK)
        sheet.stroke([*lens, lens[0]], 1.2, (110, 100, 95), 0.7, inside=True)
    for glint in both_sides([(-46, -8), (-40, -12), (-38, -11), (-47, 4)]):
        sheet.fill(glint, _WHITE, 0.45, blur_mm=0.8)
    sheet.stroke([(-11, -5), (-4, -9), (4, -9), (11, -5)], 3.6, _DARK)
    for hinge in both_sides([(-57, -8), (-64, -8)]):
        sheet.stroke(hinge, 4.6, _DARK)
    bindings = [sheet.bind("right_eye_outer", "left_eye_outer"), sheet.bind("right_eye", "left_eye")]
    front = ("glasses.png", sheet, {"kind": STICKER, "bindings": bindings, "order": _GLASSES, "max_yaw_deg": 75})
    return [*(_arm_of_glasses(side) for side in ("right", "left")), front]


def _arm_of_glasses(side: str) -> tuple[str, Sheet, dict[str, Any]]:
    """From the lens to the ear, on the side of the head: seen from the other side it turns its back and is not shown."""
    out = -1 if side == "right" else 1
    left, right = sorted((out * 52, out * 86))
    sheet = Sheet(left, -44, right, 12, 2.5)
    sheet.stroke([(out * x, y) for x, y in ((54, -8), (66, -8), (76, -6), (80, 4))], 4.6, _DARK)
    bindings = [sheet.bind(f"{side}_{place}", f"{side}_ear", f"{side}_hairline") for place in ("eye_outer", "eye")]
    fields = {"kind": STICKER, "bindings": bindings, "order": _GLASSES, "max_yaw_deg": 75, "optional": True}
    return f"{side}_arm.png", sheet, fields


def moustache() -> Layers:
    sheet = Sheet(-62, 40, 62, 84, 3.0)
    lobe: Line = [
        (0, 51),
        (-9, 50),
        (-20, 54),
        (-31, 62),
        (-42, 63),
        (-53, 53),
        (-50, 66),
        (-40, 73),
        (-27, 71),
        (-14, 65),
        (0, 60),
    ]
    for half in both_sides(lobe):
        sheet.fill(half, (28, 40, 58))
    for n in range(9):
        spread = n / 8
        strand = [(-2, 52 + 7 * spread), (-20, 56 + 9 * spread), (-38, 65 + 5 * spread), (-50, 58 + 5 * spread)]
        for line in both_sides(strand):
            sheet.stroke(line, 0.7, (70, 95, 125) if n % 2 else (12, 20, 32), 0.7, inside=True)
    sheet.stroke([(0, 50), (0, 61)], 1.6, (10, 16, 26), 0.7, blur_mm=0.6, inside=True)
    bindings = [
        sheet.bind("nose_base", "upper_lip_top", "right_mouth_corner", "left_mouth_corner"),
        sheet.bind("nose_tip", "right_mouth_corner", "left_mouth_corner"),
    ]
    return [("moustache.png", sheet, {"kind": STICKER, "bindings": bindings, "order": _HAIR, "max_yaw_deg": 75})]


def hat() -> Layers:
    places = ("right_temple", "left_temple", "forehead", "crown")
    back = Sheet(-116, -84, 116, -26, 2.0)
    back.fill(ellipse((0, -56), 110, 22), (38, 30, 40))
    front = Sheet(-120, -200, 120, -30, 2.0)
    front.fill(ellipse((0, -60), 112, 20), (52, 40, 52))
    front.fill(
        symmetric([(0, -46), (-40, -49), (-70, -56), (-68, -90), (-72, -150), (-78, -184), (-40, -192), (0, -194)]),
        (62, 48, 62),
    )
    front.fill(
        [(-70, -60), (-68, -90), (-71, -150), (-77, -184), (-54, -188), (-50, -120), (-52, -56)],
        _BLACK,
        0.5,
        blur_mm=6,
        inside=True,
    )
    front.fill(
        [(22, -54), (26, -120), (24, -186), (40, -186), (42, -120), (38, -54)], (170, 150, 170), 0.35, blur_mm=6, inside=True
    )
    front.fill(ellipse((0, -186), 77, 9), (80, 64, 80), 0.9, inside=True)
    front.fill(symmetric([(0, -48), (-40, -51), (-70, -58), (-68.5, -84), (-40, -77), (0, -74)]), (50, 40, 190), inside=True)
    front.stroke([(-111, -61), (-80, -46), (0, -40), (80, -46), (111, -61)], 1.6, (110, 95, 110), 0.8, inside=True)
    shared = {"kind": STICKER, "max_yaw_deg": 80}
    return [
        (
            "hat_back.png",
            back,
            {**shared, "bindings": [back.bind(*places)], "order": _HAT_BACK, "behind_face": True, "optional": True},
        ),
        ("hat.png", front, {**shared, "bindings": [front.bind(*places)], "order": _HAT}),
    ]


def mask() -> Layers:
    sheet = Sheet(-86, -6, 86, 126, 2.5)
    for loop in both_sides([(-64, 26), (-72, 14), (-78, 8)]) + both_sides([(-59, 78), (-70, 56), (-78, 24)]):
        sheet.stroke(loop, 2.0, (235, 235, 235))
    right: Line = [
        (0, 5),
        (-10, 9),
        (-24, 17),
        (-45, 22),
        (-68, 24),
        (-70, 44),
        (-66, 63),
        (-58, 79),
        (-46, 93),
        (-31, 105),
        (0, 117),
    ]
    sheet.fill(symmetric(right), (196, 170, 112))
    for depth in (42, 60, 78):
        sheet.stroke(
            [(-69, depth - 6), (-35, depth), (0, depth + 2), (35, depth), (69, depth - 6)],
            1.8,
            (150, 124, 74),
            0.9,
            inside=True,
        )
        sheet.stroke(
            [(-69, depth - 3), (-35, depth + 3), (0, depth + 5), (35, depth + 3), (69, depth - 3)],
            2.4,
            (222, 202, 156),
            0.8,
            inside=True,
        )
    for side in both_sides([(-72, 20), (-72, 60), (-56, 90), (-30, 112), (-44, 84), (-58, 50)]):
        sheet.fill(side, (96, 76, 44), 0.5, blur_mm=5, inside=True)
    sheet.stroke([(-24, 18), (-10, 11), (0, 7.5), (10, 11), (24, 18)], 3.0, (224, 208, 170), inside=True)
    contour = [name for name in IBUG_68.point_names if "contour" in name and not name.endswith("_0")]
    # The tip of the nose holds the cloth off the face when the head is turned.
    bindings = [sheet.bind(*contour, "chin", "nose_ridge_1", "nose_ridge_3")]
    return [("mask.png", sheet, {"kind": STICKER, "bindings": bindings, "order": _MASK, "max_yaw_deg": 70})]


def tiger() -> Layers:
    around = ("forehead", "hairline", "right_hairline", "left_hairline", "right_temple", "left_temple")
    outline = symmetric(
        [
            *((0, -79), (-30, -76), (-50, -70), (-66, -28), (-73, 0), (-74, 20)),
            *((-71, 40), (-66, 60), (-58, 77), (-45, 92), (-28, 105), (0, 112)),
        ]
    )
    fur = Sheet(-80, -84, 80, 118, 2.0)
    fur.fill(outline, (40, 130, 240), 0.75)
    fur.fill(ellipse((0, 72), 34, 22), _WHITE, 0.85, blur_mm=4, inside=True)
    fur.fill(ellipse((0, 100), 20, 9), _WHITE, 0.8, blur_mm=4, inside=True)
    for patch in both_sides(ellipse((-34, -14), 20, 10)) + both_sides(ellipse((-58, 50), 10, 20)):
        fur.fill(patch, _WHITE, 0.75, blur_mm=4, inside=True)
    fur.fill([(-15, 38), (0, 34), (15, 38), (12, 46), (0, 50), (-12, 46)], (90, 80, 190), 0.9, blur_mm=0.8, inside=True)
    for top in (-74, -62, -51):
        for stripe in both_sides(
            [(-2, top + 7), (-14, top + 1), (-30, top + 3), (-44, top + 9), (-28, top + 7), (-14, top + 6)]
        ):
            fur.fill(stripe, _BLACK, 0.95)
    for n, (x, y) in enumerate([(-72, 12), (-71, 30), (-67, 50), (-60, 70)]):
        reach = 34 - 3 * n
        for stripe in both_sides([(x, y), (x + reach / 2, y + 1), (x + reach, y + 8), (x + reach / 2, y + 6), (x, y + 6)]):
            fur.fill(stripe, _BLACK, 0.95)
    for x, y in ((-14, 57), (-22, 60), (-18, 64), (-28, 64)):
        for dot in both_sides(ellipse((x, y), 1.3, 1.3)):
            fur.fill(dot, _BLACK)
    fur.stroke([(0, 50), (0, 60)], 1.5, _BLACK, 0.9)
    fur.soften(outline, 4)
    bindings = [fur.bind(*IBUG_68.point_names, *around)]
    holes = ["right_eye", "left_eye", "inner_lip"]
    return [("fur.png", fur, {"kind": WARP, "bindings": bindings, "order": _ON_SKIN, "holes": holes, "max_yaw_deg": 65})]


FILTERS: dict[str, tuple[Callable[[], Layers], str]] = {
    "glasses": (glasses, "Round glasses; with 5 points too."),
    "hat": (hat, "A top hat, its brim before and behind the head; with 5 points too."),
    "mask": (mask, "A cloth mask from ear to ear; needs the contour of the face."),
    "moustache": (moustache, "A moustache between nose and lip; with 5 points too."),
    "tiger": (tiger, "A tiger's face, painted: warped with every point and contour."),
}


def draw_filters(folder: Path) -> None:
    """Writes every filter into a folder of its own below `folder`.

    Raises:
        LmedgeError: it cannot be written.
    """
    for name, (draw, about) in FILTERS.items():
        layers = draw()
        for file, sheet, _ in layers:
            save_picture(folder / name / file, sheet.picture())
        document = {
            "format": FORMAT,
            "name": name,
            "about": about,
            "layers": [{"picture": file, **fields} for file, _, fields in layers],
        }
        write_atomically(folder / name / FILTER_FILE, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    draw_filters(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "built_in")
