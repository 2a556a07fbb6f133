"""Without a device: how adb is called, and what its refusals mean."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import Any

import pytest

from edgekd.core.errors import DeviceError, MissingDependencyError, RecipeError
from edgekd.profile.agent.serve import BOOT
from edgekd.profile.transports._contract import TRANSPORTS
from edgekd.profile.transports._stream import EndedError


def adb(**fields: Any) -> Any:
    return TRANSPORTS.build({"name": "adb", **fields})


def test_the_command_line_is_a_list_for_one_device_and_without_a_terminal() -> None:
    words = adb(serial="0A1B", python="/data/x y/python3").command()
    assert words[:5] == ["adb", "-s", "0A1B", "shell", "-T"]
    assert words[5].startswith("'/data/x y/python3' -c ")
    assert BOOT.replace("'", "'\"'\"'") in words[5]
    assert adb().command()[:3] == ["adb", "shell", "-T"]


@pytest.mark.parametrize("serial", ["-e", "a b", "$(x)", ""])
def test_a_serial_that_is_none_is_refused(serial: str) -> None:
    with pytest.raises(RecipeError, match="serial: "):
        adb(serial=serial)


@pytest.mark.parametrize(
    ("complaint", "code", "text"),
    [
        ("adb: no devices/emulators found", 1, "adb sees no device."),
        ("adb: more than one device/emulator", 1, "adb sees several devices."),
        ("adb: device 'X' not found", 1, "adb sees no device X."),
        ("adb: device unauthorized.", 1, "X has not allowed this computer yet."),
        ("adb: device offline", 1, "X is attached, but does not answer adb."),
        ("/system/bin/sh: python3: inaccessible", 127, "X has no 'python3'."),
        ("Traceback: boom", 1, "X cannot start edgekd's agent."),
    ],
)
def test_what_adb_says_is_explained(complaint: str, code: int, text: str) -> None:
    error = adb(serial="X").explain(EndedError(code, f"* daemon started\n{complaint}\n"))
    assert error.failed == text
    assert error.exit_code == 6
    assert error.got == complaint
    assert error.todo


def test_without_adb_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with adb().connect() as device, pytest.raises(MissingDependencyError, match="'adb' cannot"):
        device.describe()


@pytest.mark.slow
def test_adb_itself_without_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    program = shutil.which("adb")
    if program is None:
        pytest.skip("adb is not installed: apt install adb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))  # a server of its own
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        with adb(serial="none").connect() as device, pytest.raises(DeviceError) as caught:
            device.describe()
        assert caught.value.failed == "adb sees no device none."
    finally:
        subprocess.run([program, "kill-server"], check=False, capture_output=True)
