"""Counters read real files; the tests write the files, for no machine here has a counter."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.profile.agent.energy import CountedFile, PowerFile, find_counters


def write(path: Path, text: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def rapl(sys: Path, energy_uj: int) -> Path:
    zone = sys / "class/powercap/intel-rapl:0"
    write(zone / "name", "package-0")
    write(zone / "max_energy_range_uj", 1_000_000)
    return write(zone / "energy_uj", energy_uj)


def test_no_counter_is_no_error(tmp_path: Path) -> None:
    assert find_counters(tmp_path) == []


def test_rapl_wraps(tmp_path: Path) -> None:
    path = rapl(tmp_path, 900_000)
    (counter,) = find_counters(tmp_path)
    assert counter.name == "rapl package-0"
    assert counter.joules() == 0
    write(path, 950_000)
    assert counter.joules() == pytest.approx(0.05)
    write(path, 150_000)  # 50,000 to the end of the range, 150,000 after it
    assert counter.joules() == pytest.approx(0.25)


def test_a_power_sensor_is_integrated(tmp_path: Path) -> None:
    now = iter([0.0, 2.0, 3.0])
    path = write(tmp_path / "power1_input", 4_000_000)
    counter = PowerFile("ina3221 power1_input", path, clock=lambda: next(now))
    assert counter.joules() == 0
    write(path, 6_000_000)
    assert counter.joules() == pytest.approx(10)  # two seconds at 5 W on average
    assert counter.joules() == pytest.approx(16)


def test_a_battery_counts_only_when_it_feeds_the_machine(tmp_path: Path) -> None:
    battery = tmp_path / "class/power_supply/BAT0"
    path = write(battery / "energy_now", 1_000_000)
    write(battery / "status", "Charging")
    assert find_counters(tmp_path) == []
    write(battery / "status", "Discharging")
    (counter,) = find_counters(tmp_path)
    write(path, 999_000)
    assert counter.joules() == pytest.approx(3.6)  # 1 mWh


def test_sensors_of_a_board_are_found_by_name(tmp_path: Path) -> None:
    sensor = tmp_path / "class/hwmon/hwmon3"
    write(sensor / "name", "ina3221")
    write(sensor / "power1_input", 1_000_000)
    write(sensor / "energy1_input", 5)
    assert [c.name for c in find_counters(tmp_path)] == [
        "ina3221 energy1_input",
        "ina3221 power1_input",
    ]


@pytest.mark.parametrize("damage", ["", "nonsense"])
def test_a_counter_that_cannot_be_read_is_left_out(tmp_path: Path, damage: str) -> None:
    path = rapl(tmp_path, 1)
    path.write_text(damage)
    assert find_counters(tmp_path) == []


def test_a_counter_without_a_range_never_wraps(tmp_path: Path) -> None:
    path = write(tmp_path / "energy1_input", 10)
    counter = CountedFile("board", path, 1e-6)
    counter.joules()
    write(path, 4)
    assert counter.joules() == pytest.approx(-6e-6)  # shown as it is, not invented away
