"""Energy counters of the machine, where it has any: RAPL, hwmon (INA and the like), battery, NVML.

A counter gives joules since some start; energy of a run is a difference of two readings. It counts
everything that the measured part of the machine does, not the inference alone: the report says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

SYS = Path("/sys")
_UJ_PER_J, _MJ_PER_J, _J_PER_UWH, _UW_PER_W = 1e6, 1e3, 0.0036, 1e6


class EnergyCounter(Protocol):
    """Something that counts or estimates joules.

    Attributes:
        name: What it counts, e.g. ``rapl package-0``.
    """

    name: str

    def joules(self) -> float:
        """Joules since some fixed start; call it often enough for its `max_interval_s`."""


@dataclass
class CountedFile:
    """A file that holds energy, rising (RAPL, hwmon) or falling (a battery), maybe wrapping.

    Attributes:
        name: What it counts.
        path: Of the file, one integer.
        joules_per_unit: Of that integer; negative for a battery's charge.
        wraps_at: Largest value before it starts again at 0; None if it never does.
    """

    name: str
    path: Path
    joules_per_unit: float
    wraps_at: int | None = None
    _last: int | None = None
    _total: int = 0

    def joules(self) -> float:
        """Since the first call; a wrap is seen if less than one lap passed since the last call."""
        now = int(self.path.read_text())
        moved = 0 if self._last is None else now - self._last
        if moved < 0 and self.wraps_at is not None:
            moved += self.wraps_at
        self._last, self._total = now, self._total + moved
        return self._total * self.joules_per_unit


@dataclass
class PowerFile:
    """A file that holds power in microwatts (INA sensors); energy is its integral over the calls.

    Between two calls power is taken as the mean of both readings, so it is an estimate.
    """

    name: str
    path: Path
    clock: Callable[[], float] = time.perf_counter
    _last: tuple[float, float] | None = None
    _total: float = 0.0

    def joules(self) -> float:
        """Since the first call."""
        now, watts = self.clock(), int(self.path.read_text()) / _UW_PER_W
        if self._last is not None:
            before, watts_before = self._last
            self._total += (now - before) * (watts + watts_before) / 2
        self._last = (now, watts)
        return self._total


@dataclass
class NvmlCounter:
    """An NVIDIA GPU's own counter, in millijoules since the driver was loaded."""

    name: str
    nvml: Any
    handle: Any

    def joules(self) -> float:
        """Since the driver was loaded."""
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / _MJ_PER_J


def find_counters(sys: Path = SYS) -> list[EnergyCounter]:
    """Every counter that can be read now; none is the usual case on virtual machines.

    Args:
        sys: Where sysfs is mounted.
    """
    files = [*_rapl(sys), *_hwmon(sys), *_batteries(sys)]
    return [*(c for c in files if _readable(c)), *_nvml()]


def _rapl(sys: Path) -> list[EnergyCounter]:
    found: list[EnergyCounter] = []
    for zone in sorted((sys / "class/powercap").glob("*rapl:*")):
        limit = _integer(zone / "max_energy_range_uj")
        name = f"rapl {_text(zone / 'name') or zone.name}"
        found.append(CountedFile(name, zone / "energy_uj", 1 / _UJ_PER_J, limit))
    return found


def _hwmon(sys: Path) -> list[EnergyCounter]:
    found: list[EnergyCounter] = []
    for sensor in sorted((sys / "class/hwmon").glob("hwmon*")):
        name = _text(sensor / "name") or sensor.name
        for path in sorted(sensor.glob("*_input")):
            if path.name.startswith("energy"):
                found.append(CountedFile(f"{name} {path.name}", path, 1 / _UJ_PER_J))
            elif path.name.startswith("power"):
                found.append(PowerFile(f"{name} {path.name}", path))
    return found


def _batteries(sys: Path) -> list[EnergyCounter]:
    folders = sorted((sys / "class/power_supply").glob("*"))
    return [
        CountedFile(f"battery {f.name}", f / "energy_now", -_J_PER_UWH)
        for f in folders
        if _text(f / "status") == "Discharging"  # on the mains its charge says nothing
    ]


def _nvml() -> list[EnergyCounter]:
    try:
        import pynvml
    except ModuleNotFoundError:
        return []
    try:
        pynvml.nvmlInit()
        found: list[EnergyCounter] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            counter = NvmlCounter(f"nvml gpu-{index}", pynvml, handle)
            counter.joules()
            found.append(counter)
        return found
    except pynvml.NVMLError:  # no driver, or a GPU without a counter
        return []


def _readable(counter: EnergyCounter) -> bool:
    try:
        counter.joules()
    except (OSError, ValueError):  # RAPL is root's alone on most systems
        return False
    return True


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _integer(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None
