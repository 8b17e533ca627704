"""The clock of the processor as Linux shows it, and nothing made up where it does not."""

from __future__ import annotations

from pathlib import Path

from lmedge.runtimes.benchmarking.cpu_state import clock_note, cpu_state
from tests.runtimes.benchmarking.test_energy import write


def test_frequencies_governors_and_boost_of_all_cores(tmp_path: Path) -> None:
    for number, (now, governor) in enumerate([(1_200_000, "schedutil"), (2_400_500, "performance")]):
        cpufreq = {"scaling_cur_freq": now, "scaling_min_freq": 400_000, "scaling_max_freq": 3_000_000}
        write(tmp_path / f"cpu{number}" / "cpufreq", **cpufreq, scaling_governor=governor)
    write(tmp_path / "cpufreq", boost=1)
    write(tmp_path / "nvpmodel", status="pmode:0000")
    state = cpu_state(tmp_path, tmp_path / "nvpmodel" / "status")
    assert {name: value for name, value in state.items() if name != "load"} == {
        "mhz": [1200, 2400],
        "limits_mhz": [400, 3000],
        "governors": ["performance", "schedutil"],
        "boost": True,
        "power_mode": "pmode:0000",
    }
    assert "schedutil" in clock_note(state)


def test_intel_says_it_the_other_way_round(tmp_path: Path) -> None:
    write(tmp_path / "intel_pstate", no_turbo=1)
    assert cpu_state(tmp_path)["boost"] is False


def test_a_machine_that_does_not_tell_gives_a_reason_and_no_figure(tmp_path: Path) -> None:
    state = cpu_state(tmp_path, tmp_path / "absent")
    assert set(state) <= {"load", "reason"}
    assert "virtual machine" in state["reason"]
    assert clock_note(state) == ""


def test_a_fixed_clock_needs_no_note() -> None:
    assert clock_note({"governors": ["performance"]}) == ""
