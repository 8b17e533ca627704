"""How a number of crops is shared out between kinds of faces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.calibration.coverage import allot, report_coverage
from lmedge.calibration.strata import BINS, Stratum

KINDS = [Stratum(yaw, roll, "light", "visible") for yaw in BINS["yaw"] for roll in BINS["roll"]]
stocks = st.lists(st.integers(1, 300), min_size=1, max_size=len(KINDS)).map(lambda sizes: dict(zip(KINDS, sizes, strict=False)))


@given(stocks, st.integers(1, 2000), st.integers(1, 4))
def test_as_many_as_asked_or_as_there_are(available: dict[Stratum, int], count: int, views: int) -> None:
    faces = sum(available.values())
    chosen = allot(available, count, views)
    assert sum(chosen.values()) == min(count, faces * views)
    for kind, size in available.items():
        assert chosen[kind] <= size * views
        if count <= faces:
            assert chosen[kind] <= size, "no second view before every face has one"
        else:
            assert chosen[kind] >= size


@given(stocks, st.integers(1, 2000))
def test_rare_kinds_are_there_and_common_ones_not_less(available: dict[Stratum, int], count: int) -> None:
    chosen = allot(available, count)
    if count >= len(available):
        assert min(chosen.values()) >= 1
    sizes = sorted(available, key=lambda kind: available[kind])
    counts = [chosen[kind] for kind in sizes]
    assert all(rarer <= commoner + 1 for rarer, commoner in pairwise(counts))


@given(stocks, st.integers(1, 2000), st.randoms())
def test_the_order_of_kinds_does_not_matter(available: dict[Stratum, int], count: int, random: object) -> None:
    items = list(available.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert allot(dict(items), count) == allot(available, count)


def test_shares_follow_the_square_root() -> None:
    common, rare = KINDS[:2]
    chosen = allot({common: 10_000, rare: 100}, 110)
    assert chosen[common] == pytest.approx(100, abs=1)
    assert chosen[rare] == pytest.approx(10, abs=1)


def test_what_a_kind_lacks_goes_to_the_others() -> None:
    assert allot({KINDS[0]: 1000, KINDS[1]: 3}, 500) == {KINDS[0]: 497, KINDS[1]: 3}


def test_with_room_for_few_kinds_the_common_ones_come_first() -> None:
    assert allot({KINDS[0]: 5, KINDS[1]: 500, KINDS[2]: 50}, 2) == {KINDS[0]: 0, KINDS[1]: 1, KINDS[2]: 1}


def test_the_report_counts_by_attribute_and_by_kind() -> None:
    frontal, turned = Stratum("frontal", "upright", "light"), Stratum("left", "upright", "dark")
    report = report_coverage(7, [frontal] * 4 + [turned] * 2, [turned, frontal, turned])
    assert (report.faces, report.examined) == (7, 6)
    document = json.loads(json.dumps(report.to_json()))
    assert document["attributes"]["yaw"] == {
        "far left": {"available": 0, "chosen": 0},
        "left": {"available": 2, "chosen": 2},
        "frontal": {"available": 4, "chosen": 1},
        "right": {"available": 0, "chosen": 0},
        "far right": {"available": 0, "chosen": 0},
    }
    assert list(document["attributes"]["brightness"]) == list(BINS["brightness"])
    assert document["attributes"]["occlusion"]["unknown"] == {"available": 6, "chosen": 3}
    assert document["strata"] == {
        "left, upright, dark, unknown": {"available": 2, "chosen": 2},
        "frontal, upright, light, unknown": {"available": 4, "chosen": 1},
    }
