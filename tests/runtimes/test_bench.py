"""Latency: both figures come from one run, one row for everything that was asked for, and nothing missing without a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmedge import Bundle
from lmedge.errors import BackendUnavailableError, BundleError, InputError
from lmedge.reports import LatencyReport
from lmedge.runtimes import bench as bench_module
from lmedge.runtimes.base import Results
from lmedge.runtimes.bench import Conditions, bench, bench_two, describe_machine
from lmedge.runtimes.benchmarking.compare import FASTER, SAME
from lmedge.runtimes.fake import FakeRuntime, fake_bundle
from lmedge.runtimes.landmarker import FaceLandmarker
from tests import bundles
from tests.requirements import require
from tests.runtimes.benchmarking.fake_clock import FakeClock, FakeMeter


@pytest.fixture
def slow_engine(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """By this clock the engine takes 2 ms per face, and `predict` 1 ms more."""
    fake = FakeClock()
    infer, predict = FakeRuntime._infer, FaceLandmarker.predict

    def slow_infer(self: FakeRuntime, feeds: Results) -> Results:
        fake.work(2.0 * len(feeds["image"]))
        return infer(self, feeds)

    def slow_predict(self: FaceLandmarker, *arguments: Any) -> Any:
        fake.work(1.0)
        return predict(self, *arguments)

    monkeypatch.setattr(FakeRuntime, "_infer", slow_infer)
    monkeypatch.setattr(FaceLandmarker, "predict", slow_predict)
    return fake


def test_predict_and_the_engine_call_are_measured_in_one_run(fake_faces: Bundle, slow_engine: FakeClock) -> None:
    done: list[tuple[int, int]] = []
    (row,) = bench(
        fake_faces,
        conditions=Conditions(threads=(1,), iterations=20),
        clock=slow_engine.clock,
        progress=lambda n, of: done.append((n, of)),
    )
    assert (row.backend, row.precision, row.threads, row.batch, row.count) == ("fake", "fp32", 1, 1, 20)
    assert (row.engine_p50_ms, row.engine_p90_ms, row.engine_p99_ms) == pytest.approx((2.0, 2.0, 2.0))
    assert (row.p50_ms, row.p90_ms, row.p99_ms) == pytest.approx((3.0, 3.0, 3.0))
    assert (row.artifact, row.device) == ("model.fp32.fake", "cpu")
    assert done == [(1, 1)]


def test_threads_and_batches_are_swept_a_row_each(fake_faces: Bundle, slow_engine: FakeClock) -> None:
    how = Conditions(threads=(1, 2), batches=(1, 4), iterations=5)
    rows = bench(fake_faces, conditions=how, clock=slow_engine.clock)
    assert [(row.threads, row.batch) for row in rows] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert [row.engine_p50_ms for row in rows] == pytest.approx([2.0, 8.0, 2.0, 8.0])
    assert [row.p50_ms for row in rows] == pytest.approx([3.0, 9.0, 3.0, 9.0])


def test_a_frame_every_so_often_leaves_the_rest_of_the_time_to_sleep(fake_faces: Bundle, slow_engine: FakeClock) -> None:
    (row,) = bench(fake_faces, conditions=Conditions(iterations=10, every_ms=33.0), clock=slow_engine.clock)
    assert (row.every_ms, row.late) == (33.0, 0)
    assert sorted(set(slow_engine.slept_s)) == pytest.approx([0.030, 0.031])
    assert len(slow_engine.slept_s) == 2 * 10 - 1
    assert (row.p50_ms, row.engine_p50_ms) == pytest.approx((3.0, 2.0))


def test_frames_that_come_faster_than_the_engine_are_counted_as_late(fake_faces: Bundle, slow_engine: FakeClock) -> None:
    (row,) = bench(fake_faces, conditions=Conditions(iterations=10, every_ms=2.5), clock=slow_engine.clock)
    assert row.late == 10


def test_what_is_missing_has_a_reason(fake_faces: Bundle) -> None:
    (row,) = bench(fake_faces, conditions=Conditions(iterations=5))
    assert (row.p999_ms, row.engine_p999_ms, row.cold_start, row.energy) == (None, None, None, ())
    assert set(row.not_measured) == {"p999_ms", "cold_start", "energy"}
    assert "5 were timed" in row.not_measured["p999_ms"]
    bare = replace(fake_faces, manifest=replace(fake_faces.manifest, golden=None))
    assert "no golden vectors" in bench(bare, conditions=Conditions(iterations=5))[0].not_measured["golden"]


def test_ten_thousand_calls_have_a_tail(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch, slow_engine: FakeClock) -> None:
    monkeypatch.setattr("lmedge.runtimes.benchmarking.statistics.P999_CALLS", 200)
    (row,) = bench(fake_faces, conditions=Conditions(iterations=200), clock=slow_engine.clock)
    assert (row.p999_ms, row.engine_p999_ms) == pytest.approx((3.0, 2.0))
    assert "p999_ms" not in row.not_measured


def test_energy_is_that_of_predict(fake_faces: Bundle, slow_engine: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "find_meters", lambda device: ([FakeMeter(slow_engine)], ""))
    (row,) = bench(fake_faces, conditions=Conditions(iterations=5, energy=True), clock=slow_engine.clock)
    (use,) = row.energy
    assert use.joules_per_frame == pytest.approx(0.003 * use.watts)
    assert "energy" not in row.not_measured


def test_a_machine_without_a_meter_says_why(fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "find_meters", lambda device: ([], f"no meter for {device}"))
    (row,) = bench(fake_faces, conditions=Conditions(iterations=5, energy=True))
    assert row.not_measured["energy"] == "no meter for cpu"


def test_the_start_is_measured_in_a_process_of_its_own(fake_faces: Bundle) -> None:
    one, four = bench(fake_faces, conditions=Conditions(iterations=5, cold_starts=1, batches=(1, 4)))
    assert one.cold_start is not None
    assert one.cold_start.processes == 1
    assert four.cold_start is None
    assert "one face" in four.not_measured["cold_start"]


def test_an_engine_that_a_fresh_process_does_not_find_has_no_start(
    fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    moved = replace(fake_faces, root=tmp_path, manifest=replace(fake_faces.manifest, golden=None))
    (row,) = bench(moved, conditions=Conditions(iterations=5, cold_starts=1))
    assert row.cold_start is None
    assert "a fresh process cannot open it" in row.not_measured["cold_start"]


def test_a_row_is_read_back_as_it_was_written(
    fake_faces: Bundle, slow_engine: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "find_meters", lambda device: ([FakeMeter(slow_engine)], ""))
    how = Conditions(iterations=60, energy=True, cold_starts=1)
    (row,) = bench(fake_faces, conditions=how, clock=slow_engine.clock)
    assert LatencyReport.from_json(json.loads(json.dumps({**row.to_json(), "machine": {}}))) == row


def test_an_older_row_still_loads() -> None:
    old = {"backend": "openvino", "precision": "int8", "threads": None, "batch": 1, "count": 9, "p50_ms": 1.0, "p90_ms": 1.0}
    old |= {"p99_ms": 2.0, "engine_p50_ms": 0.5, "engine_p90_ms": 0.5, "engine_p99_ms": 1.0, "remark": ""}
    report = LatencyReport.from_json(old)
    assert (report.p50_blocks_ms, report.energy, report.cold_start) == ((), (), None)


class TestTwoBundles:
    @pytest.fixture
    def other(self, tmp_path: Path) -> Bundle:
        return fake_bundle(tmp_path / "other", bundles.SCHEMA, bundles.SPEC)

    def test_the_faster_one_is_found(
        self, fake_faces: Bundle, other: Bundle, slow_engine: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predict = FaceLandmarker.predict

        def slower(self: FaceLandmarker, *arguments: Any) -> Any:
            slow_engine.work(1.0 if self.bundle is other else 0.0)
            return predict(self, *arguments)

        monkeypatch.setattr(FaceLandmarker, "predict", slower)
        how = Conditions(iterations=250)
        (row,), (theirs,), (predicts, engines) = bench_two(fake_faces, other, conditions=how, clock=slow_engine.clock)
        assert (row.p50_ms, theirs.p50_ms) == pytest.approx((3.0, 4.0))
        assert (predicts.ratio, predicts.verdict) == (pytest.approx(0.75), FASTER)
        assert (engines.ratio, engines.verdict) == (pytest.approx(1.0), SAME)
        assert predicts.paired

    def test_a_machine_that_slows_down_slows_both(
        self, fake_faces: Bundle, other: Bundle, slow_engine: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predict, calls = FaceLandmarker.predict, [0]

        def drifting(self: FaceLandmarker, *arguments: Any) -> Any:
            calls[0] += 1
            slow_engine.work(calls[0] / 50)
            return predict(self, *arguments)

        monkeypatch.setattr(FaceLandmarker, "predict", drifting)
        how = Conditions(iterations=250)
        one_after_the_other = [
            bench(bundle, conditions=how, clock=slow_engine.clock)[0].p50_ms for bundle in (fake_faces, other)
        ]
        assert one_after_the_other[0] < 0.7 * one_after_the_other[1]
        _, _, (predicts, _) = bench_two(fake_faces, other, conditions=how, clock=slow_engine.clock)
        assert predicts.ratio == pytest.approx(1.0, abs=0.05)

    def test_what_only_one_of_them_has_is_not_measured(self, fake_faces: Bundle, tiny_bundle: Bundle) -> None:
        require("onnxruntime")
        with pytest.raises(InputError, match="nothing in common"):
            bench_two(fake_faces, tiny_bundle)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"backends": ["abacus"]}, BundleError),
        ({"precisions": ["int8"]}, BackendUnavailableError),
        ({"backends": ["fake"], "precisions": ["int8"]}, BundleError),
    ],
)
def test_what_cannot_be_measured_is_an_error(fake_faces: Bundle, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        bench(fake_faces, **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"warm_up": -1},
        {"cold_starts": -1},
        {"batches": ()},
        {"batches": (0,)},
        {"threads": (None, 0)},
        {"threads": ()},
        {"every_ms": 0.0},
        {"every_ms": float("nan")},
    ],
)
def test_conditions_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Conditions(**wrong)


def test_the_engines_really_answer_every_call(tiny_bundle: Bundle) -> None:
    """Of both engines: their bare call reads the buffer anew each time, and gives the answer of that time."""
    require("onnxruntime")
    rows = bench(tiny_bundle, conditions=Conditions(threads=(1,), batches=(1, 3), iterations=30))
    assert {row.backend for row in rows} <= {"onnxruntime", "openvino"}
    assert all(0 < row.engine_p50_ms <= row.p99_ms for row in rows)


def test_the_machine_is_described_in_plain_data() -> None:
    machine = json.loads(json.dumps(describe_machine()))
    assert machine["cpu"]
    assert machine["cores"] >= machine["cores_usable"] >= 1
    assert machine["versions"]["numpy"]
    assert {"arch", "os", "python", "memory_gib"} <= set(machine)
