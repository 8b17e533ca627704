"""Energy of a frame, and the meters of different machines, each as Linux or its driver shows it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from lmedge.runtimes.benchmarking import nvml
from lmedge.runtimes.benchmarking.energy import IDLE_S, WORK_S, measure_energy
from lmedge.runtimes.benchmarking.ina3221 import find_ina3221
from lmedge.runtimes.benchmarking.meters import find_meters
from lmedge.runtimes.benchmarking.nvml import find_nvml
from lmedge.runtimes.benchmarking.rapl import find_rapl
from tests.runtimes.benchmarking.fake_clock import BUSY_WATTS, IDLE_WATTS, FakeClock, FakeMeter, Step


def test_without_pauses_a_frame_costs_the_power_of_work() -> None:
    fake = FakeClock()
    (use,) = measure_energy(Step(fake, 2.0), [FakeMeter(fake)], clock=fake.clock)
    assert (use.watts, use.idle_watts) == (pytest.approx(BUSY_WATTS), pytest.approx(IDLE_WATTS))
    assert use.joules_per_frame == pytest.approx(BUSY_WATTS * 0.002)
    assert use.added_joules_per_frame == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 0.002)
    assert use.frames == pytest.approx(WORK_S / 0.002)
    assert sum(fake.slept_s) == pytest.approx(IDLE_S)


def test_at_the_pace_of_a_camera_the_pauses_cost_too_but_add_nothing() -> None:
    fake = FakeClock()
    (use,) = measure_energy(Step(fake, 2.0), [FakeMeter(fake)], every_ms=20.0, clock=fake.clock)
    assert use.added_joules_per_frame == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 0.002, rel=0.02)
    assert use.joules_per_frame == pytest.approx(BUSY_WATTS * 0.002 + IDLE_WATTS * 0.018, rel=0.02)


def test_meters_are_read_between_frames() -> None:
    fake = FakeClock()
    meter = FakeMeter(fake)
    (use,) = measure_energy(Step(fake, 2.0), [meter], clock=fake.clock)
    assert meter.ticks >= use.frames


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


class TestRapl:
    @pytest.fixture
    def powercap(self, tmp_path: Path) -> Path:
        for number, counter in enumerate((1_000_000, 5_000_000)):
            zone = {"name": f"package-{number}", "energy_uj": counter, "max_energy_range_uj": 9_999_999}
            write(tmp_path / f"intel-rapl:{number}", **zone)
        write(tmp_path / "intel-rapl:0:0", name="core", energy_uj=7, max_energy_range_uj=99)
        return tmp_path

    def test_all_packages_are_counted_and_their_parts_not_twice(self, powercap: Path) -> None:
        ((meter,), reason) = find_rapl(powercap)
        assert (meter.source, reason) == ("RAPL (package-0, package-1)", "")
        meter.start(0)
        write(powercap / "intel-rapl:0", energy_uj=3_000_000)
        write(powercap / "intel-rapl:0:0", energy_uj=50)
        assert meter.joules(0) == pytest.approx(2.0)

    def test_a_counter_that_starts_again_is_no_loss(self, powercap: Path) -> None:
        ((meter,), _) = find_rapl(powercap)
        meter.start(0)
        write(powercap / "intel-rapl:1", energy_uj=2_000_000)
        assert meter.joules(0) == pytest.approx(7.0)

    def test_a_counter_for_root_only_says_what_to_type(self, powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read = Path.read_text

        def guarded(path: Path, **options: Any) -> str:
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied")
            return read(path, **options)

        monkeypatch.setattr(Path, "read_text", guarded)
        meters, reason = find_rapl(powercap)
        assert meters == []
        assert "sudo chmod a+r" in reason

    def test_a_machine_without_it(self, tmp_path: Path) -> None:
        meters, reason = find_rapl(tmp_path / "powercap")
        assert meters == []
        assert "has no counters" in reason

    def test_a_file_that_holds_no_number(self, powercap: Path) -> None:
        write(powercap / "intel-rapl:0", energy_uj="")
        assert "cannot be read" in find_rapl(powercap)[1]


class TestIna3221:
    @pytest.fixture
    def hwmon(self, tmp_path: Path) -> Path:
        write(tmp_path / "hwmon0", name="nvme", in1_label="other", in1_input=1, curr1_input=1)
        write(tmp_path / "hwmon1", name="ina3221", in1_label="VDD_CPU_GPU_CV", in1_input=5000, curr1_input=400)
        write(tmp_path / "hwmon1", in2_label="VDD_SOC", in2_input=5000, curr2_input=200, in3_label="NC")
        return tmp_path

    def test_rails_are_added(self, hwmon: Path) -> None:
        ((meter,), _) = find_ina3221(hwmon)
        assert meter.source == "INA3221 (VDD_CPU_GPU_CV + VDD_SOC)"
        meter.start(0)
        assert meter.joules(2_000_000_000) == pytest.approx(2 * 3.0)

    def test_the_rail_that_feeds_all_others_is_enough(self, hwmon: Path) -> None:
        write(hwmon / "hwmon1", in3_label="VDD_IN", in3_input=5000, curr3_input=1000)
        ((meter,), _) = find_ina3221(hwmon)
        assert meter.source == "INA3221 (VDD_IN)"

    def test_power_that_changes_is_integrated_between_readings(self, hwmon: Path) -> None:
        ((meter,), _) = find_ina3221(hwmon)
        meter.start(0)
        write(hwmon / "hwmon1", curr1_input=1200)
        meter.tick(1_000_000_000)  # 3 W, then 7 W: 5 J
        meter.tick(1_000_000_001)  # too soon to be read again
        assert meter.joules(2_000_000_000) == pytest.approx(5.0 + 7.0)

    def test_a_machine_without_it(self, tmp_path: Path) -> None:
        meters, reason = find_ina3221(tmp_path)
        assert meters == []
        assert "no such sensor" in reason

    def test_a_sensor_that_cannot_be_read(self, hwmon: Path) -> None:
        write(hwmon / "hwmon1", curr1_input="")
        meters, reason = find_ina3221(hwmon)
        assert meters == []
        assert "cannot be read" in reason


class FakeNvml:
    """The functions that are called, for one GPU; `code` is what every call answers."""

    def __init__(self, code: int = 0) -> None:
        self.energy_mj, self.code = 5_000, code

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            values: dict[str, Any] = {"nvmlDeviceGetCount_v2": 1, "nvmlDeviceGetTotalEnergyConsumption": self.energy_mj}
            if name == "nvmlDeviceGetName":
                arguments[1].value = b"Orin"
            elif name in values:
                arguments[-1]._obj.value = values[name]
            return self.code

        return call


class TestNvml:
    def test_a_gpu_counts_millijoules(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = FakeNvml()
        monkeypatch.setattr(nvml, "_load_library", lambda: library)
        ((meter,), reason) = find_nvml()
        assert (meter.source, reason) == ("NVML (Orin)", "")
        meter.start(0)
        library.energy_mj += 1_500
        assert meter.joules(0) == pytest.approx(1.5)

    def test_an_old_gpu_is_told_as_such(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvml, "_load_library", lambda: FakeNvml(code=3))
        assert find_nvml() == ([], "NVML: nvmlInit_v2 answers 3 (see nvmlReturn_t in the NVML API)")

    def test_a_machine_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvml, "_LIBRARY", "libnvidia-ml.so.absent")
        meters, reason = find_nvml()
        assert meters == []
        assert "cannot be loaded" in reason

    def test_energy_is_64_bits_wide(self) -> None:
        assert ctypes.sizeof(ctypes.c_ulonglong) == 8


def test_the_meters_of_gpus_say_nothing_of_an_engine_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_load_library", FakeNvml)
    assert [meter.source for meter in find_meters("cuda:1", tmp_path)[0]] == ["NVML (Orin)"]
    meters, reason = find_meters("cpu", tmp_path)
    assert meters == []
    assert "RAPL" in reason
    assert "INA3221" in reason
    assert "NVML" not in reason
