"""A real ssh to a real sshd on the loopback."""

from __future__ import annotations

import json
import socket
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.cli.main import run
from edgekd.core.errors import DeviceError
from edgekd.core.progress import Silent
from edgekd.core.target import load_target
from edgekd.profile.agent.serve import BOOT
from edgekd.profile.measure import MeasureRule
from edgekd.profile.store import read_profile
from edgekd.profile.transports._contract import TRANSPORTS
from edgekd.profile.transports.local import LocalDevice
from tests.profile.transports.conftest import (
    Server,
    becomes_clean,
    cut_while_working,
    is_clean,
    load_on,
)

QUICK = ["--percentile", "90", "--min-duration", "0"]
INT8 = load_target("x86-onnxruntime-int8")
Write = Callable[..., str]


def connect(sshd: Server, device: Path, **changes: Any) -> Any:
    return TRANSPORTS.build(sshd.transport(device, **changes)).connect()


def test_profile_over_ssh_tells_what_it_tells_here(
    sshd: Server,
    device: Path,
    model: Path,
    write_target: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = write_target(sshd.transport(device))
    out = tmp_path / "raw.json"
    assert (
        run(["profile", str(model), "--target", target, *QUICK, "--out", str(out), "--json"]) == 0
    )
    (there,) = json.loads(capsys.readouterr().out)
    assert run(["profile", str(model), "--target", INT8.name, *QUICK, "--json"]) == 0
    (here,) = json.loads(capsys.readouterr().out)
    assert there.keys() == here.keys()
    for key in ("file", "sha256", "size_bytes", "kernels", "conditions", "source"):
        assert there[key] == here[key], key
    assert [(x["name"], x["op"], x["precision"]) for x in there["layers"]] == [
        (x["name"], x["op"], x["precision"]) for x in here["layers"]
    ]
    assert there["environment"]["transport"] == "ssh"
    assert there["environment"]["machine"] == here["environment"]["machine"]
    assert there["peak_memory_mib"] > there["runtime_memory_mib"] > 20
    profile = read_profile(out, measured_only=True)
    assert there["latency_ms"]["p90"]["n"] == len(profile.samples_ns) >= 64
    assert is_clean(device)


@pytest.mark.parametrize("name", ["x86-onnxruntime-int8", "x86-openvino-int8"])
def test_outputs_there_are_those_from_here(
    name: str, sshd: Server, device: Path, model: Path
) -> None:
    load = load_on(model, load_target(name))
    with connect(sshd, device) as there, LocalDevice() as here:
        assert there.runtime(load.target) == here.runtime(load.target)
        for got, expected in zip(there.run(load), here.run(load), strict=True):
            assert got.keys() == expected.keys()
            for key, value in expected.items():
                assert got[key].dtype == value.dtype
                np.testing.assert_array_equal(got[key], value)
    assert is_clean(device)


# ---------------------------------------------------------------- connections that break
RULE = MeasureRule(percentile=90, min_duration_s=1.0)


def test_a_connection_that_is_cut_once_gives_a_whole_result(
    sshd: Server, device: Path, model: Path
) -> None:
    load = load_on(model, INT8)
    cutter = cut_while_working(sshd, device, times=1)
    with connect(sshd, device, wait_s=10) as there:
        (profile,) = there.measure([load], RULE, inputs="-", progress=Silent())
    cutter.join()
    assert sum(profile.samples_ns) >= 1e9
    assert becomes_clean(device)


def test_a_connection_that_is_cut_twice_is_a_failure_and_nothing_is_kept(
    sshd: Server, device: Path, model: Path
) -> None:
    load = load_on(model, INT8)
    cutter = cut_while_working(sshd, device, times=2)
    with connect(sshd, device, wait_s=10) as there, pytest.raises(DeviceError) as caught:
        there.measure([load], RULE, inputs="-", progress=Silent())
    cutter.join()
    assert "broke, and broke again" in caught.value.failed
    assert becomes_clean(device)


# ---------------------------------------------------------------- bad devices
def complaint(target: str, model: Path, capsys: pytest.CaptureFixture[str], code: int = 6) -> str:
    assert run(["profile", str(model), "--target", target, *QUICK, "--json"]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert json.loads(captured.out)["exit_code"] == code
    assert captured.err.count("  to do:    ") == 1
    return captured.err


def script(folder: Path, text: str) -> str:
    """A program that stands where Python should."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_unknown_host_key_is_not_trusted(
    sshd: Server, device: Path, model: Path, write_target: Write, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "empty").touch()
    target = write_target(sshd.transport(device, known_hosts=str(tmp_path / "empty")))
    said = complaint(target, model, capsys)
    assert said.startswith(f"The host key of {sshd.user}@127.0.0.1 is not known: it is not trust")
    assert f"call `ssh -p {sshd.port} {sshd.user}@127.0.0.1` once by hand" in said
    assert not (tmp_path / "empty").read_text(), "nothing was added to the known hosts"


def test_a_changed_host_key_is_not_trusted(
    sshd: Server, device: Path, model: Path, write_target: Write, tmp_path: Path, capsys: Any
) -> None:
    other = (sshd.keys / "stranger.pub").read_text()
    (tmp_path / "hosts").write_text(f"[127.0.0.1]:{sshd.port} {other}")
    target = write_target(sshd.transport(device, known_hosts=str(tmp_path / "hosts")))
    said = complaint(target, model, capsys)
    assert "shows another host key than the one that is known" in said


def test_a_wrong_key_does_not_open(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    target = write_target(sshd.transport(device, identity=str(sshd.keys / "stranger")))
    assert "does not let you in with this key" in complaint(target, model, capsys)
    assert is_clean(device)


def test_a_port_where_nobody_listens(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = write_target(sshd.transport(device, port=free.getsockname()[1]))
        assert "Nothing at" in complaint(target, model, capsys)


def test_a_host_that_does_not_exist(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    target = write_target(sshd.transport(device, host="no-such-host.invalid"))
    assert "There is no host of the name in" in complaint(target, model, capsys)


def test_a_host_that_accepts_and_says_nothing(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        transport = sshd.transport(device, port=mute.getsockname()[1], connect_timeout_s=1)
        assert "is out of reach" in complaint(write_target(transport), model, capsys)


def test_a_device_without_python(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    said = complaint(write_target(sshd.transport(device, python="python9")), model, capsys)
    assert "has no 'python9'" in said
    assert "expected: Python 3.8 or newer" in said


def test_a_device_without_the_runtime(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    venv.create(device.parent / "bare", symlinks=True)
    bare = device.parent / "bare" / "bin" / "python"
    said = complaint(write_target(sshd.transport(device, python=str(bare))), model, capsys)
    assert said.startswith(f"{sshd.user}@127.0.0.1 lacks onnxruntime.")
    assert is_clean(device)


def test_a_device_with_another_version_of_the_runtime(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    path = Path(write_target(sshd.transport(device)))
    path.write_text(path.read_text().replace(">=1.20", ">=900"))
    said = complaint(str(path), model, capsys, code=4)
    assert f"on {sshd.user}@127.0.0.1" in said


def test_a_device_that_hangs_is_left(
    sshd: Server, device: Path, model: Path, write_target: Write, capsys: Any
) -> None:
    asleep = script(device.parent, "exec sleep 60")
    start_s = time.monotonic()
    transport = sshd.transport(device, python=asleep, timeout_s=0.5, wait_s=0)
    assert "does not answer any more" in complaint(write_target(transport), model, capsys)
    assert time.monotonic() - start_s < 20


def test_a_device_whose_disk_is_full(
    sshd: Server,
    model: Path,
    mounted: Callable[..., Path],
    write_target: Write,
    capsys: Any,
) -> None:
    folder = mounted("size=512k")
    said = complaint(write_target(sshd.transport(folder)), model, capsys)
    assert "has no space left for the model" in said
    assert is_clean(folder)
    assert not list(folder.glob("*/models/*"))


def test_the_command_line_is_a_list_and_words_are_quoted() -> None:
    link: Any = TRANSPORTS.build(
        {"name": "ssh", "host": "pi", "user": "me", "python": "/opt/my python", "identity": "~/k"}
    )
    words = link.command()
    assert words[:2] == ["ssh", "-T"]
    assert "BatchMode=yes" in words
    assert "StrictHostKeyChecking=yes" in words
    assert words[words.index("-i") + 1] == str(Path("~/k").expanduser())
    assert words[words.index("-l") + 1] == "me"
    assert words[-3:-1] == ["--", "pi"]
    assert words[-1].startswith("'/opt/my python' -c ")
    assert BOOT.replace("'", "'\"'\"'") in words[-1]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"host": "-oProxyCommand=touch x"}, "transport.host: "),
        ({"user": "-x"}, "user: "),
        ({"password": "secret"}, "password: no such field"),
        ({"port": 0}, "port: "),
        ({"name": "shs"}, "Did you mean 'ssh'?"),
    ],
)
def test_wrong_settings_are_refused_before_anything_starts(
    changes: dict[str, Any],
    text: str,
    sshd: Server,
    device: Path,
    model: Path,
    write_target: Write,
    capsys: Any,
) -> None:
    target = write_target(sshd.transport(device, **changes))
    assert run(["profile", str(model), "--target", target]) == 2
    said = capsys.readouterr().err
    assert "The target 'pi' cannot be reached." in said
    assert text.removeprefix("transport.") in said
    assert is_clean(device)
