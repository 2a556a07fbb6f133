"""The machine that this runs on: what it is, what is installed, and what state it is in."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: instruction sets that decide which kernels a runtime picks
_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimddp", "i8mm", "sve", "bf16",
)  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")
_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THERMAL = Path("/sys/class/thermal")


def machine() -> dict[str, Any]:
    """What stays the same from call to call."""
    facts = _cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    return {
        "architecture": platform.machine(),
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cpu_flags": [flag for flag in _FLAGS if flag in flags],
        "cores_usable": usable_cores(),
        "hypervisor": "hypervisor" in flags,
        "os": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Of installed packages, without importing them; None where one is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def state() -> dict[str, Any]:
    """Load, governor, frequencies and temperatures; None, with a ``_why``, where unreadable."""
    found: dict[str, Any] = {"load_average": [round(x, 2) for x in os.getloadavg()]}
    for key, file in (
        ("governor", "scaling_governor"),
        ("frequency_khz", "scaling_cur_freq"),
        ("frequency_max_khz", "scaling_max_freq"),
    ):
        try:
            text = (_CPUFREQ / file).read_text().strip()
            found[key] = int(text) if key != "governor" else text
        except (OSError, ValueError) as e:
            found[key] = None
            found[f"{key}_why"] = f"{file}: {getattr(e, 'strerror', None) or e}"
    temperatures = _temperatures_c()
    found["temperatures_c"] = temperatures or None
    if not temperatures:
        found["temperatures_c_why"] = "no thermal zone can be read"
    return found


def _cpu_facts() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    try:
        first = _CPUINFO.read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _temperatures_c() -> dict[str, float]:
    """Degrees Celsius of every zone that tells them, by its folder and what it calls itself."""
    found = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        try:
            name = (zone / "type").read_text().strip()
            found[f"{zone.name} {name}"] = int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
    return found
