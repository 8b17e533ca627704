"""Which of two measurements is faster, and when nobody can say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmedge.errors import InputError
from lmedge.reports import LatencyReport
from lmedge.runtimes.benchmarking.compare import (
    FASTER,
    SAME,
    SLOWER,
    UNDECIDED,
    compare,
    few_blocks,
    machine_differences,
    read_rows,
    verdict,
)


def row(p50_ms: float = 1.0, noise: float = 0.01, blocks: int = 40, seed: int = 0, **others: Any) -> LatencyReport:
    times = p50_ms * np.exp(np.random.default_rng(seed).normal(0, noise, blocks))
    figures = [float(np.median(times))] * 3
    engine = [value / 2 for value in figures]
    made = LatencyReport(
        "openvino", "int8", 1, 1, *figures, 1000, *engine, p50_blocks_ms=tuple(times), engine_p50_blocks_ms=tuple(times / 2)
    )
    return replace(made, **others)


@pytest.mark.parametrize(
    ("interval", "paired", "said"),
    [
        ((0.90, 0.95), True, FASTER),
        ((0.990, 0.995), True, FASTER),
        ((0.990, 0.995), False, SAME),
        ((0.94, 0.96), False, FASTER),
        ((0.94, 0.98), False, UNDECIDED),
        ((1.05, 1.20), True, SLOWER),
        ((1.05, 1.20), False, SLOWER),
        ((1.02, 1.20), False, UNDECIDED),
        ((0.98, 1.02), True, SAME),
        ((0.95, 1.02), True, UNDECIDED),
        ((0.98, 1.05), True, UNDECIDED),
        (None, True, UNDECIDED),
    ],
)
def test_the_verdict_follows_from_the_interval(interval: tuple[float, float] | None, paired: bool, said: str) -> None:
    assert verdict(interval, paired=paired) == said


def test_a_row_is_compared_as_predict_and_as_the_engine() -> None:
    (predict, engine), alone = compare([row(0.8)], [row(1.0, seed=1)])
    assert alone == []
    assert (predict.what, engine.what) == ("predict", "engine")
    assert predict.ratio == pytest.approx(0.8, abs=0.01)
    assert predict.low is not None
    assert predict.high is not None
    assert predict.low < 0.8 < predict.high
    assert {predict.verdict, engine.verdict} == {FASTER}
    assert (engine.p50_ms, engine.other_p50_ms) == (predict.p50_ms / 2, predict.other_p50_ms / 2)


@pytest.mark.parametrize(
    "other",
    [{"backend": "onnxruntime"}, {"precision": "fp32"}, {"threads": 2}, {"batch": 4}, {"every_ms": 33.0}, {"device": "gpu"}],
)
def test_only_what_was_measured_alike_is_compared(other: dict[str, Any]) -> None:
    found, alone = compare([row(), row(**other)], [row()])
    assert len(found) == 2
    assert len(alone) == 1
    assert alone[0].endswith("is only in the first")
    with pytest.raises(InputError, match="no row in common"):
        compare([row(**other)], [row()])


def test_too_few_calls_give_no_verdict_and_say_so() -> None:
    found, _ = compare([row(0.5, blocks=3)], [row(blocks=3)])
    assert {one.verdict for one in found} == {UNDECIDED}
    assert "--iterations" in few_blocks(found)
    assert few_blocks(compare([row()], [row()])[0]) == ""


def test_what_was_written_is_read(tmp_path: Path) -> None:
    machine, rows = {"cpu": "fast"}, [row(), row(batch=4)]
    entries = [{**one.to_json(), "machine": machine} for one in rows]
    for name, document in (("list", entries), ("object", {"rows": entries, "comparison": []})):
        (tmp_path / name).write_text(json.dumps(document))
        assert read_rows(tmp_path / name) == (rows, machine)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"backend": "x"}]', '{"rows": 3}', "no json", "[{}]"])
def test_another_file_is_an_error_that_says_how_to_make_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"lmedge bench BUNDLE --json > "):
        read_rows(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path / "absent.json")


def test_machines_are_told_apart() -> None:
    here = {"cpu": "a", "versions": {"openvino": "1"}, "memory_gib": 8}
    assert machine_differences(here, {**here, "memory_gib": 9}) == []
    assert machine_differences(here, {**here, "cpu": "b"}) == ["cpu: a and b"]
