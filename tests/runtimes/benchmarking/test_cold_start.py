"""A process of its own tells how long opening takes and what it holds; one that fails gives a reason, not a figure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lmedge.bundle import Bundle
from lmedge.runtimes.benchmarking import first_answer
from lmedge.runtimes.benchmarking.cold_start import NoAnswerError, cold_start
from lmedge.runtimes.benchmarking.resident import peak_resident_mib, resident_mib


def wanted(faces: Bundle, **others: Any) -> dict[str, Any]:
    options = {"backend": "fake", "precision": "fp32", "device": "cpu", "threads": None}
    return {"bundle": str(faces.root), **options} | others


def test_a_fresh_process_is_timed_from_its_start(fake_faces: Bundle) -> None:
    found = cold_start(wanted(fake_faces), 1)
    stages = (found.start_ms, found.open_ms, found.first_predict_ms)
    assert all(stage > 0 for stage in stages)
    assert found.total_ms == pytest.approx(sum(stages), abs=0.01)
    assert found.processes == 1
    if sys.platform == "linux":
        assert found.peak_mib is not None
        assert found.before_mib is not None
        assert found.opening_mib is not None
        assert found.peak_mib >= found.before_mib + found.opening_mib - 0.1 > 10


@pytest.mark.parametrize(
    ("others", "reason"), [({"backend": "abacus"}, "No runtime is called 'abacus'"), ({"bundle": "/nowhere"}, "is no bundle")]
)
def test_what_cannot_be_opened_there_gives_the_reason(others: dict[str, Any], reason: str, fake_faces: Bundle) -> None:
    with pytest.raises(NoAnswerError, match=f"cannot open it: .*{reason}"):
        cold_start(wanted(fake_faces, **others), 1)


def test_a_process_that_crashes_gives_its_last_words(fake_faces: Bundle) -> None:
    with pytest.raises(NoAnswerError, match="ended with 1: TypeError"):
        cold_start(wanted(fake_faces, colour="red"), 1)


def test_in_this_process_it_answers_the_same_document(
    fake_faces: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["first_answer", json.dumps(wanted(fake_faces))])
    with pytest.raises(SystemExit, match="0"):
        first_answer.main()
    document = json.loads(capsys.readouterr().out)
    assert document["imported_ns"] < document["opened_ns"] < document["answered_ns"]


class TestResident:
    def test_the_fields_of_linux_are_in_kib(self, tmp_path: Path) -> None:
        status = tmp_path / "status"
        status.write_text("Name:\tpython\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n")
        assert (resident_mib(status), peak_resident_mib(status)) == (2.0, 4.0)

    def test_a_system_that_does_not_tell_gives_none(self, tmp_path: Path) -> None:
        assert resident_mib(tmp_path / "absent") is None
        (tmp_path / "status").write_text("Name:\tpython\n")
        assert peak_resident_mib(tmp_path / "status") is None
