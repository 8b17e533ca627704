"""Latency: both figures come from one run, and add up."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import numpy as np
import pytest

from lmedge import Bundle
from lmedge.errors import BackendUnavailableError, BundleError, InputError
from lmedge.runtimes.base import Results
from lmedge.runtimes.bench import alternate, bench, describe_machine
from lmedge.runtimes.fake import FakeRuntime


@pytest.fixture
def slow_engine(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An engine that takes 2 ms; counts its calls."""
    calls: list[int] = []
    exact = FakeRuntime._infer

    def slow(self: FakeRuntime, feeds: Results) -> Results:
        calls.append(1)
        time.sleep(0.002)
        return exact(self, feeds)

    monkeypatch.setattr(FakeRuntime, "_infer", slow)
    return calls


@pytest.mark.parametrize(("burst", "order"), [(1, "abababab"), (3, "aaabbbab"), (9, "aaaabbbb")])
def test_two_functions_take_turns_in_bursts(burst: int, order: str) -> None:
    called: list[str] = []
    ticks = itertools.count(step=1_000_000)
    first, second = alternate(
        lambda: called.append("a"), lambda: called.append("b"), 4, clock_ns=lambda: next(ticks), burst=burst
    )
    assert "".join(called[-8:]) == order
    np.testing.assert_array_equal([first, second], np.ones((2, 4)))


def test_predict_and_the_engine_call_alternate(fake_faces: Bundle, slow_engine: list[int]) -> None:
    done: list[tuple[int, int]] = []
    (row,) = bench(fake_faces, iterations=20, threads=1, progress=lambda n, of: done.append((n, of)))
    assert len(slow_engine) == 2 * (20 + 30)
    assert (row.backend, row.precision, row.threads, row.batch, row.count) == ("fake", "fp32", 1, 1, 20)
    assert 2 <= row.engine_p50_ms <= row.engine_p90_ms <= row.engine_p99_ms
    assert 2 <= row.p50_ms <= row.p90_ms <= row.p99_ms
    assert row.artifact == "model.fp32.fake"
    assert done == [(1, 1)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"iterations": 0}, InputError),
        ({"backends": ["abacus"]}, BundleError),
        ({"precisions": ["int8"]}, BackendUnavailableError),
        ({"backends": ["fake"], "precisions": ["int8"]}, BundleError),
    ],
)
def test_what_cannot_be_measured_is_an_error(fake_faces: Bundle, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        bench(fake_faces, **options)


def test_the_machine_is_described_in_plain_data() -> None:
    machine = json.loads(json.dumps(describe_machine()))
    assert machine["cpu"]
    assert machine["cores"] >= machine["cores_usable"] >= 1
    assert machine["versions"]["numpy"]
    assert {"arch", "os", "python", "memory_gib"} <= set(machine)
