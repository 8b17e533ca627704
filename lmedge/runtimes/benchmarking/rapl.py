"""Energy counters of x86 processors, which Linux shows as power zones (running average power limit; AMD's have the same names).

https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# One for each processor with its cores, caches and graphics. Zones within ("intel-rapl:0:0") count a part of the same.
_PACKAGES = "intel-rapl:[0-9]"


@dataclass(frozen=True)
class _Zone:
    name: str
    counter: Path
    range_uj: int

    def read_uj(self) -> int:
        return int(self.counter.read_text(encoding="ascii"))


class RaplMeter:
    """All packages together; an `EnergyMeter`. A counter that wraps around between start and end is right if it does so once,
    which takes half an hour or more."""

    def __init__(self, zones: tuple[_Zone, ...]) -> None:
        self._zones = zones
        self._begin_uj = [0] * len(zones)
        self.source = f"RAPL ({', '.join(zone.name for zone in zones)})"

    def start(self, now_ns: int) -> None:
        self._begin_uj = [zone.read_uj() for zone in self._zones]

    def tick(self, now_ns: int) -> None:
        """Nothing: the hardware counts."""

    def joules(self, now_ns: int) -> float:
        counted = zip(self._zones, self._begin_uj, strict=True)
        return sum((zone.read_uj() - begin) % zone.range_uj for zone, begin in counted) / 1e6


def find_rapl(powercap: Path) -> tuple[list[RaplMeter], str]:
    """The meter, or none and why."""
    zones = []
    for folder in sorted(powercap.glob(_PACKAGES)):
        try:
            # The counter starts again after this value, which it reaches itself.
            wraps_at = int((folder / "max_energy_range_uj").read_text(encoding="ascii")) + 1
            zone = _Zone((folder / "name").read_text(encoding="ascii").strip(), folder / "energy_uj", wraps_at)
            zone.read_uj()
        except PermissionError:
            return [], f"RAPL: only root reads {folder}/energy_uj; run as root, or allow it: sudo chmod a+r {folder}/energy_uj"
        except (OSError, ValueError) as error:
            return [], f"RAPL: {folder} cannot be read ({error})"
        zones.append(zone)
    if not zones:
        return [], f"RAPL: {powercap} has no counters; virtual machines and other processors than x86 have none"
    return [RaplMeter(tuple(zones))], ""
