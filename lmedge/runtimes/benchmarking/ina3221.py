"""Power of the supply rails of a Jetson board, from its INA3221 sensors, which Linux shows as voltages and currents.

https://docs.kernel.org/hwmon/ina3221.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_DRIVER = "ina3221"
# Where a board has this rail, it feeds all the others (Orin NX and Nano, Xavier NX).
TOTAL_RAIL = "VDD_IN"
# A reading takes two transfers over a slow bus; the sensor itself averages over milliseconds.
_LEAST_STEP_NS = 20_000_000


@dataclass(frozen=True)
class _Rail:
    name: str
    millivolts: Path
    milliamperes: Path

    def watts(self) -> float:
        return int(self.millivolts.read_text(encoding="ascii")) * int(self.milliamperes.read_text(encoding="ascii")) / 1e6


class Ina3221Meter:
    """The rails together; an `EnergyMeter` that adds up power over time, by trapezoids between readings."""

    def __init__(self, rails: tuple[_Rail, ...]) -> None:
        self._rails = rails
        self._last_ns, self._last_watts, self._joules = 0, 0.0, 0.0
        self.source = f"INA3221 ({' + '.join(rail.name for rail in rails)})"

    def start(self, now_ns: int) -> None:
        self._last_ns, self._last_watts, self._joules = now_ns, self._watts(), 0.0

    def tick(self, now_ns: int) -> None:
        if now_ns - self._last_ns >= _LEAST_STEP_NS:
            self._add(now_ns)

    def joules(self, now_ns: int) -> float:
        self._add(now_ns)
        return self._joules

    def _add(self, now_ns: int) -> None:
        watts = self._watts()
        self._joules += (watts + self._last_watts) / 2 * (now_ns - self._last_ns) / 1e9
        self._last_ns, self._last_watts = now_ns, watts

    def _watts(self) -> float:
        return sum(rail.watts() for rail in self._rails)


def find_ina3221(hwmon: Path) -> tuple[list[Ina3221Meter], str]:
    """The meter, or none and why: of the rail that feeds all others where there is one, else of every rail with a name."""
    try:
        rails = [rail for folder in sorted(hwmon.glob("hwmon*")) for rail in _rails(folder)]
        total = [rail for rail in rails if rail.name == TOTAL_RAIL]
        meter = Ina3221Meter(tuple(total or rails))
        meter.start(0)
    except (OSError, ValueError) as error:
        return [], f"INA3221: a sensor cannot be read ({error})"
    return ([meter], "") if rails else ([], f"INA3221: {hwmon} has no such sensor; Jetson boards have")


def _rails(folder: Path) -> list[_Rail]:
    name = folder / "name"
    if not name.is_file() or name.read_text(encoding="ascii").strip() != _DRIVER:
        return []
    found = []
    for label in sorted(folder.glob("in[1-3]_label")):
        number = label.name[2]
        rail = _Rail(label.read_text(encoding="ascii").strip(), folder / f"in{number}_input", folder / f"curr{number}_input")
        # A channel that the board does not use is called NC.
        if rail.name != "NC" and rail.millivolts.is_file() and rail.milliamperes.is_file():
            found.append(rail)
    return found
