from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgekd.profile import environment as module
from edgekd.profile.agent import machine as agent
from edgekd.profile.environment import environment


def test_it_is_json_and_the_lasting_parts_last() -> None:
    first, second = environment(), environment()
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert first["machine"] == second["machine"]
    assert first["versions"] == second["versions"]
    assert set(first) == {"machine", "versions", "state"}


def test_versions_are_those_installed_and_nothing_is_imported() -> None:
    assert environment()["versions"]["numpy"] == metadata.version("numpy")
    program = (
        "import sys; from edgekd.profile.environment import environment; environment(); "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKAGES", ("a-package-nobody-has",))
    assert environment()["versions"] == {"a-package-nobody-has": None}


def test_what_can_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 avx512_vnni hypervisor\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t: amx_int8\n"
    )
    (tmp_path / "scaling_governor").write_text("performance\n")
    (tmp_path / "scaling_cur_freq").write_text("2400000\n")
    monkeypatch.setattr(agent, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(agent, "_CPUFREQ", tmp_path)
    found = environment()
    assert found["machine"]["cpu"] == "A CPU"
    assert found["machine"]["cpu_flags"] == ["avx2", "avx512_vnni"]
    assert found["machine"]["hypervisor"] is True
    state = found["state"]
    assert (state["governor"], state["frequency_khz"]) == ("performance", 2400000)
    assert "governor_why" not in state
    assert state["frequency_max_khz"] is None
    assert state["frequency_max_khz_why"] == "scaling_max_freq: No such file or directory"
    assert len(state["load_average"]) == 3


def test_temperatures_are_those_of_the_zones_that_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "_THERMAL", tmp_path)
    assert environment()["state"]["temperatures_c"] is None
    assert environment()["state"]["temperatures_c_why"] == "no thermal zone can be read"
    for number, temp in enumerate(("45250", "nothing")):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        (zone / "type").write_text("cpu-thermal\n")
        (zone / "temp").write_text(temp)
    assert environment()["state"]["temperatures_c"] == {"thermal_zone0 cpu-thermal": 45.25}


def test_an_arm_cpu_lists_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimddp i8mm\n")
    monkeypatch.setattr(agent, "_CPUINFO", cpuinfo)
    assert environment()["machine"]["cpu_flags"] == ["asimddp", "i8mm"]


def test_a_machine_without_proc_still_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "_CPUINFO", tmp_path / "no")
    machine = environment()["machine"]
    assert machine["cpu"]
    assert machine["cpu_flags"] == []
    assert machine["cores_usable"] >= 1
