"""`lmedge bench`: what people and programs get, sweeps, comparisons, and exit 3 where an engine does not work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmedge.runtimes import bench as bench_module
from lmedge.runtimes.fake import fake_bundle
from tests import bundles
from tests.cli.command import DONE, ERROR, GATE_FAILED, USAGE, Outcome, lmedge
from tests.runtimes.benchmarking.fake_clock import FakeClock, FakeMeter
from tests.runtimes.benchmarking.wrong_engines import WRONG

QUICK = ("--iterations", "5", "--cold-starts", "0")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that needs no engine."""
    return fake_bundle(tmp_path_factory.mktemp("fake") / "bundle", bundles.SCHEMA, bundles.SPEC).root


def text_of(outcome: Outcome) -> str:
    assert outcome.code == DONE, outcome
    return " ".join(outcome.stdout.split())


def test_people_see_what_was_measured_and_what_was_not(fake: Path) -> None:
    text = text_of(lmedge("bench", fake, "--iterations", "5", "--cold-starts", "1"))
    assert "One face, 5 calls each, milliseconds" in text
    assert "From a fresh process to its first answer, median of 1" in text
    assert "Not measured: p99.9: a p99.9 needs 10000 calls" in text
    assert "Clock: " in text
    assert "not asked for" not in text_of(lmedge("bench", fake, *QUICK))


def test_frames_that_came_too_fast_are_told(fake: Path) -> None:
    assert "fake fp32, default threads, 1 face: " in text_of(lmedge("bench", fake, *QUICK, "--every-ms", "0.001"))


def test_energy_is_shown_where_there_is_a_meter(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(bench_module, "find_meters", lambda device: ([FakeMeter(clock)], ""))
    monkeypatch.setattr("lmedge.runtimes.benchmarking.energy.WORK_S", 0.02)
    monkeypatch.setattr("lmedge.runtimes.benchmarking.energy.IDLE_S", 0.02)
    text = text_of(lmedge("bench", fake, *QUICK))
    assert "fake meter" in text
    assert "mJ per frame" in text


def test_sweeps_and_pauses_are_rows_of_the_document(fake: Path) -> None:
    outcome = lmedge("bench", fake, *QUICK, "--threads", "1,2", "--batch", "1, 3", "--every-ms", "1.5", "--json")
    assert [(row["threads"], row["batch"], row["every_ms"]) for row in outcome.json] == [
        (1, 1, 1.5),
        (1, 3, 1.5),
        (2, 1, 1.5),
        (2, 3, 1.5),
    ]
    assert "one every 1.5 ms" in text_of(lmedge("bench", fake, *QUICK, "--every-ms", "1.5"))


@pytest.mark.parametrize(
    "options", [("--batch", "0"), ("--batch", "one"), ("--threads", "1,"), ("--every-ms", "0"), ("--warm-up", "-1")]
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...], fake: Path) -> None:
    outcome = lmedge("bench", fake, *options)
    outcome.assert_clear_error(USAGE, options[0])


@pytest.mark.parametrize("name", ["caches its first answer", "caches its last answer once it is warm", "skips the engine"])
def test_an_engine_that_does_not_work_fails_the_gate_and_gets_no_figure(
    name: str, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("bench", fake, "--iterations", "60", "--cold-starts", "0", "--json")
    assert lmedge(*arguments).code == DONE
    WRONG[name](monkeypatch)
    lmedge(*arguments).assert_clear_error(GATE_FAILED, "gate failed", "fake fp32")


class TestCompare:
    @pytest.fixture
    def recorded(self, fake: Path, tmp_path: Path) -> Path:
        """What `lmedge bench --json > FILE` leaves."""
        file = tmp_path / "old.json"
        file.write_text(lmedge("bench", fake, "--iterations", "200", "--cold-starts", "0", "--json").stdout)
        return file

    def test_with_a_bundle_both_are_timed_in_turn(self, fake: Path) -> None:
        text = text_of(lmedge("bench", fake, "--iterations", "200", "--cold-starts", "0", "--compare", fake))
        assert "timed in turn" in text
        assert "95 % interval" in text

    def test_with_a_file_new_figures_are_compared_with_old_ones(self, fake: Path, recorded: Path) -> None:
        outcome = lmedge("bench", fake, "--iterations", "200", "--cold-starts", "0", "--compare", recorded, "--json")
        document = outcome.json
        assert set(document) == {"rows", "other", "comparison", "machine_differences"}
        assert [one["what"] for one in document["comparison"]] == ["predict", "engine"]
        assert document["machine_differences"] == []
        assert document["rows"][0]["machine"] == document["other"][0]["machine"]

    def test_two_files_need_no_engine(self, recorded: Path, tmp_path: Path) -> None:
        rows = json.loads(recorded.read_text())
        for row in rows:
            row["machine"]["cpu"] = "another"
            for name in ("p50_ms", "engine_p50_ms"):
                row[name] *= 2
                row[name.replace("p50", "p50_blocks")] = [2 * value for value in row[name.replace("p50", "p50_blocks")]]
        slower = tmp_path / "slower.json"
        slower.write_text(json.dumps(rows))
        text = text_of(lmedge("bench", recorded, "--compare", slower))
        assert text.count("faster") == 2
        assert "The machines differ" in text
        assert text_of(lmedge("bench", slower, "--compare", recorded)).count("slower") == 2

    def test_a_file_needs_another_to_be_compared_with(self, recorded: Path, fake: Path) -> None:
        lmedge("bench", recorded).assert_clear_error(USAGE, "--compare OTHER.json")
        lmedge("bench", recorded, "--compare", fake).assert_clear_error(USAGE, "--compare OTHER.json")

    def test_a_file_that_is_no_measurement_is_told_before_anything_is_measured(self, fake: Path, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text("[{}]")
        lmedge("bench", fake, "--compare", tmp_path / "x.json").assert_clear_error(ERROR, "holds no rows of lmedge bench")
